//! Frames that are neither plain IP nor ARP, from pod to pod over a bridge: no way around isolation. And
//! frames from another pod's link-layer address: no way to that pod's frames.

use std::{io, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use nix::{ifaddrs::getifaddrs, libc, net::if_::if_nametoindex};
use socket2::{Domain, SockAddr, Socket, Type};
use xtask::lab::{Agent, Capture, Lab, PATIENT, Place, Pod, PodNetworkMode, until};

use super::{Test, policies::DENY_ALL, scene::apply};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("odd_frames_do_not_get_past_isolation", odd),
    ("a_pod_gets_no_frames_of_another_by_its_link_layer_address", poison),
];

/// What stands before the IP header, and the protocol number by which a capture tells these frames from
/// others.
const FRAMES: [(&[u8], u8); 5] = [
    (&[0x08, 0x00], 17),
    // IEEE 802.1Q and 802.1ad, once and twice. The kernel takes the outer tag off before any program runs.
    (&[0x81, 0x00, 0x00, 0x05, 0x08, 0x00], 47),
    (&[0x88, 0xa8, 0x00, 0x05, 0x08, 0x00], 50),
    (&[0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x00, 0x06, 0x08, 0x00], 51),
    // MPLS by its name, with IP in the place of a label.
    (&[0x88, 0x47], 89),
];

fn odd(lab: &mut Lab) -> Result<()> {
    let node = lab.wired_node("n1", PodNetworkMode::Bridge)?;
    let closed = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let (free, sender) = (node.pod("x/free").start()?, node.pod("x/sender").start()?);
    apply(lab.manifests(), "closed", DENY_ALL)?;
    let _agent = Agent::start(&node, &[])?;
    let (at_closed, at_free) = (closed.place.capture()?, free.place.capture()?);
    let is_ours = |protocol: u8| FRAMES.iter().any(|(_, ours)| *ours == protocol);
    let source = sender.addresses.v4;
    for to in [closed.addresses.v4, free.addresses.v4] {
        send(&sender.place, source, to)?;
    }
    let arrived = |at: &Capture| {
        let packets = at.from(&[source.into()]).into_iter();
        packets.filter(|packet| is_ours(packet.protocol)).collect::<Vec<_>>()
    };
    // The frame with two tags keeps one, by which no one takes it for IP.
    let readable = FRAMES.iter().filter(|(_, protocol)| *protocol != 51);
    until("the frames arrive at the free pod", PATIENT, || {
        let packets = arrived(&at_free);
        let all = readable.clone().all(|(_, ours)| packets.iter().any(|packet| packet.protocol == *ours));
        Ok(all.then_some(()))
    })?;
    let packets = arrived(&at_closed);
    ensure!(packets.is_empty(), "the isolated pod got {packets:?}");

    // Nor does it send any; what the other one sends after it does arrive.
    send(&closed.place, closed.addresses.v4, free.addresses.v4)?;
    let before = arrived(&at_free).len();
    send(&sender.place, source, free.addresses.v4)?;
    until("later frames arrive", PATIENT, || Ok((arrived(&at_free).len() >= before + 4).then_some(())))?;
    let packets = at_free.from(&[closed.addresses.v4.into()]);
    ensure!(!packets.iter().any(|packet| is_ours(packet.protocol)), "the isolated pod has sent {packets:?}");
    Ok(())
}

/// A bridge sends what is for an address to the port that it has seen it come from last.
fn poison(lab: &mut Lab) -> Result<()> {
    let node = lab.wired_node("n1", PodNetworkMode::Bridge)?;
    let (victim, attacker) = (node.pod("x/victim").start()?, node.pod("x/attacker").start()?);
    let client = node.pod("x/client").start()?;
    attacker.cache_cni_result()?;
    // Of connections with the node, and of what cannot be read.
    let kinds = || FRAMES.iter().map(|(before, protocol)| (*before, *protocol));
    let others = victim.place.run(link_address)?;
    let attack = |before: &[u8], protocol: u8, at_victim: &Capture, at_attacker: &Capture| -> Result<bool> {
        let (before_victim, before_attacker) = (received(at_victim, &client), received(at_attacker, &client));
        for source in [attacker.place.run(link_address)?, others] {
            let frame = packet(attacker.addresses.v4, node.addresses.v4, protocol);
            attacker.place.run(|| send_frame(source, before, &frame))?;
        }
        say(&client, &victim)?;
        until("a datagram arrives somewhere", PATIENT, || {
            let at_victim = received(at_victim, &client) > before_victim;
            let at_attacker = received(at_attacker, &client) > before_attacker;
            Ok((at_victim || at_attacker).then_some(at_victim && !at_attacker))
        })
    };
    // They know each other, so that no one asks while the attack lasts.
    for pair in [[&client, &victim], [&victim, &client]] {
        say(pair[0], pair[1])?;
    }
    let (at_victim, at_attacker) = (victim.place.capture()?, attacker.place.capture()?);
    let mut taken = 0;
    for (before, protocol) in kinds() {
        taken += u32::from(!attack(before, protocol, &at_victim, &at_attacker)?);
    }
    ensure!(taken > 0, "without an agent the attacker has taken nothing: this test shows nothing");
    say(&victim, &client)?;
    let _agent = Agent::start(&node, &[])?;
    let got_before = received(&at_attacker, &client);
    for round in 0..5 {
        for (before, protocol) in kinds() {
            let is_unharmed = attack(before, protocol, &at_victim, &at_attacker)?;
            ensure!(is_unharmed, "round {round}: the attacker has taken a datagram by protocol {protocol}");
        }
    }
    ensure!(received(&at_attacker, &client) == got_before, "the attacker has got what is for another pod");
    Ok(())
}

/// Datagrams of a pod that a capture has seen.
fn received(at: &Capture, sender: &Pod) -> usize {
    at.from(&[sender.addresses.v4.into()]).iter().filter(|packet| packet.protocol == 17).count()
}

/// One datagram to a port where no one listens.
fn say(from: &Pod, to: &Pod) -> Result<()> {
    from.place.say((to.addresses.v4, 9), b"for you alone")
}

/// Of `eth0` in this network namespace.
pub(crate) fn link_address() -> Result<[u8; 6]> {
    let own = getifaddrs()?.find_map(|interface| {
        let address = interface.address?;
        (interface.interface_name == "eth0").then(|| address.as_link_addr()?.addr())?
    });
    own.context("eth0 has no link-layer address")
}

/// Sends every kind of frame to all ports of the bridge.
fn send(from: &Place, source: Ipv4Addr, destination: Ipv4Addr) -> Result<()> {
    let send = || -> Result<()> {
        let own = link_address()?;
        for (before, protocol) in FRAMES {
            let packet = packet(source, destination, protocol);
            send_frame(own, before, &packet).with_context(|| format!("protocol {protocol}"))?;
        }
        Ok(())
    };
    from.run(send).with_context(|| format!("frames from {}", from.name()))
}

/// A frame to all ports of the bridge; `before`: what stands between its addresses and the packet.
pub(crate) fn send_frame(source: [u8; 6], before: &[u8], packet: &[u8]) -> Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let frame = [&[0xff; 6], &source[..], before, packet].concat();
    socket.send_to(&frame, &device("eth0", 0)?)?;
    Ok(())
}

/// RFC 791: an IPv4 header of 20 bytes, and 32 bytes of data.
pub(crate) fn packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 52, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(folded + (folded >> 16)) & 0xffff;
    header[10..12].copy_from_slice(&checksum.to_be_bytes()[2..]);
    header.extend([0; 32]);
    header
}

/// packet(7): where a frame with its link header goes out. `protocol`: what the sender says that it is; 0:
/// what its header says.
pub(crate) fn device(name: &str, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(if_nametoindex(name)?).map_err(io::Error::other)?;
    let family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    let size = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the closure fills in a `sockaddr_ll`, which fits into the zeroed storage, and its length.
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = family;
            (*address).sll_protocol = protocol.to_be();
            (*address).sll_ifindex = index;
            *length = size;
            Ok(())
        })
    };
    made.map(|((), address)| address)
}
