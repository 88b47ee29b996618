//! Metrics in Prometheus' text format, version 0.0.4: a family is announced, then come its samples.

use std::fmt::Write;

use super::family::{FamilyValue, LatencyBuckets, MetricFamily, Sample};

pub(in super::super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(in super::super) fn text(families: &[MetricFamily]) -> String {
    let mut text = Exposition::default();
    for MetricFamily { name, kind, help, samples } in families {
        text.write(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()));
        for Sample { labels, value } in samples {
            match value {
                FamilyValue::Number(number) => text.line(name, labels, number),
                FamilyValue::Buckets(buckets) => text.histogram(name, labels, buckets),
            }
        }
    }
    text.0
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn histogram(&mut self, name: &str, labels: &[(&'static str, String)], buckets: &LatencyBuckets) {
        let LatencyBuckets { bounds, count, sum_microseconds } = buckets;
        let bounds = bounds.iter().map(|(bound, count)| (seconds(*bound), *count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), *count)]) {
            let labels = [labels, &[("le", bound)]].concat();
            self.line(&format!("{name}_bucket"), &labels, count);
        }
        self.line(&format!("{name}_sum"), labels, seconds(*sum_microseconds));
        self.line(&format!("{name}_count"), labels, count);
    }

    fn line(&mut self, name: &str, labels: &[(&'static str, String)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        match labels.is_empty() {
            true => self.write(format_args!("{name} {value}\n")),
            false => self.write(format_args!("{name}{{{}}} {value}\n", labels.join(","))),
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a string takes all that is written");
    }
}

/// Microseconds as seconds, without the rounding errors of a float.
fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
