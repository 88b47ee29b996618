//! Wires the export to a collector, if there is one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;

use super::threads::Threads;
use crate::{
    observe::{ExportCounts, FlowExport, QueuedDenial},
    options::AgentOptions,
    otlp::{ExportEnd, ExportOptions, ExportSetup},
    server::Server,
};

/// The exporter, before it has anything to send.
#[derive(Debug)]
pub(super) struct Export {
    setup: ExportSetup,
    collector: String,
    counts: ExportCounts,
    queue: mpsc::UnboundedReceiver<QueuedDenial>,
}

/// Makes the exporter, and the sending end of its queue of denials.
///
/// # Errors
///
/// When an option is wrong, or an option of the export is given without a collector.
pub(super) fn export(options: &AgentOptions) -> Result<Option<(Export, FlowExport)>> {
    let AgentOptions { node, otlp, otlp_headers, otlp_ca, otlp_interval, .. } = options;
    let Some(collector) = otlp else {
        ensure!(
            otlp_headers.is_none() && otlp_ca.is_none(),
            "--otlp-headers and --otlp-ca are for --otlp URL"
        );
        return Ok(None);
    };
    let setup = ExportOptions {
        collector: collector.clone(),
        headers: otlp_headers.clone(),
        authorities: otlp_ca.clone(),
        interval: Duration::from_secs((*otlp_interval).into()),
    };
    let setup = ExportSetup::new(setup, node).context("the export to a collector")?;
    let counts = ExportCounts::default();
    let (flows, queue) = FlowExport::new(counts.clone());
    Ok(Some((Export { setup, collector: collector.to_string(), counts, queue }, flows)))
}

impl Export {
    /// The counters of the export, for `status` and metrics.
    pub(super) fn standing(&self) -> (String, ExportCounts) {
        (self.collector.clone(), self.counts.clone())
    }

    pub(super) fn start(self, threads: &mut Threads, server: Server) -> Result<ExportEnd> {
        let Self { setup, collector: _, counts, queue } = self;
        let (exporter, end) = setup.exporter(queue, server, counts);
        threads.spawn("otlp", move || exporter.run())?;
        Ok(end)
    }
}
