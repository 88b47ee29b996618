//! Pods behind netkit pairs in the place of veths, in both modes: the primary device on the node, its peer in
//! the pod. Kernels that have none (before Linux 6.7, or built without) cannot run these.

use std::{fs::File, io, net::Ipv4Addr, os::fd::AsRawFd};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};
use socket2::{Domain, Socket, Type};
use xtask::{
    lab::{Agent, Lab, Node, PATIENT, Place, Pod, Seen, until},
    sandbox::Sandbox,
};

use super::{
    Case, Test,
    frames::{device, packet},
    scene::{EVERY_KIND, apply, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("isolation_holds_at_a_netkit_pair_in_layer_2_mode", |lab| isolated(lab, Mode::L2)),
    ("isolation_holds_at_a_netkit_pair_in_layer_3_mode", |lab| isolated(lab, Mode::L3)),
    ("a_frame_of_a_netkit_pod_is_not_taken_for_ip_by_the_pods_word_in_layer_2_mode", |lab| {
        misnamed(lab, Mode::L2)
    }),
    ("a_frame_of_a_netkit_pod_is_not_taken_for_ip_by_the_pods_word_in_layer_3_mode", |lab| {
        misnamed(lab, Mode::L3)
    }),
];

/// `enum netkit_mode` (linux/if_link.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Link-layer addresses, and neighbours that are asked for them.
    L2 = 0,
    /// Ethernet headers all the same, with addresses of zeros.
    L3 = 1,
}

/// Of every pair in layer 2 mode.
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// `ETH_P_IP`
const IPV4: u16 = 0x0800;
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Whether this kernel makes netkit pairs. One that fails to make one for another reason says that it does.
pub(crate) fn is_known(sandbox: Sandbox) -> bool {
    let attempt = || -> Result<()> {
        let [node, pod] = [Place::new(sandbox, "node")?, Place::new(sandbox, "pod")?];
        Ok(node.run(|| make_pair("nk0", &pod.path(), Mode::L3))?)
    };
    let error = attempt().err();
    let error = error.as_ref().and_then(|error| error.downcast_ref::<io::Error>());
    error.and_then(io::Error::raw_os_error) != Some(Errno::EOPNOTSUPP as i32)
}

/// Whether a test needs them, by either hook.
pub(crate) fn has(case: &Case) -> bool {
    TESTS.iter().any(|(name, _)| case.name.starts_with(name))
}

const CLOSED: &str = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress, Egress]\n  \
                      ingress:\n  - from: [{podSelector: {matchLabels: {role: friend}}}]\n  \
                      egress:\n  - to: [{podSelector: {matchLabels: {role: friend}}}]\n";

fn isolated(lab: &mut Lab, mode: Mode) -> Result<()> {
    let node = lab.node("n1")?;
    let closed = start(&node, "x/closed", ("app", "closed"), mode)?;
    let friend = start(&node, "x/friend", ("role", "friend"), mode)?;
    let (stranger, outside) = (node.pod("x/stranger").start()?, lab.outside("outside")?);
    let places = [&closed.place, &friend.place, &stranger.place, &outside.place];
    let _servers = places.map(serve_all).into_iter().collect::<Result<Vec<_>>>()?;
    let others = [(&stranger.place, stranger.addresses), (&outside.place, outside.addresses)];
    for (place, addresses) in others {
        expect(place, closed.addresses, &EVERY_KIND, Seen::Reached).context("without an agent")?;
        expect(&closed.place, addresses, &EVERY_KIND, Seen::Reached).context("without an agent")?;
    }

    apply(lab.manifests(), "closed", CLOSED)?;
    let agent = Agent::start(&node, &[])?;
    let (at_closed, at_stranger) = (closed.place.capture()?, stranger.place.capture()?);
    expect(&friend.place, closed.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&closed.place, friend.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&node.place, closed.addresses, &EVERY_KIND, Seen::Reached)?;
    for (place, addresses) in others {
        expect(place, closed.addresses, &EVERY_KIND, Seen::Blocked)?;
        expect(&closed.place, addresses, &EVERY_KIND, Seen::Blocked)?;
        at_closed.nothing_from(&addresses.both())?;
    }
    at_stranger.nothing_from(&closed.addresses.both())?;
    ensure!(!at_closed.from(&friend.addresses.both()).is_empty(), "the capture sees what arrives");

    let status = agent.ask(&["status"])?;
    ensure!(status["unenforced"].is_null(), "{status}");
    let endpoints = agent.ask(&["endpoints"])?;
    let is_enforced = |endpoint: &serde_json::Value| {
        endpoint["pod"] == closed.name()
            && endpoint["interface"] == closed.host_interface.as_str()
            && endpoint["state"] == "identified"
            && endpoint["unenforced"].is_null()
    };
    ensure!(endpoints.as_array().is_some_and(|all| all.iter().any(is_enforced)), "{endpoints}");
    Ok(())
}

/// What the sender's socket says, netkit hands on (`netkit_xmit` in drivers/net/netkit.c); a veth reads the
/// frame. No one isolates this pod, and it may send what cannot be read, but nothing in another's name.
fn misnamed(lab: &mut Lab, mode: Mode) -> Result<()> {
    let node = lab.node("n1")?;
    let sender = start(&node, "x/sender", ("app", "sender"), mode)?;
    let (receiver, outside) = (node.pod("x/receiver").start()?, lab.outside("outside")?);
    let at_receiver = receiver.place.capture()?;
    let in_anothers_name = || at_receiver.from(&[outside.addresses.v4.into()]);
    let attempt = || -> Result<()> {
        for ethertype in ETHERTYPES {
            let packet = packet(outside.addresses.v4, receiver.addresses.v4, 17);
            sender
                .place
                .run(|| send_as_ip(mode, ethertype, &packet))
                .with_context(|| format!("a frame of type {ethertype:02x?}"))?;
        }
        Ok(())
    };
    attempt()?;
    until("the frames arrive without an agent", PATIENT, || {
        Ok((in_anothers_name().len() == ETHERTYPES.len()).then_some(()))
    })?;

    let _agent = Agent::start(&node, &[])?;
    attempt()?;
    sender.place.say((receiver.addresses.v4, 9), b"after them")?;
    until("what the pod says after them arrives", PATIENT, || {
        Ok((!at_receiver.from(&[sender.addresses.v4.into()]).is_empty()).then_some(()))
    })?;
    let arrived = in_anothers_name().len() - ETHERTYPES.len();
    ensure!(arrived == 0, "{arrived} packets arrived in another's name");
    Ok(())
}

/// Of no protocol, of ARP, of a VLAN tag, and of the other IP.
const ETHERTYPES: [[u8; 2]; 4] = [[0x88, 0xb5], [0x08, 0x06], [0x81, 0x00], [0x86, 0xdd]];

/// A frame to the node that is IPv4 to the kernel, by the word of the socket.
fn send_as_ip(mode: Mode, ethertype: [u8; 2], packet: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let (to, from) = match mode {
        Mode::L2 => (HOST_MAC, POD_MAC),
        Mode::L3 => ([0; 6], [0; 6]),
    };
    let frame = [&to, &from, &ethertype[..], packet].concat();
    socket.send_to(&frame, &device("eth0", IPV4)?).map(drop)
}

/// A running pod, with a netkit pair instead of its veth.
fn start(node: &Node, name: &str, label: (&str, &str), mode: Mode) -> Result<Pod> {
    let pod = node.pod(name).labels(&[label]).plug()?;
    let host = &pod.host_interface;
    node.place.ip(&format!("link del {host}"))?;
    let made = node.place.run(|| make_pair(host, &pod.place.path(), mode));
    made.with_context(|| format!("making a netkit pair for {name}"))?;
    let (v4, v6) = (pod.addresses.v4, pod.addresses.v6);
    let neighbours = |device: &str, mac: [u8; 6], v4: Ipv4Addr, v6: &str| match mode {
        Mode::L2 => {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            format!(
                "neigh replace {v4} lladdr {mac} dev {device} nud permanent\n\
                 neigh replace {v6} lladdr {mac} dev {device} nud permanent\n"
            )
        }
        Mode::L3 => String::new(),
    };
    let up = |device: &str, mac: [u8; 6]| match mode {
        Mode::L2 => {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            format!("link set {device} address {mac}\nlink set {device} up\n")
        }
        Mode::L3 => format!("link set {device} up\n"),
    };
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    node.place.ip(&up(host, HOST_MAC))?;
    pod.place.ip(&format!(
        "{}addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n{}\
         route add {gateway} dev eth0 scope link\n\
         route add 0.0.0.0/0 via {gateway} dev eth0\nroute add ::/0 via fe80::1 dev eth0\n",
        up("eth0", POD_MAC),
        neighbours("eth0", HOST_MAC, gateway, "fe80::1"),
    ))?;
    node.place.ip(&format!(
        "{}route add {v4} dev {host} scope link\nroute add {v6} dev {host}\n",
        neighbours(host, POD_MAC, v4, &v6.to_string()),
    ))?;
    pod.list()?;
    Ok(pod)
}

/// A pair whose primary device is here, and whose peer is `eth0` of another namespace. Older releases of `ip`
/// know no netkit.
fn make_pair(name: &str, namespace: &str, mode: Mode) -> io::Result<()> {
    /// linux/rtnetlink.h, linux/netlink.h: to be acknowledged, made, and not there yet.
    const FLAGS: libc::c_int = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    /// `IFLA_NETKIT_PEER_INFO`, `IFLA_NETKIT_MODE` (linux/if_link.h).
    const PEER: u16 = 1;
    const MODE: u16 = 5;
    /// `struct ifinfomsg`: nothing of it is set.
    const LINK: [u8; 16] = [0; 16];

    let namespace = File::open(namespace)?;
    let peer = [
        &LINK[..],
        &attribute(libc::IFLA_IFNAME, b"eth0\0"),
        &attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes()),
    ];
    let data = [attribute(PEER, &peer.concat()), attribute(MODE, &(mode as u32).to_ne_bytes())].concat();
    let information =
        [attribute(libc::IFLA_INFO_KIND, b"netkit\0"), attribute(libc::IFLA_INFO_DATA, &data)].concat();
    let body = [
        &LINK[..],
        &attribute(libc::IFLA_IFNAME, format!("{name}\0").as_bytes()),
        &attribute(libc::IFLA_LINKINFO, &information),
    ]
    .concat();
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let flags = u16::try_from(FLAGS).map_err(io::Error::other)?;
    let request = [
        &length.to_ne_bytes()[..],
        &libc::RTM_NEWLINK.to_ne_bytes(),
        &flags.to_ne_bytes(),
        // Number of the request, and port of the sender.
        &[0; 8],
        &body,
    ]
    .concat();
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // `struct nlmsgerr`: 0, or a negative error number.
    match answer[..length].get(HEADER..).and_then(|payload| payload.first_chunk()) {
        Some(code) => match i32::from_ne_bytes(*code) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        },
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// `struct nlattr`, with its value, padded to words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("values are short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
