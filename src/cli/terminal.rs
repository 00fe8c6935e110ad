//! Text for people: colours where they are wanted, lines no wider than the terminal.

use std::fmt;
use std::io::{self, IsTerminal};

/// How to write to stdout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colour: bool,
    /// Columns; `None` for no limit, as in a file or a pipe.
    width: Option<usize>,
}

/// Narrower than this, text is not made.
const NARROWEST: usize = 30;

impl Style {
    /// As stdout is: colours on a terminal, unless NO_COLOR says otherwise (<https://no-color.org>); its width, or what
    /// COLUMNS says.
    pub fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        let size = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let width: Option<usize> = columns.or_else(|| terminal.then(size).flatten());
        Self {
            colour: terminal && !set("NO_COLOR"),
            width: width.map(|width| width.max(NARROWEST)),
        }
    }

    /// A word for what is allowed.
    pub fn good(self, text: &str) -> String {
        self.paint(text, "32")
    }

    /// A word for what is denied.
    pub fn bad(self, text: &str) -> String {
        self.paint(text, "1;31")
    }

    /// A word for what should be looked at.
    pub fn careful(self, text: &str) -> String {
        self.paint(text, "33")
    }

    /// A heading.
    pub fn strong(self, text: &str) -> String {
        self.paint(text, "1")
    }

    /// Without colours, for tests.
    #[cfg(test)]
    pub fn plain(width: Option<usize>) -> Self {
        Self {
            colour: false,
            width,
        }
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The text behind a label, its later lines as far in as the first. `label` is what the label shows on screen, and
    /// how wide the column of labels is.
    pub fn labelled(self, label: impl fmt::Display, column: usize, text: &str) -> String {
        let width = self.width.unwrap_or(usize::MAX);
        // On a narrow terminal the text goes below its label.
        let (first, indent) = match width < column + NARROWEST {
            true => (format!("{label}\n    "), 4),
            false => (label.to_string(), column),
        };
        let options = textwrap::Options::new(width.saturating_sub(indent))
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        let lines = textwrap::wrap(text, options);
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        let between = format!("\n{}", " ".repeat(indent));
        format!("{first}{}\n", lines.join(&between))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: Option<usize>) -> Style {
        Style::plain(width)
    }

    #[test]
    fn a_file_has_no_width() {
        let text = "a ".repeat(200);
        let line = plain(None).labelled("label  ", 7, &text);
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn lines_are_wrapped_behind_or_below_their_label() {
        let text = "one two three four five six seven eight";
        let wide = plain(Some(40)).labelled("label  ", 7, text);
        assert_eq!(
            wide,
            "label  one two three four five six seven\n       eight\n"
        );
        let narrow = plain(Some(30)).labelled("label  ", 7, text);
        assert_eq!(
            narrow,
            "label  \n    one two three four five\n    six seven eight\n"
        );
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        assert_eq!(plain(None).bad("DENIED"), "DENIED");
        let coloured = Style {
            colour: true,
            width: None,
        };
        assert_eq!(coloured.bad("DENIED"), "\x1b[1;31mDENIED\x1b[0m");
    }
}
