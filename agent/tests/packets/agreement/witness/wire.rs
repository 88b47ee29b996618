//! Which outcome needs which reason, where packets leave the node.

use podgate_common::{Direction, FlowKey, NODE, Outcome, PacketKind, Protocol, Tuple};
use podgate_core::model::Pod;

use super::{Read, Reason, Witness, must, policies::may_send, reasons::is_dhcp_question};
use crate::{naive, neighbours};

impl Witness<'_> {
    /// What leaves the node is evaluated when a pod has sent it that policies are asked about, and not
    /// evaluated before.
    pub(crate) fn check_on_wire(
        &mut self,
        ingress_ifindex: u32,
        frame: &[u8],
        outcome: Option<Outcome>,
    ) -> Reason {
        let read = self.read(frame);
        let Read { kind, tuple, opens, source, is_part, is_connection, .. } = read;
        let (key, _) = FlowKey::of(&tuple);
        let is_enforced = |pod: &Pod| naive::isolates(&self.world.cluster, pod, Direction::Egress);
        // Of what has entered nowhere, whole packets are the kernel's making, and parts are their senders'.
        let is_foreign = ingress_ifindex != NODE || is_part;
        match kind {
            PacketKind::Unreadable => {
                let is_closed = self.known(ingress_ifindex).is_some_and(is_enforced);
                let expected = (is_closed && is_foreign).then_some(Outcome::Unreadable);
                return must(outcome == expected, "what cannot be read leaves from a free pod alone");
            }
            PacketKind::Related => {
                let error = Tuple { source: source.into(), ..tuple };
                let sender = self.sender(ingress_ifindex, &error);
                let sender = sender.filter(|(_, pod)| is_foreign && is_enforced(pod));
                return match (outcome, sender) {
                    (None, None) | (Some(Outcome::Denied), Some(_)) => Ok(()),
                    (None, Some((veth, _))) => {
                        must(self.opened.contains(&(veth, key)), "its connection was not evaluated")
                    }
                    (Some(_), _) => Err("no isolated pod has sent it"),
                };
            }
            _ => {}
        }
        let asked = self
            .sender(ingress_ifindex, &tuple)
            .filter(|(_, pod)| is_foreign && naive::isolates(&self.audited, pod, Direction::Egress));
        let is_candidate = read.is_packet() && !neighbours::has_type(frame);
        let Some((veth, pod)) = asked.filter(|_| is_candidate) else {
            return must(outcome.is_none(), "no isolated pod has sent it");
        };
        let isolated = is_enforced(pod);
        if !is_connection {
            let expected = isolated.then_some(Outcome::Fragment);
            return must(outcome == expected, "its first fragment is not known");
        }
        let sends = || may_send(&self.world.cluster, &self.world.learnt, pod, &tuple);
        let would_send = || may_send(&self.audited, &self.world.learnt, pod, &tuple);
        let holds = match outcome {
            None => self.opened.contains(&(veth, key)) && self.deferred.get(&key) != Some(&veth),
            Some(outcome) if self.is_tunnelled(&tuple) => outcome == Outcome::Encapsulated,
            Some(Outcome::Allowed) if !isolated => false,
            Some(Outcome::NotIsolated) if isolated => false,
            Some(Outcome::Allowed | Outcome::NotIsolated) => {
                let may_be_a_reply = !pod.addresses.contains(&tuple.source.into())
                    && !tuple.source.is_link_local_v6()
                    && tuple.protocol == Protocol::Tcp as u32
                    && !opens;
                sends() && would_send() || may_be_a_reply || is_dhcp_question(pod, &tuple)
            }
            Some(Outcome::DeniedBackend) => !sends(),
            Some(Outcome::WouldDeny) => sends() && !would_send(),
            Some(_) => false,
        };
        if outcome.is_none_or(Outcome::passes) {
            self.open(veth, key);
            self.deferred.remove(&key);
            self.remember_ports(&read);
        }
        must(holds, "the sender's policies say otherwise")
    }
}
