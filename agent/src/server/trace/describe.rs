//! The steps of a traced packet in words, with names beside numbers.
//!
//! In: what the programs have written, and a snapshot. Out: one line for each look-up. What is looked up
//! twice is shown once.

use std::collections::{BTreeMap, BTreeSet};

use podgate_common::{
    Address, Direction, EndpointState, Flow, FlowStep, NODE, Outcome, PacketKind, PacketTrace, PolicyId,
    PolicyLookup, RowKey, RuleProtocol, Seen, TracedLookup, seconds_of_ticks,
};

use crate::{
    api::{TracedPacket, TracedStep, icmp_message, protocol_name},
    observe::{AddressOwners, EndOwner, FlowClock},
    snapshot::{AppliedPolicies, EnforcedInterface, Snapshot},
};

/// Describes the packets of one trace.
#[derive(Debug)]
pub(super) struct Describer {
    owners: AddressOwners,
    jiffies_per_second: u32,
}

/// What is known of one packet.
struct Names<'a> {
    snapshot: &'a Snapshot,
    owners: &'a mut AddressOwners,
    /// Of the rule sets that endpoints name.
    policies: BTreeMap<u32, String>,
}

impl Describer {
    pub(super) fn new(jiffies_per_second: u32) -> Self {
        Self { owners: AddressOwners::default(), jiffies_per_second }
    }

    /// `None`: no program writes that.
    pub(super) fn describe(&mut self, packet: &PacketTrace, snapshot: &Snapshot) -> Option<TracedPacket> {
        let direction = Direction::try_from(packet.direction).ok()?;
        let outcome = Outcome::try_from(packet.outcome).ok()?;
        let kind = packet.packet_kind()?;
        let jiffies_per_second = self.jiffies_per_second;
        let mut names = Names { snapshot, owners: &mut self.owners, policies: BTreeMap::new() };
        let mut steps = vec![names.headers(packet, kind)];
        let mut shown = BTreeSet::new();
        for step in packet.steps() {
            let (step, detail) = match step? {
                TracedLookup::Flow { entry } => ("flow", names.flow(entry, packet.now, jiffies_per_second)),
                step => names.describe(&step),
            };
            if shown.insert((step, detail.clone())) {
                steps.push(TracedStep { step: step.to_owned(), detail });
            }
        }
        if packet.omitted > 0 {
            let detail = format!("{} more look-ups are left out", packet.omitted);
            steps.push(TracedStep { step: "omitted".to_owned(), detail });
        }
        let tuple = packet.tuple;
        let (of, _) = RuleProtocol::of_packet(tuple.protocol, tuple.source_port, tuple.destination_port);
        let has_ports = of.with_ports().is_some();
        let mut end = |address, port: u16| {
            let address = names.address(address);
            if has_ports { format!("{address} port {port}") } else { address }
        };
        let (source, destination) =
            (end(tuple.source, tuple.source_port), end(tuple.destination, tuple.destination_port));
        Some(TracedPacket {
            time: format!("{:.3}", FlowClock::now().wall(packet.time)),
            direction,
            interface: names.interface(packet.ifindex),
            protocol: protocol_name(u16::try_from(tuple.protocol).unwrap_or(0)),
            source,
            destination,
            steps,
            outcome,
            passes: outcome.passes(),
            revision: packet.revision,
        })
    }
}

impl Names<'_> {
    fn headers(&mut self, packet: &PacketTrace, kind: PacketKind) -> TracedStep {
        let what = match kind {
            PacketKind::Flow if packet.segment.opens() => "opens a connection".to_owned(),
            PacketKind::Flow if packet.segment.answers() => "answers what opens a connection".to_owned(),
            PacketKind::Flow => "whole".to_owned(),
            PacketKind::FirstFragment => "the first fragment of a datagram".to_owned(),
            PacketKind::LaterFragment => "a later fragment of a datagram".to_owned(),
            PacketKind::Related => {
                format!("an ICMP error of {} about the packet above", self.address(packet.sender))
            }
            PacketKind::Arp => "ARP".to_owned(),
            PacketKind::Neighbour => "a message between neighbours".to_owned(),
            PacketKind::Unreadable => format!("not readable; sender {}", self.address(packet.sender)),
        };
        let from = match packet.ingress_ifindex {
            _ if packet.direction == Direction::Egress as u8 => String::new(),
            NODE => ", of the node or entered nowhere".to_owned(),
            ifindex => format!(", entered at {}", self.interface(ifindex)),
        };
        TracedStep { step: "headers".to_owned(), detail: what + &from }
    }

    fn flow(&self, entry: Option<FlowStep>, now: u32, jiffies_per_second: u32) -> String {
        let Some(FlowStep { client_if, server_if, seen, last }) = entry else {
            return "no entry: the connection is new".to_owned();
        };
        let side = |ifindex, unevaluated: &str| match ifindex {
            0 => unevaluated.to_owned(),
            other => self.interface(other),
        };
        let idle = seconds_of_ticks(now.wrapping_sub(last), jiffies_per_second);
        let mut text = format!(
            "an entry: client evaluated at {}, server at {}, used {idle} s ago",
            side(client_if, "no interface"),
            side(server_if, "no interface")
        );
        for (mark, words) in [
            (Seen::REPLY, "answered"),
            (Seen::DEFERRED, "deferred"),
            (Seen::REWRITTEN, "client rewritten by the node"),
            (Seen::NAMES, "replies are read for names"),
        ] {
            if seen.has(mark) {
                text += &format!(", {words}");
            }
        }
        text
    }

    fn describe(&mut self, step: &TracedLookup) -> (&'static str, String) {
        match *step {
            TracedLookup::Flow { .. } => ("flow", String::new()),
            TracedLookup::Fragment { ports: None } => {
                ("fragment", "its first fragment is not known".to_owned())
            }
            TracedLookup::Fragment { ports: Some(ports) } => (
                "fragment",
                format!("its first fragment had ports {} and {}", ports.source, ports.destination),
            ),
            TracedLookup::LinkAddress { ifindex, is_bound } => {
                let text = if is_bound {
                    "must send from its own link address"
                } else {
                    "no link address is asked for"
                };
                ("link-address", format!("{}: {text}", self.interface(ifindex)))
            }
            TracedLookup::Endpoint { ifindex, state, ingress, egress, audit } => {
                ("endpoint", self.endpoint(ifindex, state, [ingress, egress], audit))
            }
            TracedLookup::Owner { address, owner } => {
                let owner = match owner {
                    None => "no pod of this node, nor the node".to_owned(),
                    Some(NODE) => "the node's own".to_owned(),
                    Some(ifindex) => self.interface(ifindex),
                };
                ("owner", format!("{}: {owner}", self.address(address)))
            }
            TracedLookup::Sender { address, pod, is_rewritten, is_masqueraded } => {
                let pod = match pod {
                    NODE => "no pod of this node".to_owned(),
                    ifindex => self.interface(ifindex),
                };
                let how = match (is_masqueraded, is_rewritten) {
                    (true, _) => ", masqueraded by the node",
                    (false, true) => ", rewritten by the node",
                    (false, false) => "",
                };
                ("sender", format!("{}: {pod}{how}", self.address(address)))
            }
            TracedLookup::Service { address, port, protocol, service } => {
                let key = match (protocol, address.is_unspecified()) {
                    (0, _) => "the filter of services".to_owned(),
                    (_, true) => format!("node port {}/{port}", protocol_name(protocol)),
                    (_, false) => format!("{} {}/{port}", self.address(address), protocol_name(protocol)),
                };
                let found = service.map_or_else(|| "no service".to_owned(), |id| format!("service {id}"));
                ("service", format!("{key}: {found}"))
            }
            TracedLookup::Identity { address, identity } => {
                ("identity", format!("{}: identity {identity}", self.address(address)))
            }
            TracedLookup::Class { protocol, place, class } => {
                let port = match protocol {
                    RuleProtocol::Tcp | RuleProtocol::Udp | RuleProtocol::Sctp => {
                        format!("{protocol}/{place}")
                    }
                    RuleProtocol::Icmp | RuleProtocol::IcmpV6 => {
                        format!("{protocol}/{}", icmp_message(place))
                    }
                    RuleProtocol::Other => format!("IP/{place}"),
                };
                ("class", format!("{port}: class {class}"))
            }
            TracedLookup::Row { key, class, is_there, has_bit } => {
                ("row", self.row(key, class.0, is_there, has_bit))
            }
            TracedLookup::Names { address, is_allowed } => {
                let text = if is_allowed { "a name allows it" } else { "no name allows it" };
                ("names", format!("{}: {text}", self.address(address)))
            }
            TracedLookup::Entered { is_entered, client_if, server_if } => {
                let side = |ifindex| if ifindex == 0 { "none".to_owned() } else { self.interface(ifindex) };
                let how = if is_entered {
                    "the connection has an entry now"
                } else {
                    "there is no room for an entry"
                };
                ("entered", format!("{how}: client {}, server {}", side(client_if), side(server_if)))
            }
        }
    }

    fn endpoint(
        &mut self,
        ifindex: u32,
        state: u32,
        policies: [PolicyId; 2],
        audit: [PolicyId; 2],
    ) -> String {
        let name = self.interface(ifindex);
        if ifindex == NODE || ifindex == Flow::UNKNOWN_INGRESS || ifindex == Flow::ANY_INGRESS {
            return format!("{name}: no pod's");
        }
        let identified = EndpointState::Identified as u32;
        if state != identified {
            let what = if state == EndpointState::Unmanaged as u32 { "unmanaged" } else { "no pod is known" };
            return format!("{name}: {what}");
        }
        let known = self.snapshot.interfaces.get(&ifindex);
        let mut texts = Vec::new();
        for (direction, [policy, audit]) in
            [(Direction::Ingress, [policies[0], audit[0]]), (Direction::Egress, [policies[1], audit[1]])]
        {
            let applied = known.map(|known| applied(known, direction));
            texts.push(match policy.isolates() {
                false => format!("{direction} not isolated"),
                true => {
                    let names = applied.map(enforced).unwrap_or_default();
                    self.policies.insert(policy.0, names);
                    format!("{direction} {}", self.policy(policy))
                }
            });
            if audit.isolates() {
                let names = applied.map(|applied| applied.audit.join(", ")).unwrap_or_default();
                self.policies.insert(audit.0, names);
                texts.push(format!("{direction} in audit mode {}", self.policy(audit)));
            }
        }
        format!("{name}: {}", texts.join(", "))
    }

    fn policy(&self, policy: PolicyId) -> String {
        match self.policies.get(&policy.0) {
            Some(names) if !names.is_empty() => format!("policy {policy} ({names})"),
            _ => format!("policy {policy}"),
        }
    }

    fn row(&self, key: RowKey, class: u16, is_there: bool, has_bit: bool) -> String {
        let policy = self.policy(key.policy);
        if key.is_of_service() {
            let verdict = match (is_there, has_bit) {
                (true, true) => "allows all backends",
                (true, false) => "allows some of the backends",
                (false, _) => "allows no backend",
            };
            return format!("{policy}, service {}: {verdict}", key.identity);
        }
        if key.is_of_strata() {
            return format!(
                "{policy}: {}",
                if is_there { "has rules with names" } else { "has no rules with names" }
            );
        }
        let identity = match PolicyLookup::name(key.identity) {
            Some(name) => format!("name {name}"),
            None => format!("identity {}", key.identity),
        };
        let verdict = match (key.block & RowKey::OWN_NODE != 0, has_bit) {
            (true, true) => "denies it, of the pod's own node",
            (true, false) => "does not deny it, of the pod's own node",
            (false, true) => "allows it",
            (false, false) => "does not allow it",
        };
        let row = if is_there { "" } else { " (no row)" };
        format!("{policy}, {identity}, class {class}: {verdict}{row}")
    }

    /// An address, and whose it is.
    fn address(&mut self, address: Address) -> String {
        if address == Address::UNSPECIFIED {
            return "::".to_owned();
        }
        let address = address.into();
        match self.owners.end(&self.snapshot.cluster, Some(address), None, None).owner {
            Some(EndOwner::Pod(pod)) => format!("{address} ({})", pod.name),
            Some(EndOwner::Service(name)) => {
                format!("{address} ({})", name.to_string().replacen('/', "/svc:", 1))
            }
            Some(EndOwner::Node(name)) => format!("{address} (node/{name})"),
            None => address.to_string(),
        }
    }

    /// An interface, and the pod behind it.
    fn interface(&self, ifindex: u32) -> String {
        match ifindex {
            NODE => return "the node".to_owned(),
            Flow::UNKNOWN_INGRESS => return "an unknown interface".to_owned(),
            Flow::ANY_INGRESS => return "any interface".to_owned(),
            _ => {}
        }
        let Some(EnforcedInterface { veth, .. }) = self.snapshot.interfaces.get(&ifindex) else {
            return format!("interface {ifindex}");
        };
        match &veth.last {
            Some(pod) => format!("{pod} at {}", veth.name),
            None => format!("interface {}", veth.name),
        }
    }
}

const fn applied(interface: &EnforcedInterface, direction: Direction) -> &AppliedPolicies {
    match direction {
        Direction::Ingress => &interface.ingress,
        Direction::Egress => &interface.egress,
    }
}

/// The policies that isolate, or have rules.
fn enforced(applied: &AppliedPolicies) -> String {
    let AppliedPolicies { policies, cluster_policies, calico_policies, isolates: _, audit: _ } = applied;
    let names = policies.iter().map(|policy| policy.name.to_string());
    let names = names.chain(cluster_policies.iter().map(|policy| policy.name.to_string()));
    names.chain(calico_policies.iter().map(|policy| policy.name.to_string())).collect::<Vec<_>>().join(", ")
}
