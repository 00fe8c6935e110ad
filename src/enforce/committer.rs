//! From the ruleset that is wanted to one that the kernel has acknowledged.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use selvedge_nft::{
    Committed, Dataplane, DataplaneError, Interference, Name, Ownership, Parts, Ruleset, TableId,
    Touched, Transaction, diff, diff_with_room,
};
use tracing::{error, info, warn};

use super::revocation::concern::{Concern, concerned};
use super::summary::Summary;
use crate::observe::{ErrorKind, Held, Observer};

/// The first wait after an error; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The longest wait once the wanted ruleset has changed: the change may be the cure.
const CHANGED_WAIT: Duration = Duration::from_secs(1);

/// A repair that adds so many elements takes the kernel a tenth of a second or more.
const LONG_REPAIR: usize = 100_000;

/// Owns a dataplane, and knows what it has acknowledged.
///
/// After an error, and at first, nothing is taken for granted: the dataplane's state is read back and the difference
/// to that is sent.
#[derive(Debug)]
pub struct Committer<D> {
    dataplane: D,
    tables: Vec<TableId>,
    /// Whose the tables are to be.
    ownership: Ownership,
    /// `None` while it must be read back.
    acknowledged: Option<Ruleset>,
    /// What was read back already, for the next attempt.
    looked: Option<Ruleset>,
    /// While it must: what it may hold if nobody else has changed it. Nothing before it was ever known.
    expected: Vec<Ruleset>,
    /// While it must: what alone others have touched of what was acknowledged; `None` for anything.
    touched: Option<Touched>,
    /// Whether somebody has changed it, and that was not put right yet.
    drifted: bool,
    /// Whether what stood by is in force in the place of the rules.
    closed: bool,
    /// Who may have done so, for the log.
    suspect: Option<String>,
    /// How much it holds, as far as that is known.
    held: Held,
    failure: Option<Failure>,
    /// The object that the last attempt was refused for.
    refused: Option<Name>,
    /// Whom commits may have taken permission from, since it was last asked.
    concern: Concern,
    /// Whether the dataplane has been as it should be before.
    settled: bool,
    observer: Arc<Observer>,
}

#[derive(Debug)]
struct Failure {
    text: String,
    /// The object that the kernel refused.
    object: Option<Name>,
    attempts: u32,
    /// How many of the last attempts failed for that object, or that very reason.
    alike: u32,
    retry_at: Instant,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The dataplane has what is wanted, and nothing was sent.
    Unchanged,
    /// The dataplane has what is wanted since now.
    Committed(Summary),
    /// It has not, and this is when to try again.
    Retry(Instant),
}

impl<D: Dataplane> Committer<D> {
    /// A committer for these tables of `dataplane`, which tells nobody.
    pub fn new(dataplane: D, tables: Vec<TableId>) -> Self {
        Self {
            dataplane,
            tables,
            ownership: Ownership::Anyone,
            acknowledged: None,
            looked: None,
            expected: Vec::new(),
            touched: None,
            drifted: false,
            closed: false,
            suspect: None,
            held: Held::default(),
            failure: None,
            refused: None,
            concern: Concern::Nobody,
            settled: false,
            observer: Observer::new(),
        }
    }

    /// Tells `observer` of commits, and of what the dataplane holds.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Whose the tables are to be: [`Ownership::Anyone`] or [`Ownership::Own`].
    #[must_use]
    pub fn with_ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// Whether the dataplane has been as it should be, at least once.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// Whom commits may have taken permission from since the last call, and the ruleset that is in force now; `None` while
    /// that is not known.
    pub fn take_concern(&mut self) -> Option<(Concern, &Ruleset)> {
        let in_force = self.acknowledged.as_ref()?;
        Some((std::mem::take(&mut self.concern), in_force))
    }

    /// Hears what others have done to the tables; whether the next [`Self::reconcile`] has to look at them.
    pub fn listen(&mut self) -> bool {
        let heard = self.dataplane.interference();
        if heard.is_empty() {
            return false;
        }
        let unheard = |one: &Interference| matches!(one, Interference::Unheard);
        if let Some(failure) = &mut self.failure
            && !heard.iter().all(unheard)
        {
            // Whatever was wrong before, something new is: it can't wait for that.
            failure.retry_at = failure.retry_at.min(Instant::now() + FIRST_WAIT);
        }
        if let Some(acknowledged) = self.acknowledged.take() {
            self.expected = vec![acknowledged];
            self.touched = Some(Touched::default());
        }
        for interference in heard {
            match interference {
                Interference::Changed { touched: more, by } => {
                    if let Some(touched) = &mut self.touched {
                        touched.join(more);
                    }
                    if let Some(by) = by {
                        self.suspect = Some(format!("{} (process {})", by.name, by.id));
                    }
                }
                Interference::Replaced { tables } => {
                    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
                    let line = format!(
                        "deleted by somebody else: {}; until the rules are back isolated pods are closed to new connections",
                        names.join(", ")
                    );
                    warn!("{line}");
                    self.observer.closed(line);
                    self.closed = true;
                    if let Some(touched) = &mut self.touched {
                        let all = tables.into_iter().map(|id| (id, Parts::All));
                        touched.join(Touched {
                            tables: all.collect(),
                        });
                    }
                }
                Interference::Unheard => self.touched = None,
            }
        }
        true
    }

    /// The ruleset in force, where others can delete it.
    pub fn endangered(&self) -> Option<&Ruleset> {
        let in_force = self.acknowledged.as_ref()?;
        (self.ownership == Ownership::Anyone).then_some(in_force)
    }

    /// Has the dataplane keep ready what is to be there as soon as others have deleted tables, until they are repaired.
    pub fn stand_by(&mut self, closing: &Ruleset) {
        if let Err(error) = self.dataplane.stand_by(closing) {
            warn!("nothing closes the pods at once if others delete the ruleset: {error}");
        }
    }

    /// The object that the kernel refuses, and why, where it has done so again on a state that was read back: then it is
    /// the object's own fault.
    pub fn offender(&self) -> Option<(&Name, &str)> {
        let failure = self.failure.as_ref().filter(|failure| failure.alike > 1)?;
        Some((failure.object.as_ref()?, &failure.text))
    }

    /// The offender is dealt with: the next attempt need not wait.
    pub fn try_at_once(&mut self, now: Instant) {
        if let Some(failure) = &mut self.failure {
            failure.retry_at = now;
            failure.object = None;
            failure.attempts = 0;
        }
    }

    /// What the dataplane holds, read now; the next attempt goes on from there. It is for the time before the first one.
    ///
    /// # Errors
    /// When to try again: it can't be read, or a failure is waited out.
    pub fn look(&mut self, now: Instant) -> Result<&Ruleset, Instant> {
        let waiting = self.failure.as_ref().map(|failure| failure.retry_at);
        if let Some(retry_at) = waiting.filter(|retry_at| now < *retry_at) {
            return Err(retry_at);
        }
        match self.read_back() {
            Ok(read) => Ok(self.looked.insert(read)),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Makes the dataplane hold `desired`, in one transaction, before which the interval sets that it needs are brought
    /// ([`Transaction::stages`]), and after which those large sets are filled that others have wiped. `changed` says that it may differ from last time's.
    /// While an earlier failure is waited out nothing is attempted.
    pub fn reconcile(&mut self, desired: &Ruleset, changed: bool, now: Instant) -> Outcome {
        if let Some(failure) = &mut self.failure {
            if changed {
                failure.retry_at = failure.retry_at.min(now + CHANGED_WAIT);
            }
            if now < failure.retry_at {
                return Outcome::Retry(failure.retry_at);
            }
        }
        match self.attempt(desired) {
            Ok(outcome) => {
                if let Some(failure) = self.failure.take() {
                    let attempts = failure.attempts;
                    info!(attempts, "the ruleset is in force again as it should be");
                }
                if !std::mem::replace(&mut self.settled, true) {
                    let unchanged = match outcome {
                        Outcome::Committed(summary) => summary.only_adopts(),
                        _ => true,
                    };
                    match unchanged {
                        true => info!("the policies are in force: there was nothing to change"),
                        false => info!("the policies are in force"),
                    }
                }
                outcome
            }
            Err(error) => Outcome::Retry(self.failed(&error)),
        }
    }

    fn attempt(&mut self, desired: &Ruleset) -> Result<Outcome, DataplaneError> {
        let desired = &desired.with_ownership(self.ownership);
        let (current, read) = match self.acknowledged.take() {
            Some(acknowledged) => (acknowledged, false),
            None => match self.looked.take() {
                Some(read) => (read, true),
                None => (self.read_back()?, true),
            },
        };
        let transaction = diff(&current, desired);
        if transaction.is_empty() {
            self.acknowledged = Some(desired.clone());
            self.expected.clear();
            self.drifted = false;
            if std::mem::take(&mut self.closed) {
                self.observer.metrics.drift_repaired();
                info!("the ruleset is whole again: what stood by was all that was gone");
            }
            if read {
                // What was in force before is not known: at the start, while others changed it, when an
                // acknowledgement got lost.
                self.concern = Concern::Everyone;
                self.observer.in_force();
            }
            return Ok(Outcome::Unchanged);
        }
        let started = Instant::now();
        let committed = match self.carry_out(&transaction, &current, desired) {
            Ok(committed) => committed,
            Err(error) => {
                self.observer.metrics.not_committed(&error);
                self.expected = vec![current, desired.clone()];
                return Err(error);
            }
        };
        let took = started.elapsed();
        self.concern.join(match read {
            true => Concern::Everyone,
            false => concerned(&current, &transaction, desired),
        });
        // A clone of what was wanted, not of what was read: it shares its parts with the next one.
        self.acknowledged = Some(desired.clone());
        self.expected.clear();
        self.closed = false;
        let summary = Summary::of(&transaction, &current);
        self.held = summary.applied_to(self.held);
        let metrics = &self.observer.metrics;
        metrics.committed(committed, took);
        metrics.holds(self.held);
        if std::mem::take(&mut self.drifted) {
            metrics.drift_repaired();
        }
        self.observer.in_force();
        let what = match summary.only_adopts() {
            true => "nothing but their owner changes: ",
            false => "committed: ",
        };
        info!(
            messages = committed.messages,
            batches = committed.batches,
            bytes = committed.bytes,
            took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "{what}{summary}"
        );
        Ok(Outcome::Committed(summary))
    }

    /// Carries out the transaction from `current` to `desired`; sets that turn out to be full are made anew in it. Where
    /// others have wiped so much that it takes the kernel long to load it, all else comes first: until the large sets are
    /// full, what they allow can't begin, but nothing that is denied can either.
    fn carry_out(
        &mut self,
        transaction: &Transaction,
        current: &Ruleset,
        desired: &Ruleset,
    ) -> Result<Committed, DataplaneError> {
        let (ahead, mut rest) = transaction.stages();
        let mut committed = self.commit(slice::from_ref(&ahead)).map_err(|(_, e)| e)?;
        let mut full = BTreeSet::new();
        loop {
            let parts = match self.drifted && rest.elements_added() >= LONG_REPAIR {
                true => Cow::Owned(rest.large_sets_last()),
                false => Cow::Borrowed(slice::from_ref(&*rest)),
            };
            let (at, error) = match self.commit(&parts) {
                Ok(more) => {
                    committed += more;
                    return Ok(committed);
                }
                Err(failed) => failed,
            };
            match parts.get(at).and_then(|part| error.full_set(part)) {
                // Nothing of the rest is there yet.
                Some(set) if at == 0 && !full.contains(&set) => {
                    info!(
                        "set {} {} is full: it is made anew with room for more",
                        set.0, set.1
                    );
                    full.insert(set);
                }
                _ => return Err(error),
            }
            // What went ahead is there already: interval sets, none of which is in the way of what is full.
            let anew = diff_with_room(current, desired, &full);
            rest = Cow::Owned(anew.stages().1.into_owned());
        }
    }

    fn commit(&mut self, stages: &[Transaction]) -> Result<Committed, (usize, DataplaneError)> {
        let outcome = self.dataplane.commit_in_turn(stages);
        let failed = outcome.as_ref().err();
        self.refused = failed.and_then(|(at, error)| refused(error, stages.get(*at)?));
        outcome
    }

    /// Reads what the dataplane holds, and looks whether somebody else has changed it.
    fn read_back(&mut self) -> Result<Ruleset, DataplaneError> {
        let read = match (self.touched.take(), self.expected.as_slice()) {
            (Some(touched), [known]) => self.dataplane.reread(known, &touched),
            _ => self.dataplane.read(&self.tables),
        };
        let read = read.inspect_err(|_| self.observer.metrics.error(ErrorKind::ReadBack))?;
        self.held = Held::by(&read);
        self.observer.metrics.holds(self.held);
        // Interval sets that nothing names may be there already: what was to follow them was not taken.
        let as_left = |expected: &Ruleset| diff(expected, &read).stages().1.is_empty();
        // What stood by may be all that was wiped. That it was is no news once it is known.
        let changed = self.closed && !self.drifted || !self.expected.iter().any(as_left);
        if !self.expected.is_empty() && changed {
            let suspect = self.suspect.as_deref().unwrap_or("somebody else");
            warn!("{suspect} has changed the ruleset; it is put right at once");
            self.drifted = true;
        }
        self.suspect = None;
        // Should the repair fail, what was found is no news.
        self.expected = vec![read.clone()];
        Ok(read)
    }

    /// Takes note of a failure; the answer is when to try again.
    fn failed(&mut self, error: &DataplaneError) -> Instant {
        self.acknowledged = None;
        let object = self.refused.take();
        let text = error.to_string();
        let meanwhile = match self.closed {
            true => "isolated pods stay closed to new connections",
            false => "what was in force stays in force",
        };
        self.observer.not_in_force(format!("{text}; {meanwhile}"));
        let attempts = self.failure.as_ref().map_or(0, |f| f.attempts);
        let before = self.failure.as_ref();
        let said = before.is_some_and(|f| f.text == text);
        // The text of one object's refusal may differ: it tells how many elements were to be added.
        let same = before.filter(|f| match &object {
            Some(object) => f.object.as_ref() == Some(object),
            None => f.text == text,
        });
        let alike = same.map_or(0, |f| f.alike);
        if !said {
            error!("not committed, will be tried again; {meanwhile}: {text}");
        }
        let retry_at = Instant::now() + jittered(wait(attempts));
        self.failure = Some(Failure {
            text,
            object,
            attempts: attempts.saturating_add(1),
            alike: alike.saturating_add(1),
            retry_at,
        });
        retry_at
    }
}

/// The object that a transaction was refused for, where the reason may lie in the object.
fn refused(error: &DataplaneError, transaction: &Transaction) -> Option<Name> {
    let DataplaneError::Refused {
        index: Some(index),
        source,
        ..
    } = error
    else {
        return None;
    };
    let circumstances = [
        Errno::EPERM,
        Errno::EACCES,
        Errno::EBUSY,
        Errno::EAGAIN,
        Errno::EINTR,
        Errno::ENOMEM,
        Errno::ENOBUFS,
    ];
    let errno = Errno::from_raw(source.raw_os_error()?);
    let op = transaction
        .ops
        .get(*index)
        .filter(|_| !circumstances.contains(&errno))?;
    op.object().cloned()
}

/// How long to wait after so many failures before.
fn wait(attempts: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(2_u32.saturating_pow(attempts))
        .min(LONGEST_WAIT)
}

/// Between half of it and all of it: nodes that fail together shall not retry together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
#[path = "committer_tests.rs"]
mod tests;
