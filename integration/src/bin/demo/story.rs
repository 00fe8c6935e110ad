//! What the demo prints: short headings, a few words, and what other programs say, indented.

use std::io::{self, Write};

use selvedge_lab::use_colour;

/// The width that nothing exceeds.
pub const WIDTH: usize = 100;

/// Where it is printed, and whether in colour.
pub struct Story {
    colour: bool,
}

impl Story {
    /// On standard output; in colour on a terminal, unless NO_COLOR is set.
    pub fn new() -> Self {
        Self {
            colour: use_colour(),
        }
    }

    /// A heading.
    pub fn chapter(&self, title: &str) {
        self.line("");
        self.line(&self.paint("1", title));
    }

    /// A sentence or two.
    pub fn say(&self, text: &str) {
        for line in wrap(text, WIDTH, "") {
            self.line(&line);
        }
    }

    /// A command as a person would type it, and what it said.
    pub fn command(&self, command: &str, output: &str) {
        for line in wrap(&format!("$ {command}"), WIDTH - 2, "    ") {
            self.line(&format!("  {}", self.paint("36", &line)));
        }
        for line in output.lines() {
            let line = line.trim_end().replace('\t', "    ");
            for part in wrap(&line, WIDTH - 2, "        ") {
                self.line(&format!("  {part}"));
            }
        }
    }

    /// Lines as they are.
    pub fn text(&self, text: &str) {
        text.lines().for_each(|line| self.line(line));
    }

    /// `text` in an ANSI colour, where colours are wanted.
    pub fn paint(&self, code: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn line(&self, line: &str) {
        // Whoever stopped reading (`| head`) has seen enough; the exit code is still owed.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }
}

/// Breaks a line at spaces; the parts after the first are indented by its own indent and `more`.
fn wrap(line: &str, width: usize, more: &str) -> Vec<String> {
    if line.chars().count() <= width {
        return vec![line.to_owned()];
    }
    let own: String = line.chars().take_while(|c| *c == ' ').collect();
    let mut lines = Vec::new();
    let mut current = own.clone();
    let mut empty = true;
    for word in line.split_whitespace() {
        if !empty && current.chars().count() + 1 + word.chars().count() > width {
            lines.push(current);
            current = format!("{own}{more}");
            empty = true;
        }
        if !empty {
            current.push(' ');
        }
        current.push_str(word);
        empty = false;
    }
    lines.push(current);
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn long_lines_break_at_spaces_and_keep_their_indent() {
        assert_eq!(wrap("  one two three", 9, ".."), ["  one two", "  ..three"]);
        assert_eq!(wrap("  in   columns", 80, ".."), ["  in   columns"]);
        assert_eq!(wrap("", 80, ".."), [""]);
        assert_eq!(wrap("unbreakable", 4, ".."), ["unbreakable"]);
    }
}
