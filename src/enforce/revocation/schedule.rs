//! When to sweep: at once, and once more a moment later; never without a pause between.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::concern::Concern;

/// From the end of a sweep to the beginning of the next: a few sweeps a second at most.
pub const PAUSE: Duration = Duration::from_millis(150);

/// The longest pause, however long a sweep has taken.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// How long after a commit the connections that slipped in between are looked for: those whose first packet passed under
/// the old rules and that were not tracked yet when the first sweep looked.
pub const AGAIN: Duration = Duration::from_millis(300);

/// What is to be swept, and when.
#[derive(Debug, Default)]
pub struct Schedule {
    fresh: Concern,
    /// What was swept once, and from when on it is to be again; the earliest first.
    again: VecDeque<(Instant, Concern)>,
    /// Before then there is no sweep.
    rest_until: Option<Instant>,
}

impl Schedule {
    /// Takes up a concern.
    pub fn add(&mut self, concern: Concern) {
        self.fresh.join(concern);
    }

    /// When the next sweep is due; `None` when there is nothing to look at.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = match self.fresh.is_nobody() {
            true => self.again.front().map(|(at, _)| *at)?,
            false => now,
        };
        Some(self.rest_until.map_or(due, |rest| due.max(rest)))
    }

    /// What to look at in a sweep that begins now.
    pub fn take(&mut self, now: Instant) -> Concern {
        let mut concern = std::mem::take(&mut self.fresh);
        if !concern.is_nobody() {
            self.again.push_back((now + AGAIN, concern.clone()));
        }
        while self.again.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, again)) = self.again.pop_front()
        {
            concern.join(again);
        }
        concern
    }

    /// Takes note that a sweep has ended. The longer it `took`, the longer is the pause: a fifth of the time is spent on
    /// sweeps at most, unless they take more than a tenth of a second each.
    pub fn ended(&mut self, now: Instant, took: Duration) {
        self.rest_until = Some(now + (took * 4).clamp(PAUSE, LONGEST_PAUSE));
    }

    /// Takes note that a sweep has failed: its concern is taken up again, after a while.
    pub fn failed(&mut self, now: Instant, concern: Concern, wait: Duration) {
        self.add(concern);
        self.rest_until = Some(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(last: u8) -> Concern {
        Concern::These([[10, 0, 0, last].into()].into())
    }

    fn both(one: u8, other: u8) -> Concern {
        let mut concern = about(one);
        concern.join(about(other));
        concern
    }

    #[test]
    fn a_concern_is_swept_at_once_and_once_more() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        assert_eq!(schedule.due(start), None);
        schedule.add(about(1));
        assert_eq!(schedule.due(start), Some(start));
        assert_eq!(schedule.take(start), about(1));
        schedule.ended(start, Duration::ZERO);
        assert_eq!(schedule.due(start), Some(start + AGAIN));
        assert_eq!(schedule.take(start + AGAIN), about(1));
        assert_eq!(schedule.due(start + AGAIN), None);
    }

    #[test]
    fn under_churn_sweeps_are_few_and_each_concern_has_both() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let mut sweeps: Vec<(Duration, Concern)> = Vec::new();
        // A commit each millisecond for a second, each about another address, and two seconds of peace.
        for millis in 0..3000_u64 {
            let now = start + Duration::from_millis(millis);
            if let Ok(last) = u8::try_from(millis / 4) {
                schedule.add(about(last));
            }
            if schedule.due(now).is_some_and(|due| due <= now) {
                sweeps.push((now - start, schedule.take(now)));
                schedule.ended(now, Duration::from_millis(1));
            }
        }
        let within = |from: u64, to: u64| {
            let within = |(at, _): &&(Duration, Concern)| {
                (from..to).contains(&u64::try_from(at.as_millis()).unwrap())
            };
            sweeps.iter().filter(within).count()
        };
        assert!(within(0, 1000) <= 8, "{}", within(0, 1000));
        assert!(within(1600, 3000) == 0, "it comes to rest");
        for last in 0..=u8::MAX {
            let said = Duration::from_millis(u64::from(last) * 4);
            let about = |(_, concern): &&(Duration, Concern)| match concern {
                Concern::These(these) => these.contains(&[10, 0, 0, last].into()),
                _ => false,
            };
            let swept: Vec<Duration> = sweeps.iter().filter(about).map(|(at, _)| *at).collect();
            assert!(
                swept[0] <= said + PAUSE + Duration::from_millis(1),
                "{last}"
            );
            let latest = swept[swept.len() - 1];
            assert!(latest >= said + AGAIN, "{last}: {said:?} {swept:?}");
        }
    }

    #[test]
    fn a_long_sweep_is_followed_by_a_long_pause() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        for (took, pause) in [(0, 150), (10, 150), (50, 200), (100, 400), (5000, 400)] {
            schedule.ended(start, Duration::from_millis(took));
            schedule.add(about(1));
            let due = start + Duration::from_millis(pause);
            assert_eq!(schedule.due(start), Some(due));
        }
    }

    #[test]
    fn what_failed_is_not_forgotten() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        schedule.add(about(1));
        let concern = schedule.take(start);
        schedule.failed(start, concern, Duration::from_secs(1));
        schedule.add(about(2));
        assert_eq!(schedule.due(start), Some(start + Duration::from_secs(1)));
        assert_eq!(schedule.take(start + Duration::from_secs(1)), both(1, 2));
    }
}
