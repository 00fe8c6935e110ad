//! Who uses which policy chain, and which set: what nobody uses is not in the ruleset.

use std::collections::BTreeSet;
use std::sync::Arc;

use selvedge_nft::{Chain, Set};

use super::sets::SetSpec;
use super::state::{State, put};
use super::{names, policy};
use crate::cluster::Text;
use crate::cluster::selector::PodSelector;
use crate::index::{Index, PodKey, Touched};
use crate::policy::{Direction, PolicyKey};

/// A policy chain in the ruleset: the pods that jump to it, and the sets its rules name.
#[derive(Debug, Default)]
pub(super) struct PolicyChain {
    pub users: BTreeSet<PodKey>,
    pub sets: BTreeSet<SetSpec>,
}

/// A set in the ruleset: what it stands for, and how many policy chains name it.
#[derive(Debug)]
pub(super) struct UsedSet {
    pub spec: SetSpec,
    pub users: usize,
}

impl State {
    pub(super) fn use_policy(
        &mut self,
        index: &Index,
        node: &Text,
        key: &PolicyKey,
        direction: Direction,
        pod: &PodKey,
    ) {
        let chain = self.policies.entry((key.clone(), direction)).or_default();
        let new = chain.users.is_empty();
        chain.users.insert(pod.clone());
        if new {
            self.write_policy(index, node, key, direction);
        }
    }

    pub(super) fn disuse_policy(&mut self, key: &PolicyKey, direction: Direction, pod: &PodKey) {
        let Some(chain) = self.policies.get_mut(&(key.clone(), direction)) else {
            return;
        };
        chain.users.remove(pod);
        if !chain.users.is_empty() {
            return;
        }
        if let Some(chain) = self.policies.remove(&(key.clone(), direction)) {
            self.inet
                .chains
                .remove(&names::policy_chain(key, direction));
            for spec in &chain.sets {
                self.disuse_set(spec);
            }
        }
    }

    pub(super) fn write_policy(
        &mut self,
        index: &Index,
        node: &Text,
        key: &PolicyKey,
        direction: Direction,
    ) {
        let Some(policy) = index.policy(key) else {
            return;
        };
        let compiled = policy::compile(policy, direction, &self.families);
        for spec in &compiled.sets {
            self.use_set(index, node, spec);
        }
        let chain = Chain {
            base: None,
            comment: names::comment(&policy.subject.to_string()),
            rules: compiled.rules,
        };
        put(
            &mut self.inet.chains,
            names::policy_chain(key, direction),
            chain,
        );
        let entry = self.policies.entry((key.clone(), direction)).or_default();
        let before = std::mem::replace(&mut entry.sets, compiled.sets);
        for spec in &before {
            self.disuse_set(spec);
        }
    }

    fn use_set(&mut self, index: &Index, node: &Text, spec: &SetSpec) {
        let name = names::set(spec);
        if let Some(used) = self.sets.get_mut(&name) {
            used.users += 1;
            return;
        }
        self.inet
            .sets
            .insert(name.clone(), Arc::new(spec.build(index, node)));
        if let Some(selector) = spec.selector() {
            self.by_selector
                .entry(selector.clone())
                .or_default()
                .insert(name.clone());
        }
        let used = UsedSet {
            spec: spec.clone(),
            users: 1,
        };
        self.sets.insert(name, used);
    }

    fn disuse_set(&mut self, spec: &SetSpec) {
        let name = names::set(spec);
        let Some(used) = self.sets.get_mut(&name) else {
            return;
        };
        used.users -= 1;
        if used.users > 0 {
            return;
        }
        self.sets.remove(&name);
        self.inet.sets.remove(&name);
        if let Some(selector) = spec.selector()
            && let Some(names) = self.by_selector.get_mut(selector)
        {
            names.remove(&name);
            if names.is_empty() {
                self.by_selector.remove(selector);
            }
        }
    }

    pub(super) fn refresh_sets(
        &mut self,
        index: &Index,
        node: &Text,
        selector: &Arc<PodSelector>,
        touched: &Touched,
    ) {
        for name in self.by_selector.get(selector).into_iter().flatten() {
            let (Some(used), Some(set)) = (self.sets.get(name), self.inet.sets.get(name)) else {
                continue;
            };
            let set = match touched {
                Touched::All => used.spec.build(index, node),
                Touched::Addresses(addresses) => {
                    let mut set = Set::clone(set);
                    used.spec.refresh(&mut set, index, node, addresses);
                    set
                }
            };
            put(&mut self.inet.sets, name.clone(), set);
        }
    }
}
