//! Sends all metrics to the collector, by the names that `/metrics` has.
//!
//! They are totals, so a failed attempt loses only one point: the next one has newer numbers.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hyper::body::Bytes;
use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
};
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    attributes::{attribute, text},
    client::{CollectorClient, shown},
    resource::{Attributes, resource, scope},
};
use crate::{
    observe::{ExportCounts, ExportSignal},
    server::{FamilyKind, FamilyValue, LatencyBuckets, MetricFamily, Sample, Server},
};

/// The first pause after a failed attempt; no pause is longer than the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct MetricExport {
    client: CollectorClient,
    resource: Attributes,
    server: Server,
    counts: ExportCounts,
    interval: Duration,
}

impl MetricExport {
    pub(super) const fn new(
        client: CollectorClient,
        resource: Attributes,
        server: Server,
        counts: ExportCounts,
        interval: Duration,
    ) -> Self {
        Self { client, resource, server, counts, interval }
    }

    /// Sends until it is stopped, then once more the last numbers.
    pub(super) async fn run(&mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.send_all() => {}
        }
        self.send_once().await;
    }

    async fn send_all(&self) {
        let pauses = || {
            let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(self.interval);
            pauses.with_jitter().without_max_times().build()
        };
        let (mut next, mut after_failures) = (Instant::now(), pauses());
        loop {
            sleep_until(next).await;
            if self.send_once().await {
                next = (next + self.interval).max(Instant::now());
                after_failures = pauses();
            } else {
                sleep(after_failures.next().unwrap_or(self.interval).min(self.interval)).await;
                next = Instant::now();
            }
        }
    }

    /// Sends once. Out: whether the collector has taken the metrics.
    async fn send_once(&self) -> bool {
        let attributes = self.resource.clone();
        let request = move |families: Vec<MetricFamily>| body(&families, &attributes, Timestamp::now());
        let outcome = match self.server.families(request).await {
            Some(body) => self.send(body).await,
            None => Err("too many questions to the agent at once".to_owned()),
        };
        let is_taken = outcome.is_ok();
        self.counts.request(ExportSignal::Metrics, outcome);
        is_taken
    }

    async fn send(&self, body: Bytes) -> Result<(), String> {
        let sent = self.client.send::<ExportMetricsServiceResponse>(ExportSignal::Metrics, body).await;
        let answer = sent.map_err(|error| error.error().to_owned())?;
        match answer.partial_success.filter(|partly| partly.rejected_data_points > 0) {
            None => Ok(()),
            Some(partly) => Err(format!(
                "{} points refused: {}",
                partly.rejected_data_points,
                shown(&partly.error_message)
            )),
        }
    }
}

fn body(families: &[MetricFamily], attributes: &Attributes, now: Timestamp) -> Bytes {
    let time = u64::try_from(now.as_nanosecond()).unwrap_or(0);
    let metrics = families.iter().filter(|family| !family.samples.is_empty());
    let metrics = metrics.map(|family| metric(family, time)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    let resource = Some(resource(attributes));
    let of_resource = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }.encode_to_vec().into()
}

fn metric(MetricFamily { name, kind, help, samples }: &MetricFamily, time: u64) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let numbers = || samples.iter().filter_map(|sample| number(sample, time)).collect();
    let data = match kind {
        FamilyKind::Counter => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        FamilyKind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        FamilyKind::Histogram => Data::Histogram(Histogram {
            data_points: samples.iter().filter_map(|sample| histogram(sample, time)).collect(),
            aggregation_temporality: temporality,
        }),
    };
    Metric {
        name: (*name).to_owned(),
        description: (*help).to_owned(),
        unit: unit(name).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// The unit in UCUM, from the end of the name. All other metrics have none: Prometheus would turn `1` into
/// `_ratio`.
fn unit(name: &str) -> &'static str {
    if name.ends_with("_seconds") { "s" } else { "" }
}

/// The start time is not given: counters of the kernel outlive the agent.
fn number(Sample { labels, value }: &Sample, time: u64) -> Option<NumberDataPoint> {
    let FamilyValue::Number(number) = value else { return None };
    let number = number_data_point::Value::AsInt(i64::try_from(*number).unwrap_or(i64::MAX));
    let attributes = labels.iter().map(|(label, value)| attribute(label, text(value.clone()))).collect();
    Some(NumberDataPoint {
        attributes,
        time_unix_nano: time,
        value: Some(number),
        ..NumberDataPoint::default()
    })
}

/// Prometheus counts in each bucket all values up to its bound, OTLP only those above the previous bound.
fn histogram(Sample { labels, value }: &Sample, time: u64) -> Option<HistogramDataPoint> {
    let FamilyValue::Buckets(LatencyBuckets { bounds, count, sum_microseconds }) = value else { return None };
    let mut below = 0;
    let totals = bounds.iter().map(|(_, total)| *total).chain([*count]);
    let bucket_counts =
        totals.map(|total| total.saturating_sub(std::mem::replace(&mut below, total))).collect();
    let seconds = |microseconds: u64| Duration::from_micros(microseconds).as_secs_f64();
    Some(HistogramDataPoint {
        attributes: labels.iter().map(|(label, value)| attribute(label, text(value.clone()))).collect(),
        time_unix_nano: time,
        count: *count,
        sum: Some(seconds(*sum_microseconds)),
        bucket_counts,
        explicit_bounds: bounds.iter().map(|(bound, _)| seconds(*bound)).collect(),
        ..HistogramDataPoint::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_of_metrics_is_a_point_under_the_same_name() {
        let sample = |labels: Vec<(&'static str, String)>, value| Sample { labels, value };
        let family = |kind, value| MetricFamily {
            name: "podgate_x_seconds",
            kind,
            help: "What it is.",
            samples: vec![sample(vec![("a", "b".into())], value)],
        };
        let buckets =
            LatencyBuckets { bounds: vec![(50_000, 2), (100_000, 2)], count: 5, sum_microseconds: 1_500_000 };
        let all = [
            metric(&family(FamilyKind::Counter, FamilyValue::Number(7)), 9),
            metric(&family(FamilyKind::Gauge, FamilyValue::Number(7)), 9),
            metric(&family(FamilyKind::Histogram, FamilyValue::Buckets(buckets)), 9),
        ];
        for metric in &all {
            assert_eq!(
                (&*metric.name, &*metric.description, &*metric.unit),
                ("podgate_x_seconds", "What it is.", "s")
            );
        }
        let [counter, gauge, histogram] = all.map(|metric| metric.data.unwrap());
        let point = NumberDataPoint {
            attributes: vec![attribute("a", text("b"))],
            time_unix_nano: 9,
            value: Some(number_data_point::Value::AsInt(7)),
            ..NumberDataPoint::default()
        };
        let Data::Sum(sum) = counter else { panic!("{counter:?}") };
        assert!(
            sum.is_monotonic
                && sum.aggregation_temporality == 2
                && sum.data_points == std::slice::from_ref(&point)
        );
        assert_eq!(gauge, Data::Gauge(Gauge { data_points: vec![point] }));
        let Data::Histogram(histogram) = histogram else { panic!("{histogram:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(
            (&point.explicit_bounds[..], &point.bucket_counts[..]),
            (&[0.05, 0.1][..], &[2, 0, 3][..])
        );
        assert_eq!((point.count, point.sum), (5, Some(1.5)));
        assert_eq!(unit("podgate_x_total"), "");
    }
}
