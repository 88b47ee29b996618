//! The state of the export to a collector: a part of `status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observe::{ExportCounts, ExportSignal, RecordResult};

/// The export to an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportStatus {
    /// Its URL.
    pub collector: String,
    /// Counts of records of denied packets by result: `exported`, or lost as `no-room`, `refused` or
    /// `expired`.
    pub records: BTreeMap<String, u64>,
    /// Records that the collector has not taken yet.
    pub waiting: u64,
    pub requests: Vec<ExportRequests>,
}

/// Counts of requests to the collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequests {
    /// `logs`: denied packets, or `metrics`.
    pub signal: String,
    pub succeeded: u64,
    pub failed: u64,
    /// The error of the last request, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ExportStatus {
    pub fn of(collector: String, counts: &ExportCounts) -> Self {
        let records = RecordResult::ALL.map(|result| (result.name().to_owned(), counts.records(result)));
        let requests = ExportSignal::ALL.map(|signal| {
            let ((succeeded, failed), error) = (counts.requests(signal), counts.error(signal));
            ExportRequests { signal: signal.name().to_owned(), succeeded, failed, error }
        });
        Self { collector, records: records.into(), waiting: counts.waiting(), requests: requests.into() }
    }

    /// Records that were lost.
    pub fn lost(&self) -> u64 {
        let exported = RecordResult::Exported.name();
        self.records.iter().filter(|(result, _)| *result != exported).map(|(_, count)| count).sum()
    }
}
