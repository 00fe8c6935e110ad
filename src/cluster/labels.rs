//! Label sets.

use internment::ArcIntern;

use super::Text;

/// The labels of a pod or namespace: keys with their values, sorted by key. The pods of one template share theirs, and
/// equal ones are equal at a glance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(ArcIntern<LabelSet>);

#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct LabelSet {
    pairs: Box<[(Text, Text)]>,
    /// Whether there may be others that nobody has told of yet.
    partial: bool,
}

impl Labels {
    /// The value of `key`, where the label is present.
    pub fn get(&self, key: &Text) -> Option<&Text> {
        let pairs = &self.0.pairs;
        let at = pairs.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        pairs.get(at).map(|(_, value)| value)
    }

    /// All labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Text)> {
        self.0.pairs.iter().map(|(key, value)| (key, value))
    }

    /// Whether the object may have others that nobody has told of yet: then none can be said to be absent.
    pub fn are_partial(&self) -> bool {
        self.0.partial
    }

    /// The same labels, of an object that may have others.
    #[must_use]
    pub fn partial(&self) -> Self {
        Self(ArcIntern::new(LabelSet {
            pairs: self.0.pairs.clone(),
            partial: true,
        }))
    }

    /// The same labels with this one, whatever its value was.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let key = Text::from(key);
        if self.get(&key).is_some_and(|known| **known == *value) {
            return self.clone();
        }
        let all = self.iter().map(|(k, v)| (k.clone(), v.clone()));
        let with: Self = all.chain([(key.clone(), Text::from(value))]).collect();
        match self.are_partial() {
            true => with.partial(),
            false => with,
        }
    }
}

impl FromIterator<(Text, Text)> for Labels {
    /// Of several values for one key the last counts, as in JSON.
    fn from_iter<I: IntoIterator<Item = (Text, Text)>>(labels: I) -> Self {
        let sorted: std::collections::BTreeMap<_, _> = labels.into_iter().collect();
        Self(ArcIntern::new(LabelSet {
            pairs: sorted.into_iter().collect(),
            partial: false,
        }))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(labels: I) -> Self {
        labels
            .into_iter()
            .map(|(key, value)| (Text::from(key), Text::from(value)))
            .collect()
    }
}
