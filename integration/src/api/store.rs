//! The objects, their history, and who watches them. Every change takes the next resourceVersion, whatever its kind.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::kinds::Kind;
use super::settings::Settings;
use super::status::Failure;
use super::watch::Watcher;

/// Namespace (empty for a cluster's kinds) and name.
pub(crate) type Key = (String, String);
pub(crate) type Object = Arc<Value>;
pub(crate) type Objects = BTreeMap<Key, Object>;

/// The store, shared by all requests. No lock is held across an await.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Store>>);

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        Self(Arc::new(Mutex::new(Store::new(settings))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) old: Option<Object>,
    /// None when it was deleted.
    pub(crate) new: Option<Object>,
}

pub(crate) struct Store {
    pub(crate) settings: Settings,
    objects: BTreeMap<Kind, Objects>,
    revision: u64,
    /// What happened after this version is remembered.
    compacted: u64,
    history: VecDeque<Change>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) next_watcher: u64,
}

/// As on a cluster that has been running for a while: small numbers are long gone.
const FIRST_REVISION: u64 = 1000;

impl Store {
    fn new(settings: Settings) -> Self {
        let mut store = Self {
            settings,
            objects: Kind::ALL.map(|kind| (kind, Objects::new())).into(),
            revision: FIRST_REVISION,
            compacted: FIRST_REVISION,
            history: VecDeque::new(),
            watchers: Vec::new(),
            next_watcher: 0,
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            // These bodies are good ones.
            let _ = store.create(Kind::Namespace, None, json!({"metadata": {"name": name}}));
        }
        store
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn objects(&self, kind: Kind) -> &Objects {
        static NONE: Objects = Objects::new();
        self.objects.get(&kind).unwrap_or(&NONE)
    }

    pub(crate) fn get(&self, kind: Kind, key: &Key) -> Result<Object, Failure> {
        let found = self.objects(kind).get(key).cloned();
        found.ok_or_else(|| Failure::not_found(kind, &key.1))
    }

    /// The objects of a kind as they were at a version.
    pub(crate) fn view(&self, kind: Kind, revision: u64) -> Result<View<'_>, Failure> {
        if revision > self.revision {
            return Err(Failure::too_large(revision, self.revision));
        }
        let mut before = BTreeMap::new();
        for change in self
            .changes_after(revision)?
            .filter(|change| change.kind == kind)
        {
            // The first change after it tells how it was.
            let known = before.entry(change.key.clone());
            known.or_insert_with(|| change.old.clone());
        }
        let now = self.objects(kind);
        Ok(View { now, before })
    }

    /// What happened after a version.
    pub(crate) fn changes_after(
        &self,
        revision: u64,
    ) -> Result<impl Iterator<Item = &Change>, Failure> {
        if revision < self.compacted {
            return Err(Failure::too_old(revision, self.compacted));
        }
        // Every version is one change, so the history is as long as the versions are apart.
        let old = revision.saturating_sub(self.compacted);
        Ok(self
            .history
            .iter()
            .skip(usize::try_from(old).unwrap_or(usize::MAX)))
    }

    /// Stores an object, new or changed, under the next version.
    pub(crate) fn put(&mut self, kind: Kind, key: &Key, mut object: Value) -> Object {
        self.revision += 1;
        stamp(kind, &mut object, self.revision);
        let object = Arc::new(object);
        let all = self.objects.entry(kind).or_default();
        let old = all.insert(key.clone(), object.clone());
        self.record(kind, key, old, Some(object.clone()));
        object
    }

    /// Removes an object; its last state carries the version of the removal.
    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) -> Option<Object> {
        let old = self.objects.entry(kind).or_default().remove(key)?;
        self.revision += 1;
        let last = stamped(kind, &old, self.revision);
        self.record(kind, key, Some(old), None);
        Some(last)
    }

    fn record(&mut self, kind: Kind, key: &Key, old: Option<Object>, new: Option<Object>) {
        let change = Change {
            revision: self.revision,
            kind,
            key: key.clone(),
            old,
            new,
        };
        self.watchers.retain(|watcher| watcher.tell(&change));
        self.history.push_back(change);
        while self.history.len() > self.settings.history {
            self.history.pop_front();
            self.compacted += 1;
        }
    }

    /// Forgets what has happened. Watches that run go on.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.revision;
    }
}

/// The objects of a kind at one version, past or present.
pub(crate) struct View<'a> {
    now: &'a Objects,
    /// What has changed since then, as it was.
    before: BTreeMap<Key, Option<Object>>,
}

impl View<'_> {
    /// The objects in order.
    pub(crate) fn range(&self, start: Bound<Key>) -> impl Iterator<Item = (&Key, &Object)> {
        let now = self.now.range((start.clone(), Bound::Unbounded));
        let mut same = now
            .filter(|(key, _)| !self.before.contains_key(*key))
            .peekable();
        let before = self.before.range((start, Bound::Unbounded));
        let mut other = before
            .filter_map(|(key, old)| Some((key, old.as_ref()?)))
            .peekable();
        std::iter::from_fn(move || match (same.peek(), other.peek()) {
            (Some((one, _)), Some((two, _))) if one < two => same.next(),
            (_, Some(_)) => other.next(),
            (_, None) => same.next(),
        })
    }
}

fn stamp(kind: Kind, object: &mut Value, revision: u64) {
    object["kind"] = json!(kind.name());
    object["apiVersion"] = json!(kind.api_version());
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
}

/// The same object under another version.
pub(crate) fn stamped(kind: Kind, object: &Value, revision: u64) -> Object {
    let mut object = object.clone();
    stamp(kind, &mut object, revision);
    Arc::new(object)
}
