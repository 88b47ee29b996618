//! How the export to a collector stands: a part of `status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observe::{ExportCounts, ExportSignal, RecordResult};

/// What goes to a collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportStatus {
    /// Its URL.
    pub collector: String,
    /// Records of denied packets by what has become of them: `exported`; and lost: `no-room`, `refused`,
    /// `expired`.
    pub records: BTreeMap<String, u64>,
    /// Records that it has not taken yet.
    pub waiting: u64,
    pub requests: Vec<ExportRequests>,
}

/// Requests to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequests {
    /// `logs`: denied packets, or `metrics`.
    pub signal: String,
    pub succeeded: u64,
    pub failed: u64,
    /// Why the last one failed, if it did.
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

    /// Records that did not reach it.
    pub fn lost(&self) -> u64 {
        let exported = RecordResult::Exported.name();
        self.records.iter().filter(|(result, _)| *result != exported).map(|(_, count)| count).sum()
    }
}
