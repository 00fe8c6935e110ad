//! What the CNI plugin says of this node's pods, on its way into the index.
//!
//! A pod's network is made before its kubelet reports its addresses, and goes before the API's object does. So a pod has
//! the addresses of its attachment as soon as both are known, as if `status.podIPs` had them, until the API says others;
//! an address that is attached is that pod's alone, whatever the API still says of others; and an address whose pod is not
//! known, or whose attachment has gone, is withheld: nobody may use it until another pod has it or nothing is left of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use selvedge_nft::IfName;

use crate::cluster::Text;
use crate::cluster::object::{Addresses, Event, Object, ObjectKey, ObjectKind, Pod};
use crate::cni::store::MOST;
use crate::cni::{Attachment, Id, PodId, Record, Valid};
use crate::compile::Host;
use crate::index::{Index, PodKey};

/// The most attachments in use. Of those that have ended as many are known, the last ones.
pub(super) const MOST_IN_USE: usize = MOST / 2;

/// What becomes of attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attaching {
    /// A pod's network has been made.
    Attach(Box<Attachment>),
    /// It goes.
    Detach(Id),
    /// Of a network these are all that there are.
    Retain(String, Vec<Valid>),
    /// What was known before the daemon was started again.
    Restore(Vec<Record>),
    /// The index has all objects now, and these are the host's interfaces, where they are known. Pods whose interface is
    /// gone went while nobody listened.
    Settle(Option<BTreeSet<String>>),
}

/// The attachments, and what they make of pods.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// This node's name.
    node: Text,
    records: BTreeMap<Id, Record>,
    by_pod: BTreeMap<PodKey, BTreeSet<Id>>,
    /// Those that have ended, the first one first.
    ended: VecDeque<Id>,
    /// The attachment that had an address last.
    by_address: BTreeMap<IpAddr, Id>,
    /// What the API says of pods whose addresses are others in the index.
    own: BTreeMap<PodKey, Addresses>,
    /// Those that another daemon has heard of, until everything is known.
    restored: BTreeSet<Id>,
    /// Whether the index has all objects: from then on what the API says anew is news.
    settled: bool,
    /// What is not kept yet as it is now.
    unsaved: BTreeSet<Id>,
    /// Whether the host's part may have changed.
    changed: bool,
}

impl Attached {
    /// Nothing is attached to the node of this name yet.
    pub fn new(node: Text) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    /// Takes an event in by way of `apply`, as what it comes to, given what is attached. What concerns no attachment costs
    /// a look or two.
    pub fn pass(&mut self, index: &mut Index, event: Event, apply: impl FnOnce(&mut Index, Event)) {
        if !self.concerned(&event) {
            return apply(index, event);
        }
        let event = match event {
            Event::Apply(Object::Pod(mut pod)) => {
                self.take_over(index, &pod);
                let key = (pod.namespace.clone(), pod.name.clone());
                self.shown(&key, &pod.uid, pod.addresses);
                self.dress(&mut pod);
                Event::Apply(Object::Pod(pod))
            }
            event => event,
        };
        apply(index, event);
        self.follow(index);
    }

    /// Whether an event is about a pod with an attachment, or an address of one.
    fn concerned(&self, event: &Event) -> bool {
        let named = |key: &PodKey| self.by_pod.contains_key(key) || self.own.contains_key(key);
        match event {
            Event::Apply(Object::Pod(pod)) => {
                let key = (pod.namespace.clone(), pod.name.clone());
                let attached = |address| self.by_address.contains_key(&address);
                !self.records.is_empty() && (named(&key) || pod.addresses.iter().any(attached))
            }
            Event::Delete {
                key: ObjectKey::Pod(namespace, name),
                ..
            } => named(&(namespace.clone(), name.clone())),
            Event::Retain { kind, .. } => *kind == ObjectKind::Pod && !self.records.is_empty(),
            _ => false,
        }
    }

    /// Takes note that pods may have come or gone.
    fn follow(&mut self, index: &Index) {
        self.changed = true;
        if !self.settled {
            return; // who is not known may only not be known yet
        }
        self.own
            .retain(|(namespace, name), _| index.pod(namespace, name).is_some());
        let over = |record: &&Record| record.detached && !exists(index, &record.attachment.pod);
        let over = self.records.values().filter(over);
        let over: Vec<Id> = over.map(|record| record.attachment.id.clone()).collect();
        for id in over {
            self.forget(&id);
        }
    }

    /// Does what the plugin has said.
    pub fn apply(&mut self, index: &mut Index, attaching: Attaching) {
        match attaching {
            Attaching::Attach(attachment) => self.attach(index, *attachment),
            Attaching::Detach(id) => self.detach(index, &id),
            Attaching::Retain(network, valid) => {
                let valid: BTreeSet<Valid> = valid.into_iter().collect();
                let gone = self.records.values().filter(|record| {
                    let id = &record.attachment.id;
                    let (container, ifname) = (id.container.clone(), id.ifname.clone());
                    let valid = valid.contains(&Valid { container, ifname });
                    id.network == network && !record.detached && !valid
                });
                let gone: Vec<Id> = gone.map(|record| record.attachment.id.clone()).collect();
                for id in gone {
                    self.detach(index, &id);
                }
            }
            Attaching::Restore(records) => {
                for record in records {
                    self.put(record.clone());
                    self.unsaved.remove(&record.attachment.id);
                    self.restored.insert(record.attachment.id.clone());
                    self.redress_all(index, &record.attachment);
                }
            }
            Attaching::Settle(interfaces) => self.settle(index, interfaces.as_ref()),
        }
    }

    fn settle(&mut self, index: &mut Index, interfaces: Option<&BTreeSet<String>>) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let restored = std::mem::take(&mut self.restored);
        let restored = restored.iter().filter_map(|id| self.records.get(id));
        let gone = restored.filter(|record| {
            let named = &record.attachment.interfaces;
            let gone = interfaces.is_some_and(|all| !named.iter().all(|n| all.contains(n)));
            gone || (named.is_empty() && !exists(index, &record.attachment.pod))
        });
        let gone: Vec<Id> = gone.map(|record| record.attachment.id.clone()).collect();
        for id in gone {
            self.detach(index, &id);
        }
        self.follow(index);
    }

    /// Whether an attachment's pod is known with its labels, and has its addresses in the index.
    pub fn is_in_index(&self, index: &Index, id: &Id) -> bool {
        let Some(record) = self.records.get(id).filter(|record| !record.detached) else {
            return false;
        };
        let mut addresses = record.attachment.addresses.iter();
        self.knows(index, &record.attachment.pod)
            && addresses.all(|a| self.counts(index, record, *a))
    }

    /// Whether policies can select a pod, and it is known to be on this node: where the API has not told so yet, nothing is
    /// enforced for it.
    fn knows(&self, index: &Index, pod: &PodId) -> bool {
        let known = index.pod(&pod.namespace, &pod.name);
        known.is_some_and(|known| is(pod, known) && known.selectable() && self.is_here(known))
    }

    fn is_here(&self, pod: &Pod) -> bool {
        pod.node.as_ref() == Some(&self.node)
    }

    /// Whether what the index has as the pod's address, of this one's family, is one that is attached to it. Of several
    /// networks only one's counts for policies.
    fn counts(&self, index: &Index, record: &Record, address: IpAddr) -> bool {
        let pod = &record.attachment.pod;
        let Some(known) = index.pod(&pod.namespace, &pod.name) else {
            return false;
        };
        let own = known.addresses.iter();
        let mut own = own.filter(|own| own.is_ipv4() == address.is_ipv4());
        own.any(|own| {
            let mut live = self.of_pod(&pod.namespace, &pod.name);
            live.any(|one| !one.detached && one.attachment.addresses.contains(&own))
        })
    }

    /// What is known of an attachment.
    pub fn record(&self, id: &Id) -> Option<&Record> {
        self.records.get(id)
    }

    /// How many are in use.
    pub fn in_use(&self) -> usize {
        self.records.len() - self.ended.len()
    }

    /// The attachments that are not kept as they are now; none where they are to be kept no longer.
    pub fn take_unsaved(&mut self) -> Vec<(Id, Option<Record>)> {
        let ids = std::mem::take(&mut self.unsaved);
        let with = |id: Id| {
            let record = self.records.get(&id).cloned();
            (id, record)
        };
        ids.into_iter().map(with).collect()
    }

    /// Whether [`Self::host`] may be another than at the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The host, with what is attached to it.
    pub fn host(&self, index: &Index, host: &Host) -> Host {
        let mut host = host.clone();
        for record in self.records.values().filter(|record| !record.detached) {
            if let Some(port) = port(&record.attachment, &host) {
                let addresses = host.attached.entry(port).or_default();
                addresses.extend(&record.attachment.addresses);
            }
        }
        let withheld = self.by_address.iter().filter(|(address, id)| {
            let record = self.records.get(*id).filter(|record| !record.detached);
            let used = record.is_some_and(|record| {
                self.knows(index, &record.attachment.pod) && self.counts(index, record, **address)
            });
            !used && index.owner(**address).is_none()
        });
        host.withheld.extend(withheld.map(|(address, _)| *address));
        host
    }

    fn attach(&mut self, index: &mut Index, attachment: Attachment) {
        let same = self.records.get(&attachment.id);
        if same.is_some_and(|record| record.attachment == attachment && !record.detached) {
            return;
        }
        let pod = &attachment.pod;
        // It takes the place of others whose end was not heard of: the pod's sandbox before, who had its addresses.
        let before = self.records.values().filter(|record| {
            let other = &record.attachment;
            let place = |id: &Id| (id.network.clone(), id.ifname.clone());
            let same_place = other.pod == *pod && place(&other.id) == place(&attachment.id);
            let has = |address| other.addresses.contains(address);
            let other_id = other.id != attachment.id;
            !record.detached && other_id && (same_place || attachment.addresses.iter().any(has))
        });
        let before: Vec<Id> = before.map(|record| record.attachment.id.clone()).collect();
        for id in before {
            self.detach(index, &id);
        }
        self.put(Record {
            attachment: attachment.clone(),
            instead_of: None,
            detached: false,
        });
        self.redress_all(index, &attachment);
    }

    fn detach(&mut self, index: &mut Index, id: &Id) {
        let Some(record) = self.records.get_mut(id).filter(|record| !record.detached) else {
            return;
        };
        record.detached = true;
        let attachment = record.attachment.clone();
        self.changed = true;
        self.unsaved.insert(id.clone());
        self.ended.push_back(id.clone());
        if self.settled && !exists(index, &attachment.pod) {
            self.forget(id);
        }
        self.forget_the_first();
        self.redress(index, &key_of(&attachment.pod));
        // Others of whom the API says that they have its addresses have them now.
        let claims = |api: &Addresses| attachment.addresses.iter().any(|a| api.contains(*a));
        let others = self.own.iter().filter(|(_, api)| claims(api));
        for key in others.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.redress(index, &key);
        }
    }

    /// Forgets the first of too many that have ended.
    fn forget_the_first(&mut self) {
        while self.ended.len() > MOST_IN_USE {
            match self.ended.pop_front() {
                Some(first) => self.forget(&first),
                None => break,
            }
        }
    }

    /// The UID of a pod of the index, and its addresses as the API has them.
    fn by_the_api(&self, index: &Index, key: &PodKey) -> Option<(Box<str>, Addresses)> {
        let known = index.pod(&key.0, &key.1)?;
        let api = self.own.get(key).copied().unwrap_or(known.addresses);
        Some((known.uid.clone(), api))
    }

    /// The API shows a pod: what it says first is older than the attachments that were made before.
    fn shown(&mut self, key: &PodKey, uid: &str, api: Addresses) {
        for id in self.by_pod.get(key).into_iter().flatten() {
            if let Some(record) = self.records.get_mut(id)
                && record.instead_of.is_none()
                && is_uid(&record.attachment.pod, uid)
            {
                record.instead_of = Some(api.iter().collect());
                self.unsaved.insert(id.clone());
            }
        }
    }

    fn put(&mut self, record: Record) {
        let Record { attachment, .. } = &record;
        let id = attachment.id.clone();
        self.forget(&id);
        let of_pod = self.by_pod.entry(key_of(&attachment.pod)).or_default();
        of_pod.insert(id.clone());
        for address in &attachment.addresses {
            // One that is gone has its address only as long as nobody else does.
            let taken = self
                .by_address
                .get(address)
                .and_then(|id| self.records.get(id));
            if !(record.detached && taken.is_some_and(|other| !other.detached)) {
                self.by_address.insert(*address, id.clone());
            }
        }
        self.unsaved.insert(id.clone());
        if record.detached {
            self.ended.push_back(id.clone());
        }
        self.records.insert(id, record);
        self.forget_the_first();
        self.changed = true;
    }

    /// Nothing is left of an attachment.
    fn forget(&mut self, id: &Id) {
        let Some(record) = self.records.remove(id) else {
            return;
        };
        let key = key_of(&record.attachment.pod);
        if let Some(of_pod) = self.by_pod.get_mut(&key) {
            of_pod.remove(id);
            if of_pod.is_empty() {
                self.by_pod.remove(&key);
            }
        }
        self.by_address.retain(|_, other| other != id);
        self.ended.retain(|other| other != id);
        self.restored.remove(id);
        self.unsaved.insert(id.clone());
        self.changed = true;
    }

    fn of_pod(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Record> {
        let ids = self.by_pod.get(&(Text::from(namespace), Text::from(name)));
        let ids = ids.into_iter().flatten();
        ids.filter_map(|id| self.records.get(id))
    }

    /// The API gives a pod an address that it did not have before, and that was another's, of whose end nothing was heard:
    /// so it is this one's.
    fn take_over(&mut self, index: &Index, pod: &Pod) {
        if !self.settled || !pod.selectable() {
            return;
        }
        let key = (pod.namespace.clone(), pod.name.clone());
        let before = self.by_the_api(index, &key);
        let before = before
            .filter(|(uid, _)| *uid == pod.uid)
            .map(|(_, api)| api);
        for address in pod.addresses.iter() {
            let had = before.is_some_and(|before| before.contains(address));
            let own = |record: &Record| {
                is(&record.attachment.pod, pod) && record.attachment.addresses.contains(&address)
            };
            if !had && !self.of_pod(&key.0, &key.1).any(own) {
                self.changed |= self.by_address.remove(&address).is_some();
            }
        }
    }

    /// Gives a pod, as the API has it, the addresses that it has.
    fn dress(&mut self, pod: &mut Pod) {
        let key = (pod.namespace.clone(), pod.name.clone());
        let api = pod.addresses;
        pod.addresses = self.effective(pod);
        match pod.addresses == api {
            true => self.own.remove(&key),
            false => self.own.insert(key, api),
        };
    }

    fn effective(&self, pod: &Pod) -> Addresses {
        let api = pod.addresses;
        if !pod.selectable() {
            return api;
        }
        let records = self.of_pod(&pod.namespace, &pod.name);
        let (gone, live): (Vec<&Record>, Vec<&Record>) = records
            .filter(|record| is(&record.attachment.pod, pod) && self.is_here(pod))
            .partition(|record| record.detached);
        let holds =
            |record: &&Record, address: &IpAddr| record.attachment.addresses.contains(address);
        let ended = |address: &IpAddr| gone.iter().any(|record| holds(record, address));
        let before = |record: &Record| -> Addresses {
            record.instead_of.iter().flatten().copied().collect()
        };
        let stale = |record: &&Record| before(record) == api;
        // What it says of a sandbox that has ended is no news of the one that is there.
        let is_news = api.iter().any(|address| !ended(&address)) && !live.iter().any(stale);
        let from_api = live.is_empty() || is_news;
        let attached = || {
            live.iter()
                .flat_map(|record| &record.attachment.addresses)
                .copied()
        };
        let keeps = |address: &IpAddr| {
            if live.iter().any(|record| holds(record, address)) {
                // Unless another one has it by now.
                return self.holder(address).is_none_or(|record| is_of(record, pod));
            }
            !ended(address) && self.holder(address).is_none_or(|record| record.detached)
        };
        match from_api {
            true => api.iter().filter(keeps).collect(),
            false => attached().filter(keeps).collect(),
        }
    }

    /// The attachment that has an address, or had it last.
    fn holder(&self, address: &IpAddr) -> Option<&Record> {
        self.records.get(self.by_address.get(address)?)
    }

    /// Brings the pod of an attachment up to date, and those that the API gives its addresses too.
    fn redress_all(&mut self, index: &mut Index, attachment: &Attachment) {
        let key = key_of(&attachment.pod);
        // The API may have shown it already.
        if let Some((uid, api)) = self.by_the_api(index, &key) {
            self.shown(&key, &uid, api);
        }
        for address in &attachment.addresses {
            // Each of them loses it here, so that the next is seen.
            while let Some(owner) = index.owner(*address) {
                let other = (owner.namespace.clone(), owner.name.clone());
                if other == key || !self.redress(index, &other) {
                    break;
                }
            }
        }
        self.redress(index, &key);
    }

    /// Brings a pod's addresses in the index up to date; whether they were not.
    fn redress(&mut self, index: &mut Index, key: &PodKey) -> bool {
        let Some(known) = index.pod(&key.0, &key.1) else {
            return false;
        };
        let (mut pod, before) = (known.clone(), known.addresses);
        if let Some(api) = self.own.get(key) {
            pod.addresses = *api;
        }
        self.dress(&mut pod);
        let changed = pod.addresses != before;
        if changed {
            index.apply(Event::Apply(Object::Pod(pod)));
        }
        changed
    }
}

/// The port of the bridge that an attachment is behind.
fn port(attachment: &Attachment, host: &Host) -> Option<IfName> {
    let names = attachment.interfaces.iter();
    let names = names.filter_map(|name| IfName::new(name).ok());
    let names: Vec<IfName> = names.filter(|name| *name != host.bridge).collect();
    let known = names.iter().find(|name| host.ports.contains(*name));
    // News of a port may come after the plugin's word.
    let only = || match names.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    known.or_else(only).copied()
}

fn key_of(pod: &PodId) -> PodKey {
    (Text::from(&*pod.namespace), Text::from(&*pod.name))
}

/// Whether they are the same, by what is known of both. The names are the same already.
fn is(pod: &PodId, other: &Pod) -> bool {
    is_uid(pod, &other.uid)
}

fn is_uid(pod: &PodId, uid: &str) -> bool {
    pod.uid.is_empty() || uid.is_empty() || pod.uid == uid
}

/// Whether an attachment is a pod's.
fn is_of(record: &Record, pod: &Pod) -> bool {
    let own = &record.attachment.pod;
    *own.namespace == *pod.namespace && *own.name == *pod.name && is(own, pod)
}

/// Whether the API has a pod.
fn exists(index: &Index, pod: &PodId) -> bool {
    let known = index.pod(&pod.namespace, &pod.name);
    known.is_some_and(|known| is(pod, known))
}

#[cfg(test)]
#[path = "attached_tests.rs"]
mod tests;
