//! Statistics of a benchmark: medians with quartiles, of single samples and of pairs.
//!
//! In: samples, one for each round. Out: what most of them say. Means are left out on purpose: one
//! interrupted round would move them.

/// The middle of samples, and where a quarter of them lie below and above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quartiles {
    pub(crate) q1: f64,
    pub(crate) median: f64,
    pub(crate) q3: f64,
}

impl Quartiles {
    /// `None` without samples.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let [q1, median, q3] = [(1, 4), (1, 2), (3, 4)].map(|part| quantile(&sorted, part));
        Some(Self { q1: q1?, median: median?, q3: q3? })
    }

    /// Of what `compare` makes of the two samples of each round.
    pub(crate) fn paired(first: &[f64], second: &[f64], compare: impl Fn(f64, f64) -> f64) -> Option<Self> {
        Self::of(first.iter().zip(second).map(|(&first, &second)| compare(first, second)))
    }

    pub(crate) fn both(self) -> [f64; 2] {
        [self.q1, self.q3]
    }
}

/// The value below which a part of the samples lies, on the line between the two nearest.
fn quantile(sorted: &[f64], (part, of): (usize, usize)) -> Option<f64> {
    let steps = sorted.len().checked_sub(1)? * part;
    let (below, rest) = (steps / of, steps % of);
    let low = *sorted.get(below)?;
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
    let weight = rest as f64 / of as f64;
    Some(low + (high - low) * weight)
}

/// The sample that so many percent do not exceed.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(f64::total_cmp);
    let place = (samples.len() * percent).div_ceil(100).saturating_sub(1);
    samples.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples_as_in_textbooks() {
        for (samples, expected) in [
            (vec![7.0], (7.0, 7.0, 7.0)),
            (vec![2.0, 1.0], (1.25, 1.5, 1.75)),
            (vec![5.0, 1.0, 4.0, 2.0, 3.0], (2.0, 3.0, 4.0)),
            (vec![1.0, 2.0, 3.0, 4.0], (1.75, 2.5, 3.25)),
            (vec![1.0, 1.0, 1.0, 1.0, 1_000_000.0], (1.0, 1.0, 1.0)),
        ] {
            let found = Quartiles::of(samples.clone()).expect("there are samples");
            assert_eq!((found.q1, found.median, found.q3), expected, "{samples:?}");
        }
        assert_eq!(Quartiles::of([]), None);
    }

    #[test]
    fn a_drift_that_both_sides_share_is_not_in_the_paired_difference() {
        let nothing = [100.0, 200.0, 400.0, 800.0];
        let filter = nothing.map(|nanoseconds| nanoseconds + 7.0);
        let added = Quartiles::paired(&filter, &nothing, |filter, nothing| filter - nothing);
        assert_eq!(added, Some(Quartiles { q1: 7.0, median: 7.0, q3: 7.0 }));
    }
}
