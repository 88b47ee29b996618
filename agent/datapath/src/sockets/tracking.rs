//! What the node's connection tracking knows of the pods' connections.
//!
//! In: the pods' addresses. Out: the connections with an end there that were answered. A socket is a pod's
//! own word: `connect` makes a UDP socket "connected" without a packet, and who may use TCP_REPAIR makes a
//! TCP socket whatever it likes. The node's conntrack has seen the packets, where it looks at all.
//!
//! Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{NetlinkSerializable, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use podgate_common::{FlowKey, Protocol, Tuple};

use crate::netlink::Requests;

/// Answered connections, and for which families the node tracks any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    keys: BTreeSet<FlowKey>,
    tracks_v4: bool,
    tracks_v6: bool,
}

impl Answered {
    /// Those of this network namespace with an end among `own`; nothing where the kernel has no connection
    /// tracking.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer (needs CAP_NET_ADMIN).
    pub fn read(own: &BTreeSet<IpAddr>) -> Result<Self> {
        let mut answered = Self::default();
        let mut requests = Requests::open(NETLINK_NETFILTER).context("cannot open a netfilter socket")?;
        let entries = requests.dump(ConntrackDump, |payload| {
            let entry = ConntrackEntry::parse(payload)?;
            let is_mine = entry.has_end_in(own) && entry.is_answered;
            Some((entry.original.source.is_ipv4(), is_mine.then(|| entry.keys())))
        });
        let entries = match entries {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Vec::new(),
            entries => entries.context("cannot list the tracked connections")?,
        };
        for (is_v4, keys) in entries {
            answered.tracks_v4 |= is_v4;
            answered.tracks_v6 |= !is_v4;
            answered.keys.extend(keys.into_iter().flatten());
        }
        Ok(answered)
    }

    /// Whether a pod's connection, as its socket has it, counts as one that its peer has answered. Of UDP
    /// connections only conntrack can tell. A TCP socket gets so far by an answer alone, unless it was
    /// forged: where the node tracks connections they must be known there. `untracked`: the packets of this
    /// one need not pass the node's conntrack.
    pub fn proves(&self, key: &FlowKey, untracked: bool) -> bool {
        if self.keys.contains(key) {
            return true;
        }
        let tracks = match IpAddr::from(key.addresses()[0]) {
            IpAddr::V4(_) => self.tracks_v4,
            IpAddr::V6(_) => self.tracks_v6,
        };
        key.protocol() == Protocol::Tcp as u32 && (untracked || !tracks)
    }
}

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`: all entries of both families.
#[derive(Clone)]
struct ConntrackDump;

const GET_CONNECTIONS: u16 = 1 << 8 | 1;

/// `struct nfgenmsg`: of no family, version 0, without a resource.
const NFGENMSG: [u8; 4] = [0; 4];

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;

/// One tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConntrackEntry {
    original: Ends,
    /// As answers go: other ends, where the node translates addresses.
    reply: Ends,
    is_answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
}

impl ConntrackEntry {
    fn parse(payload: &[u8]) -> Option<Self> {
        let (mut original, mut reply, mut status) = (None, None, 0);
        for (kind, value) in attributes(payload.get(NFGENMSG.len()..)?) {
            match kind {
                CTA_TUPLE_ORIG => original = Ends::parse(value),
                CTA_TUPLE_REPLY => reply = Ends::parse(value),
                CTA_STATUS => status = u32::from_be_bytes(value.try_into().ok()?),
                _ => {}
            }
        }
        Some(Self { original: original?, reply: reply?, is_answered: status & SEEN_REPLY != 0 })
    }

    fn has_end_in(&self, own: &BTreeSet<IpAddr>) -> bool {
        let ends = [self.original, self.reply].map(|ends| [ends.source, ends.destination]);
        ends.iter().flatten().any(|end| own.contains(end))
    }

    /// As the sockets at both ends have it.
    fn keys(&self) -> [FlowKey; 2] {
        [self.original, self.reply].map(|ends| ends.key())
    }
}

impl Ends {
    fn parse(tuple: &[u8]) -> Option<Self> {
        let (mut source, mut destination, mut ports, mut protocol) = (None, None, [0; 2], None);
        for (kind, value) in attributes(tuple) {
            for (inner, value) in attributes(value) {
                match (kind, inner) {
                    (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => source = address(value),
                    (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => destination = address(value),
                    (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = value.first().copied(),
                    (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => ports[0] = port(value)?,
                    (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => ports[1] = port(value)?,
                    _ => {}
                }
            }
        }
        let ([source_port, destination_port], protocol) = (ports, protocol?);
        Some(Self { source: source?, destination: destination?, source_port, destination_port, protocol })
    }

    fn key(&self) -> FlowKey {
        let Self { source, destination, source_port, destination_port, protocol } = *self;
        let (source, destination) = (source.into(), destination.into());
        FlowKey::of(&Tuple { source, destination, source_port, destination_port, protocol: protocol.into() })
            .0
    }
}

/// (kind, value) of each, without the flags that a kind may have.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff;
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(move |attribute| {
        let bytes = attribute.into_inner();
        let [low, high, first, second, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        Some((u16::from_ne_bytes([first, second]) & KIND, bytes.get(4..length)?))
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

fn port(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}

impl NetlinkSerializable for ConntrackDump {
    fn message_type(&self) -> u16 {
        GET_CONNECTIONS
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&NFGENMSG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, source: [u8; 4], destination: [u8; 4], ports: [u16; 2], protocol: u8) -> Vec<u8> {
        const NESTED: u16 = 1 << 15;
        let ip = [attribute(CTA_IP_V4_SRC, &source), attribute(CTA_IP_V4_DST, &destination)].concat();
        let proto = [
            attribute(CTA_PROTO_NUM, &[protocol]),
            attribute(CTA_PROTO_SRC_PORT, &ports[0].to_be_bytes()),
            attribute(CTA_PROTO_DST_PORT, &ports[1].to_be_bytes()),
        ];
        let both =
            [attribute(CTA_TUPLE_IP | NESTED, &ip), attribute(CTA_TUPLE_PROTO | NESTED, &proto.concat())];
        attribute(kind | NESTED, &both.concat())
    }

    /// A connection of 10.0.0.5:5000 to a service at 10.96.0.1:53 that 10.0.0.9:1053 answers.
    fn message(protocol: u8, status: u32) -> Vec<u8> {
        [
            NFGENMSG.to_vec(),
            tuple(CTA_TUPLE_ORIG, [10, 0, 0, 5], [10, 96, 0, 1], [5000, 53], protocol),
            tuple(CTA_TUPLE_REPLY, [10, 0, 0, 9], [10, 0, 0, 5], [1053, 5000], protocol),
            attribute(CTA_STATUS, &status.to_be_bytes()),
        ]
        .concat()
    }

    fn key(source: (&str, u16), destination: (&str, u16), protocol: Protocol) -> FlowKey {
        let [(source, source_port), (destination, destination_port)] = [source, destination];
        let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let (source, destination) = (address(source), address(destination));
        FlowKey::of(&Tuple { source, destination, source_port, destination_port, protocol: protocol as u32 })
            .0
    }

    #[test]
    fn both_ends_of_a_translated_connection_are_read_and_whether_it_was_answered() {
        let entry = ConntrackEntry::parse(&message(17, 8 | SEEN_REPLY)).unwrap();
        assert!(entry.is_answered && !ConntrackEntry::parse(&message(17, 8)).unwrap().is_answered);
        let expected = [
            key(("10.0.0.5", 5000), ("10.96.0.1", 53), Protocol::Udp),
            key(("10.0.0.9", 1053), ("10.0.0.5", 5000), Protocol::Udp),
        ];
        assert_eq!(entry.keys(), expected);
        for (own, expected) in [("10.0.0.5", true), ("10.0.0.9", true), ("10.0.0.6", false)] {
            assert_eq!(entry.has_end_in(&[own.parse().unwrap()].into()), expected, "{own}");
        }
        for length in 0..message(17, 8).len() {
            assert!(ConntrackEntry::parse(&message(17, 8)[..length]).is_none_or(|entry| !entry.is_answered));
        }
    }

    #[test]
    fn udp_needs_an_answer_that_conntrack_saw_and_tcp_one_where_the_node_tracks() {
        let [udp, tcp] =
            [Protocol::Udp, Protocol::Tcp].map(|it| key(("10.0.0.5", 5000), ("192.0.2.1", 53), it));
        let tcp6 = key(("fd00::5", 5000), ("2001:db8::1", 53), Protocol::Tcp);
        let none = Answered::default();
        let tracks = Answered { tracks_v4: true, ..Answered::default() };
        let knows = Answered { keys: [udp, tcp].into(), ..tracks.clone() };
        for (answered, key, untracked, expected) in [
            (&none, udp, false, false),
            (&none, udp, true, false),
            (&none, tcp, false, true),
            (&tracks, tcp, false, false),
            (&tracks, tcp, true, true),
            (&tracks, udp, true, false),
            (&tracks, tcp6, false, true),
            (&knows, udp, false, true),
            (&knows, tcp, false, true),
        ] {
            assert_eq!(answered.proves(&key, untracked), expected, "{answered:?} {key:?} {untracked}");
        }
    }
}
