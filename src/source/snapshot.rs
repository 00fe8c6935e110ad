//! All that a source knows at one time.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{Event, Namespace, Object, ObjectKey, ObjectKind, Pod};
use crate::index::Index;
use crate::limits;

/// The objects of a source, each with the place that it comes from, and what could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    objects: BTreeMap<ObjectKey, (Object, Option<Origin>)>,
    /// What is wrong, in the order of the files.
    pub problems: Vec<SourceProblem>,
    /// Whether there was anything of which not even that could be read what it is.
    pub unread: bool,
    /// Whether it is that of a live cluster.
    live: bool,
}

/// Where an object stands: `shop/web.yaml:12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file.
    pub path: Arc<Path>,
    /// The line of its document, from 1.
    pub line: usize,
    /// Its index, where the document is a list.
    pub item: Option<usize>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)?;
        match self.item {
            Some(item) => write!(f, " items[{item}]"),
            None => Ok(()),
        }
    }
}

/// Something that could not be read, in one line: where, what, and what that does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceProblem(String);

impl SourceProblem {
    /// The problem at `place`. Whatever a file says, it stays one line of at most [`limits::MESSAGE`] characters.
    pub fn new(place: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self(limits::cut(&format!("{place}: {text}")))
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Snapshot {
    /// Takes an object in. Of two with one key the later counts; when they differ, that is a problem.
    pub(super) fn insert(&mut self, object: Object, origin: Origin) {
        match self.objects.entry(object.key()) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert((object, Some(origin)));
            }
            btree_map::Entry::Occupied(mut entry) => {
                if entry.get().0 != object
                    && let Some(first) = &entry.get().1
                {
                    let text = format!("{} is also in {first}; the one here counts", entry.key());
                    self.problems.push(SourceProblem::new(&origin, text));
                }
                entry.insert((object, Some(origin)));
            }
        }
    }

    /// Takes an object in unless there is one with its key.
    pub(super) fn insert_held(&mut self, object: Object, origin: Origin) {
        self.objects
            .entry(object.key())
            .or_insert((object, Some(origin)));
    }

    /// Takes in an object of a live cluster, which stands in no file.
    pub(super) fn insert_live(&mut self, object: Object) {
        self.live = true;
        self.objects.insert(object.key(), (object, None));
    }

    /// Changes the pods, in the order of their keys.
    pub(super) fn pods_mut(&mut self) -> impl Iterator<Item = &mut Pod> {
        let objects = self.objects.values_mut();
        objects.filter_map(|(object, _)| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        })
    }

    /// Makes the namespaces that objects are in and nobody wrote down.
    pub(super) fn add_namespaces(&mut self) {
        let used: BTreeSet<Text> = self
            .objects
            .keys()
            .filter_map(|key| match key {
                ObjectKey::Pod(namespace, _) => Some(namespace.clone()),
                ObjectKey::Policy(policy) => Some(policy.namespace.clone()),
                ObjectKey::Namespace(_) | ObjectKey::Node(_) => None,
            })
            .collect();
        for name in used {
            self.objects
                .entry(ObjectKey::Namespace(name.clone()))
                .or_insert_with(|| {
                    let namespace = Namespace::new(name, &Labels::default());
                    (Object::Namespace(namespace), None)
                });
        }
    }

    /// The index of its objects.
    pub fn index(&self) -> Index {
        let mut index = Index::new();
        for object in self.objects() {
            index.apply(Event::Apply(object.clone()));
        }
        if self.live {
            // All namespaces are among them: one that is not can't be read.
            let namespaces = self.objects.keys();
            let namespaces = namespaces.filter(|key| matches!(key, ObjectKey::Namespace(_)));
            index.apply(Event::Retain {
                kind: ObjectKind::Namespace,
                keys: namespaces.cloned().collect(),
            });
        }
        index
    }

    /// The objects, in the order of their keys.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values().map(|(object, _)| object)
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key).map(|(object, _)| object)
    }

    /// Where an object stands; `None` for one that nobody wrote down.
    pub fn origin(&self, key: &ObjectKey) -> Option<&Origin> {
        self.objects.get(key)?.1.as_ref()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// What leads from one snapshot to the next: deletions first, each part in the order of the keys.
pub fn diff(previous: &Snapshot, next: &Snapshot) -> Vec<Event> {
    let gone = previous
        .objects
        .iter()
        .filter(|(key, _)| !next.objects.contains_key(key))
        .map(|(key, (object, _))| Event::Delete {
            key: key.clone(),
            uid: match object {
                Object::Pod(pod) if !pod.uid.is_empty() => Some(pod.uid.clone()),
                _ => None,
            },
        });
    let changed = next
        .objects
        .iter()
        .filter(|(key, (object, _))| {
            previous.objects.get(key).map(|(before, _)| before) != Some(object)
        })
        .map(|(_, (object, _))| Event::Apply(object.clone()));
    gone.chain(changed).collect()
}
