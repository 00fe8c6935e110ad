//! What a new rule looks up is there before the rule, packet by packet.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Dataplane, Datatype, Field, Hook, Kernel, Rule, Ruleset,
    Statement, Table, Transaction, Value, Verdict, diff,
};

use crate::lab::*;

/// How often the rule and its set are replaced by others that say the same.
const CHANGES: u32 = 1500;
const PORT: u16 = 9;

/// Lets datagrams to 127.0.0.1 out by an interval set that is called after `n`, and no others.
fn allowing(n: u32) -> Ruleset {
    let blocks = name(&format!("blocks-{n}"));
    let others = (0..64).map(|m| {
        let first = Ipv4Addr::new(10, m, 0, 0);
        (first.into(), Ipv4Addr::new(10, m, 1, 0).into())
    });
    let here = (k4("127.0.0.0"), k4("127.0.0.9"));
    let elements = ranges(others.chain([here]));
    let port = || Statement::eq(Field::UdpDport, Value::Service(PORT));
    let looked_up = Statement::lookup([Field::IpDaddr], blocks.clone());
    let out = Chain {
        base: Some(BaseChain {
            hook: Hook::Output,
            priority: 0,
            policy: ChainPolicy::Accept,
        }),
        comment: None,
        rules: vec![
            Rule::new([port(), looked_up, Verdict::Accept.into()]),
            Rule::new([port(), Statement::Counter, Verdict::Drop.into()]),
        ],
    };
    let table = Table {
        sets: [(blocks, set(&[Datatype::Ipv4Addr], elements))]
            .into_iter()
            .collect(),
        chains: [(name("out"), Arc::new(out))].into_iter().collect(),
        ..Table::default()
    };
    ruleset([(inet(), table)])
}

/// Replaces rule and set again and again under a stream of datagrams that are always allowed; how many were sent, and how
/// many were dropped.
fn replace(commit: impl Fn(&mut Kernel, &Transaction) + Send + Sync) -> (u64, u64) {
    in_namespace(|| {
        let mut ip = Command::new("ip");
        let up = ip.args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let mut kernel = kernel_with(&allowing(0));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=CHANGES {
                    commit(&mut kernel, &diff(&allowing(n - 1), &allowing(n)));
                }
                done.store(true, Ordering::Relaxed);
            });
            let (mut sent, mut dropped) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                sent += 1;
                // A datagram that hook output drops is an error of its sending at once.
                match socket.send_to(&[0], ("127.0.0.1", PORT)) {
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => dropped += 1,
                    _ => {}
                }
            }
            (sent, dropped)
        })
    })
}

#[test]
fn a_new_rule_never_finds_its_new_interval_set_empty() {
    let (sent, dropped) = replace(|kernel, transaction| {
        let (ahead, rest) = transaction.stages();
        assert!(!ahead.is_empty() && !rest.is_empty());
        kernel.commit(&ahead).unwrap();
        kernel.commit(&rest).unwrap();
    });
    println!("in stages: {dropped} of {sent} datagrams dropped by {CHANGES} changes");
    // What happens otherwise depends on the kernel: none are dropped where the rbtree is searched in place.
    let (sent_at_once, dropped_at_once) = replace(|kernel, transaction| {
        kernel.commit(transaction).unwrap();
    });
    println!("at once: {dropped_at_once} of {sent_at_once} datagrams dropped by {CHANGES} changes");
    assert!(sent > u64::from(CHANGES));
    assert_eq!(dropped, 0);
}
