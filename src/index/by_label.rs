//! Things filed under labels, and found again by the labels that an object carries.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;

use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::selector::{LabelSelector, Operator, Requirement};

/// Where a thing is filed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Under no label.
    Anywhere,
    /// Under a key, whatever its value.
    Key(Text),
    /// Under a key and its value.
    Value(Text, Text),
    /// Under labels being partial.
    Partial,
}

/// What a place holds.
pub(super) trait Shelf: Default {
    /// Whether it holds nothing, so that the place need not be kept.
    fn is_bare(&self) -> bool;
}

impl Shelf for RoaringBitmap {
    fn is_bare(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Shelf for BTreeSet<T> {
    fn is_bare(&self) -> bool {
        self.is_empty()
    }
}

/// A shelf for each place that holds anything.
#[derive(Debug, Default)]
pub(super) struct ByLabel<S> {
    anywhere: S,
    keys: BTreeMap<Text, ByValue<S>>,
    partial: S,
}

#[derive(Debug, Default)]
struct ByValue<S> {
    any: S,
    values: BTreeMap<Text, S>,
}

impl<S: Shelf> Shelf for ByLabel<S> {
    fn is_bare(&self) -> bool {
        self.keys.is_empty() && self.anywhere.is_bare() && self.partial.is_bare()
    }
}

impl<T> ByLabel<BTreeSet<T>> {
    /// Roughly how much is filed.
    pub fn load(&self) -> usize {
        self.anywhere.len() + self.keys.len()
    }
}

impl<S: Shelf> ByLabel<S> {
    /// The shelf of a place; `None` where nothing was filed.
    pub fn at(&self, place: &Place) -> Option<&S> {
        match place {
            Place::Anywhere => Some(&self.anywhere),
            Place::Key(key) => self.keys.get(key).map(|key| &key.any),
            Place::Value(key, value) => self.keys.get(key)?.values.get(value),
            Place::Partial => Some(&self.partial),
        }
    }

    /// Changes the shelf of a place; one that is bare afterwards goes.
    pub fn change(&mut self, place: &Place, change: impl FnOnce(&mut S)) {
        let (key, value) = match place {
            Place::Anywhere => return change(&mut self.anywhere),
            Place::Key(key) => (key, None),
            Place::Value(key, value) => (key, Some(value)),
            Place::Partial => return change(&mut self.partial),
        };
        let by_value = self.keys.entry(key.clone()).or_default();
        match value {
            None => change(&mut by_value.any),
            Some(value) => {
                let shelf = by_value.values.entry(value.clone()).or_default();
                change(shelf);
                if shelf.is_bare() {
                    by_value.values.remove(value);
                }
            }
        }
        if by_value.any.is_bare() && by_value.values.is_empty() {
            self.keys.remove(key);
        }
    }

    /// The shelves under which something is filed that may concern an object with these labels.
    pub fn found<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a S> {
        let labelled = labels.iter().flat_map(|(key, value)| {
            let key = self.keys.get(key);
            let value = key.and_then(|key| key.values.get(value));
            key.map(|key| &key.any).into_iter().chain(value)
        });
        std::iter::once(&self.anywhere).chain(labelled)
    }
}

/// Every place that an object with these labels belongs to.
pub(super) fn places_of(labels: &Labels) -> impl Iterator<Item = Place> {
    let labelled = labels.iter().flat_map(|(key, value)| {
        [
            Place::Key(key.clone()),
            Place::Value(key.clone(), value.clone()),
        ]
    });
    std::iter::once(Place::Anywhere).chain(labelled)
}

/// A requirement of more values than this is looked for by its key, and so is one of a pod's labels where it and the
/// namespace's would come to more together: who files under each of a thousand, and under each of another thousand there,
/// files a million times.
pub(super) const MOST_PLACES: usize = 64;

/// The same with keys in the place of their values: whatever belongs to one of those belongs to one of these.
pub(super) fn keys(places: Vec<Place>) -> Vec<Place> {
    let keys = places.into_iter().map(|place| match place {
        Place::Value(key, _) => Place::Key(key),
        other => other,
    });
    let mut keys: Vec<Place> = keys.collect();
    keys.dedup();
    keys
}

/// The places of one requirement; each object that fulfils it belongs to one of them. `None` for a negative one.
pub(super) fn places_for(requirement: &Requirement) -> Option<Vec<Place>> {
    let key = &requirement.key;
    match &requirement.operator {
        Operator::In(values) if values.len() <= MOST_PLACES => {
            let places = values.iter().map(|v| Place::Value(key.clone(), v.clone()));
            Some(places.collect())
        }
        Operator::In(_) | Operator::Exists => Some(vec![Place::Key(key.clone())]),
        Operator::NotIn(_) | Operator::DoesNotExist => None,
    }
}

/// The places, by the requirement where they hold the least, to which every object belongs that the selector selects.
pub(super) fn fewest(selector: &LabelSelector, load: impl Fn(&Place) -> usize) -> Vec<Place> {
    let positive = selector.requirements().filter_map(|requirement| {
        let places = places_for(requirement)?;
        let by_key = matches!(places.as_slice(), [Place::Key(_)]);
        let load: usize = places.iter().map(&load).sum();
        // A key is more common than its values, even where that doesn't show yet.
        Some(((by_key, load, places.len()), places))
    });
    let least = positive.min_by(|(a, _), (b, _)| a.cmp(b));
    least.map_or_else(|| vec![Place::Anywhere], |(_, places)| places)
}

/// The places whose coming or going among an object's labels may turn one of the selector's requirements.
pub(super) fn turning_points(selector: &LabelSelector) -> Vec<Place> {
    let points = selector.requirements().flat_map(|requirement| {
        let key = &requirement.key;
        let values = match &requirement.operator {
            Operator::In(values) | Operator::NotIn(values) => Some(values),
            Operator::Exists | Operator::DoesNotExist => None,
        };
        let key_alone = values.is_none().then(|| Place::Key(key.clone()));
        let values = values.into_iter().flatten();
        let partial = places_for(requirement).is_none().then_some(Place::Partial);
        values
            .map(|v| Place::Value(key.clone(), v.clone()))
            .chain(key_alone)
            .chain(partial)
    });
    points.collect()
}

/// The places that an object comes to or leaves when its labels change.
pub(super) fn changed_places(before: &Labels, after: &Labels) -> Vec<Place> {
    let half = |from: &Labels, to: &Labels| {
        let changed = from
            .iter()
            .filter(|(key, value)| to.get(key) != Some(value));
        let places = changed.flat_map(|(key, value)| {
            let gone = to.get(key).is_none().then(|| Place::Key(key.clone()));
            [Place::Value(key.clone(), value.clone())]
                .into_iter()
                .chain(gone)
        });
        places.collect::<Vec<_>>()
    };
    let mut places = half(before, after);
    places.extend(half(after, before));
    if before.are_partial() != after.are_partial() {
        places.push(Place::Partial);
    }
    places
}
