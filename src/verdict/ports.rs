//! Sets of ports, one a protocol.

use std::fmt;

use crate::cluster::port::Protocol;

/// Ports 1 to 65535 of each protocol: disjoint ranges in order, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet {
    ranges: [Ranges; Protocol::ALL.len()],
}

type Ranges = Vec<(u16, u16)>;

const fn slot(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Sctp => 2,
    }
}

impl PortSet {
    /// No ports.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every port of every protocol.
    pub fn all() -> Self {
        Self {
            ranges: [(); Protocol::ALL.len()].map(|()| vec![(1, u16::MAX)]),
        }
    }

    /// The ports of these ranges (first and last, both included).
    pub fn of(ranges: impl IntoIterator<Item = (Protocol, u16, u16)>) -> Self {
        let mut set = Self::none();
        for (protocol, first, last) in ranges {
            let first = first.max(1);
            if first <= last {
                set.ranges[slot(protocol)].push((first, last));
            }
        }
        for ranges in &mut set.ranges {
            *ranges = joined(std::mem::take(ranges));
        }
        set
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.iter().all(Vec::is_empty)
    }

    /// The ranges of a protocol.
    pub fn ranges(&self, protocol: Protocol) -> &[(u16, u16)] {
        &self.ranges[slot(protocol)]
    }

    /// Whether a port is among them.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        let mut ranges = self.ranges(protocol).iter();
        ranges.any(|(first, last)| *first <= port && port <= *last)
    }

    /// The ports of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |one, two| joined([one, two].concat()))
    }

    /// The ports of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |one, two| {
            let pairs = one.iter().flat_map(|a| two.iter().map(move |b| (a, b)));
            let common = pairs.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)));
            common.filter(|(first, last)| first <= last).collect()
        })
    }

    /// The ports that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |one, two| {
            let mut left = one.to_vec();
            for (from, to) in two {
                let cut = |(first, last): (u16, u16)| {
                    if *from > last || *to < first {
                        return [Some((first, last)), None];
                    }
                    let before = (*from > first).then(|| (first, from - 1));
                    let after = (*to < last).then(|| (to + 1, last));
                    [before, after]
                };
                left = left.into_iter().flat_map(cut).flatten().collect();
            }
            left
        })
    }

    fn zip(&self, other: &Self, combine: impl Fn(&[(u16, u16)], &[(u16, u16)]) -> Ranges) -> Self {
        let mut set = Self::none();
        for protocol in Protocol::ALL {
            set.ranges[slot(protocol)] = combine(self.ranges(protocol), other.ranges(protocol));
        }
        set
    }

    /// The ports of a protocol as text: `80,443,8000-8100`; empty for none.
    pub fn text(&self, protocol: Protocol) -> String {
        let texts = self.ranges(protocol).iter().map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        });
        texts.collect::<Vec<_>>().join(",")
    }
}

fn joined(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut joined: Ranges = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

impl fmt::Display for PortSet {
    /// In a few words: `all ports`, `no ports`, `TCP 80,443 UDP 53`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no ports");
        }
        if *self == Self::all() {
            return f.write_str("all ports");
        }
        let mut first = true;
        for protocol in Protocol::ALL {
            let text = self.text(protocol);
            if text.is_empty() {
                continue;
            }
            if !first {
                f.write_str(" ")?;
            }
            first = false;
            match text.as_str() {
                "1-65535" => write!(f, "all {protocol}")?,
                ports => write!(f, "{protocol} {ports}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(ranges: &[(u16, u16)]) -> PortSet {
        PortSet::of(ranges.iter().map(|(a, b)| (Protocol::Tcp, *a, *b)))
    }

    #[test]
    fn sets_combine_by_ranges() {
        let one = tcp(&[(80, 90), (8000, 8100), (91, 95)]);
        assert_eq!(one.text(Protocol::Tcp), "80-95,8000-8100");
        let two = tcp(&[(90, 8050)]);
        assert_eq!(one.union(&two).text(Protocol::Tcp), "80-8100");
        assert_eq!(
            one.intersection(&two).text(Protocol::Tcp),
            "90-95,8000-8050"
        );
        assert_eq!(one.difference(&two).text(Protocol::Tcp), "80-89,8051-8100");
    }

    #[test]
    fn both_ends_are_reached() {
        let holes = tcp(&[(1, 1), (65535, 65535)]);
        let rest = PortSet::all().difference(&holes);
        assert_eq!(rest.text(Protocol::Tcp), "2-65534");
        assert_eq!(rest.to_string(), "TCP 2-65534 all UDP all SCTP");
        assert_eq!(rest.union(&holes), PortSet::all());
        assert!(PortSet::all().difference(&PortSet::all()).is_empty());
        assert_eq!(tcp(&[(0, 0)]), PortSet::none());
    }
}
