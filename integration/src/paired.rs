//! Two things measured in turns, on a machine that may be busy with others.
//!
//! What disturbs one measurement mostly disturbs its neighbour too, so each is compared with its neighbour alone, and
//! the median of these ratios stands. How far they scatter is said beside it: that is the noise.

/// What pairs of measurements gave, one pair a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Paired {
    /// The baseline's median.
    pub baseline: f64,
    /// The other's median.
    pub other: f64,
    /// The other divided by the baseline, a round at a time.
    pub ratio: Spread,
}

/// A median, and how far the figures around it scatter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The lowest.
    pub min: f64,
    /// A quarter are lower.
    pub lower: f64,
    /// Half are lower.
    pub median: f64,
    /// A quarter are higher.
    pub upper: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure, in any order; all zero of none.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&sorted, share);
        Self {
            min: at(0.0),
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
            max: at(1.0),
        }
    }
}

/// Between the two nearest figures, in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let figure = |place: f64| sorted.get(place as usize).copied().unwrap_or_default();
    let (low, high) = (figure(place.floor()), figure(place.ceil()));
    low + (high - low) * place.fract()
}

/// Measures a pair a round; who comes first changes from round to round. At least one round is made.
///
/// A figure is a rate or a time: any number but zero.
///
/// # Errors
/// Those of the measurements, at once.
pub fn in_turns<E>(
    rounds: usize,
    mut baseline: impl FnMut() -> Result<f64, E>,
    mut other: impl FnMut() -> Result<f64, E>,
) -> Result<Paired, E> {
    let mut pairs = Vec::new();
    for round in 0..rounds.max(1) {
        pairs.push(if round % 2 == 0 {
            let first = baseline()?;
            (first, other()?)
        } else {
            let first = other()?;
            (baseline()?, first)
        });
    }
    Ok(Paired::of(&pairs))
}

impl Paired {
    /// Of (baseline, other), a pair a round.
    pub fn of(pairs: &[(f64, f64)]) -> Self {
        let median = |figure: fn(&(f64, f64)) -> f64| {
            Spread::of(&pairs.iter().map(figure).collect::<Vec<_>>())
        };
        Self {
            baseline: median(|pair| pair.0).median,
            other: median(|pair| pair.1).median,
            ratio: median(|pair| pair.1 / pair.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_ratio_is_of_neighbours_not_of_medians() {
        // The machine is half as fast in every second round; the other is always a tenth slower.
        let pairs = [
            (100.0, 90.0),
            (50.0, 45.0),
            (100.0, 90.0),
            (50.0, 45.0),
            (80.0, 72.0),
        ];
        let paired = Paired::of(&pairs);
        assert!((paired.ratio.median - 0.9).abs() < 1e-9);
        assert!(paired.ratio.max - paired.ratio.min < 1e-9, "{paired:?}");
        assert_eq!((paired.baseline, paired.other), (80.0, 72.0));
    }

    #[test]
    fn the_spread_goes_from_the_lowest_to_the_highest() {
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        let figures = [
            spread.min,
            spread.lower,
            spread.median,
            spread.upper,
            spread.max,
        ];
        assert_eq!(figures, [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of(&[7.0]).max, 7.0);
        assert_eq!(Spread::of(&[]).median, 0.0);
    }

    #[test]
    fn who_comes_first_changes_and_an_error_ends_it() {
        let order = RefCell::new(String::new());
        let turn = |name: char| {
            order.borrow_mut().push(name);
            Ok::<_, ()>(1.0)
        };
        let paired = in_turns(4, || turn('a'), || turn('b'));
        assert_eq!(paired.map(|paired| paired.ratio.median), Ok(1.0));
        assert_eq!(order.take(), "abbaabba");

        let failed = in_turns(4, || turn('a'), || Err(()));
        assert_eq!(failed, Err(()));
        assert_eq!(order.take(), "a");
    }
}
