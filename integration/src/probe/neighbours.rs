//! A check on the one thing that labs share with the machine: the size of the kernel's neighbour tables.
//!
//! `net.ipv4.neigh.default.gc_thresh3` (1024) counts the neighbours of all namespaces together. When a table is full the
//! kernel drops packets without a word, which would look like a policy; so probes fail loudly instead.

use crate::error::Error;

/// How often either table was full since boot.
///
/// Counted for the machine as a whole, and shown in its first namespace only: elsewhere nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflows(u64);

impl Overflows {
    pub(crate) fn now() -> Self {
        let tables = ["/proc/net/stat/arp_cache", "/proc/net/stat/ndisc_cache"];
        let texts = tables
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok());
        Self(texts.map(|text| count(&text)).sum())
    }

    /// # Errors
    /// When a table has been full since `self` was taken.
    pub(crate) fn check(self) -> Result<(), Error> {
        if Self::now() == self {
            return Ok(());
        }
        Err(Error::invalid(
            "a neighbour table of the machine was full while probing, so silence means nothing: \
             probe fewer pairs of pods at once, or raise net.ipv4.neigh.default.gc_thresh3 and net.ipv6's",
        ))
    }
}

/// Sums the column `table_fulls`: a heading, then a line of hexadecimal numbers for each CPU.
fn count(text: &str) -> u64 {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let Some(column) = heading
        .split_whitespace()
        .position(|word| word == "table_fulls")
    else {
        return 0;
    };
    lines
        .filter_map(|line| line.split_whitespace().nth(column))
        .filter_map(|number| u64::from_str_radix(number, 16).ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_counts() {
        let text =
            "entries  lookups hits table_fulls\n0000000a 00 00 00000010\n0000000a 00 00 00000001\n";
        assert_eq!(count(text), 17);
        assert_eq!(count("entries lookups\n01 02\n"), 0);
        assert_eq!(count(""), 0);
    }

    #[test]
    fn the_kernel_still_has_the_column() {
        let text = std::fs::read_to_string("/proc/net/stat/arp_cache").unwrap();
        assert!(text.contains("table_fulls"), "{text}");
    }
}
