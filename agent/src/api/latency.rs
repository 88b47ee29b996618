//! How long changes take, from when a source learned of them until the kernel evaluates by them.

use serde::{Deserialize, Serialize};

use crate::snapshot::LatencyHistogram;

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

impl Default for Latency {
    fn default() -> Self {
        Self::from(&LatencyHistogram::default())
    }
}

impl From<&LatencyHistogram> for Latency {
    fn from(latency: &LatencyHistogram) -> Self {
        let buckets = latency.buckets().map(|(milliseconds, count)| Bucket { milliseconds, count });
        Self {
            buckets: buckets.collect(),
            count: latency.count,
            sum_microseconds: u64::try_from(latency.sum.as_micros()).unwrap_or(u64::MAX),
        }
    }
}
