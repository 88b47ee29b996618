//! Packets that the node has made again, which no longer say where they came from: parts into which it
//! divides a datagram again. And packets that leave it by a device without link headers.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

use anyhow::{Context, Result, ensure};
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use xtask::lab::{Addresses, Agent, Capture, ClusterService, Lab, PATIENT, Place, PodNetworkMode, until};

use super::{
    Test,
    policies::{DENY_ALL_BUT_FRIENDS, blocks, egress, pods},
    scene::apply,
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("parts_of_a_datagram_are_evaluated_by_their_sender_routed", |lab| parts(lab, PodNetworkMode::Routed)),
    ("parts_of_a_datagram_are_evaluated_by_their_sender_bridged", |lab| parts(lab, PodNetworkMode::Bridge)),
    ("parts_of_a_datagram_reach_no_denied_backend_elsewhere", parts_to_service),
    ("what_leaves_by_a_tunnel_is_evaluated_by_its_backend", tunnel),
];

fn parts(lab: &mut Lab, wiring: PodNetworkMode) -> Result<()> {
    let node = lab.wired_node("n1", wiring)?;
    let outside = lab.outside("outside")?;
    let closed = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let client_allowed = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
    let client_denied = node.pod("x/stranger").start()?;
    node.track_connections()?;
    let target = closed.addresses.v6;
    let at_closed = closed.place.capture()?;
    // Without an agent all of it arrives.
    send(&client_denied.place, client_denied.addresses.v6, target, 9)?;
    send(&outside.place, outside.addresses.v6, target, 9)?;
    for from in [client_denied.addresses, outside.addresses] {
        until("parts arrive without an agent", PATIENT, || Ok(arrived(&at_closed, from, 2).then_some(())))?;
    }
    drop(at_closed);

    apply(lab.manifests(), "closed", DENY_ALL_BUT_FRIENDS)?;
    let _agent = Agent::start(&node, &[])?;
    let at_closed = closed.place.capture()?;
    let (at_stranger, at_outside) = (client_denied.place.capture()?, outside.place.capture()?);
    // Also from the node's address, as no pod may and a host outside can.
    let senders = [
        (&client_denied.place, client_denied.addresses.v6),
        (&client_denied.place, client_allowed.addresses.v6),
        (&outside.place, outside.addresses.v6),
        (&outside.place, node.addresses.v6),
    ];
    for port in 9..13 {
        for (place, source) in senders {
            send(place, source, target, port)?;
        }
        send(&closed.place, target, client_denied.addresses.v6, port)?;
        send(&closed.place, target, outside.addresses.v6, port)?;
    }
    // Whoever may does it the same way, after them.
    send(&client_allowed.place, client_allowed.addresses.v6, target, 20)?;
    send(&client_allowed.place, client_allowed.addresses.v6, client_denied.addresses.v6, 20)?;
    send(&client_denied.place, client_denied.addresses.v6, outside.addresses.v6, 20)?;
    until("a friend's parts arrive", PATIENT, || {
        let all = arrived(&at_closed, client_allowed.addresses, 2)
            && arrived(&at_stranger, client_allowed.addresses, 2)
            && arrived(&at_outside, client_denied.addresses, 2);
        Ok(all.then_some(()))
    })?;
    ensure!(count(&at_closed, client_allowed.addresses) <= 3, "somebody has sent in the friend's name");
    for from in [client_denied.addresses, outside.addresses, node.addresses] {
        ensure!(count(&at_closed, from) == 0, "parts from {from:?} have reached the isolated pod");
    }
    for (capture, who) in [(&at_stranger, "a pod"), (&at_outside, "a host outside")] {
        ensure!(count(capture, closed.addresses) == 0, "the isolated pod has sent parts to {who}");
    }

    // The node's own datagrams, of two parts.
    // On a bridge it would choose another address of its own.
    let speak = || UdpSocket::bind((node.addresses.v6, 0))?.send_to(&[0; 2_000], (target, 9));
    node.place.run(speak).context("from the node")?;
    until("the node's parts arrive", PATIENT, || Ok(arrived(&at_closed, node.addresses, 2).then_some(())))
}

/// A service with backends on the other node, of which one is allowed.
fn parts_to_service(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "closed")]).start()?;
    let (good, bad) = (n2.pod("x/good").labels(&[("app", "good")]).start()?, n2.pod("x/bad").start()?);
    n1.track_connections()?;
    let service = ClusterService::new("x/mixed", 1, "UDP", 80).to(&good, 8080).to(&bad, 8080);
    service.apply(&[&n1])?;
    apply(lab.manifests(), "client", &egress("closed", &format!("to: {}", pods("good"))))?;
    let _agent = Agent::start(&n1, &[])?;
    let (at_good, at_bad) = (good.place.capture()?, bad.place.capture()?);
    for port in 0..9 {
        send_from_port(&client.place, client.addresses.v6, 4_000 + port, service.addresses().v6, 80)?;
    }
    until("half of the datagrams arrive", PATIENT, || {
        Ok(arrived(&at_good, client.addresses, 8).then_some(()))
    })?;
    ensure!(count(&at_bad, client.addresses) == 0, "parts have reached the denied backend");
    Ok(())
}

/// Both backends of the service are reached by a tun device, and its reader sees who is sent to.
fn tunnel(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let client = node.pod("x/client").labels(&[("app", "closed")]).start()?;
    let mut tunnel = node.place.run(|| tun("tun0"))?;
    let good = Addresses { v4: "10.88.0.1".parse()?, v6: "fd88::1".parse()? };
    let bad = Addresses { v4: "10.88.0.2".parse()?, v6: "fd88::2".parse()? };
    node.place.ip("link set tun0 up\nroute add 10.88.0.0/24 dev tun0\nroute add fd88::/64 dev tun0\n")?;
    let service = ClusterService::new("x/mixed", 1, "UDP", 80);
    let service = service.backend(good, 8080, None).backend(bad, 8080, None);
    service.apply(&[&node])?;
    apply(lab.manifests(), "client", &egress("closed", &format!("to: {}", blocks(good))))?;
    let _agent = Agent::start(&node, &[])?;
    for address in service.addresses().both() {
        for _ in 0..9 {
            client.place.say((address, 80), b"hello")?;
        }
    }
    let mut left = Vec::new();
    until("half of the datagrams leave by the tunnel", PATIENT, || {
        left.extend(read_all(&mut tunnel)?);
        let many = |to: &IpAddr| left.iter().filter(|left| *left == to).count() >= 4;
        Ok(good.both().iter().all(many).then_some(()))
    })?;
    ensure!(!left.iter().any(|to| bad.both().contains(to)), "the denied backend was sent to: {left:?}");
    Ok(())
}

/// How many parts with long headers have come from somebody.
fn count(capture: &Capture, from: Addresses) -> usize {
    const FRAGMENT: u8 = 44;
    const DESTINATION_OPTIONS: u8 = 60;
    let packets = capture.from(&[from.v6.into()]).into_iter();
    packets.filter(|packet| [FRAGMENT, DESTINATION_OPTIONS].contains(&packet.protocol)).count()
}

fn arrived(capture: &Capture, from: Addresses, least: usize) -> bool {
    count(capture, from) >= least
}

fn send(place: &Place, source: Ipv6Addr, to: Ipv6Addr, port: u16) -> Result<()> {
    send_from_port(place, source, 4_000, to, port)
}

/// Sends a UDP datagram in two parts, the first one with 256 bytes of destination options: there is no room
/// for these before the second one, so that the kernel cannot divide the datagram again in place, but makes
/// new packets.
fn send_from_port(place: &Place, source: Ipv6Addr, from_port: u16, to: Ipv6Addr, port: u16) -> Result<()> {
    const FIRST: usize = 1_000;
    const ALL: usize = 1_600;
    let mut datagram =
        [from_port.to_be_bytes(), port.to_be_bytes(), 1_600_u16.to_be_bytes(), [0; 2]].concat();
    datagram.resize(ALL, 0x5a);
    let part = |offset: usize, more: bool| -> Result<Vec<u8>> {
        let end = if more { FIRST } else { ALL };
        let data = &datagram[offset..end];
        let mut options = if more { vec![44, 31, 1, 252] } else { Vec::new() };
        options.resize(if more { 256 } else { 0 }, 0);
        let field = u16::try_from(offset)? | u16::from(more);
        let id = 0x0700_0000 | u32::from(port) << 8 | u32::from(from_port & 0xff);
        let fragment = [&[17, 0][..], &field.to_be_bytes(), &id.to_be_bytes()].concat();
        let length = u16::try_from(options.len() + fragment.len() + data.len())?;
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([if more { 60 } else { 44 }, 64]);
        packet.extend(source.octets());
        packet.extend(to.octets());
        packet.extend(options);
        packet.extend(fragment);
        packet.extend(data);
        Ok(packet)
    };
    let packets = [part(0, true)?, part(FIRST, false)?];
    let send = || -> Result<()> {
        // raw(7): with this protocol the packet brings its own header.
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        let to = SockAddr::from(SocketAddrV6::new(to, 0, 0, 0));
        for packet in &packets {
            socket.send_to(packet, &to)?;
        }
        Ok(())
    };
    place.run(send).with_context(|| format!("parts from {} as {source} to {to}", place.name()))
}

/// Makes a tun device; what is sent over it is read from the file.
fn tun(name: &str) -> Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // `struct ifreq`: a name, then flags.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq`, which has 40 bytes.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    ensure!(made == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    Ok(file)
}

/// Where the packets that lie ready go to.
fn read_all(tunnel: &mut File) -> Result<Vec<IpAddr>> {
    let (mut destinations, mut buffer) = (Vec::new(), [0; 2_048]);
    loop {
        match tunnel.read(&mut buffer) {
            Ok(_) => destinations.push(match buffer[0] >> 4 {
                4 => <[u8; 4]>::try_from(&buffer[16..20])?.into(),
                _ => <[u8; 16]>::try_from(&buffer[24..40])?.into(),
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(destinations),
            Err(error) => return Err(error).context("reading from the tunnel"),
        }
    }
}
