//! Connections that are older than the agent, as the sockets of pods report them.
//!
//! In: the ids of the network namespaces behind veths. Out: the sockets in there, and the pod's side of each
//! live connection, as an entry of the flow table has it. A pod's sockets speak for that pod's side alone:
//! what one pod makes up opens nothing at another one. When they are read, and what is written, is left to
//! the reconciler.

mod namespaces;
mod read;
mod side;
#[cfg(test)]
mod tests;
mod tracking;

use std::net::SocketAddr;

use podgate_common::Protocol;

pub use self::{namespaces::Namespaces, read::PodSockets, side::PodSide, side::sides, tracking::Answered};

/// What the kernel reports about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// How far the connection has come.
    pub state: SocketState,
    /// IPv4 addresses as such, also of an IPv6 socket (`::ffff:a.b.c.d`).
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// How far a socket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// It takes what anybody sends: a TCP listener, or a UDP socket without a peer.
    Listens,
    /// It has a peer. Which of them have sent their FIN?
    Connected {
        /// This end has sent its FIN.
        ended: bool,
        /// The other end has sent its FIN.
        peer_ended: bool,
    },
}
