//! Selects the denials to report, for the deny log and the collector alike: the first packet of its kind,
//! then one report with a count for each interval in which there were more. A port scan fills neither memory
//! nor disk: beyond a number of kinds they are distinguished by their ends alone, then not at all.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use podgate_common::Outcome;
use podgate_core::model::ObjectName;

use super::{DecisionEvent, DenyLog, EventEnd, FlowExport};

/// Between two reports of one kind.
const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds that are distinguished at a time.
const KINDS: usize = 4_096;

/// The properties that all denials of one kind share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DenialKey {
    source: KeyEnd,
    destination: KeyEnd,
    protocol: u16,
    port: Option<u16>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum KeyEnd {
    Pod(ObjectName),
    Address(IpAddr),
    Unknown,
}

#[derive(Debug)]
struct ReportedDenial {
    /// The last of them; its packets are those that no report has counted.
    event: DecisionEvent,
    packets: u64,
    reported: Instant,
}

/// Selects the denials to report.
#[derive(Debug, Default)]
pub struct Denials {
    log: Option<DenyLog>,
    export: Option<FlowExport>,
    kinds: HashMap<DenialKey, ReportedDenial>,
    /// When the kinds were looked through last.
    looked: Option<Instant>,
}

impl Denials {
    pub fn new(log: Option<DenyLog>, export: Option<FlowExport>) -> Self {
        Self { log, export, ..Self::default() }
    }

    /// Notes a denial: the first of its kind is reported at once.
    pub(super) fn add(&mut self, event: &DecisionEvent, now: Instant) {
        if self.log.is_none() && self.export.is_none() {
            return;
        }
        let mut kind = DenialKey::of(event);
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS / 2 {
            // All ports of a scan are one kind, and so are its sources when there are too many.
            kind.port = None;
            if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS {
                kind.source = KeyEnd::Unknown;
                kind.destination = KeyEnd::of_pod(&event.destination).unwrap_or(KeyEnd::Unknown);
            }
        }
        if let Some(seen) = self.kinds.get_mut(&kind) {
            seen.packets += event.packets;
            seen.event = event.clone();
            return;
        }
        self.report(event);
        if self.kinds.len() < KINDS + KINDS / 4 {
            self.kinds.insert(kind, ReportedDenial { event: event.clone(), packets: 0, reported: now });
        }
    }

    /// Reports each kind that continued for an interval, and forgets the others.
    pub(super) fn summarise(&mut self, now: Instant) {
        let is_early = |then: Instant, by| now.checked_duration_since(then).is_none_or(|passed| passed < by);
        if self.looked.is_some_and(|looked| is_early(looked, INTERVAL / 60)) {
            return;
        }
        self.looked = Some(now);
        let due: Vec<DenialKey> = self
            .kinds
            .iter()
            .filter(|(_, seen)| !is_early(seen.reported, INTERVAL))
            .map(|(kind, _)| kind.clone())
            .collect();
        for kind in due {
            let Some(mut seen) = self.kinds.remove(&kind) else { continue };
            if seen.packets > 0 {
                seen.event.packets = std::mem::take(&mut seen.packets);
                self.report(&seen.event);
                seen.reported = now;
                self.kinds.insert(kind, seen);
            }
        }
    }

    /// Notes one that happens now.
    #[cfg(test)]
    pub(crate) fn note(&mut self, event: &DecisionEvent) {
        self.add(event, Instant::now());
    }

    fn report(&self, event: &DecisionEvent) {
        if let Some(log) = &self.log {
            log.write(event);
        }
        if let Some(export) = &self.export {
            export.take(event);
        }
    }
}

impl DenialKey {
    fn of(event: &DecisionEvent) -> Self {
        Self {
            source: KeyEnd::of(&event.source),
            destination: KeyEnd::of(&event.destination),
            protocol: event.protocol,
            port: event.destination.port.or(event.message),
            outcome: event.outcome,
        }
    }
}

impl KeyEnd {
    fn of(end: &EventEnd) -> Self {
        Self::of_pod(end).or(end.address.map(Self::Address)).unwrap_or(Self::Unknown)
    }

    fn of_pod(end: &EventEnd) -> Option<Self> {
        end.pod().map(|pod| Self::Pod(pod.name.clone()))
    }
}
