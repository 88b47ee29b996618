//! One metric with its samples, independent of the output format.

use crate::api::{Bucket, Latency};

/// A metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricFamily {
    pub name: &'static str,
    pub kind: FamilyKind,
    /// Its meaning, in a sentence.
    pub help: &'static str,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// A total that only grows.
    Counter,
    /// The current value.
    Gauge,
    /// Counts of values by range.
    Histogram,
}

/// One series of a metric, with its current value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub labels: Vec<(&'static str, String)>,
    pub value: FamilyValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilyValue {
    Number(u64),
    Buckets(LatencyBuckets),
}

/// A histogram of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyBuckets {
    /// Upper bounds in microseconds, ascending, each with the count of values up to it.
    pub bounds: Vec<(u64, u64)>,
    /// The count of all values, also above the last bound.
    pub count: u64,
    pub sum_microseconds: u64,
}

/// Collects families in order: each is begun, then its samples follow.
#[derive(Debug, Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    pub(super) fn family(&mut self, name: &'static str, kind: FamilyKind, help: &'static str) {
        self.0.push(MetricFamily { name, kind, help, samples: Vec::new() });
    }

    pub(super) fn sample(&mut self, labels: &[(&'static str, &str)], value: impl TryInto<u64>) {
        let value = value.try_into().unwrap_or(u64::MAX);
        let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
        self.add(Sample { labels, value: FamilyValue::Number(value) });
    }

    pub(super) fn latency(&mut self, Latency { buckets, count, sum_microseconds }: &Latency) {
        let bounds = buckets.iter().map(|Bucket { milliseconds, count }| (milliseconds * 1_000, *count));
        let (count, sum_microseconds) = (*count, *sum_microseconds);
        let buckets = LatencyBuckets { bounds: bounds.collect(), count, sum_microseconds };
        self.add(Sample { labels: Vec::new(), value: FamilyValue::Buckets(buckets) });
    }

    pub(super) fn all(self) -> Vec<MetricFamily> {
        self.0
    }

    fn add(&mut self, sample: Sample) {
        self.0.last_mut().expect("a family is begun before its samples").samples.push(sample);
    }
}

impl FamilyKind {
    /// The type's name in Prometheus' format.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}
