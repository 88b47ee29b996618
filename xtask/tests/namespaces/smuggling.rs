//! What a closed pod and its neighbours try between real network stacks: data in messages between neighbours,
//! another pod's address where the headers cannot be read to their end, and packets in packets for the node's
//! own tunnel device.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::{Agent, Capture, Lab, PATIENT, Place, PodNetworkMode, Seen, Traffic, until};

use super::{
    Test,
    frames::{link_address, send_frame},
    policies::DENY_ALL_BUT_FRIENDS,
    scene::{apply, expect},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("messages_between_neighbours_carry_nothing_bridged", |lab| neighbours(lab, PodNetworkMode::Bridge)),
    ("messages_between_neighbours_carry_nothing_routed", |lab| neighbours(lab, PodNetworkMode::Routed)),
    ("what_cannot_be_read_does_not_come_from_another_pods_address", unreadable),
    ("a_pod_sends_nothing_through_the_nodes_own_tunnel_device", encapsulated),
];

/// What is carried where nothing may be. Each way has its own, for a bridge may send a pod its own groups'
/// messages back.
const TO_CLOSED: &[u8; 19] = b"not for the closed!";
const FROM_CLOSED: &[u8; 19] = b"not from the closed";

fn neighbours(lab: &mut Lab, wiring: PodNetworkMode) -> Result<()> {
    let node = lab.wired_node("n1", wiring)?;
    let closed = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let peer = node.pod("x/peer").start()?;
    let friend = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
    let (at_closed, at_peer) = (marked(&closed.place, TO_CLOSED)?, marked(&peer.place, FROM_CLOSED)?);
    // Without an agent all of it arrives that the node does not keep: by a router, link-scope messages do
    // not.
    let to_closed = || smuggle(&peer.place, closed.addresses.v6, TO_CLOSED);
    let to_peer = || smuggle(&closed.place, peer.addresses.v6, FROM_CLOSED);
    to_closed()?;
    to_peer()?;
    for listener in [&at_closed, &at_peer] {
        until("messages arrive without an agent", PATIENT, || Ok((listener.count() > 0).then_some(())))?;
    }
    apply(lab.manifests(), "closed", DENY_ALL_BUT_FRIENDS)?;
    let _agent = Agent::start(&node, &[])?;
    expect(&peer.place, closed.addresses, &[Traffic::Echo], Seen::Blocked)?;
    let before = (at_closed.count(), at_peer.count());
    to_closed()?;
    to_peer()?;
    // Neighbours find each other all the same: what comes later arrives, both ways.
    node.place.ip("neigh flush all nud reachable\nneigh flush all nud stale\n")?;
    for pod in [&closed, &friend] {
        pod.place.ip("neigh flush all nud reachable\nneigh flush all nud stale\n")?;
    }
    expect(&friend.place, closed.addresses, &[Traffic::Echo], Seen::Reached)?;
    expect(&friend.place, peer.addresses, &[Traffic::Echo], Seen::Reached)?;
    send_icmp(&friend.place, closed.addresses.v6, 128, TO_CLOSED)?;
    send_icmp(&friend.place, peer.addresses.v6, 128, FROM_CLOSED)?;
    until("a friend's message arrives", PATIENT, || {
        Ok((at_closed.count() > before.0 && at_peer.count() > before.1).then_some(()))
    })?;
    ensure!(
        at_closed.count() == before.0 + 1,
        "the closed pod got {} messages",
        at_closed.count() - before.0
    );
    ensure!(at_peer.count() == before.1 + 1, "the closed pod sent {} messages", at_peer.count() - before.1);
    Ok(())
}

/// All types of neighbour and listener discovery with data: to the host, to all hosts of the link, and to its
/// group.
fn smuggle(from: &Place, to: Ipv6Addr, mark: &[u8; 19]) -> Result<()> {
    let [.., a, b, c] = to.octets();
    let solicited = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    for kind in (130..=137).chain([143]) {
        for to in [to, "ff02::1".parse()?, solicited] {
            // The target, then an option that is as long as the data.
            let nonce = [&[14, 4][..], mark, &[0; 11]].concat();
            for body in [[&to.octets()[..], mark].concat(), [&to.octets()[..], &nonce].concat()] {
                send_icmp(from, to, kind, &body)?;
            }
        }
    }
    Ok(())
}

/// An ICMPv6 message with the hop limit that neighbours require; the kernel fills in the checksum.
fn send_icmp(from: &Place, to: Ipv6Addr, kind: u8, body: &[u8]) -> Result<()> {
    let send = || -> Result<()> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        let (hops, scope) =
            (if kind == 130 || kind == 131 || kind == 143 { 1 } else { 255 }, if_nametoindex("eth0")?);
        socket.set_unicast_hops_v6(hops)?;
        socket.set_multicast_hops_v6(hops)?;
        let scope = if to.is_multicast() { scope } else { 0 };
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], body].concat();
        // No one there answers for it, by now: that is no fault of the attack.
        let _ = socket.send_to(&message, &SocketAddrV6::new(to, 0, 0, scope).into());
        Ok(())
    };
    from.run(send).with_context(|| format!("type {kind} from {} to {to}", from.name()))
}

/// Captures the messages with a mark that a place receives, also those that its kernel makes nothing of.
fn marked(place: &Place, mark: &'static [u8; 19]) -> Result<Capture> {
    place.capture_where(move |packet, is_own| {
        // The node's router answers hop limits of 1 and quotes what was sent, to who has sent it.
        let is_error = packet.get(40).is_some_and(|kind| *kind < 128);
        packet.windows(mark.len()).any(|part| part == mark) && !is_own && !is_error
    })
}

/// IPv6 headers without end before what would be the transport header.
fn unreadable(lab: &mut Lab) -> Result<()> {
    let node = lab.wired_node("n1", PodNetworkMode::Bridge)?;
    let (sender, other) = (node.pod("x/sender").start()?, node.pod("x/other").start()?);
    let receiver = node.pod("x/receiver").start()?;
    let at_receiver = receiver.place.capture()?;
    let send = |source: Ipv6Addr| -> Result<()> {
        let packet = endless(source, receiver.addresses.v6);
        sender.place.run(|| send_frame(link_address()?, &[0x86, 0xdd], &packet))
    };
    let arrived = |source: Ipv6Addr| {
        let packets = at_receiver.from(&[source.into()]);
        // Destination options are what stands behind the header.
        packets.iter().filter(|packet| packet.protocol == 60).count()
    };
    send(other.addresses.v6)?;
    until("it arrives without an agent", PATIENT, || Ok((arrived(other.addresses.v6) == 1).then_some(())))?;
    let _agent = Agent::start(&node, &[])?;
    for _ in 0..5 {
        send(other.addresses.v6)?;
        send(node.addresses.v6)?;
        send(sender.addresses.v6)?;
    }
    until("its own arrive", PATIENT, || Ok((arrived(sender.addresses.v6) == 5).then_some(())))?;
    ensure!(arrived(other.addresses.v6) == 1, "a pod has sent from another one's address");
    ensure!(arrived(node.addresses.v6) == 0, "a pod has sent from the node's address");
    Ok(())
}

/// A packet with more extension headers than podgate reads.
fn endless(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    const HEADERS: u16 = 12;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((8 * HEADERS + 8).to_be_bytes());
    packet.extend([60, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    for header in 1..=HEADERS {
        // Padding of four bytes.
        packet.extend([if header == HEADERS { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    packet
}

/// A VXLAN device of the node takes packets out of packets: the one inside has entered the node by that
/// device.
fn encapsulated(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let (sender, receiver) = (node.pod("x/sender").start()?, node.pod("x/receiver").start()?);
    node.place.ip(
        "link add vx0 address 02:99:00:00:00:01 type vxlan id 42 dstport 4789 dev eth0\nlink set vx0 up\n\
         addr add 10.99.0.1/24 dev vx0\n",
    )?;
    node.place.sysctls(&[("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/vx0/rp_filter", "0")])?;
    let at_receiver = receiver.place.capture()?;
    let stranger = Ipv4Addr::new(10, 99, 0, 9);
    let arrived = || at_receiver.from(&[stranger.into()]).len();
    let send = || sender.place.say((node.addresses.v4, 4_789), &inner(stranger, receiver.addresses.v4));
    send()?;
    until("it arrives without an agent", PATIENT, || Ok((arrived() == 1).then_some(())))?;
    let agent = Agent::start(&node, &[])?;
    for _ in 0..5 {
        send()?;
    }
    // What comes after it on the same way does arrive.
    expect(&sender.place, receiver.addresses, &[Traffic::Echo], Seen::Reached)?;
    ensure!(arrived() == 1, "the node has taken {} packets out of a pod's", arrived() - 1);
    agent.terminate()?;
    let _agent = Agent::start(&node, &["--allow-encapsulation"])?;
    send()?;
    until("it arrives where that is allowed", PATIENT, || Ok((arrived() == 2).then_some(())))
}

/// A VXLAN header (RFC 7348), then a frame to the device with an IPv4 packet.
fn inner(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 0, 0, 42, 0];
    bytes.extend([2, 0x99, 0, 0, 0, 1, 2, 0x99, 0, 0, 0, 9, 8, 0]);
    bytes.extend(super::frames::packet(source, destination, 89));
    bytes
}
