//! A node of a large cluster: 250 local pods with ten policies each, whose peers are 100 sets of 10,000 addresses. All
//! of it is one batch, and what comes after sends no more than what it changes.
//!
//! The pods are objects only; the kernel that takes their rules is real.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use selvedge::cluster::Text;
use selvedge::cluster::object::{Event, ObjectKey};
use selvedge::compile::{Compiler, tables};
use selvedge::index::Index;
use selvedge::synthetic::wide::Wide;
use selvedge_lab::{Error, Lab, stage};
use selvedge_nft::{
    Committed, Dataplane, DataplaneError, Elements, Kernel, Name, Op, Ruleset, Transaction, diff,
};

/// The node.
const WIDE: Wide = Wide::MILLION;
const LOCAL_PODS: u32 = WIDE.local_pods;
const REMOTE_PODS: u32 = WIDE.remote_pods;
const ELEMENTS: usize = 1_000_000;

fn text(text: impl AsRef<str>) -> Text {
    Text::from(text.as_ref())
}

/// The compiler, and the kernel that follows it.
struct Held {
    index: Index,
    compiler: Compiler,
    kernel: Kernel,
    ruleset: Ruleset,
}

impl Held {
    /// Applies events, and commits what follows from them in one transaction.
    fn apply(
        &mut self,
        what: &str,
        events: Vec<Event>,
    ) -> Result<(Transaction, Committed), DataplaneError> {
        let started = Instant::now();
        for event in events {
            self.index.apply(event);
        }
        let indexed = started.elapsed();
        let ruleset = self.compiler.update(&mut self.index);
        let compiled = started.elapsed() - indexed;
        let transaction = diff(&self.ruleset, &ruleset);
        let compared = started.elapsed() - indexed - compiled;
        let before = self.kernel.generation()?;
        let sending = Instant::now();
        let committed = self.kernel.commit(&transaction)?;
        println!(
            "{what}: index {indexed:?}, compile {compiled:?}, diff {compared:?}, commit {:?}; {} operations, {} messages, {} bytes",
            sending.elapsed(),
            transaction.len(),
            committed.messages,
            committed.bytes,
        );
        assert_eq!(
            self.kernel.generation()?,
            before + 1,
            "{what}: one transaction"
        );
        self.ruleset = ruleset;
        Ok((transaction, committed))
    }
}

/// The objects that a transaction names, by kind and name.
fn touched(transaction: &Transaction) -> BTreeSet<(&'static str, String)> {
    let ops = transaction.ops.iter();
    ops.map(|op| match op {
        Op::AddTable { table, .. } | Op::AdoptTable { table } | Op::DeleteTable { table } => {
            ("table", table.to_string())
        }
        Op::AddCounter { name, .. } | Op::DeleteCounter { name, .. } => {
            ("counter", name.to_string())
        }
        Op::AddSet { name, .. } => ("new set", name.to_string()),
        Op::DeleteSet { name, .. } => ("old set", name.to_string()),
        Op::AddElements { name, .. } => ("new element", name.to_string()),
        Op::DeleteElements { name, .. } => ("old element", name.to_string()),
        Op::AddChain { name, .. } => ("new chain", name.to_string()),
        Op::DeleteChain { name, .. } => ("old chain", name.to_string()),
        Op::FlushChain { name, .. } => ("flushed chain", name.to_string()),
        Op::AddRule { chain, .. } => ("rules of", chain.to_string()),
    })
    .collect()
}

fn elements(transaction: &Transaction) -> usize {
    let ops = transaction.ops.iter();
    ops.map(|op| match op {
        Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. } => elements.len(),
        _ => 0,
    })
    .sum()
}

fn names(kinds: &[(&'static str, String)]) -> BTreeSet<(&'static str, String)> {
    kinds.iter().cloned().collect()
}

fn pod_sets(ruleset: &Ruleset) -> Vec<(&Name, usize)> {
    let sets = ruleset.tables.values().flat_map(|table| table.sets.iter());
    let sets = sets.filter(|(name, _)| name.as_str().starts_with("pods-"));
    sets.map(|(name, set)| (name, set.elements.len())).collect()
}

#[test]
fn a_million_elements_are_one_batch_and_a_pod_is_only_its_own_objects() -> Result<(), Error> {
    let lab = Lab::builder().node("node-1").build()?;
    let node = lab.node("node-1")?;
    let host = stage::host_of(&lab, &node)?;
    let outcome = node.netns().run(|| -> Result<(), DataplaneError> {
        let started = Instant::now();
        let index = WIDE.index();
        println!("objects: {:?}", started.elapsed());
        let mut held = Held {
            index,
            compiler: Compiler::new(text("node-1"), host),
            kernel: Kernel::open()?,
            ruleset: Ruleset::default(),
        };
        let (transaction, _) = held.apply("everything", Vec::new())?;
        let sets = pod_sets(&held.ruleset);
        assert_eq!(sets.len(), 100);
        assert_eq!(sets.iter().map(|(_, len)| len).sum::<usize>(), ELEMENTS);
        assert!(elements(&transaction) >= ELEMENTS);
        let inet = held.ruleset.tables.values().next();
        let chains = inet.map_or(0, |table| table.chains.len());
        assert!(chains >= (LOCAL_PODS * (WIDE.policies_a_pod + 1)) as usize);

        // A remote pod of one set.
        let (transaction, committed) = held.apply(
            "a pod of one set",
            vec![WIDE.remote(REMOTE_PODS, "canary-7")],
        )?;
        let Some(Op::AddElements {
            name,
            elements: added,
            ..
        }) = transaction.ops.first()
        else {
            panic!("{transaction:?}");
        };
        assert!(name.as_str().starts_with("pods-"), "{name}");
        let Elements::Keys(keys) = added else {
            panic!("{added:?}");
        };
        let address = Ipv4Addr::from(0x6440_0000 + REMOTE_PODS);
        assert_eq!(keys.iter().copied().collect::<Vec<_>>(), [address.into()]);
        assert_eq!((transaction.len(), committed.messages), (1, 1));

        // It becomes a pod of ten others: an element a set.
        let (transaction, committed) = held.apply(
            "a relabelled remote pod",
            vec![WIDE.remote(REMOTE_PODS, "app-3")],
        )?;
        let kinds: Vec<&str> = touched(&transaction)
            .iter()
            .map(|(kind, _)| *kind)
            .collect();
        assert_eq!(
            kinds.iter().filter(|kind| **kind == "new element").count(),
            10
        );
        assert_eq!(
            kinds.iter().filter(|kind| **kind == "old element").count(),
            1
        );
        assert_eq!(
            (
                transaction.len(),
                elements(&transaction),
                committed.messages
            ),
            (11, 11, 11)
        );

        // And goes.
        let key = ObjectKey::Pod(text("fleet"), text(format!("remote-{REMOTE_PODS}")));
        let gone = Event::Delete { key, uid: None };
        let (transaction, committed) = held.apply("a remote pod's end", vec![gone])?;
        assert_eq!(
            (
                transaction.len(),
                elements(&transaction),
                committed.messages
            ),
            (10, 10, 10)
        );

        // A local pod comes: its chain and its entries.
        let (transaction, committed) =
            held.apply("a local pod", vec![WIDE.local(LOCAL_PODS, 17)])?;
        let chain = format!("ingress/shop/local-{LOCAL_PODS}");
        let own = [
            ("new chain", chain.clone()),
            ("rules of", chain.clone()),
            ("new element", "ingress4".to_owned()),
            ("new element", "isolated4".to_owned()),
        ];
        assert_eq!(touched(&transaction), names(&own));
        // Its chain, the way to itself, ten policies, the last word, two elements.
        assert_eq!(committed.messages, 1 + 1 + 10 + 1 + 2);

        // Other policies select it: its chain is written anew, and nothing else.
        let (transaction, committed) =
            held.apply("a relabelled local pod", vec![WIDE.local(LOCAL_PODS, 18)])?;
        let own = [
            ("flushed chain", chain.clone()),
            ("rules of", chain.clone()),
        ];
        assert_eq!(touched(&transaction), names(&own));
        assert_eq!(committed.messages, 1 + 1 + 10 + 1);

        // None does any more.
        let (transaction, committed) = held.apply(
            "a local pod no longer isolated",
            vec![WIDE.local(LOCAL_PODS, 9999)],
        )?;
        let own = [
            ("old element", "ingress4".to_owned()),
            ("old element", "isolated4".to_owned()),
            ("old chain", chain),
        ];
        assert!(
            touched(&transaction).is_superset(&names(&own)),
            "{transaction:?}"
        );
        assert!(committed.messages <= 4, "{transaction:?}");

        // The only pod of ten policies: their chains go with it.
        let (transaction, committed) =
            held.apply("the last pod of its policies", vec![WIDE.local(42, 43)])?;
        let all = touched(&transaction);
        let foreign: Vec<_> = all
            .iter()
            .filter(|(_, name)| {
                name != "ingress/shop/local-42" && !name.starts_with("policy/shop/allow-42-")
            })
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert!(committed.messages <= 1 + 1 + 10 + 1 + 20, "{all:?}");

        let started = Instant::now();
        let read = held.kernel.read(&tables())?;
        println!("read back: {:?}", started.elapsed());
        assert!(read == held.ruleset, "the kernel holds another ruleset");
        Ok(())
    })?;
    outcome.map_err(|error| Error::Invalid {
        what: error.to_string(),
    })
}
