//! The sockets of a network namespace, by sock_diag (man 7 sock_diag).
//!
//! In: the namespace. Out: its TCP and UDP sockets that listen or have a peer. The kernel tells them only to
//! a socket in the same namespace, so one is opened in there, by a thread that ends with it.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Context as _, Result};
use netlink_packet_core::Parseable as _;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{
        AF_INET, AF_INET6, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1,
        TCP_FIN_WAIT2, TCP_LAST_ACK, TCP_LISTEN,
    },
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use podgate_common::Protocol;

use super::{Socket, SocketState};
use crate::netlink::Requests;

/// A way to the sockets of one pod.
#[derive(Debug)]
pub struct PodSockets(Requests);

impl PodSockets {
    /// # Errors
    ///
    /// When the namespace cannot be entered (needs CAP_SYS_ADMIN).
    pub fn open(namespace: &File) -> Result<Self> {
        let requests = thread::scope(|scope| {
            let opener = thread::Builder::new().spawn_scoped(scope, || {
                enter(namespace).context("cannot enter the network namespace")?;
                Requests::open(NETLINK_SOCK_DIAG).context("cannot open a sock_diag socket")
            });
            let opener = opener.context("cannot start a thread")?;
            opener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        requests.map(Self)
    }

    /// What there is now.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer (CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG).
    pub fn read(&mut self) -> Result<Vec<Socket>> {
        let mut sockets = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for family in [AF_INET, AF_INET6] {
                let dump = self.0.dump(request(family, protocol), |payload| socket(payload, protocol));
                sockets.extend(dump.with_context(|| format!("cannot list the {protocol} sockets"))?);
            }
        }
        Ok(sockets)
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: a valid descriptor. Of the calling thread alone, the network namespace changes.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn request(family: u8, protocol: Protocol) -> SockDiagMessage {
    let states = match protocol {
        Protocol::Tcp => CONNECTED | StateFlags::LISTEN,
        // A UDP socket is "established" with a peer and "closed" without.
        _ => StateFlags::ESTABLISHED | StateFlags::CLOSE,
    };
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: u8::try_from(protocol as u32).expect("a protocol number has 8 bits"),
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    })
}

/// Those that a connection reaches by an answer of its peer. Left out are SYN_SENT and SYN_RECV, a connection
/// that is not there yet and is evaluated when it is, and TIME_WAIT, one that both ends are through with.
const CONNECTED: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::FIN_WAIT2)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);

/// `None`: nothing that is asked for.
fn socket(payload: &[u8], protocol: Protocol) -> Option<Socket> {
    let InetResponseHeader { state, socket_id: id, .. } = InetResponseHeader::parse(payload).ok()?;
    let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
    let local = end(id.source_address, id.source_port);
    let remote = end(id.destination_address, id.destination_port);
    Some(Socket { protocol, state: meaning(state, protocol)?, local, remote })
}

fn meaning(state: u8, protocol: Protocol) -> Option<SocketState> {
    let (ended, peer_ended) = match (protocol, state) {
        (Protocol::Tcp, TCP_LISTEN) | (Protocol::Udp, TCP_CLOSE) => return Some(SocketState::Listens),
        (_, TCP_ESTABLISHED) => (false, false),
        (Protocol::Tcp, TCP_FIN_WAIT1 | TCP_FIN_WAIT2) => (true, false),
        (Protocol::Tcp, TCP_CLOSE_WAIT) => (false, true),
        (Protocol::Tcp, TCP_LAST_ACK | TCP_CLOSING) => (true, true),
        _ => return None,
    };
    Some(SocketState::Connected { ended, peer_ended })
}
