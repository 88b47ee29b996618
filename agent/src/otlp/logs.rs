//! Sends denied packets as log records: in batches, until the collector has taken them or they are too old.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hyper::body::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    logs::v1::{ResourceLogs, ScopeLogs},
};
use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use self::record::log_record;
use super::{
    client::{CollectorClient, SendError, shown},
    resource::{Attributes, resource, scope},
};
use crate::observe::{ExportCounts, ExportSignal, QueuedDenial, RecordResult};

mod record;

/// Largest number of records in a request: the default of OpenTelemetry's own libraries.
const MOST: usize = 512;
/// Largest size of a batch before it is encoded; a request has about twice as many bytes.
const MOST_BYTES: usize = 1 << 20;
/// How long the first record of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);

/// The first and the longest pause between two attempts. A random factor makes each up to twice as long, so
/// that the agents of a large cluster do not all come back at once.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Records that the collector does not take for this time are dropped in favour of those behind them.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Sends records from the queue to the collector.
#[derive(Debug)]
pub(super) struct LogExport {
    client: CollectorClient,
    resource: Attributes,
    queue: mpsc::UnboundedReceiver<QueuedDenial>,
    counts: ExportCounts,
    batch: Vec<QueuedDenial>,
    longest_wait: Duration,
}

impl LogExport {
    pub(super) const fn new(
        client: CollectorClient,
        resource: Attributes,
        queue: mpsc::UnboundedReceiver<QueuedDenial>,
        counts: ExportCounts,
    ) -> Self {
        Self { client, resource, queue, counts, batch: Vec::new(), longest_wait: LONGEST_WAIT }
    }

    /// Sends until it is stopped, then once more what remains.
    pub(super) async fn run(&mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = self.send_next() => {}
            }
        }
        self.send_rest().await;
        let left = self.counts.waiting();
        if left > 0 {
            tracing::warn!(records = left, "denied packets were not sent to the collector");
        }
    }

    /// Cancel-safe: records that are not sent stay.
    async fn send_next(&mut self) {
        self.fill().await;
        let body = self.body();
        let began = Instant::now();
        let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        let mut pauses = pauses.with_jitter().without_max_times().build();
        while let Some(wanted) = self.send_once(body.clone()).await {
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE).max(wanted.min(LONGEST_WAIT));
            if began.elapsed() + pause > self.longest_wait {
                return self.conclude(RecordResult::Expired);
            }
            sleep(pause).await;
        }
    }

    /// Waits for a record, and a moment for others.
    async fn fill(&mut self) {
        if self.batch.is_empty() {
            match self.queue.recv().await {
                Some(first) => self.batch.push(first),
                // The reader of events is gone, and the agent ends.
                None => std::future::pending().await,
            }
        }
        let others = async {
            while !self.is_full() {
                match self.queue.recv().await {
                    Some(next) => self.batch.push(next),
                    None => return,
                }
            }
        };
        let _ = timeout(DELAY, others).await;
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.batch.iter().map(|queued| queued.bytes).sum();
        self.batch.len() >= MOST || bytes >= MOST_BYTES
    }

    /// Sends the batch. Out: if it must be sent again, how long the collector wants to be left alone.
    async fn send_once(&mut self, body: Bytes) -> Option<Duration> {
        let sent = self.client.send::<ExportLogsServiceResponse>(ExportSignal::Logs, body).await;
        let refused = match &sent {
            Ok(answer) => answer.partial_success.as_ref().filter(|partly| partly.rejected_log_records > 0),
            Err(_) => None,
        };
        let outcome = match (&sent, refused) {
            (Ok(_), None) => Ok(()),
            (Ok(_), Some(partly)) => Err(format!(
                "{} records refused: {}",
                partly.rejected_log_records,
                shown(&partly.error_message)
            )),
            (Err(error), _) => Err(error.error().to_owned()),
        };
        let refused = refused.map_or(0, |partly| u64::try_from(partly.rejected_log_records).unwrap_or(0));
        self.counts.request(ExportSignal::Logs, outcome);
        match sent {
            Ok(_) => {
                let refused = refused.min(self.batch.len() as u64);
                self.counts.record(RecordResult::Refused, refused);
                self.counts.record(RecordResult::Exported, self.batch.len() as u64 - refused);
                self.batch.clear();
                None
            }
            Err(SendError::Refused(_)) => {
                self.conclude(RecordResult::Refused);
                None
            }
            Err(SendError::Retry { pause, .. }) => Some(pause),
        }
    }

    /// Sends what remains at the end: in batches, until there are no more or one is not taken.
    async fn send_rest(&mut self) {
        loop {
            while !self.is_full()
                && let Ok(next) = self.queue.try_recv()
            {
                self.batch.push(next);
            }
            if self.batch.is_empty() || self.send_once(self.body()).await.is_some() {
                return;
            }
        }
    }

    fn body(&self) -> Bytes {
        let log_records = self.batch.iter().map(|queued| log_record(&queued.event)).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }];
        let resource = Some(resource(&self.resource));
        let of_resource = ResourceLogs { resource, scope_logs, ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![of_resource] }.encode_to_vec().into()
    }

    fn conclude(&mut self, result: RecordResult) {
        self.counts.record(result, self.batch.len() as u64);
        self.batch.clear();
    }

    #[cfg(test)]
    pub(super) const fn giving_up_after(mut self, longest: Duration) -> Self {
        self.longest_wait = longest;
        self
    }
}
