//! How long changes take, from when a source learned of them until the kernel evaluates by them.

use std::time::Duration;

/// Around the goal of 50 ms, and up to what only an outage takes. In milliseconds.
const BOUNDS: [u64; 12] = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 20_000, 60_000];

/// A histogram, as Prometheus has it: each bucket counts what is not longer than its bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: [u64; BOUNDS.len()],
    pub count: u64,
    pub sum: Duration,
}

impl LatencyHistogram {
    pub fn observe(&mut self, took: Duration) {
        for (bound, count) in BOUNDS.into_iter().zip(&mut self.counts) {
            *count += u64::from(took <= Duration::from_millis(bound));
        }
        self.count += 1;
        self.sum += took;
    }

    /// Each bound, in milliseconds, and how many were not longer.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        BOUNDS.into_iter().zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_what_is_not_longer_than_its_bound() {
        let mut latency = LatencyHistogram::default();
        for milliseconds in [4, 20, 21, 600_000] {
            latency.observe(Duration::from_millis(milliseconds));
        }
        let counts: Vec<u64> = latency.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!((latency.count, latency.sum), (4, Duration::from_millis(600_045)));
    }
}
