use std::sync::Arc;

use super::*;

const X: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 7));
const Y: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 8));

/// An index, and what is attached.
struct Node {
    index: Index,
    attached: Attached,
}

/// One that doesn't know everything yet.
fn starting() -> Node {
    Node {
        index: Index::new(),
        attached: Attached::new(Text::from("node-a")),
    }
}

fn node() -> Node {
    let mut node = starting();
    node.attach_change(Attaching::Settle(None));
    node
}

fn pod(name: &str, uid: &str, addresses: &[IpAddr]) -> Pod {
    Pod {
        namespace: Text::from("shop"),
        name: Text::from(name),
        uid: uid.into(),
        created: 0,
        node: Some(Text::from("node-a")),
        host_network: false,
        finished: false,
        labels: Default::default(),
        addresses: addresses.iter().copied().collect(),
        ports: Arc::new([]),
    }
}

fn attachment(container: &str, name: &str, uid: &str, addresses: &[IpAddr]) -> Attachment {
    Attachment {
        id: id(container),
        pod: PodId {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        },
        interfaces: vec!["cni0".to_owned(), format!("veth-{container}")],
        addresses: addresses.to_vec(),
    }
}

fn id(container: &str) -> Id {
    Id {
        network: "cbr0".to_owned(),
        container: container.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

impl Node {
    fn attach_change(&mut self, attaching: Attaching) {
        self.attached.apply(&mut self.index, attaching);
    }

    fn attach(&mut self, container: &str, name: &str, uid: &str, addresses: &[IpAddr]) {
        let attachment = attachment(container, name, uid, addresses);
        self.attach_change(Attaching::Attach(Box::new(attachment)));
    }

    /// It was attached when the daemon before ended.
    fn restore(&mut self, attachment: Attachment) {
        self.attach_change(Attaching::Restore(vec![Record {
            attachment,
            instead_of: Some(Vec::new()),
            detached: false,
        }]));
    }

    fn detach(&mut self, container: &str) {
        self.attach_change(Attaching::Detach(id(container)));
    }

    fn event(&mut self, event: Event) {
        self.attached.pass(&mut self.index, event, Index::apply);
    }

    fn api(&mut self, name: &str, uid: &str, addresses: &[IpAddr]) {
        self.event(Event::Apply(Object::Pod(pod(name, uid, addresses))));
    }

    fn delete(&mut self, name: &str) {
        let key = ObjectKey::Pod(Text::from("shop"), Text::from(name));
        self.event(Event::Delete { key, uid: None });
    }

    fn owner(&self, address: IpAddr) -> Option<&str> {
        self.index.owner(address).map(|pod| &*pod.name)
    }

    fn host(&self) -> Host {
        let host = Host::new(IfName::new("cni0").unwrap(), []);
        self.attached.host(&self.index, &host)
    }

    fn withheld(&self) -> Vec<IpAddr> {
        self.host().withheld.into_iter().collect()
    }

    fn in_index(&self, container: &str) -> bool {
        self.attached.is_in_index(&self.index, &id(container))
    }
}

#[test]
fn a_pod_has_its_address_as_soon_as_both_are_known() {
    for pod_first in [true, false] {
        let mut node = node();
        match pod_first {
            true => {
                node.api("web", "u", &[]);
                node.attach("a", "web", "u", &[X]);
            }
            false => {
                node.attach("a", "web", "u", &[X]);
                assert!(!node.in_index("a"));
                assert_eq!(node.withheld(), [X]);
                node.api("web", "u", &[]);
            }
        }
        assert!(node.in_index("a"));
        assert_eq!(node.owner(X), Some("web"));
        assert!(node.withheld().is_empty());
        let port = IfName::new("veth-a").unwrap();
        assert_eq!(node.host().attached[&port], BTreeSet::from([X]));
        // The API says the same, then something else: it knows better by now.
        node.api("web", "u", &[X]);
        assert_eq!(node.owner(X), Some("web"));
        node.api("web", "u", &[Y]);
        assert_eq!((node.owner(X), node.owner(Y)), (None, Some("web")));
    }
}

/// The API may tell late that a pod was scheduled: until then nothing is enforced for it, so it can't use its address.
#[test]
fn a_pod_that_is_on_no_node_yet_does_not_have_its_address() {
    let mut node = node();
    let unscheduled = Pod {
        node: None,
        ..pod("web", "u", &[])
    };
    node.event(Event::Apply(Object::Pod(unscheduled.clone())));
    node.attach("a", "web", "u", &[X]);
    node.event(Event::Apply(Object::Pod(unscheduled)));
    assert!(!node.in_index("a"));
    assert_eq!((node.owner(X), node.withheld()), (None, vec![X]));
    node.api("web", "u", &[]);
    assert!(node.in_index("a"));
    assert_eq!(node.owner(X), Some("web"));
    assert!(node.withheld().is_empty());
}

#[test]
fn a_pod_is_its_uid() {
    let mut node = node();
    node.api("db", "old", &[Y]);
    node.attach("a", "db", "new", &[X]);
    assert!(!node.in_index("a"));
    assert_eq!((node.owner(X), node.withheld()), (None, vec![X]));
    node.api("db", "new", &[]);
    assert!(node.in_index("a"));
    assert_eq!((node.owner(X), node.owner(Y)), (Some("db"), None));
    // Where nobody says a UID, the name does.
    node.api("web", "", &[]);
    node.attach("b", "web", "u", &[Y]);
    assert!(node.in_index("b"));
    node.api("job", "u", &[]);
    let z = IpAddr::from([10, 244, 1, 9]);
    node.attach("c", "job", "", &[z]);
    assert!(node.in_index("c"));
}

#[test]
fn a_new_sandbox_s_address_counts_before_the_api_has_heard_of_it() {
    let mut node = node();
    node.api("web", "u", &[]);
    node.attach("a", "web", "u", &[X]);
    node.api("web", "u", &[X]);
    // The sandbox died: kubelet makes another one.
    node.detach("a");
    assert_eq!((node.owner(X), node.withheld()), (None, vec![X]));
    node.attach("b", "web", "u", &[Y]);
    node.api("web", "u", &[X]);
    assert_eq!((node.owner(X), node.owner(Y)), (None, Some("web")));
    assert_eq!(node.withheld(), [X]);
    node.api("web", "u", &[Y]);
    assert_eq!(node.owner(Y), Some("web"));
    // The end of the first was not heard of.
    let mut node = self::node();
    node.api("web", "u", &[X]);
    node.attach("a", "web", "u", &[X]);
    node.attach("b", "web", "u", &[Y]);
    assert_eq!((node.owner(X), node.owner(Y)), (None, Some("web")));
    assert!(!node.in_index("a") && node.in_index("b"));
}

#[test]
fn an_address_is_withheld_until_another_has_it_or_nothing_is_left() {
    // Another attachment, whichever pod is the younger.
    let mut node = node();
    node.api("old", "1", &[]);
    node.attach("a", "old", "1", &[X]);
    node.api("old", "1", &[X]);
    node.detach("a");
    assert_eq!((node.owner(X), node.withheld()), (None, vec![X]));
    node.api("new", "0", &[]);
    node.attach("b", "new", "0", &[X]);
    assert_eq!(node.owner(X), Some("new"));
    assert!(node.withheld().is_empty());
    // What the API still says of the old one, even late, changes nothing.
    node.api("old", "1", &[X]);
    assert_eq!(node.owner(X), Some("new"));
    node.delete("old");
    assert_eq!(node.owner(X), Some("new"));
    assert_eq!(node.attached.records.len(), 1);

    // Another pod of the API.
    let mut node = self::node();
    node.api("old", "1", &[]);
    node.attach("a", "old", "1", &[X]);
    node.detach("a");
    assert_eq!(node.withheld(), [X]);
    node.api("new", "0", &[X]);
    assert_eq!(node.owner(X), Some("new"));
    assert!(node.withheld().is_empty());

    // Nobody.
    let mut node = self::node();
    node.api("old", "1", &[]);
    node.attach("a", "old", "1", &[X]);
    node.detach("a");
    node.delete("old");
    assert!(node.withheld().is_empty());
    assert_eq!(node.attached.records.len(), 0);
}

#[test]
fn a_pod_that_is_deleted_while_it_runs_does_not_become_free() {
    let mut node = node();
    node.api("web", "u", &[]);
    node.attach("a", "web", "u", &[X]);
    node.api("web", "u", &[X]);
    // kubectl delete --force: the object is gone, the containers are not yet.
    node.delete("web");
    assert_eq!((node.owner(X), node.withheld()), (None, vec![X]));
    node.detach("a");
    assert!(node.withheld().is_empty());
    // The same by a list that does not have it.
    node.api("web", "u", &[]);
    node.attach("b", "web", "u", &[X]);
    let keys = BTreeSet::new();
    let kind = ObjectKind::Pod;
    node.event(Event::Retain { kind, keys });
    assert_eq!((node.owner(X), node.withheld()), (None, vec![X]));
}

#[test]
fn a_finished_pod_has_no_address() {
    let mut node = node();
    node.api("job", "u", &[]);
    node.attach("a", "job", "u", &[X]);
    let finished = Pod {
        finished: true,
        ..pod("job", "u", &[X])
    };
    node.event(Event::Apply(Object::Pod(finished)));
    assert_eq!((node.owner(X), node.withheld()), (None, vec![X]));
    node.detach("a");
    node.api("next", "v", &[X]);
    assert_eq!(node.owner(X), Some("next"));
    assert!(node.withheld().is_empty());
}

#[test]
fn what_the_api_gives_another_pod_anew_is_not_the_lost_one_s() {
    let mut node = node();
    node.api("old", "1", &[]);
    node.attach("a", "old", "1", &[X]);
    // Its end was not heard of, and the next one's beginning neither.
    node.api("new", "2", &[]);
    node.api("new", "2", &[X]);
    assert_eq!(node.owner(X), Some("new"));
    assert!(node.withheld().is_empty());
    node.delete("old");
    assert_eq!(node.owner(X), Some("new"));
}

#[test]
fn retain_ends_what_it_does_not_name_of_its_network() {
    let mut node = node();
    node.api("web", "u", &[]);
    node.api("db", "v", &[]);
    node.attach("a", "web", "u", &[X]);
    node.attach("b", "db", "v", &[Y]);
    let valid = vec![Valid {
        container: "b".to_owned(),
        ifname: "eth0".to_owned(),
    }];
    node.attach_change(Attaching::Retain("other".to_owned(), Vec::new()));
    assert!(node.in_index("a"));
    node.attach_change(Attaching::Retain("cbr0".to_owned(), valid));
    assert!(!node.in_index("a") && node.in_index("b"));
    assert_eq!(node.withheld(), [X]);
}

#[test]
fn a_restarted_daemon_knows_what_it_knew() {
    let mut before = node();
    before.api("web", "u", &[X]);
    before.attach("a", "web", "u", &[Y]);
    before.api("old", "o", &[]);
    let z = IpAddr::from([10, 244, 1, 9]);
    before.attach("b", "old", "o", &[z]);
    before.detach("b");
    let saved = before.attached.take_unsaved();
    assert!(before.attached.take_unsaved().is_empty());
    let records: Vec<Record> = saved.into_iter().filter_map(|(_, record)| record).collect();
    for objects_first in [true, false] {
        let mut node = starting();
        let restore = Attaching::Restore(records.clone());
        if !objects_first {
            node.attach_change(restore.clone());
        }
        node.api("web", "u", &[X]);
        node.api("old", "o", &[z]);
        if objects_first {
            node.attach_change(restore);
        }
        let interfaces = ["cni0", "veth-a"].map(str::to_owned).into();
        node.attach_change(Attaching::Settle(Some(interfaces)));
        assert_eq!(node.owner(Y), Some("web"), "{objects_first}");
        assert_eq!((node.owner(X), node.owner(z)), (None, None));
        assert_eq!(node.withheld(), [z]);
        assert!(node.attached.take_unsaved().is_empty());
    }
    // While nobody listened, the pod went, and took its interface with it.
    let mut node = starting();
    node.attach_change(Attaching::Restore(records));
    // News of a new one's interface has not come yet.
    let w = IpAddr::from([10, 244, 1, 10]);
    node.attach("new", "new", "n", &[w]);
    assert_eq!(node.attached.take_unsaved().len(), 1);
    node.attach_change(Attaching::Settle(Some(["cni0".to_owned()].into())));
    assert_eq!(node.attached.records.len(), 1);
    assert_eq!(node.withheld(), [w]);
    let gone = node.attached.take_unsaved();
    assert!(gone.iter().all(|(_, record)| record.is_none()) && gone.len() == 2);
}

#[test]
fn what_the_first_list_says_is_older_than_an_add_that_was_heard_before() {
    // The sandbox before is known from the daemon before, or is not.
    for known in [false, true] {
        let mut node = starting();
        if known {
            node.restore(attachment("old", "web", "u", &[X]));
        }
        node.attach("new", "web", "u", &[Y]);
        assert!(!node.in_index("new"));
        node.api("web", "u", &[X]);
        node.attach_change(Attaching::Settle(None));
        assert!(node.in_index("new"), "{known}");
        assert_eq!((node.owner(X), node.owner(Y)), (None, Some("web")));
        // It is kept as it was first shown: the next daemon knows too.
        let saved = node.attached.take_unsaved();
        let kept = saved.iter().find(|(of, _)| *of == id("new"));
        let kept = kept.and_then(|(_, record)| record.clone()).unwrap();
        assert_eq!(kept.instead_of, Some(vec![X]));
        node.api("web", "u", &[Y]);
        assert_eq!(node.owner(Y), Some("web"));
    }
}

#[test]
fn what_the_api_says_of_an_ended_sandbox_takes_nothing_from_the_next() {
    let mut node = node();
    node.api("web", "u", &[]);
    node.attach("a", "web", "u", &[X]);
    node.detach("a");
    node.attach("b", "web", "u", &[Y]);
    // It comes late: neither has been shown before.
    node.api("web", "u", &[X]);
    assert_eq!((node.owner(X), node.owner(Y)), (None, Some("web")));
    node.api("web", "u", &[Y]);
    assert_eq!((node.owner(X), node.owner(Y)), (None, Some("web")));
}

#[test]
fn what_is_attached_and_in_nobody_s_name_is_withheld() {
    let mut node = node();
    node.api("web", "u", &[]);
    node.attach("a", "web", "u", &[X]);
    // The pod moved on unheard: its old address is nobody's until somebody has it.
    node.api("web", "u", &[Y]);
    assert_eq!(node.withheld(), [X]);
    assert!(!node.in_index("a"));
    node.api("next", "v", &[]);
    node.attach("b", "next", "v", &[X]);
    assert_eq!((node.owner(X), node.withheld()), (Some("next"), vec![]));
}

#[test]
fn another_network_s_address_is_no_policy_s_matter() {
    let mut node = node();
    node.api("web", "u", &[]);
    node.attach("a", "web", "u", &[X]);
    let other = Attachment {
        id: Id {
            ifname: "net1".to_owned(),
            ..id("a")
        },
        ..attachment("a", "web", "u", &[Y])
    };
    let other_id = other.id.clone();
    node.attach_change(Attaching::Attach(Box::new(other)));
    node.api("web", "u", &[X]);
    assert_eq!((node.owner(X), node.owner(Y)), (Some("web"), None));
    assert!(node.in_index("a") && node.attached.is_in_index(&node.index, &other_id));
    assert!(node.withheld().is_empty());
}

#[test]
fn an_address_whose_attachment_is_over_is_another_pod_s_at_once() {
    // The daemon was away: the first pod went, the second one got its address, and nothing was heard of either.
    for first_is_left in [false, true] {
        let mut node = starting();
        node.restore(attachment("a", "first", "1", &[X]));
        if first_is_left {
            let finished = Pod {
                finished: true,
                ..pod("first", "1", &[X])
            };
            node.event(Event::Apply(Object::Pod(finished)));
        }
        node.api("second", "2", &[X]);
        assert_eq!(node.owner(X), None);
        let interfaces = ["cni0".to_owned()].into();
        node.attach_change(Attaching::Settle(Some(interfaces)));
        assert_eq!(node.owner(X), Some("second"), "{first_is_left}");
        assert!(node.withheld().is_empty());
    }
}

#[test]
fn of_those_that_have_ended_the_last_ones_are_known() {
    let mut node = node();
    node.api("web", "u", &[]);
    let address = |n: usize| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
    let ended = |n: usize| Record {
        attachment: attachment(&n.to_string(), "web", "u", &[address(n)]),
        instead_of: Some(Vec::new()),
        detached: true,
    };
    node.attach_change(Attaching::Restore((0..MOST_IN_USE).map(ended).collect()));
    for n in MOST_IN_USE..MOST_IN_USE + 3 {
        assert_eq!(node.attached.in_use(), 0);
        node.attach(&n.to_string(), "web", "u", &[address(n)]);
        assert_eq!(node.attached.in_use(), 1);
        node.detach(&n.to_string());
    }
    assert_eq!(node.attached.records.len(), MOST_IN_USE);
    let withheld = node.withheld();
    assert_eq!(withheld.len(), MOST_IN_USE);
    assert_eq!(withheld.first(), Some(&address(3)));
    node.delete("web");
    assert!(node.attached.records.is_empty() && node.attached.ended.is_empty());
}

#[test]
fn the_port_is_the_one_on_the_bridge() {
    let ports = ["veth1", "veth2"].map(|name| IfName::new(name).unwrap());
    let host = Host::new(IfName::new("cni0").unwrap(), ports);
    for (interfaces, found) in [
        (&["cni0", "veth1"][..], Some("veth1")),
        (&["tap7", "veth2", "cni0"], Some("veth2")),
        // Its news has not come yet.
        (&["cni0", "veth3"], Some("veth3")),
        (&["veth3", "veth4"], None),
        (&["cni0"], None),
        (&["a name that is none"], None),
        (&[], None),
    ] {
        let attachment = Attachment {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            ..attachment("a", "web", "u", &[X])
        };
        let found = found.map(|name| IfName::new(name).unwrap());
        assert_eq!(port(&attachment, &host), found, "{interfaces:?}");
    }
}
