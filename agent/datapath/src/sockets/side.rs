//! From sockets to entries of the flow table: pure functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use podgate_common::{Flow, FlowKey, Protocol, Seen, Tuple};

use super::{Socket, SocketState};

/// A pod's side of a live connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSide {
    /// The pod is the low end of the key.
    is_low: bool,
    /// The pod listens where its end of the connection is: the other end came to it.
    listens: bool,
    ended: bool,
    peer_ended: bool,
}

/// The sides of connections that a pod has to others. `own`: what the pod may send from; a connection from
/// another address uses another interface, or none.
pub fn sides(sockets: &[Socket], own: &BTreeSet<IpAddr>) -> BTreeMap<FlowKey, PodSide> {
    let listeners: BTreeSet<(Protocol, SocketAddr)> = sockets
        .iter()
        .filter(|socket| socket.state == SocketState::Listens)
        .map(|socket| (socket.protocol, socket.local))
        .collect();
    let sides = sockets.iter().filter_map(|&Socket { protocol, state, local, remote }| {
        let SocketState::Connected { ended, peer_ended } = state else { return None };
        if !own.contains(&local.ip()) || own.contains(&remote.ip()) || is_nobody(&remote) {
            return None;
        }
        let tuple = Tuple {
            source: local.ip().into(),
            destination: remote.ip().into(),
            source_port: local.port(),
            destination_port: remote.port(),
            protocol: protocol as u32,
        };
        let (key, is_low) = FlowKey::of(&tuple);
        let mut places = listening_places(local).into_iter();
        let listens = places.any(|place| listeners.contains(&(protocol, place)));
        Some((key, PodSide { is_low, listens, ended, peer_ended }))
    });
    sides.collect()
}

impl PodSide {
    /// The entry of the connection with this side in it, as evaluated at `veth` in no revision. `known` is
    /// what the table has of the connection: the other end may be a pod of this node too, or the programs
    /// have seen a packet meanwhile. `now`: the kernel's tick.
    pub fn entry(&self, known: Option<Flow>, veth: u32, now: u32) -> Flow {
        // Who listens is the server. Who does not may have stopped to, so that the table may know better.
        let client_is_low = match known {
            Some(flow) if !self.listens => flow.seen.has(Seen::CLIENT_IS_LOW),
            _ => self.is_low != self.listens,
        };
        let mut flow = match known {
            Some(flow) if flow.seen.has(Seen::CLIENT_IS_LOW) == client_is_low => flow,
            Some(flow) => turned(flow),
            None => Flow::EMPTY,
        };
        let is_client = self.is_low == client_is_low;
        if is_client {
            flow.client_if = veth;
        } else if flow.server_if != veth {
            flow.server_if = veth;
            flow.ingress_ifindex = Flow::ANY_INGRESS;
        }
        let (client_ended, server_ended) =
            if is_client { (self.ended, self.peer_ended) } else { (self.peer_ended, self.ended) };
        // A server's socket says nothing of who is behind its client's address: what the programs know stays.
        let is_rewritten = known.is_some_and(|flow| {
            flow.seen.has(Seen::CLIENT_IS_LOW) == client_is_low && flow.seen.has(Seen::REWRITTEN)
        });
        // What was seen of an earlier connection between the same ends is over: this one lives.
        flow.seen = Seen::REPLY
            .with(Seen::CLIENT_IS_LOW, client_is_low)
            .with(Seen::REWRITTEN, is_rewritten)
            .with(Seen::CLIENT_FIN, client_ended)
            .with(Seen::SERVER_FIN, server_ended);
        flow.last = now;
        flow
    }
}

/// The same connection with client and server exchanged.
fn turned(flow: Flow) -> Flow {
    Flow {
        client_if: flow.server_if,
        server_if: flow.client_if,
        ingress_ifindex: Flow::ANY_INGRESS,
        client_revision: flow.server_revision,
        server_revision: flow.client_revision,
        ..flow
    }
}

/// No packet goes there by a veth.
fn is_nobody(remote: &SocketAddr) -> bool {
    remote.ip().is_loopback() || remote.ip().is_unspecified()
}

/// Where a listener may be that takes connections to `local`. One on `::` takes IPv4 too, unless it is set
/// not to (IPV6_V6ONLY); then another one listens on the same port, or the connection is not there.
fn listening_places(local: SocketAddr) -> [SocketAddr; 3] {
    let everywhere: [IpAddr; 2] = [[0; 4].into(), [0; 16].into()];
    let [all4, all6] = everywhere.map(|address| SocketAddr::new(address, local.port()));
    [SocketAddr::new(local.ip(), local.port()), all4, all6]
}
