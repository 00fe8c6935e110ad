//! Label selectors, and what of a cluster's pods they select.
//!
//! A selector is kept in one canonical form, so that policies that say the same thing share one selector, and its text
//! is what people read in set comments and answers.

use std::collections::BTreeSet;
use std::fmt;

use super::Text;
use super::labels::Labels;

/// A label selector: every requirement must hold. Without any it selects everything.
///
/// Canonical: sorted, without repetitions; `matchLabels` are requirements of one value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    requirements: BTreeSet<Requirement>,
}

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: Text,
    /// What must hold of it.
    pub operator: Operator,
}

/// What must hold of a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// Present, with one of these values (at least one; the empty value is one like any other).
    In(BTreeSet<Text>),
    /// Absent, or with none of these values.
    NotIn(BTreeSet<Text>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl Requirement {
    /// Whether `labels` fulfil it, as far as is known: partial ones don't where it asks for a label's absence.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => match value {
                Some(value) => !values.contains(value),
                None => !labels.are_partial(),
            },
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none() && !labels.are_partial(),
        }
    }
}

impl LabelSelector {
    /// The selector with these requirements.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        Self {
            requirements: requirements.into_iter().collect(),
        }
    }

    /// Its requirements, sorted.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether `labels` fulfil every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| r.matches(labels))
    }
}

/// The namespaces that a pod selector looks into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One, by name.
    Namespace(Text),
    /// All whose labels match.
    Namespaces(LabelSelector),
}

/// Pods, by namespace and labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodSelector {
    /// The namespaces.
    pub scope: Scope,
    /// The pods in them.
    pub pods: LabelSelector,
}

impl PodSelector {
    /// Every pod of the cluster.
    pub fn everything() -> Self {
        Self {
            scope: Scope::Namespaces(LabelSelector::default()),
            pods: LabelSelector::default(),
        }
    }

    /// How many values its requirements have.
    pub fn values(&self) -> usize {
        let scope = match &self.scope {
            Scope::Namespace(_) => None,
            Scope::Namespaces(namespaces) => Some(namespaces),
        };
        let requirements = scope.into_iter().chain([&self.pods]);
        let requirements = requirements.flat_map(LabelSelector::requirements);
        let values = requirements.map(|requirement| match &requirement.operator {
            Operator::In(values) | Operator::NotIn(values) => values.len(),
            Operator::Exists | Operator::DoesNotExist => 0,
        });
        values.sum()
    }

    /// Whether a pod with these labels in that namespace is selected.
    pub fn matches(&self, namespace: &Text, namespace_labels: &Labels, labels: &Labels) -> bool {
        let scoped = match &self.scope {
            Scope::Namespace(name) => name == namespace,
            Scope::Namespaces(selector) => selector.matches(namespace_labels),
        };
        scoped && self.pods.matches(labels)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) => match values.first() {
                Some(value) if values.len() == 1 => write!(f, "{key}={value}"),
                _ => write!(f, "{key} in ({})", join(values)),
            },
            Operator::NotIn(values) => match values.first() {
                Some(value) if values.len() == 1 => write!(f, "{key}!={value}"),
                _ => write!(f, "{key} notin ({})", join(values)),
            },
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

fn join(values: &BTreeSet<Text>) -> String {
    let texts: Vec<&str> = values.iter().map(|value| &**value).collect();
    texts.join(",")
}

impl fmt::Display for LabelSelector {
    /// As `kubectl --selector` would have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, requirement) in self.requirements.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for PodSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pods.is_empty() {
            f.write_str("all pods")?;
        } else {
            self.pods.fmt(f)?;
        }
        match &self.scope {
            Scope::Namespace(name) => write!(f, " in ns {name}"),
            Scope::Namespaces(selector) if selector.is_empty() => f.write_str(" in all namespaces"),
            Scope::Namespaces(selector) => write!(f, " in namespaces {selector}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: Operator) -> Requirement {
        Requirement {
            key: Text::from(key),
            operator,
        }
    }

    fn values(values: &[&str]) -> BTreeSet<Text> {
        values.iter().map(|v| Text::from(*v)).collect()
    }

    #[test]
    fn negative_operators_match_an_absent_key() {
        let labels: Labels = [("app", "web")].into_iter().collect();
        let not_in = requirement("tier", Operator::NotIn(values(&["db"])));
        let absent = requirement("tier", Operator::DoesNotExist);
        assert!(not_in.matches(&labels) && absent.matches(&labels));
        let db: Labels = [("tier", "db")].into_iter().collect();
        assert!(!not_in.matches(&db) && !absent.matches(&db));
    }

    #[test]
    fn absence_of_a_label_cannot_be_said_of_partial_labels() {
        let tier = |operator| requirement("tier", operator);
        let shop = Labels::from_iter([("name", "shop")]).partial();
        assert!(!tier(Operator::NotIn(values(&["db"]))).matches(&shop));
        assert!(!tier(Operator::DoesNotExist).matches(&shop));
        // What is known is known.
        assert!(requirement("name", Operator::NotIn(values(&["db"]))).matches(&shop));
        assert!(requirement("name", Operator::In(values(&["shop"]))).matches(&shop));
        assert!(LabelSelector::default().matches(&shop));
    }

    #[test]
    fn an_empty_value_needs_the_key() {
        let empty = requirement("app", Operator::In(values(&[""])));
        let without = Labels::default();
        let with: Labels = [("app", "")].into_iter().collect();
        assert!(!empty.matches(&without) && empty.matches(&with));
    }

    #[test]
    fn the_order_of_requirements_makes_no_difference() {
        let a = requirement("a", Operator::Exists);
        let b = requirement("b", Operator::In(values(&["1", "2"])));
        let one = LabelSelector::new([a.clone(), b.clone(), a.clone()]);
        let other = LabelSelector::new([b, a]);
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "a,b in (1,2)");
    }
}
