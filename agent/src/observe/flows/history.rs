//! What was decided lately, for who asks afterwards.
//!
//! In: decisions. Out: for each kind of flow its first and last time and its packets. Two decisions are of
//! one kind when they differ in the client's port and the time alone. Nothing but memory is used while the
//! history is locked, and memory is bounded: when it is full, an eighth is given up ([`fair`]).

mod fair;
mod file;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use podgate_common::{Direction, Outcome};
use podgate_core::model::{Labels, Name, ObjectName};
use tokio::sync::broadcast;

use super::{DecidingPolicy, DecisionEvent, EndOwner, EventEnd, EventVerdict, NameRole};
use crate::api::{FlowEnd, FlowPolicy, FlowRecord, icmp_message, protocol_name};

/// Decisions that a follower may be behind.
const BEHIND: usize = 1_024;

/// What an entry may hold in memory, in bytes, before it counts as several: labels and names of policies are
/// as long as their authors like.
const ENTRY: usize = 1_024;

/// The flows of the past, and those to come. Copies share them.
#[derive(Clone, Debug)]
pub struct FlowHistory {
    node: Name,
    lately: Arc<Mutex<Lately>>,
}

#[derive(Debug)]
struct Lately {
    flows: HashMap<Arc<FlowKind>, Seen>,
    /// Of all entries together, and the most that it may be.
    weight: usize,
    limit: usize,
    /// The policies of entries, in words; those of many entries are the same.
    policies: HashMap<Vec<DecidingPolicy>, Arc<[FlowPolicy]>>,
    live: broadcast::Sender<Arc<DecisionEvent>>,
    counts: ObserverCounts,
    /// Decisions since the history was saved.
    unsaved: u64,
}

/// What has become of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserverCounts {
    pub allowed: u64,
    pub denied: u64,
    pub would_deny: u64,
    /// Not attributed: there were too many.
    pub skipped: u64,
}

/// What decisions of one kind have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FlowKind {
    direction: Direction,
    outcome: Outcome,
    /// The number of the IP protocol.
    protocol: u16,
    /// Type and code of a message of ICMP.
    message: Option<u16>,
    /// Of the destination.
    port: Option<u16>,
    source: KnownEnd,
    destination: KnownEnd,
    policies: Arc<[FlowPolicy]>,
    /// `None`: names had no part in it. Nearly always so.
    names: Option<Box<NameRole>>,
    certain: bool,
}

/// An end, as it was known when the packet came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct KnownEnd {
    address: Option<IpAddr>,
    owner: Option<KnownOwner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum KnownOwner {
    Pod(ObjectName, Labels),
    Service(ObjectName),
    Node(Name),
}

/// When decisions of a kind were made, and how many packets they stand for.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Timestamp,
    last: Timestamp,
    packets: u64,
    /// Of the last one.
    source_port: Option<u16>,
    revision: u32,
    /// How many usual entries it counts as.
    weight: usize,
}

/// Flows of one kind in the past.
#[derive(Clone, Debug)]
pub struct PastFlow {
    node: Name,
    kind: Arc<FlowKind>,
    seen: Seen,
}

/// Which part of the past is asked for, as ages; what is not given is not asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowWindow {
    /// Flows whose last packet is not older.
    pub since: Option<Duration>,
    /// Flows whose first packet is older.
    pub until: Option<Duration>,
}

impl FlowHistory {
    /// `limit`: how many kinds of flows are kept. Each holds at most 1 KiB of memory, or counts as several.
    pub fn new(node: Name, limit: usize) -> Self {
        Self {
            node,
            lately: Arc::new(Mutex::new(Lately {
                flows: HashMap::new(),
                weight: 0,
                limit: limit.max(1),
                policies: HashMap::new(),
                live: broadcast::Sender::new(BEHIND),
                counts: ObserverCounts::default(),
                unsaved: 0,
            })),
        }
    }

    pub(crate) fn add(&self, event: DecisionEvent) {
        let mut lately = self.lock();
        *match event.verdict() {
            EventVerdict::Allowed => &mut lately.counts.allowed,
            EventVerdict::Denied => &mut lately.counts.denied,
            EventVerdict::WouldDeny => &mut lately.counts.would_deny,
        } += 1;
        let policies = lately.policies_in_words(&event.policies);
        let (kind, seen) = FlowKind::of(&event, policies);
        lately.enter(kind, seen);
        lately.unsaved += 1;
        // No one may be there.
        let _ = lately.live.send(Arc::new(event));
    }

    pub(super) fn skip(&self) {
        self.lock().counts.skipped += 1;
    }

    /// Flows of the past, in the order of their last packets, and decisions to come: none is missed in
    /// between.
    pub fn follow(&self, window: FlowWindow) -> (Vec<PastFlow>, broadcast::Receiver<Arc<DecisionEvent>>) {
        let (mut past, live) = {
            let lately = self.lock();
            (self.copy(&lately), lately.live.subscribe())
        };
        let now = Timestamp::now();
        let at = |age: Option<Duration>| now.checked_sub(SignedDuration::try_from(age?).ok()?).ok();
        let (since, until) = (at(window.since), at(window.until));
        past.retain(|PastFlow { seen, .. }| {
            since.is_none_or(|since| seen.last >= since) && until.is_none_or(|until| seen.first <= until)
        });
        past.sort_by_key(|flow| flow.seen.last);
        (past, live)
    }

    /// Decisions to come.
    #[cfg(test)]
    pub(super) fn live(&self) -> broadcast::Receiver<Arc<DecisionEvent>> {
        self.lock().live.subscribe()
    }

    pub fn counts(&self) -> ObserverCounts {
        self.lock().counts
    }

    fn copy(&self, lately: &Lately) -> Vec<PastFlow> {
        let copy = |(kind, seen): (&Arc<FlowKind>, &Seen)| PastFlow {
            node: self.node.clone(),
            kind: kind.clone(),
            seen: *seen,
        };
        lately.flows.iter().map(copy).collect()
    }

    /// A panic while it is locked leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lately {
    fn enter(&mut self, kind: FlowKind, new: Seen) {
        if let Some(seen) = self.flows.get_mut(&kind) {
            let is_last = new.last >= seen.last;
            *seen = Seen {
                first: seen.first.min(new.first),
                last: seen.last.max(new.last),
                packets: seen.packets.saturating_add(new.packets),
                source_port: if is_last { new.source_port } else { seen.source_port },
                revision: if is_last { new.revision } else { seen.revision },
                weight: seen.weight,
            };
            return;
        }
        self.weight += new.weight;
        self.flows.insert(Arc::new(kind), new);
        if self.weight > self.limit {
            fair::trim(&mut self.flows, self.limit - self.limit / 8);
            self.weight = self.flows.values().map(|seen| seen.weight).sum();
            self.policies.retain(|_, words| Arc::strong_count(words) > 1);
        }
    }

    fn policies_in_words(&mut self, policies: &[DecidingPolicy]) -> Arc<[FlowPolicy]> {
        if let Some(known) = self.policies.get(policies) {
            return known.clone();
        }
        let words: Arc<[FlowPolicy]> = policies.iter().map(FlowPolicy::from).collect();
        self.policies.insert(policies.to_vec(), words.clone());
        words
    }
}

impl FlowKind {
    fn of(event: &DecisionEvent, policies: Arc<[FlowPolicy]>) -> (Self, Seen) {
        let kind = Self {
            direction: event.direction,
            outcome: event.outcome,
            protocol: event.protocol,
            message: event.message,
            port: event.destination.port,
            source: KnownEnd::of(&event.source),
            destination: KnownEnd::of(&event.destination),
            policies,
            names: event.names.clone().map(Box::new),
            certain: event.certain,
        };
        let seen = Seen {
            first: event.time,
            last: event.time,
            packets: event.packets,
            source_port: event.source.port,
            revision: event.revision,
            weight: kind.weight(),
        };
        (kind, seen)
    }

    /// How many usual entries it counts as.
    fn weight(&self) -> usize {
        let policy = |policy: &FlowPolicy| {
            size_of::<FlowPolicy>() + policy.policy.len() + size_of_val(&policy.rules[..])
        };
        let names = match self.names.as_deref() {
            Some(NameRole::Allowed(names) | NameRole::Expired(names)) => {
                names.iter().map(|name| size_of::<String>() + name.len()).sum()
            }
            Some(NameRole::Missing(_)) | None => 0,
        };
        let bytes = self.source.bytes() + self.destination.bytes() + names;
        1 + (bytes + self.policies.iter().map(policy).sum::<usize>()) / ENTRY
    }

    /// The end whose side was evaluated, and the other one.
    const fn ends(&self) -> [&KnownEnd; 2] {
        match self.direction {
            Direction::Egress => [&self.source, &self.destination],
            Direction::Ingress => [&self.destination, &self.source],
        }
    }
}

impl KnownEnd {
    fn of(EventEnd { address, port: _, owner }: &EventEnd) -> Self {
        let owner = owner.as_ref().map(|owner| match owner {
            EndOwner::Pod(pod) => KnownOwner::Pod(pod.name.clone(), pod.labels.clone()),
            EndOwner::Service(name) => KnownOwner::Service(name.clone()),
            EndOwner::Node(name) => KnownOwner::Node(name.clone()),
        });
        Self { address: *address, owner }
    }

    /// What its labels take.
    fn bytes(&self) -> usize {
        const PAIR: usize = 2 * size_of::<Name>();
        match &self.owner {
            Some(KnownOwner::Pod(_, labels)) => {
                labels.iter().map(|(key, value)| PAIR + key.len() + value.len()).sum()
            }
            Some(KnownOwner::Service(_) | KnownOwner::Node(_)) | None => 0,
        }
    }

    fn record(&self, port: Option<u16>) -> FlowEnd {
        let mut end = FlowEnd { address: self.address, port, ..FlowEnd::default() };
        match &self.owner {
            Some(KnownOwner::Pod(name, labels)) => {
                end.labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
                end.pod = Some(name.to_string());
            }
            Some(KnownOwner::Service(name)) => end.service = Some(name.to_string()),
            Some(KnownOwner::Node(name)) => end.node = Some(name.to_string()),
            None => {}
        }
        end
    }
}

impl From<&PastFlow> for FlowRecord {
    fn from(PastFlow { node, kind, seen }: &PastFlow) -> Self {
        let FlowKind { direction, outcome, protocol, message, port, .. } = &**kind;
        let FlowKind { source, destination, policies, names, certain, .. } = &**kind;
        let (names, name_expired, name_missing) = NameRole::in_words(names.as_deref());
        Self {
            time: format!("{:.3}", seen.last),
            first: Some(format!("{:.3}", seen.first)).filter(|_| seen.first != seen.last),
            node: node.to_string(),
            direction: *direction,
            verdict: EventVerdict::of(*outcome).into(),
            reason: *outcome,
            protocol: protocol_name(*protocol),
            message: message.map(icmp_message),
            source: source.record(seen.source_port),
            destination: destination.record(*port),
            policies: policies.to_vec(),
            names,
            name_expired,
            name_missing,
            certain: *certain,
            packets: seen.packets,
            revision: seen.revision,
        }
    }
}
