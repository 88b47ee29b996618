//! A socket that takes itself for connected, though no one has answered.

use std::{net::SocketAddr, os::fd::AsRawFd as _};

use anyhow::{Result, ensure};
use nix::libc;
use socket2::{Domain, Socket, Type};
use xtask::lab::{Agent, Lab, PATIENT, Seen, Traffic, until};

use super::plugged;
use crate::{
    policies::DENY_ALL,
    scene::{EVERY_KIND, apply, becomes, expect, serve_all},
};

/// An agent takes over the connections of pods that were there before any agent. A pod that was held had
/// none.
pub(super) fn forged(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    apply(lab.manifests(), "close", DENY_ALL)?;
    let outside = lab.outside("outside")?;
    let pod = plugged(&node, "x/closed", &[("app", "closed")])?;
    pod.add()?;
    pod.list()?;
    let local = SocketAddr::new(pod.addresses.v4.into(), 4_000);
    let socket = pod.place.run(|| repaired(local, SocketAddr::new(outside.addresses.v4.into(), 80)))?;
    let capture = outside.place.capture()?;
    let agent = Agent::start(&node, &[])?;
    until("the pod is known", PATIENT, || {
        Ok(agent.ask(&["endpoints"])?.to_string().contains("x/closed").then_some(()))
    })?;
    probe_peer(&socket)?;
    // What comes later than a datagram that does arrive would have come by then.
    let witness = node.pod("x/witness").start()?;
    let _served = serve_all(&outside.place)?;
    becomes(&witness.place, outside.addresses.v4.into(), Traffic::Udp(7), Seen::Reached)?;
    expect(&pod.place, outside.addresses, &EVERY_KIND, Seen::Blocked)?;
    capture.nothing_from(&[pod.addresses.v4.into()])
}

/// A connection that the kernel takes for established, though no one has answered (`TCP_REPAIR`,
/// linux/tcp.h).
fn repaired(local: SocketAddr, remote: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    repair(&socket, true)?;
    socket.bind(&local.into())?;
    socket.connect(&remote.into())?;
    repair(&socket, false)?;
    Ok(socket)
}

/// Sends a segment at once: the kernel does so when a repair ends (`tcp_repair_set` in net/ipv4/tcp.c).
fn probe_peer(socket: &Socket) -> Result<()> {
    repair(socket, true)?;
    repair(socket, false)
}

fn repair(socket: &Socket, on: bool) -> Result<()> {
    const TCP_REPAIR: i32 = 19;
    let (on, size) = (i32::from(on), u32::try_from(size_of::<i32>())?);
    // SAFETY: a valid descriptor, and a value of the size that is given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, TCP_REPAIR, (&raw const on).cast(), size)
    };
    ensure!(result == 0, "TCP_REPAIR: {}", std::io::Error::last_os_error());
    Ok(())
}
