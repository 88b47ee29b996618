//! How long changes take, from when a source learned of them until the kernel evaluates by them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A histogram, as Prometheus has it: each bucket counts what is not longer than its bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub buckets: Vec<Bucket>,
    pub count: u64,
    pub sum_microseconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub milliseconds: u64,
    pub count: u64,
}

/// Around the goal of 50 ms, and up to what only an outage takes.
const BOUNDS: [u64; 12] = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 20_000, 60_000];

impl Default for Latency {
    fn default() -> Self {
        let buckets = BOUNDS.map(|milliseconds| Bucket { milliseconds, count: 0 }).to_vec();
        Self { buckets, count: 0, sum_microseconds: 0 }
    }
}

impl Latency {
    pub fn observe(&mut self, took: Duration) {
        let limit = |bucket: &Bucket| Duration::from_millis(bucket.milliseconds);
        for bucket in self.buckets.iter_mut().filter(|bucket| took <= limit(bucket)) {
            bucket.count += 1;
        }
        self.count += 1;
        self.sum_microseconds += u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_what_is_not_longer_than_its_bound() {
        let mut latency = Latency::default();
        for milliseconds in [4, 20, 21, 600_000] {
            latency.observe(Duration::from_millis(milliseconds));
        }
        let counts: Vec<u64> = latency.buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!((latency.count, latency.sum_microseconds), (4, 600_045_000));
    }
}
