//! Who uses which policy chain, and which set: what nobody uses is not in the ruleset.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_nft::{Chain, Name, Set};

use super::sets::SetSpec;
use super::state::{State, put};
use super::{names, policy};
use crate::cluster::Text;
use crate::cluster::selector::PodSelector;
use crate::index::{Index, PodKey, Touched};
use crate::limits;
use crate::policy::{Direction, PolicyKey};
use crate::work::{Visited, visit};

/// A policy chain in the ruleset: the pods that jump to it, and the sets its rules name.
#[derive(Debug, Default)]
pub(super) struct PolicyChain {
    pub users: BTreeSet<PodKey>,
    pub sets: BTreeSet<SetSpec>,
}

/// A policy's chain in one direction.
pub(super) type ChainKey = (PolicyKey, Direction);

/// A set in the ruleset: what it stands for, and the policy chains that name it.
#[derive(Debug)]
pub(super) struct UsedSet {
    pub spec: SetSpec,
    pub users: BTreeSet<ChainKey>,
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
                self.disuse_set(spec, &(key.clone(), direction));
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
        visit(Visited::Policies, 1);
        let compiled = policy::compile(policy, direction, &self.families);
        let chain_key = (key.clone(), direction);
        for spec in &compiled.sets {
            self.use_set(index, node, spec, &chain_key);
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
        let entry = self.policies.entry(chain_key.clone()).or_default();
        let before = std::mem::take(&mut entry.sets);
        for spec in before.difference(&compiled.sets) {
            self.disuse_set(spec, &chain_key);
        }
        if let Some(entry) = self.policies.get_mut(&chain_key) {
            entry.sets = compiled.sets;
        }
    }

    fn use_set(&mut self, index: &Index, node: &Text, spec: &SetSpec, user: &ChainKey) {
        visit(Visited::Sets, 1);
        let name = names::set(spec);
        if let Some(used) = self.sets.get_mut(&name) {
            let new = used.users.insert(user.clone());
            self.unmet.changed |= new && self.unmet.sets.contains(&name);
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
            users: [user.clone()].into(),
        };
        self.sets.insert(name.clone(), used);
        self.note_unmet(&name);
    }

    fn disuse_set(&mut self, spec: &SetSpec, user: &ChainKey) {
        visit(Visited::Sets, 1);
        let name = names::set(spec);
        let Some(used) = self.sets.get_mut(&name) else {
            return;
        };
        used.users.remove(user);
        self.unmet.changed |= self.unmet.sets.contains(&name);
        if !used.users.is_empty() {
            return;
        }
        self.sets.remove(&name);
        self.inet.sets.remove(&name);
        self.unmet.sets.remove(&name);
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
        let Some(names) = self.by_selector.get(selector).cloned() else {
            return;
        };
        for name in &names {
            visit(Visited::Sets, 1);
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
            self.note_unmet(name);
        }
    }

    /// Takes note of whether a set stands for a named port that no pod has.
    fn note_unmet(&mut self, name: &Name) {
        let named = |used: &UsedSet| matches!(used.spec, SetSpec::NamedPort { .. });
        let empty = |set: &Arc<Set>| set.elements.is_empty();
        let unmet =
            self.sets.get(name).is_some_and(named) && self.inet.sets.get(name).is_some_and(empty);
        self.unmet.changed |= match unmet {
            true => self.unmet.sets.insert(name.clone()),
            false => self.unmet.sets.remove(name),
        };
    }

    /// Who uses the set of the same named port in the other family, where pods have it there.
    fn met_in_the_other_family(&self, spec: &SetSpec) -> Option<&BTreeSet<ChainKey>> {
        let name = names::set(&spec.in_the_other_family()?);
        let met = !self.unmet.sets.contains(&name);
        self.sets.get(&name).filter(|_| met).map(|used| &used.users)
    }

    /// See [`super::Compiler::owners`].
    pub fn owners(&self, name: &Name) -> BTreeSet<PolicyKey> {
        let chains = self.policies.keys();
        let chains =
            chains.filter(|(key, direction)| names::policy_chain(key, *direction) == *name);
        let sets = self.sets.get(name).into_iter().flat_map(|set| &set.users);
        chains.chain(sets).map(|(key, _)| key.clone()).collect()
    }

    /// See [`super::Compiler::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        let used = self
            .unmet
            .sets
            .iter()
            .filter_map(|name| self.sets.get(name));
        let mut told: BTreeMap<&PolicyKey, usize> = BTreeMap::new();
        let mut lines = BTreeSet::new();
        for used in used {
            visit(Visited::Warnings, used.users.len());
            let of_other_family = self.met_in_the_other_family(&used.spec);
            for user in &used.users {
                if of_other_family.is_some_and(|users| users.contains(user)) {
                    continue;
                }
                let (key, direction) = user;
                let of_policy = told.entry(key).or_default();
                *of_policy += 1;
                if *of_policy <= limits::PROBLEMS {
                    let line = format!(
                        "{key}: no pod has {}: its {direction} rule matches nothing",
                        used.spec
                    );
                    lines.insert(limits::cut(&line));
                }
            }
        }
        let more = told.into_iter().filter_map(|(key, count)| {
            let more = count
                .checked_sub(limits::PROBLEMS)
                .filter(|more| *more > 0)?;
            Some(format!(
                "{key}: {more} more of its named ports match nothing"
            ))
        });
        lines.extend(more);
        lines.into_iter().collect()
    }
}

/// The sets of named ports that no pod has, and whether they or their users are others than when it was last asked.
#[derive(Debug, Default)]
pub(super) struct Unmet {
    pub sets: BTreeSet<Name>,
    pub changed: bool,
}
