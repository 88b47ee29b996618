//! Which outcome needs which reason, at the veths of pods.

use std::net::IpAddr;

use podgate_common::{Direction, EndpointState, FlowKey, Hook, NODE, Outcome, PacketKind, Protocol, Tuple};
use podgate_core::model::Pod;

use super::{
    Read, Reason, Witness, must,
    policies::{PolicyVerdict, may_send},
};
use crate::{
    naive,
    neighbours::{self, Outer, is_link_local},
    tunnels,
};

impl Witness<'_> {
    /// What no policy has a say in: nothing passes from an address that is not its sender's or in another's
    /// name, no tunnel's packet goes to a node, and only messages between neighbours pass as such.
    pub(super) fn sound(&self, hook: Hook, read: &Read, frame: &[u8], outcome: Outcome) -> Reason {
        if !outcome.passes() {
            return Ok(());
        }
        let in_anothers_name = neighbours::is_in_anothers_name(self.world, hook, frame);
        must(!in_anothers_name, "it speaks in another's name")?;
        let from_another = neighbours::is_from_another_link_address(self.world, hook, frame);
        must(!from_another, "it is from another link-layer address than its pod's")?;
        if outcome == Outcome::Neighbour || hook.direction == Direction::Ingress {
            return Ok(());
        }
        if let Outer::Ip { source, .. } = neighbours::outer(frame, hook.direction) {
            let is_own = neighbours::may_speak_for(self.world, hook.ifindex, source);
            // Of an IPv6 packet that cannot be read `::` says nothing.
            let is_none = outcome == Outcome::Unparsed && source.is_unspecified();
            must(is_own || is_none || outcome == Outcome::Dhcp, "its source is not the pod's")?;
        }
        must(
            !read.is_packet() || outcome == Outcome::Unparsed || !self.is_tunnelled(&read.tuple),
            "a node may take another packet out of it",
        )
    }

    pub(super) fn is_tunnelled(&self, tuple: &Tuple) -> bool {
        let destination = tuple.destination.into();
        tunnels::is_tunnelled(self.world, tuple.protocol, tuple.destination_port, destination)
    }

    pub(super) fn reason(&self, hook: Hook, read: &Read, frame: &[u8], outcome: Outcome) -> Reason {
        let Read { kind, is_connection, ref tuple, opens, .. } = *read;
        let veth = &self.world.veths[&hook.ifindex];
        let pod = &self.world.cluster.pods[&veth.pod];
        let is_known = veth.state == EndpointState::Identified;
        let isolated = is_known && naive::isolates(&self.world.cluster, pod, hook.direction);
        let connection = (hook.ifindex, FlowKey::of(tuple).0);
        let opened = self.opened.contains(&connection);
        let egress = hook.direction == Direction::Egress;
        let (source, destination): (IpAddr, IpAddr) = (tuple.source.into(), tuple.destination.into());
        let source_of_frame = || match neighbours::outer(frame, hook.direction) {
            Outer::Ip { source, .. } => Some(source),
            Outer::Arp { .. } | Outer::Other => None,
        };
        let suspicious = || neighbours::is_suspicious(self.world, frame);
        let entered = self.entered(hook, read);
        let own = |address| pod.addresses.contains(address);
        let subject = self.tables.subjects[&pod.name];
        let verdict_in = |cluster, rule_set| match is_known {
            true => self.policy_verdict(cluster, rule_set, pod, hook, tuple),
            false => PolicyVerdict::NotIsolated,
        };
        let verdict = || verdict_in(&self.world.cluster, subject.egress);
        let audited_verdict = || match subject.audit_egress {
            0 => verdict_in(&self.audited, subject.egress),
            rule_set => verdict_in(&self.audited, rule_set),
        };
        let audit_agrees = || !matches!(audited_verdict(), PolicyVerdict::Denied | PolicyVerdict::Deferred);
        let allowed = || verdict() == PolicyVerdict::Allowed && audit_agrees();
        let sender = self.sender(hook.ingress_ifindex, tuple);
        let sender_veth = sender.map(|(veth, _)| veth);
        let sender_allows =
            |cluster| sender.is_none_or(|(_, pod)| may_send(cluster, &self.world.learnt, pod, tuple));
        let is_own = self.is_nodes_own(hook.ingress_ifindex, read);
        let is_made_again = !egress && hook.ingress_ifindex == NODE && !is_own;
        let opens_again = [Outcome::Allowed, Outcome::NotIsolated, Outcome::WouldDeny, Outcome::OwnAddress];
        if is_made_again && opens_again.contains(&outcome) {
            let was_seen = |veth| self.opened.contains(&(veth, connection.1));
            must(sender_veth.is_none_or(was_seen), "the pod in whose name it comes has not sent it")?;
        }
        match outcome {
            Outcome::Established => {
                let opened = if is_made_again { self.opened_by_others.contains(&connection) } else { opened };
                must(is_connection && opened && !opens, "nothing opened the connection here")
            }
            Outcome::Failsafe => must(false, "a pod has no host endpoint"),
            Outcome::Allowed => must(is_connection && isolated && allowed(), "no rule allows it"),
            Outcome::NotIsolated => must(
                is_connection && !isolated && audit_agrees(),
                "the pod is isolated, or something in audit mode has a word to say",
            ),
            Outcome::WouldDeny => must(
                is_connection
                    && matches!(verdict(), PolicyVerdict::NotIsolated | PolicyVerdict::Allowed)
                    && (audited_verdict() == PolicyVerdict::Denied
                        || !egress && !sender_allows(&self.audited)),
                "nothing in audit mode denies it",
            ),
            Outcome::OwnNode if egress => {
                let to_node = self.world.node.contains(&destination);
                must(is_connection && to_node && allowed(), "it does not go to the node, or is denied there")
            }
            Outcome::OwnNode => must(is_own, "it does not come from the node's own stack"),
            Outcome::OwnAddress if egress => must(is_connection && own(&destination), "it goes elsewhere"),
            Outcome::OwnAddress => must(
                is_connection && (hook.ingress_ifindex == hook.ifindex || sender_veth == Some(hook.ifindex)),
                "it comes from elsewhere",
            ),
            Outcome::Neighbour => must(
                neighbours::is_message(self.world, entered, frame),
                "it is no message between neighbours",
            ),
            Outcome::Dhcp => must(
                if egress { is_dhcp_question(pod, tuple) } else { self.is_dhcp_answer(hook, pod, tuple) },
                "it is no question of DHCP, and no answer to one",
            ),
            Outcome::Related => {
                must(kind == PacketKind::Related && opened, "its connection was not opened here")
            }
            Outcome::Unparsed => must(
                !(is_connection || isolated || egress && kind == PacketKind::Unreadable && suspicious()),
                "it was read, or the pod is isolated, or it may be what no pod may send",
            ),
            Outcome::Denied if kind == PacketKind::Related => must(isolated, "the pod is not isolated"),
            Outcome::Denied => {
                must(is_connection && isolated && verdict() == PolicyVerdict::Denied, "a rule allows it")
            }
            Outcome::DeniedBackend => {
                must(is_connection && !sender_allows(&self.world.cluster), "the sender's egress allows it")
            }
            Outcome::Deferred => must(
                is_connection
                    && is_known
                    && egress
                    && (verdict() == PolicyVerdict::Deferred
                        || verdict() != PolicyVerdict::Denied
                            && audited_verdict() == PolicyVerdict::Deferred),
                "all backends are allowed, or none is, or there are none",
            ),
            Outcome::Masqueraded => Err("no packet is tracked"),
            Outcome::Encapsulated => {
                must(is_connection && egress && self.is_tunnelled(tuple), "no node takes anything out of it")
            }
            Outcome::Spoofed if neighbours::is_in_anothers_name(self.world, entered, frame) => Ok(()),
            Outcome::Spoofed if neighbours::is_from_another_link_address(self.world, hook, frame) => Ok(()),
            Outcome::Spoofed if egress => {
                let is_own = |source| neighbours::may_speak_for(self.world, hook.ifindex, source);
                must(!source_of_frame().is_some_and(is_own), "the source is the pod's own")
            }
            Outcome::Spoofed => must(
                [Some(source), Some(read.source), source_of_frame()].into_iter().flatten().any(|source| {
                    self.world.subjects().any(|other| other.addresses.contains(&source))
                        || is_link_local(source) && self.world.node.contains(&source)
                }),
                "the source is no local pod's, nor the node's on the link",
            ),
            Outcome::Pending => must(veth.state == EndpointState::Pending, "the veth is not held"),
            Outcome::Unreadable => {
                let unread = matches!(kind, PacketKind::Unreadable | PacketKind::Arp);
                must(unread && (isolated || egress && suspicious()), "it was read, or the pod is free")
            }
            Outcome::Fragment => must(
                kind == PacketKind::LaterFragment && !is_connection && isolated,
                "its first fragment is known, or the pod is free",
            ),
            Outcome::FlowTable => Err("the table of connections has room"),
        }
    }

    /// From no pod, to one that has asked, and to no address of another.
    fn is_dhcp_answer(&self, hook: Hook, pod: &Pod, tuple: &Tuple) -> bool {
        let destination = tuple.destination.into();
        let is_anothers = || {
            let mut known = self.world.veths.keys().filter_map(|veth| self.known(*veth));
            self.world.node.contains(&destination) || known.any(|pod| pod.addresses.contains(&destination))
        };
        let from = self.world.veths.get(&hook.ingress_ifindex);
        matches!((tuple.source_port, tuple.destination_port), (67, 68) | (547, 546))
            && self.asked.contains(&(hook.ifindex, tuple.source.is_v4()))
            && hook.ingress_ifindex != NODE
            && from.is_none_or(|veth| veth.state == EndpointState::Pending)
            && (pod.addresses.contains(&destination) || !is_anothers())
    }
}

/// A host without an address asks everyone for one, or to keep the one that it has.
pub(super) fn is_dhcp_question(pod: &Pod, tuple: &Tuple) -> bool {
    let (source, destination): (IpAddr, IpAddr) = (tuple.source.into(), tuple.destination.into());
    let is_udp = tuple.protocol == Protocol::Udp as u32;
    is_udp
        && match (tuple.source_port, tuple.destination_port) {
            (68, 67) => {
                destination == IpAddr::from([255; 4])
                    && (source.is_unspecified() || pod.addresses.contains(&source))
            }
            (546, 547) => destination == crate::world::ip("ff02::1:2") && tuple.source.is_link_local_v6(),
            _ => false,
        }
}
