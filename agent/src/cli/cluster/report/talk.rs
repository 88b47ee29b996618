//! Who talks to whom, and what was denied: the flows of all nodes, summed by workload.
//!
//! Flows are as many as pods send: each pair of ends has a share of the ports, and what does not fit is
//! counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::Direction;
use podgate_core::{
    model::{Cluster, Labels, Name, ObjectName},
    workload::WorkloadId,
};

use crate::api::{FlowEnd, FlowRecord, FlowVerdict};

/// Pairs of ends.
const MOST_PAIRS: usize = 10_000;
/// Pairs of ends, each at one port.
const MOST_TALKS: usize = 20_000;
/// Of one pair; further ones are counted together.
const PORTS_OF_PAIR: usize = 16;
/// Different denials.
const MOST_DENIALS: usize = 2_000;
/// Of one pair of ends; further ones are counted together.
const DENIALS_OF_PAIR: usize = 16;
/// Addresses, policies or nodes that are named.
const NAMED: usize = 4;

/// Who may be at an end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TalkEnd {
    Workload(WorkloadId),
    /// `namespace/name`, where it is not known which backend was chosen.
    Service(String),
    /// Of the DNS, that a rule has.
    Name(String),
    Nodes,
    Outside,
}

pub(super) type TalkPair = (TalkEnd, TalkEnd);
/// `None`: all that have no place of their own.
pub(super) type TalkPort = Option<String>;

/// Connections of one pair at one port.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// New connections, as the nodes of both ends have counted them.
    egress: u64,
    ingress: u64,
    /// Packets.
    pub(super) denied: u64,
    pub(super) would_deny: u64,
    /// RFC 3339.
    pub(super) last: String,
}

/// What was denied for one reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeniedKind {
    pub(super) port: TalkPort,
    pub(super) direction: &'static str,
    /// `denied` or `would-deny`.
    pub(super) verdict: String,
    pub(super) reason: String,
    /// Those that did not allow it.
    pub(super) policies: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Denial {
    pub(super) packets: u64,
    pub(super) first: String,
    pub(super) last: String,
    /// Some of the addresses outside.
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) nodes: BTreeSet<String>,
}

/// All that flows show.
#[derive(Debug, Default)]
pub(super) struct Talks {
    pub(super) pairs: BTreeMap<TalkPair, BTreeMap<TalkPort, Talk>>,
    pub(super) denials: BTreeMap<TalkPair, BTreeMap<DeniedKind, Denial>>,
    talk_count: usize,
    denial_count: usize,
    /// Flows without a place.
    pub(super) left_out: u64,
    /// Lines that are no flows.
    pub(super) unreadable: u64,
}

impl Talk {
    /// Both ends may have counted the same ones.
    pub(super) fn allowed(&self) -> u64 {
        self.egress.max(self.ingress)
    }
}

impl Talks {
    pub(super) fn take(&mut self, flow: &FlowRecord, cluster: Option<&Cluster>) {
        let pair = (end(&flow.source, &[], cluster), end(&flow.destination, &flow.names, cluster));
        if pair.0 == TalkEnd::Nodes && pair.1 == TalkEnd::Nodes {
            return;
        }
        let port = match (&flow.message, flow.destination.port) {
            (Some(message), _) => format!("{}/{message}", flow.protocol),
            (None, Some(port)) => format!("{}/{port}", flow.protocol),
            (None, None) => flow.protocol.clone(),
        };
        if flow.verdict != FlowVerdict::Allowed {
            self.deny(&pair, &port, flow);
        }
        let known = self.pairs.get(&pair);
        let has_place = |port: &TalkPort| known.is_some_and(|ports| ports.contains_key(port));
        let is_shared = known.is_some_and(|ports| ports.len() >= PORTS_OF_PAIR);
        let port = Some(port).filter(|port| has_place(&Some(port.clone())) || !is_shared);
        if !has_place(&port) {
            if self.talk_count >= MOST_TALKS || (known.is_none() && self.pairs.len() >= MOST_PAIRS) {
                self.left_out += 1;
                return;
            }
            self.talk_count += 1;
        }
        let talk = self.pairs.entry(pair).or_default().entry(port).or_default();
        let count = match (flow.verdict, flow.direction) {
            (FlowVerdict::Allowed, Direction::Egress) => &mut talk.egress,
            (FlowVerdict::Allowed, Direction::Ingress) => &mut talk.ingress,
            (FlowVerdict::Denied, _) => &mut talk.denied,
            (FlowVerdict::WouldDeny, _) => &mut talk.would_deny,
        };
        *count = count.saturating_add(flow.packets);
        if flow.time > talk.last {
            talk.last.clone_from(&flow.time);
        }
    }

    fn deny(&mut self, pair: &TalkPair, port: &str, flow: &FlowRecord) {
        let policies = flow.policies.iter().take(NAMED).map(|policy| policy.policy.clone()).collect();
        let mut key = DeniedKind {
            port: Some(port.to_owned()),
            direction: match flow.direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            },
            verdict: flow.verdict.to_string(),
            reason: flow.reason.to_string(),
            policies,
        };
        let of_pair = self.denials.get(pair);
        let is_known = |key: &DeniedKind| of_pair.is_some_and(|denials| denials.contains_key(key));
        if !is_known(&key) {
            if of_pair.is_some_and(|denials| denials.len() >= DENIALS_OF_PAIR) {
                key = DeniedKind { port: None, policies: Vec::new(), ..key };
            }
            if !is_known(&key) {
                if self.denial_count >= MOST_DENIALS {
                    self.left_out += 1;
                    return;
                }
                self.denial_count += 1;
            }
        }
        let denial = self.denials.entry(pair.clone()).or_default().entry(key).or_default();
        denial.packets = denial.packets.saturating_add(flow.packets);
        let first = flow.first.as_ref().unwrap_or(&flow.time);
        if denial.first.is_empty() || *first < denial.first {
            denial.first.clone_from(first);
        }
        if flow.time > denial.last {
            denial.last.clone_from(&flow.time);
        }
        let outside = [&flow.source, &flow.destination].into_iter().filter(|end| end.pod.is_none());
        for address in outside.filter_map(|end| end.address) {
            if denial.addresses.len() < NAMED {
                denial.addresses.insert(address);
            }
        }
        if denial.nodes.len() < NAMED {
            denial.nodes.insert(flow.node.clone());
        }
    }
}

fn end(end: &FlowEnd, names: &[String], cluster: Option<&Cluster>) -> TalkEnd {
    if let Some((namespace, name)) = end.pod.as_deref().and_then(|pod| pod.split_once('/')) {
        let known = cluster.and_then(|cluster| cluster.pods.get(&ObjectName::new(namespace, name)));
        return TalkEnd::Workload(known.map_or_else(
            || {
                let labels = end.labels.iter().map(|(key, value)| (Name::from(key), Name::from(value)));
                WorkloadId::new(namespace.into(), &Labels::new(labels.collect()))
            },
            |pod| WorkloadId::of(pod),
        ));
    }
    match (&end.service, &end.node, names.first()) {
        (Some(service), ..) => TalkEnd::Service(service.clone()),
        (None, Some(_), _) => TalkEnd::Nodes,
        (None, None, Some(name)) => TalkEnd::Name(name.clone()),
        (None, None, None) => TalkEnd::Outside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16, verdict: FlowVerdict) -> FlowRecord {
        let mut flow = FlowRecord::from(&crate::observe::DecisionEvent::example());
        flow.verdict = verdict;
        flow.destination.port = Some(port);
        flow
    }

    #[test]
    fn a_pod_that_tries_every_port_fills_its_own_share_alone() {
        let mut talks = Talks::default();
        for port in 1..=u16::MAX {
            talks.take(&flow(port, FlowVerdict::Denied), None);
        }
        let [ports] = &talks.pairs.values().collect::<Vec<_>>()[..] else { panic!("{talks:?}") };
        assert_eq!(ports.len(), PORTS_OF_PAIR + 1);
        let denied: u64 = ports.values().map(|talk| talk.denied).sum();
        assert_eq!(denied, u64::from(u16::MAX) * flow(1, FlowVerdict::Denied).packets);
        let denials: usize = talks.denials.values().map(BTreeMap::len).sum();
        assert_eq!((denials, talks.left_out), (DENIALS_OF_PAIR + 1, 0));
    }

    #[test]
    fn more_pairs_than_have_room_are_counted() {
        let mut talks = Talks::default();
        for pod in 0..MOST_PAIRS + 5 {
            let mut flow = flow(80, FlowVerdict::Denied);
            flow.source.pod = Some("x/p".into());
            flow.source.labels = BTreeMap::from([("app".into(), pod.to_string())]);
            talks.take(&flow, None);
        }
        assert_eq!(talks.pairs.len(), MOST_PAIRS);
        assert_eq!(talks.denial_count, MOST_DENIALS);
        let left = u64::try_from(5 + MOST_PAIRS + 5 - MOST_DENIALS).unwrap();
        assert_eq!(talks.left_out, left);
    }
}
