//! Which elements a set gains and loses.

use imbl::ordmap::DiffItem;
use imbl::ordset::DiffItem as SetDiffItem;

use crate::rule::Verdict;
use crate::ruleset::Elements;

/// The elements that go from a set and those that come to it. An entry that changes is in both.
pub(super) struct ElementChange {
    pub(super) gone: Elements,
    pub(super) new: Elements,
}

/// Whether the two are of sets with the same flags.
pub(super) fn same_kind(a: &Elements, b: &Elements) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

pub(super) fn is_map(elements: &Elements) -> bool {
    matches!(elements, Elements::Verdicts(_))
}

/// The fewest keys that a new set is sized for.
const LEAST_SIZED: usize = 1024;

/// How many keys a new set with these elements is to have room for; `None` where the kernel lets it grow.
///
/// A set of a given size is laid out once (`nft_hash`), where another's table is made anew again and again as it fills
/// (`nft_rhash`): a large set is loaded two to four times as fast. It takes no more than its size, so it gets room for
/// half as many again or more, which costs 16 to 32 bytes a key: the kernel makes a power of two of buckets, four for
/// three keys.
pub(super) fn room(elements: &Elements) -> Option<u32> {
    match elements {
        Elements::Keys(keys) if keys.len() >= LEAST_SIZED => {
            let buckets = u32::try_from(keys.len()).ok()?.checked_mul(2)?;
            Some(buckets.checked_next_power_of_two()? / 4 * 3)
        }
        _ => None,
    }
}

impl ElementChange {
    /// Nothing changes in a set of the same kind.
    pub(super) fn none(kind: &Elements) -> Self {
        Self {
            gone: kind.none(),
            new: kind.none(),
        }
    }

    /// What turns `old` into `new`, which is of the same kind.
    pub(super) fn between(old: &Elements, new: &Elements) -> Self {
        let mut change = Self::none(new);
        match (&mut change.gone, &mut change.new, old, new) {
            (
                Elements::Keys(gone),
                Elements::Keys(added),
                Elements::Keys(old),
                Elements::Keys(new),
            ) => {
                for item in old.diff(new) {
                    match item {
                        SetDiffItem::Add(key) => drop(added.insert(*key)),
                        SetDiffItem::Remove(key) => drop(gone.insert(*key)),
                    }
                }
            }
            (
                Elements::Ranges(gone),
                Elements::Ranges(added),
                Elements::Ranges(old),
                Elements::Ranges(new),
            ) => split(old, new, gone, added),
            (
                Elements::Verdicts(gone),
                Elements::Verdicts(added),
                Elements::Verdicts(old),
                Elements::Verdicts(new),
            ) => split(old, new, gone, added),
            // Another kind is another set: the caller makes it anew.
            _ => {}
        }
        change
    }

    /// Makes the entries of `current` whose verdict is `named` go and come back. Those that go anyway are not touched.
    pub(super) fn step_aside(&mut self, current: &Elements, named: impl Fn(&Verdict) -> bool) {
        if let (Elements::Verdicts(gone), Elements::Verdicts(new), Elements::Verdicts(current)) =
            (&mut self.gone, &mut self.new, current)
        {
            for (key, entry) in current {
                if named(&entry.verdict) && !gone.contains_key(key) {
                    gone.insert(*key, entry.clone());
                    new.insert(*key, entry.clone());
                }
            }
        }
    }
}

pub(super) fn split<K: Ord + Clone, V: PartialEq + Clone>(
    old: &imbl::OrdMap<K, V>,
    new: &imbl::OrdMap<K, V>,
    gone: &mut imbl::OrdMap<K, V>,
    added: &mut imbl::OrdMap<K, V>,
) {
    for item in old.diff(new) {
        match item {
            DiffItem::Add(key, value) => drop(added.insert(key.clone(), value.clone())),
            DiffItem::Remove(key, value) => drop(gone.insert(key.clone(), value.clone())),
            DiffItem::Update {
                old: (_, old),
                new: (key, new),
            } => {
                gone.insert(key.clone(), old.clone());
                added.insert(key.clone(), new.clone());
            }
        }
    }
}
