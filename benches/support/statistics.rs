//! Samples and what is said of them.

use std::time::Duration;

/// Measured times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// In milliseconds.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(50)
    }

    /// In milliseconds; `percent` of the times are below. NaN where nothing was measured.
    pub(crate) fn quantile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last * percent + 50) / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// The `count` first.
    pub(crate) fn first(&self, count: usize) -> Self {
        Self(self.0.iter().take(count).copied().collect())
    }

    /// The `count` last.
    pub(crate) fn last(&self, count: usize) -> Self {
        Self(self.0.iter().rev().take(count).copied().collect())
    }
}

/// The middle one; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Of the figures of the same round.
pub(crate) fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}
