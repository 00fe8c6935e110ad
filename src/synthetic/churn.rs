//! What happens in a cluster: rollouts, jobs, scaling, relabelled pods and namespaces, edited policies.

use super::{Cluster, PodState};
use crate::cluster::object::{Addresses, Event, Object, ObjectKey, Pod};
use std::sync::Arc;

impl Cluster {
    /// The next thing that happens, as a watch reports it. The cluster is what its events have made of it:
    /// [`Cluster::objects`] gives the objects that are left once [`Cluster::settle`] has given the last events.
    pub fn next_event(&mut self) -> Event {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            self.happen();
        }
    }

    /// The events of what has begun and is not over.
    pub fn settle(&mut self) -> Vec<Event> {
        self.queue.drain(..).collect()
    }

    fn happen(&mut self) {
        let deployment = self.rng.usize(..self.deployments.len());
        match self.rng.u8(..100) {
            0..45 => self.replace_pod(deployment),
            45..55 => self.relabel_pod(deployment),
            55..65 => self.scale(deployment),
            65..73 => self.deployments[deployment].revision += 1,
            73..80 => self.run_job(deployment),
            80..88 => self.relabel_namespace(),
            88..98 => self.edit_policy(),
            _ => self.repeat(deployment),
        }
    }

    /// A rollout's step: a new pod comes to run before an old one goes.
    fn replace_pod(&mut self, deployment: usize) {
        let pods = self.deployments[deployment].pods.len();
        if pods == 0 {
            return;
        }
        let at = self.rng.usize(..pods);
        let old = self.deployments[deployment].pods[at];
        let node = (old.node == 0).then_some(0);
        if let Some(new) = self.add_pod(deployment, node) {
            self.announce(deployment, &new);
            self.remove_pod(deployment, at);
        }
    }

    fn scale(&mut self, deployment: usize) {
        if self.pods <= self.wanted {
            if let Some(new) = self.add_pod(deployment, None) {
                self.announce(deployment, &new);
            }
            return;
        }
        // The local node keeps its pods.
        let pods = &self.deployments[deployment].pods;
        if let Some(at) = pods.iter().rposition(|pod| pod.node != 0) {
            self.remove_pod(deployment, at);
        }
    }

    /// A pod that runs, finishes and is deleted.
    fn run_job(&mut self, deployment: usize) {
        let Some(new) = self.add_pod(deployment, None) else {
            return;
        };
        self.announce(deployment, &new);
        let finished = Pod {
            finished: true,
            ..self.pod(&self.deployments[deployment], &new)
        };
        self.apply(finished);
        let at = self.deployments[deployment].pods.len() - 1;
        self.remove_pod(deployment, at);
    }

    fn relabel_pod(&mut self, deployment: usize) {
        let pods = self.deployments[deployment].pods.len();
        if pods > 0 {
            let at = self.rng.usize(..pods);
            let pod = &mut self.deployments[deployment].pods[at];
            pod.canary = !pod.canary;
            self.repeat_pod(deployment, at);
        }
    }

    /// What a new list or a changed status brings: the same object once more.
    fn repeat(&mut self, deployment: usize) {
        if !self.deployments[deployment].pods.is_empty() {
            self.repeat_pod(deployment, 0);
        }
    }

    fn repeat_pod(&mut self, deployment: usize, at: usize) {
        let deployment = &self.deployments[deployment];
        self.apply(self.pod(deployment, &deployment.pods[at]));
    }

    fn relabel_namespace(&mut self) {
        let n = self.rng.usize(..self.namespaces.len());
        let state = &mut self.namespaces[n];
        match self.rng.bool() {
            true => state.env = (state.env + 1) % super::names::ENVS.len() as u8,
            false => state.budget = state.budget.wrapping_add(1),
        }
        let namespace = self.namespace(n);
        self.queue
            .push_back(Event::Apply(Object::Namespace(namespace)));
    }

    fn edit_policy(&mut self) {
        if self.policies.is_empty() {
            return;
        }
        let n = self.rng.usize(..self.policies.len());
        let delete = self.rng.u8(..10) < 2;
        let state = &mut self.policies[n];
        state.variant = state.variant.wrapping_add(1);
        state.exists = !(delete && state.exists);
        let state = state.clone();
        let policy = self.policy(&state);
        self.queue.push_back(match state.exists {
            true => Event::Apply(Object::Policy(Arc::new(policy))),
            false => Event::Delete {
                key: ObjectKey::Policy(policy.key),
                uid: None,
            },
        });
    }

    /// A pod is created, scheduled, and gets its address.
    fn announce(&mut self, deployment: usize, pod: &PodState) {
        let running = self.pod(&self.deployments[deployment], pod);
        let scheduled = Pod {
            addresses: Addresses::default(),
            ..running.clone()
        };
        let created = Pod {
            node: None,
            ..scheduled.clone()
        };
        self.apply(created);
        self.apply(scheduled);
        self.apply(running);
    }

    fn remove_pod(&mut self, deployment: usize, at: usize) {
        let old = self.deployments[deployment].pods.swap_remove(at);
        self.nodes[usize::from(old.node)].give_back(old.host);
        self.pods -= 1;
        let pod = self.pod(&self.deployments[deployment], &old);
        self.queue.push_back(Event::Delete {
            key: ObjectKey::Pod(pod.namespace, pod.name),
            uid: Some(pod.uid),
        });
    }

    fn apply(&mut self, pod: Pod) {
        self.queue.push_back(Event::Apply(Object::Pod(pod)));
    }
}
