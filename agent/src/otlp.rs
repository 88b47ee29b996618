//! The export to a collector of OpenTelemetry, by OTLP over HTTP: denied packets as log records, and all
//! metrics.
//!
//! In: what `observe` reports and `server` exposes. Out: requests. Nothing waits for a collector: data that
//! it does not take stays for a while in a bounded queue, is sent again with growing pauses, and is then
//! dropped and counted. Its answers are read up to a limit, and used only to learn whether it has taken the
//! data.

mod attributes;
mod client;
mod collector_url;
mod headers;
mod logs;
mod metrics;
mod resource;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use podgate_core::model::Name;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub use self::collector_url::CollectorUrl;
use self::{client::CollectorClient, headers::Headers, logs::LogExport, metrics::MetricExport};
use crate::{
    observe::{ExportCounts, QueuedDenial},
    server::Server,
};

/// How long the last records may take when the agent ends. Together with the end of its threads it takes
/// less than `terminationGracePeriodSeconds` in deploy/base.
const LAST: Duration = Duration::from_millis(1_500);

/// The address of the collector, and the settings of the export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    pub collector: CollectorUrl,
    /// A file with headers of each request.
    pub headers: Option<PathBuf>,
    /// A file with certificates of authorities.
    pub authorities: Option<PathBuf>,
    /// Between two times that metrics are sent.
    pub interval: Duration,
}

/// Sends denials and metrics, on a thread of its own.
#[derive(Debug)]
pub struct Exporter {
    logs: LogExport,
    metrics: MetricExport,
    stop: watch::Receiver<bool>,
    ended: oneshot::Sender<()>,
}

/// Ends an exporter.
#[derive(Debug)]
pub struct ExportEnd {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

/// An exporter without its sources of denials and metrics.
#[derive(Debug)]
pub struct ExportSetup {
    client: CollectorClient,
    options: ExportOptions,
    resource: resource::Attributes,
}

impl ExportSetup {
    /// # Errors
    ///
    /// When a file or a variable of the options cannot be read or parsed.
    pub fn new(options: ExportOptions, node: &Name) -> Result<Self> {
        let headers = Headers::new(options.headers.clone())?;
        let client =
            CollectorClient::new(options.collector.clone(), headers, options.authorities.as_deref())?;
        let resource = resource::attributes(node).context(resource::VARIABLE)?;
        for warning in client.warnings() {
            tracing::warn!(collector = %options.collector, "{warning}");
        }
        Ok(Self { client, options, resource })
    }

    /// `queue`: the denials to send. `server`: the source of the metrics.
    pub fn exporter(
        self,
        queue: mpsc::UnboundedReceiver<QueuedDenial>,
        server: Server,
        counts: ExportCounts,
    ) -> (Exporter, ExportEnd) {
        let Self { client, options, resource } = self;
        let logs = LogExport::new(client.clone(), resource.clone(), queue, counts.clone());
        let metrics = MetricExport::new(client, resource, server, counts, options.interval);
        let ((stop, stopped), (end, ended)) = (watch::channel(false), oneshot::channel());
        (Exporter { logs, metrics, stop: stopped, ended: end }, ExportEnd { stop, ended })
    }
}

impl Exporter {
    /// Sends for ever; after the end was requested it sends the rest, then waits.
    pub async fn run(self) -> Result<()> {
        let Self { mut logs, mut metrics, stop, ended } = self;
        tokio::join!(logs.run(stop.clone()), metrics.run(stop));
        let _ = ended.send(());
        std::future::pending().await
    }
}

impl ExportEnd {
    /// Requests the end, and waits a moment until the remaining data is sent.
    pub async fn flush(self) {
        self.stop.send_replace(true);
        if timeout(LAST, self.ended).await.is_err() {
            tracing::warn!("the collector takes too long for the last records");
        }
    }
}
