//! Policies, good and spoilt, in clusters made of the fuzzer's bytes.

use std::net::IpAddr;
use std::sync::Arc;

use selvedge::cluster::Text;
use selvedge::cluster::object::{Event, Object, Pod};
use selvedge::cluster::port::Protocol;
use selvedge::compile::Compiler;
use selvedge::index::Index;
use selvedge::source::decode;
use selvedge::verdict::ports::PortSet;
use selvedge::verdict::reach::Reach;
use selvedge::verdict::{Connection, Transport, evaluate};
use selvedge_nft::Fake;
use serde_json::Value;

use super::cluster::{Choices, NODES, PORTS, nodes, object, pod, policy, spoil};

/// Objects that come and go, or one policy of which a part is spoilt: as the first byte says.
pub fn policies(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    match choice & 1 {
        0 => any_events(&mut Choices(rest)),
        _ => spoilt(&mut Choices(rest)),
    }
}

/// After any events in any batches the ruleset that was kept up to date is the one made afresh, and the kernel takes
/// what leads from one to the next; in another order the same objects come to the same.
fn any_events(choices: &mut Choices<'_>) {
    let mut index = with_nodes();
    let mut compiler = Compiler::new(Text::from(NODES[0]), super::host());
    let mut kernel = Fake::new();
    let mut live = Vec::new();
    for _ in 0..24 {
        if choices.is_over() {
            break;
        }
        for _ in 0..=choices.below(4) {
            let deleted = choices.below(4) == 3;
            let mut value = object(choices);
            if choices.below(8) == 7 {
                spoil(&mut value["spec"], choices);
            }
            let Some(object) = read(&value) else {
                continue;
            };
            let key = object.key();
            live.retain(|other: &Object| other.key() != key);
            match deleted {
                true => index.apply(Event::Delete { key, uid: None }),
                false => {
                    live.push(object.clone());
                    index.apply(Event::Apply(object));
                }
            }
        }
        let ruleset = compiler.update(&mut index);
        assert_eq!(ruleset, super::fresh(&index));
        super::commit(&mut kernel, &ruleset);
    }
    let mut backwards = with_nodes();
    for object in live.into_iter().rev() {
        backwards.apply(Event::Apply(object));
    }
    assert_eq!(super::fresh(&index), super::fresh(&backwards));
}

fn with_nodes() -> Index {
    let mut index = Index::new();
    for node in nodes() {
        index.apply(Event::Apply(read(&node).unwrap()));
    }
    index
}

fn read(value: &Value) -> Option<Object> {
    let mut items = decode::objects(value);
    assert_eq!(items.len(), 1);
    items.remove(0).result.ok().map(|decoded| decoded.object)
}

/// A policy with problems allows nothing that it would not allow whole, were it the cluster's only one.
fn spoilt(choices: &mut Choices<'_>) {
    let mut policy = policy(choices);
    let good = policy.clone();
    spoil(&mut policy["spec"], choices);
    let bad = policy;
    // One more label to carry makes it a policy for others, whatever stands for the label's value.
    if bad.pointer("/spec/podSelector/matchLabels/junk").is_some() {
        return;
    }
    let pods: Vec<Object> = (0..4).filter_map(|_| read(&pod(choices))).collect();
    let (good, problems) = with_policy(&pods, &good);
    assert_eq!(problems, 0);
    let (index, problems) = with_policy(&pods, &bad);
    if problems == 0 {
        return;
    }
    assert_closed(&good, &index, &bad);
    let mut kernel = Fake::new();
    super::commit(&mut kernel, &super::fresh(&good));
    super::commit(&mut kernel, &super::fresh(&index));
}

/// The cluster with this policy alone, and how many problems that has.
fn with_policy(pods: &[Object], policy: &Value) -> (Index, usize) {
    let mut index = with_nodes();
    for pod in pods {
        index.apply(Event::Apply(pod.clone()));
    }
    let Some(Object::Policy(policy)) = read(policy) else {
        panic!("{policy} is no policy");
    };
    let problems = policy.problems.len();
    index.apply(Event::Apply(Object::Policy(policy)));
    (index, problems)
}

fn assert_closed(good: &Index, bad: &Index, policy: &Value) {
    let (mut before, mut after) = (Reach::new(good), Reach::new(bad));
    let pods = || good.pods().filter(|pod| pod.selectable());
    for from in pods() {
        for to in pods() {
            let more = ports(&mut after, from, to).difference(&ports(&mut before, from, to));
            assert!(more.is_empty(), "{more:?} more by {policy:#}");
        }
    }
    let outside: [IpAddr; 2] = [
        [192, 168, 50, 200].into(),
        [0xfd50, 0, 0, 0, 0, 0, 0, 0x200].into(),
    ];
    for pod in pods() {
        for address in pod.addresses.iter() {
            for other in outside {
                for (from, to) in [(address, other), (other, address)] {
                    for port in PORTS {
                        let transport = Transport::new(Protocol::Tcp, port);
                        let Ok(connection) = Connection::new(from, to, transport) else {
                            continue;
                        };
                        let allowed = |index| evaluate(index, &connection).allowed();
                        assert!(
                            !allowed(bad) || allowed(good),
                            "{connection:?} is allowed by {policy:#}"
                        );
                    }
                }
            }
        }
    }
}

fn ports<'a>(reach: &mut Reach<'a>, from: &'a Pod, to: &'a Pod) -> Arc<PortSet> {
    let (from, to) = (reach.member(from), reach.member(to));
    reach.allowed(&from, &to)
}
