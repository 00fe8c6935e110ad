use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use selvedge_nft::{
    Chain, Committed, Family, Name, Op, Rule, Ruleset, Statement, Table, TableId, Transaction,
    Verdict,
};

use super::*;

/// A dataplane that fails as it is told, and counts.
#[derive(Default)]
struct State {
    ruleset: Ruleset,
    reads: usize,
    commits: Vec<Transaction>,
    /// What the next calls answer instead of doing their work.
    read_errors: Vec<DataplaneError>,
    commit_errors: Vec<DataplaneError>,
    /// Whether a commit that answers with an error is carried out all the same.
    carried_out: bool,
}

#[derive(Clone, Default)]
struct Double(Rc<RefCell<State>>);

impl Dataplane for Double {
    fn read(&mut self, tables: &[TableId]) -> Result<Ruleset, DataplaneError> {
        let mut state = self.0.borrow_mut();
        state.reads += 1;
        if let Some(error) = state.read_errors.pop() {
            return Err(error);
        }
        let asked = |(id, _): &(&TableId, &Arc<Table>)| tables.contains(id);
        let tables = state.ruleset.tables.iter().filter(asked);
        Ok(Ruleset {
            tables: tables.map(|(id, t)| (id.clone(), t.clone())).collect(),
        })
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Committed, DataplaneError> {
        let mut state = self.0.borrow_mut();
        assert!(!transaction.is_empty(), "nothing was sent");
        state.commits.push(transaction.clone());
        let error = state.commit_errors.pop();
        if error.is_none() || state.carried_out {
            apply(&mut state.ruleset, transaction);
        }
        match error {
            Some(error) => Err(error),
            None => Ok(Committed::default()),
        }
    }
}

/// Carries out what concerns tables, chains and rules; these tests have nothing else.
fn apply(ruleset: &mut Ruleset, transaction: &Transaction) {
    for op in &transaction.ops {
        match op {
            Op::AddTable { table, comment } => {
                let new = Table {
                    comment: comment.clone(),
                    ..Table::default()
                };
                ruleset.tables.insert(table.clone(), Arc::new(new));
            }
            Op::DeleteTable { table } => {
                ruleset.tables.remove(table).unwrap();
            }
            Op::AddChain {
                table,
                name,
                base,
                comment,
            } => {
                let new = Chain {
                    base: *base,
                    comment: comment.clone(),
                    rules: Vec::new(),
                };
                let table = Arc::make_mut(ruleset.tables.get_mut(table).unwrap());
                table.chains.insert(name.clone(), Arc::new(new));
            }
            Op::DeleteChain { table, name } => {
                let table = Arc::make_mut(ruleset.tables.get_mut(table).unwrap());
                table.chains.remove(name).unwrap();
            }
            Op::FlushChain { table, name } => {
                let table = Arc::make_mut(ruleset.tables.get_mut(table).unwrap());
                Arc::make_mut(table.chains.get_mut(name).unwrap())
                    .rules
                    .clear();
            }
            Op::AddRule { table, chain, rule } => {
                let table = Arc::make_mut(ruleset.tables.get_mut(table).unwrap());
                let chain = Arc::make_mut(table.chains.get_mut(chain).unwrap());
                chain.rules.push(rule.clone());
            }
            other => panic!("{other:?} is not expected here"),
        }
    }
}

fn table() -> TableId {
    TableId {
        family: Family::Inet,
        name: Name::new("selvedge").unwrap(),
    }
}

/// A ruleset with chains of these names, each with one rule.
fn ruleset(chains: &[&str]) -> Ruleset {
    let chain = Arc::new(Chain {
        rules: vec![Rule::new([Statement::Counter, Verdict::Drop.into()])],
        ..Chain::default()
    });
    let table_with = Table {
        chains: chains
            .iter()
            .map(|name| (Name::new(name).unwrap(), chain.clone()))
            .collect(),
        ..Table::default()
    };
    Ruleset {
        tables: [(table(), Arc::new(table_with))].into_iter().collect(),
    }
}

fn refused() -> DataplaneError {
    DataplaneError::Refused {
        operation: "add chain inet selvedge b".to_owned(),
        index: Some(0),
        source: io::Error::from_raw_os_error(22),
    }
}

fn unreachable() -> DataplaneError {
    DataplaneError::Unreachable {
        doing: "sending",
        source: io::Error::from_raw_os_error(105),
    }
}

fn committer() -> (Committer<Double>, Double) {
    let double = Double::default();
    (Committer::new(double.clone(), vec![table()]), double)
}

fn retry_at(outcome: Outcome) -> Instant {
    match outcome {
        Outcome::Retry(at) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_with_nothing_to_change_sends_nothing() {
    let (mut committer, double) = committer();
    double.0.borrow_mut().ruleset = ruleset(&["a"]);
    let outcome = committer.reconcile(&ruleset(&["a"]), true, Instant::now());
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!(double.0.borrow().reads, 1);
    assert!(double.0.borrow().commits.is_empty());
}

#[test]
fn a_start_repairs_what_it_finds() {
    let (mut committer, double) = committer();
    double.0.borrow_mut().ruleset = ruleset(&["a", "old"]);
    let outcome = committer.reconcile(&ruleset(&["a", "b"]), true, Instant::now());
    let Outcome::Committed(summary) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((summary.chains_added, summary.chains_deleted), (1, 1));
    assert_eq!(double.0.borrow().ruleset, ruleset(&["a", "b"]));
}

#[test]
fn what_was_acknowledged_is_not_read_again() {
    let (mut committer, double) = committer();
    for chains in [&["a"][..], &["a", "b"], &["a", "b"], &["b"]] {
        committer.reconcile(&ruleset(chains), true, Instant::now());
    }
    let state = double.0.borrow();
    assert_eq!(state.ruleset, ruleset(&["b"]));
    assert_eq!((state.reads, state.commits.len()), (1, 3));
}

#[test]
fn after_a_refusal_it_reads_back_and_tries_again_later() {
    let (mut committer, double) = committer();
    let now = Instant::now();
    committer.reconcile(&ruleset(&["a"]), true, now);
    double.0.borrow_mut().commit_errors = vec![refused()];
    let at = retry_at(committer.reconcile(&ruleset(&["a", "b"]), true, now));
    assert!(at > now);
    assert_eq!(double.0.borrow().commits.len(), 2);
    // Too early: nothing is attempted.
    assert_eq!(
        committer.reconcile(&ruleset(&["a", "b"]), false, now),
        Outcome::Retry(at)
    );
    assert_eq!(double.0.borrow().commits.len(), 2);
    let outcome = committer.reconcile(&ruleset(&["a", "b"]), false, at);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(double.0.borrow().reads, 2);
    assert_eq!(double.0.borrow().ruleset, ruleset(&["a", "b"]));
}

#[test]
fn an_error_after_the_deed_is_found_out_by_reading_back() {
    let (mut committer, double) = committer();
    double.0.borrow_mut().commit_errors = vec![unreachable()];
    double.0.borrow_mut().carried_out = true;
    let at = retry_at(committer.reconcile(&ruleset(&["a"]), true, Instant::now()));
    let outcome = committer.reconcile(&ruleset(&["a"]), false, at);
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!(double.0.borrow().commits.len(), 1);
}

#[test]
fn the_state_is_not_trusted_while_it_can_t_be_read() {
    let (mut committer, double) = committer();
    double.0.borrow_mut().read_errors = vec![unreachable(), unreachable()];
    let mut at = Instant::now();
    for _ in 0..2 {
        at = retry_at(committer.reconcile(&ruleset(&["a"]), false, at));
        assert!(double.0.borrow().commits.is_empty());
    }
    let outcome = committer.reconcile(&ruleset(&["a"]), false, at);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

#[test]
fn a_change_brings_the_retry_forward_but_does_not_spin() {
    let (mut committer, double) = committer();
    double.0.borrow_mut().commit_errors = (0..20).map(|_| refused()).collect();
    let mut at = Instant::now();
    for _ in 0..12 {
        at = retry_at(committer.reconcile(&ruleset(&["b"]), false, at));
        // The failure is dated now, not when the test pretends it is.
        assert!(at <= Instant::now() + LONGEST_WAIT);
    }
    let now = Instant::now();
    assert!(at > now + CHANGED_WAIT, "the wait has grown");
    let at = retry_at(committer.reconcile(&ruleset(&["a"]), true, now));
    assert_eq!(at, now + CHANGED_WAIT);
    let commits = double.0.borrow().commits.len();
    committer.reconcile(&ruleset(&["c"]), true, now);
    assert_eq!(double.0.borrow().commits.len(), commits);
}

#[test]
fn waits_double_up_to_the_longest() {
    assert_eq!(wait(0), FIRST_WAIT);
    assert_eq!(wait(1), FIRST_WAIT * 2);
    assert_eq!(wait(8), FIRST_WAIT * 256);
    assert_eq!(wait(9), LONGEST_WAIT);
    assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    for _ in 0..100 {
        let jittered = jittered(FIRST_WAIT);
        assert!(jittered >= FIRST_WAIT / 2 && jittered <= FIRST_WAIT);
    }
}
