//! Figures as they are printed.

use std::time::Duration;

pub fn ms(duration: Duration) -> f64 {
    1e3 * duration.as_secs_f64()
}

/// Whether a time in milliseconds is within what design.md allows, in words.
pub fn holds(figure: f64, allowed: f64) -> String {
    let word = if figure <= allowed { "holds" } else { "MISSED" };
    format!("at most {allowed} ms: {word}")
}

/// The figure that this share of them does not exceed.
pub fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (share * sorted.len().saturating_sub(1) as f64).round();
    sorted.get(place as usize).copied().unwrap_or(f64::NAN)
}
