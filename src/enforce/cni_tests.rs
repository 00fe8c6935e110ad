use std::time::{Duration, Instant};

use selvedge_nft::{Fake, Fault, errno};
use tokio::sync::watch;

use super::*;
use crate::cluster::Text;
use crate::cluster::object::{Event, Object, Pod};
use crate::cluster::selector::{LabelSelector, PodSelector, Scope};
use crate::cni::PodId;
use crate::enforce::{Outcome, host};
use crate::policy::{Dialect, Policy, PolicyKey, Tier};

struct Daemon {
    cni: Cni,
    reconciler: Reconciler<Fake>,
    fake: Fake,
    directory: tempfile::TempDir,
    now: Instant,
}

fn daemon() -> Daemon {
    let (fake, observer) = (Fake::new(), Observer::new());
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = Store::open(directory.path().join("attachments")).unwrap();
    let host = host::unknown(None).unwrap();
    let reconciler = Reconciler::new(fake.clone(), Text::from("node-a"), host);
    Daemon {
        cni: Cni::new(store, observer.clone()),
        reconciler: reconciler.observed_by(observer),
        fake,
        directory,
        now: Instant::now(),
    }
}

fn attachment(name: &str) -> Attachment {
    Attachment {
        id: Id {
            network: "cbr0".to_owned(),
            container: name.to_owned(),
            ifname: "eth0".to_owned(),
        },
        pod: PodId {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: "u".to_owned(),
        },
        interfaces: vec!["cni0".to_owned(), "veth1".to_owned()],
        addresses: vec![[10, 244, 1, 7].into()],
    }
}

fn add(name: &str) -> Command {
    Command::Add {
        attachment: attachment(name),
        patience: 1000,
    }
}

fn pod(name: &str, uid: &str) -> Change {
    Change::Cluster(Event::Apply(Object::Pod(Pod {
        namespace: Text::from("shop"),
        name: Text::from(name),
        uid: uid.into(),
        created: 0,
        node: Some(Text::from("node-a")),
        host_network: false,
        finished: false,
        labels: Default::default(),
        addresses: Default::default(),
        ports: Arc::new([]),
    })))
}

/// Everyone in shop is closed, so that each address is news to the kernel.
fn closed() -> Change {
    let namespace = Text::from("shop");
    let policy = Policy {
        key: PolicyKey {
            dialect: Dialect::NetworkPolicy,
            namespace: namespace.clone(),
            name: Text::from("closed"),
        },
        tier: Tier::NetworkPolicy,
        subject: PodSelector {
            scope: Scope::Namespace(namespace),
            pods: LabelSelector::default(),
        },
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        problems: Vec::new(),
    };
    Change::Cluster(Event::Apply(Object::Policy(Arc::new(policy))))
}

impl Daemon {
    fn ask(&mut self, command: Command) -> watch::Receiver<Progress> {
        let (progress, told) = watch::channel(Progress::Heard);
        let change = self.cni.take(Ask { command, progress }, &self.reconciler);
        self.step(change);
        told
    }

    fn step(&mut self, changes: impl IntoIterator<Item = Change>) {
        let outcome = self.reconciler.step(changes, self.now);
        let in_force = !matches!(outcome, Outcome::Retry(_));
        self.cni.tell(&mut self.reconciler, in_force);
    }

    fn kept(&self) -> usize {
        let directory = self.directory.path().join("attachments");
        std::fs::read_dir(directory).unwrap().count()
    }
}

fn refused(told: &watch::Receiver<Progress>, part: &str) {
    match &*told.borrow() {
        Progress::Done(Err(refusal)) => assert!(refusal.message.contains(part), "{refusal}"),
        other => panic!("{other:?}"),
    }
}

fn waits(told: &watch::Receiver<Progress>, part: &str) {
    match &*told.borrow() {
        Progress::Waiting(text) => assert!(text.contains(part), "{text}"),
        other => panic!("{other:?}"),
    }
}

fn done(told: &watch::Receiver<Progress>) {
    assert_eq!(*told.borrow(), Progress::Done(Ok(())));
}

#[test]
fn an_add_waits_for_its_pod_and_for_the_kernel() {
    let mut daemon = daemon();
    daemon.step([closed()]);
    let told = daemon.ask(add("web"));
    waits(
        &told,
        "the API has not shown pod shop/web with UID u on this node yet",
    );
    // It is kept from the start: a daemon that is started now withholds its address.
    assert_eq!(daemon.kept(), 1);
    daemon.step([pod("web", "another")]);
    waits(&told, "has not shown");
    daemon
        .fake
        .fail_commits(1, Fault::Unreachable(errno::EBUSY));
    daemon.step([pod("web", "u")]);
    waits(&told, "the kernel has not acknowledged");
    daemon.now += Duration::from_secs(60);
    daemon.step([]);
    done(&told);
    // Once more, as a runtime may ask again.
    let again = daemon.ask(add("web"));
    done(&again);
    let check = daemon.ask(Command::Check {
        attachment: attachment("web"),
    });
    done(&check);
}

/// Its namespace may have a policy that nobody has told of.
#[test]
fn a_pod_that_comes_while_policies_go_unheard_waits_for_them() {
    let mut daemon = daemon();
    daemon.step([closed(), pod("old", "u")]);
    let forbidden = Some("forbidden".to_owned());
    daemon.cni.hears(forbidden.clone(), &daemon.reconciler);
    daemon.step([pod("web", "u"), pod("old", "u")]);
    daemon.cni.hears(forbidden, &daemon.reconciler);
    // A sandbox that is made anew is no new pod.
    done(&daemon.ask(add("old")));
    let new = daemon.ask(add("web"));
    waits(
        &new,
        "the pod's policies can't be known at present: forbidden",
    );
    daemon.cni.hears(None, &daemon.reconciler);
    daemon.step([]);
    done(&new);
}

#[test]
fn a_del_is_done_when_its_address_is_withheld() {
    let mut daemon = daemon();
    daemon.step([closed(), pod("web", "u")]);
    done(&daemon.ask(add("web")));
    daemon
        .fake
        .fail_commits(1, Fault::Unreachable(errno::EBUSY));
    let id = attachment("web").id;
    let told = daemon.ask(Command::Del { id: id.clone() });
    waits(&told, "the kernel has not acknowledged");
    daemon.now += Duration::from_secs(60);
    daemon.step([]);
    done(&told);
    assert_eq!(daemon.kept(), 1);
    done(&daemon.ask(Command::Del { id }));
    let check = daemon.ask(Command::Check {
        attachment: attachment("web"),
    });
    refused(&check, "has ended");
    let check = daemon.ask(Command::Check {
        attachment: attachment("db"),
    });
    refused(&check, "does not know");
    let gc = Command::Gc {
        network: "cbr0".to_owned(),
        valid: Vec::new(),
    };
    done(&daemon.ask(gc));
}

#[test]
fn a_check_bears_interfaces_that_later_plugins_made() {
    let mut daemon = daemon();
    daemon.step([pod("web", "u")]);
    done(&daemon.ask(add("web")));
    let mut by_the_result = attachment("web");
    by_the_result.interfaces.push("bwp1234".to_owned());
    let check = |attachment: Attachment| Command::Check { attachment };
    done(&daemon.ask(check(by_the_result.clone())));
    by_the_result.interfaces.remove(1);
    refused(&daemon.ask(check(by_the_result)), "another attachment");
    let mut moved = attachment("web");
    moved.addresses = vec![[10, 244, 1, 8].into()];
    refused(&daemon.ask(check(moved)), "another attachment");
}

#[test]
fn an_add_that_is_deleted_meanwhile_waits_no_more() {
    let mut daemon = daemon();
    let told = daemon.ask(add("web"));
    let id = attachment("web").id;
    done(&daemon.ask(Command::Del { id }));
    refused(&told, "detached meanwhile");
    // Whether there is such a pod turns out once all are known.
    assert_eq!(daemon.kept(), 1);
    let settled = daemon.cni.settle(None);
    daemon.step(settled);
    assert_eq!(daemon.kept(), 0);
}

#[test]
fn what_can_t_be_kept_is_not_acknowledged() {
    let mut daemon = daemon();
    daemon.step([pod("web", "u")]);
    let directory = daemon.directory.path().join("attachments");
    std::fs::remove_dir(&directory).unwrap();
    let told = daemon.ask(add("web"));
    refused(&told, "it can't be kept for the next daemon");
    // It is tried again with the next one, be it about the same container.
    std::fs::create_dir(&directory).unwrap();
    done(&daemon.ask(add("web")));
    assert_eq!(daemon.kept(), 1);
}

#[test]
fn status_says_what_ready_says() {
    let mut daemon = daemon();
    let told = daemon.ask(Command::Status);
    refused(&told, "commit: the first commit has not been made");
}

#[test]
fn nobody_waits_for_ever() {
    let mut daemon = daemon();
    drop(daemon.ask(add("web")));
    daemon.step([]);
    assert!(daemon.cni.waiting.is_empty());
}
