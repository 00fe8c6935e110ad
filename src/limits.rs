//! How much is too much, in one place: what real clusters stay far below, and what keeps one object, one file or one
//! answer from costing all others their daemon.
//!
//! What is over a limit is closed where it stands, and said; see [`crate::policy`] for policies. etcd takes objects of
//! 1.5 MiB, so that what a policy there may hold is bounded already; files are not.

/// The largest file of a watched directory, in bytes: fifty times what etcd would take, in one file.
pub const FILE: u64 = 64 << 20;

/// The largest file that a question is asked of, in bytes: all of a large cluster, as `kubectl get -o yaml` prints it.
pub const QUESTION: u64 = 1 << 30;

/// The longest line of a watch, in bytes: etcd takes objects of 1.5 MiB, and JSON may escape each of their bytes.
pub const LINE: usize = 16 << 20;

/// The largest page of a list, in bytes; when it is larger, smaller pages are asked for.
pub const PAGE: usize = 64 << 20;

/// The most that is read of a server's refusal, in bytes.
pub const REFUSAL: usize = 1 << 20;

/// The most objects of one kind in a list: twice the pods that Kubernetes is made for.
pub const OBJECTS: usize = 300_000;

/// The most characters of a line about what is wrong. What it quotes may be megabytes.
pub const MESSAGE: usize = 1_000;

/// The most problems that are told of one object.
pub const PROBLEMS: usize = 100;

/// The most ways in which a connection can meet a policy's rules in one direction: of each rule its selectors, with one
/// for all its address blocks, times its protocols and named ports. Each way is a kernel rule a family, and may be a
/// set, of which a kernel's table bears few thousand.
pub const WAYS: usize = 2_000;

/// The most address blocks and exceptions of a policy: twice the blocks that 1.5 MiB of JSON hold.
pub const BLOCKS: usize = 100_000;

/// The most values in the selectors of a policy. Each of its sets is named after all of its selector.
pub const VALUES: usize = 20_000;

/// The most values in the selectors of the rules of one direction, and of its subject, times the rule's named ports: each
/// pair of a selector and a named port is a set, which is named after all of the selector.
pub const NAMED: usize = 500_000;

/// A text of at most [`MESSAGE`] characters, on one line.
pub fn cut(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = chars.by_ref().take(MESSAGE).collect();
    if chars.next().is_some() {
        line.pop();
        line.push('…');
    }
    line
}
