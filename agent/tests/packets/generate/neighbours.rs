//! ARP, neighbour discovery and listener discovery: as hosts send it, and nearly so.

use std::net::IpAddr;

use podgate_common::frames::{Extension, Fragment, Frame, MAC, arp, link_layer, neighbour, solicited_node};
use proptest::prelude::*;

use crate::world::{Family, Host, ip};

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Neighbours {
    kind: u8,
    source: PeerVersion,
    destination: Destination,
    target: PeerVersion,
    options: Vec<Vec<u8>>,
    hop_limit: Option<u8>,
    extensions: Option<Vec<Extension>>,
    code: u8,
}

#[derive(Clone, Copy, Debug)]
enum PeerVersion {
    Host(Host),
    Link(&'static str),
}

#[derive(Clone, Copy, Debug)]
enum Destination {
    Solicited,
    Target,
    Of(&'static str),
    Host(Host),
}

pub(crate) fn neighbours() -> impl Strategy<Value = Neighbours> {
    let speakers = || {
        prop_oneof![
            3 => prop::sample::select(Host::ALL.to_vec()).prop_map(PeerVersion::Host),
            2 => prop::sample::select(vec!["fe80::b", "fe80::1", "::", "fd00:1::77"]).prop_map(PeerVersion::Link),
        ]
    };
    let destinations = prop_oneof![
        3 => Just(Destination::Solicited),
        2 => Just(Destination::Target),
        3 => prop::sample::select(vec!["ff02::1", "ff02::2", "ff02::16", "ff02::fb", "fe80::b"])
            .prop_map(Destination::Of),
        2 => prop::sample::select(Host::ALL.to_vec()).prop_map(Destination::Host),
    ];
    let option = prop_oneof![
        3 => Just(link_layer(1, MAC)),
        2 => Just(link_layer(2, MAC)),
        1 => Just(link_layer(1, [6; 6])),
        1 => Just(link_layer(14, [7; 6])),
        1 => Just(link_layer(5, [0; 6])),
        1 => (0..6_usize).prop_map(|length| vec![9; length]),
        1 => Just([&[3, 4][..], &[0; 30]].concat()),
    ];
    let kinds = prop::sample::select(vec![130, 131, 132, 133, 134, 135, 135, 135, 136, 136, 136, 137, 143]);
    let extensions = prop_oneof![
        8 => Just(None),
        1 => Just(Some(vec![])),
        1 => Just(Some(vec![Extension::RouterAlert])),
        1 => Just(Some(vec![Extension::Destination(0)])),
        1 => any::<bool>().prop_map(|more| {
            Some(vec![Extension::Fragment(Fragment { id: 3, offset: 0, more })])
        }),
        1 => Just(Some(vec![Extension::Destination(0); 7])),
    ];
    let hop_limit = prop::option::weighted(0.15, prop::sample::select(vec![1, 64, 254, 255]));
    let options = prop::collection::vec(option, 0..3);
    let code = prop_oneof![9 => Just(0), 1 => any::<u8>()];
    (kinds, speakers(), destinations, speakers(), options, hop_limit, extensions, code).prop_map(
        |(kind, source, destination, target, options, hop_limit, extensions, code)| Neighbours {
            kind,
            source,
            destination,
            target,
            options,
            hop_limit,
            extensions,
            code,
        },
    )
}

impl Neighbours {
    pub(crate) fn frame(&self) -> Frame {
        let target = self.target.at();
        let destination = match self.destination {
            Destination::Solicited => solicited_node(target),
            Destination::Target => target,
            Destination::Of(text) => ip(text),
            Destination::Host(host) => host.at(Family::V6),
        };
        let IpAddr::V6(bits) = target else { unreachable!("IPv6 alone") };
        let mut body = match self.kind {
            133 => vec![0; 4],
            134 => vec![0; 12],
            137 => vec![0; 36],
            143 => [&[0, 0, 0, 1, 4, 0, 0, 0], &bits.octets()[..]].concat(),
            _ => [&[0; 4], &bits.octets()[..]].concat(),
        };
        let is_listeners = matches!(self.kind, 130..=132 | 143);
        if !is_listeners {
            body.extend(self.options.concat());
        }
        let extensions = match (&self.extensions, is_listeners) {
            (Some(extensions), _) => extensions.clone(),
            (None, true) => vec![Extension::RouterAlert],
            (None, false) => vec![],
        };
        let hop_limit = self.hop_limit.unwrap_or(if is_listeners { 1 } else { 255 });
        let mut frame = neighbour(self.source.at(), destination, self.kind, &body)
            .with_hop_limit(hop_limit)
            .with_extensions(&extensions);
        frame.payload[1] = self.code;
        frame
    }

    /// The same two as ARP has them, with padding.
    pub(crate) fn arp(&self, longer: usize) -> Vec<u8> {
        let at = |speaker: &PeerVersion| match speaker {
            PeerVersion::Host(host) => match host.at(Family::V4) {
                IpAddr::V4(address) => address,
                IpAddr::V6(_) => unreachable!("IPv4 was asked for"),
            },
            PeerVersion::Link("::") => [0; 4].into(),
            PeerVersion::Link(_) => [10, 1, 0, 77].into(),
        };
        let mut frame = arp(self.kind % 3, at(&self.source), at(&self.target));
        // Most have none.
        frame.resize(frame.len() + longer.saturating_sub(40), 0x11);
        if self.code != 0 {
            let place = 14 + usize::from(self.code) % 28;
            frame[place] ^= 1;
        }
        frame
    }
}

impl PeerVersion {
    fn at(self) -> IpAddr {
        match self {
            Self::Host(host) => host.at(Family::V6),
            Self::Link(text) => ip(text),
        }
    }
}
