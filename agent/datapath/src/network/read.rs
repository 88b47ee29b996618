//! One full look: dumps of links, addresses and routes, and of the addresses in each namespace at the end of
//! a veth.
//!
//! Attributes are picked out one by one. A device of a kind that no library knows yet must not hide the
//! others, so an attribute that is not asked for is never parsed.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
};

use anyhow::Context as _;
use ipnet::IpNet;
use netlink_packet_core::{NlaBuffer, NlasIterator, parse_i32, parse_ip, parse_u32};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkExtentMask, LinkHeader, LinkLayerType, LinkMessage},
    route::{RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use podgate_core::model::Name;

use crate::netlink::Requests;
use crate::network::{DefaultRoute, Link, Network, VethPeer};

/// Sizes of `struct ifinfomsg`, `ifaddrmsg`, `rtmsg` and `rtnexthop` (uapi/linux/rtnetlink.h, if_addr.h).
pub(super) const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NEXT_HOP_HEADER: usize = 8;

/// Addresses of a peer that are looked at. A pod has a few; one that has thousands is known by its CNI
/// result.
const PEER_ADDRESSES: usize = 256;

/// `IFA_TARGET_NETNSID` (uapi/linux/if_addr.h), `IFLA_TARGET_NETNSID` (uapi/linux/if_link.h).
const IFA_TARGET_NETNSID: u16 = 10;
pub(super) const IFLA_TARGET_NETNSID: u16 = 46;

/// Reads the node's namespace, and remembers the addresses in the others until an event tells that they
/// changed. With 250 pods that saves more than half of the time.
#[derive(Debug)]
pub(super) struct Reader {
    requests: Requests,
    namespaces: BTreeMap<i32, PeerNamespace>,
}

/// What was read of a namespace at the far end of some veths.
#[derive(Debug)]
struct PeerNamespace {
    /// The veths that led there: their near ifindex with its generation, and the far one. Ids of namespaces
    /// are used again; with the same veths at the same ends it is still the same namespace.
    veths: BTreeSet<(u32, u32, u32)>,
    /// By ifindex in there.
    addresses: Vec<(u32, IpNet)>,
}

impl Reader {
    pub(super) fn new(requests: Requests) -> Self {
        Self { requests, namespaces: BTreeMap::new() }
    }

    /// Something changed in a namespace.
    pub(super) fn forget(&mut self, namespace: i32) {
        self.namespaces.remove(&namespace);
    }

    /// No one knows what changed.
    pub(super) fn forget_all(&mut self) {
        self.namespaces.clear();
    }

    /// `generations` holds, by ifindex, how many devices are gone that had it.
    pub(super) fn network(&mut self, generations: &BTreeMap<u32, u32>) -> anyhow::Result<Network> {
        let links = self.requests.dump(links_request(None), link).context("cannot list the links")?;
        let mut links: BTreeMap<u32, Link> = links.into_iter().collect();
        for (ifindex, link) in &mut links {
            link.generation = generations.get(ifindex).copied().unwrap_or_default();
        }
        let addresses = self.requests.dump(addresses_request(None), |payload| address(payload, None));
        for FoundAddress { ifindex, address, learned } in
            addresses.context("cannot list the addresses of the node")?
        {
            if let Some(link) = links.get_mut(&ifindex) {
                link.addresses.insert(address);
                link.learned_addresses.extend(learned.then_some(address.addr()));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let ways = match self.requests.dump(routes_request(family), default_route_links) {
                // The main table comes with the first route of a family.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                ways => ways.with_context(|| format!("cannot list the {family:?} routes"))?,
            };
            for (ifindex, route) in ways.into_iter().flatten() {
                if let Some(link) = links.get_mut(&ifindex) {
                    link.default_route = link.default_route.max(route);
                }
            }
        }
        self.read_peers(&mut links);
        Ok(Network { links })
    }

    /// The addresses at the far ends: one dump for each namespace, however many veths lead there.
    fn read_peers(&mut self, links: &mut BTreeMap<u32, Link>) {
        let mut veths: BTreeMap<i32, BTreeSet<(u32, u32, u32)>> = BTreeMap::new();
        for (ifindex, link) in &*links {
            if let Some(peer) = link.peer.as_ref().filter(|peer| peer.namespace >= 0) {
                veths.entry(peer.namespace).or_default().insert((*ifindex, link.generation, peer.ifindex));
            }
        }
        self.namespaces.retain(|id, known| veths.get(id) == Some(&known.veths));
        for (id, veths) in veths {
            if let Entry::Vacant(unknown) = self.namespaces.entry(id) {
                let addresses = read_namespace(&mut self.requests, id);
                unknown.insert(PeerNamespace { veths, addresses });
            }
        }
        for peer in links.values_mut().filter_map(|link| link.peer.as_mut()) {
            let addresses =
                self.namespaces.get(&peer.namespace).map_or(&[][..], |namespace| &namespace.addresses);
            let own = addresses.iter().filter(|(ifindex, _)| *ifindex == peer.ifindex);
            peer.addresses = own.map(|(_, address)| address.addr()).take(PEER_ADDRESSES).collect();
        }
    }
}

/// A namespace that cannot be read shows no addresses: it may be gone already (`rtnl_get_net_ns_capable`),
/// and one whose pod changes its addresses without end must not keep the node from seeing the others.
fn read_namespace(requests: &mut Requests, id: i32) -> Vec<(u32, IpNet)> {
    let found = |payload: &[u8]| address(payload, Some(id)).map(|found| (found.ifindex, found.address));
    let answer = requests.dump(addresses_request(Some(id)), found);
    answer.unwrap_or_else(|error| {
        tracing::debug!(namespace = id, %error, "cannot list the addresses in a network namespace");
        Vec::new()
    })
}

pub(super) fn links_request(namespace: Option<i32>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

pub(super) fn addresses_request(namespace: Option<i32>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.attributes.extend(namespace.map(AddressAttribute::TargetNetNsId));
    RouteNetlinkMessage::GetAddress(message)
}

fn routes_request(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    RouteNetlinkMessage::GetRoute(message)
}

/// RTM_NEWLINK: the link with its ifindex.
pub(super) fn link(payload: &[u8]) -> Option<(u32, Link)> {
    let header = LinkHeader::parse(payload).ok()?;
    let mut found = Link { bare_ip: is_bare_ip(header.link_layer_type), ..Link::default() };
    let (mut peer_ifindex, mut peer_namespace, mut pair) = (0, None, false);
    for attribute in attributes(payload, LINK_HEADER) {
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => found.name = name(value),
            libc::IFLA_MASTER => found.master = parse_u32(value).ok()?,
            libc::IFLA_LINK => peer_ifindex = parse_u32(value).ok()?,
            libc::IFLA_LINK_NETNSID => peer_namespace = parse_i32(value).ok(),
            libc::IFLA_LINKINFO => {
                pair = is_pair(value);
                found.tunnel_port = tunnel_port(value);
            }
            _ => {}
        }
    }
    // The kernel names the namespace of the other end only if it is not the one that asks.
    let peer = peer_namespace.filter(|_| pair);
    found.peer =
        peer.map(|namespace| VethPeer { namespace, ifindex: peer_ifindex, addresses: BTreeSet::new() });
    Some((header.index, found))
}

/// Devices of these types (`linux/if_arp.h`) hand IP packets to programs as they are: tun, WireGuard and xfrm
/// have none of their own.
fn is_bare_ip(kind: LinkLayerType) -> bool {
    let kinds = [
        LinkLayerType::None,
        LinkLayerType::Tunnel,
        LinkLayerType::Tunnel6,
        LinkLayerType::Sit,
        LinkLayerType::Ipgre,
        LinkLayerType::Ip6gre,
        LinkLayerType::Ppp,
        LinkLayerType::Rawip,
    ];
    kinds.contains(&kind)
}

/// The kernel takes nearly any bytes for a name. One that is not UTF-8 is shown as well as it can be.
fn name(value: &[u8]) -> Name {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into()
}

/// Devices in pairs, with one end in a pod. Programs at the node's end see what passes, of both kinds.
fn is_pair(information: &[u8]) -> bool {
    information_kind(information).is_some_and(|kind| matches!(kind.as_str(), "veth" | "netkit"))
}

/// The kernel's word for the kind of a virtual device.
pub(super) fn information_kind(information: &[u8]) -> Option<String> {
    let mut attributes = attributes(information, 0);
    let kind = attributes.find(|attribute| attribute.kind() == libc::IFLA_INFO_KIND)?;
    let text = kind.value().strip_suffix(b"\0").unwrap_or(kind.value());
    Some(String::from_utf8_lossy(text).into_owned())
}

/// `IFLA_VXLAN_PORT`, `IFLA_GENEVE_PORT`, `IFLA_BAREUDP_PORT`, `IFLA_IPTUN_ENCAP_DPORT`,
/// `IFLA_GRE_ENCAP_DPORT` (uapi/linux/if_link.h, if_tunnel.h): in network byte order. Where a tunnel sends
/// FOU and GUE to, its node listens as well, as all nodes of a cluster do alike.
pub(super) fn tunnel_port(information: &[u8]) -> Option<u16> {
    let part = |wanted| attributes(information, 0).find(|attribute| attribute.kind() == wanted);
    let kind = part(libc::IFLA_INFO_KIND)?;
    let port = match kind.value().strip_suffix(b"\0")? {
        b"vxlan" => 15,
        b"geneve" => 5,
        b"bareudp" => 1,
        b"ipip" | b"sit" | b"ip6tnl" => 18,
        b"gre" | b"gretap" | b"ip6gre" | b"ip6gretap" => 17,
        _ => return None,
    };
    let data = part(libc::IFLA_INFO_DATA)?;
    let port = attributes(data.value(), 0).find(|attribute| attribute.kind() == port)?;
    let [high, low] = *port.value() else { return None };
    Some(u16::from_be_bytes([high, low])).filter(|port| *port != 0)
}

/// An address of a link.
pub(super) struct FoundAddress {
    pub(super) ifindex: u32,
    pub(super) address: IpNet,
    /// It expires unless somebody renews it.
    learned: bool,
}

/// RTM_NEWADDR. An answer about another namespace than asked for counts for nothing.
pub(super) fn address(payload: &[u8], namespace: Option<i32>) -> Option<FoundAddress> {
    let header = AddressHeader::parse(payload).ok()?;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let (mut local, mut address, mut answered) = (None, None, None);
    for attribute in attributes(payload, ADDRESS_HEADER) {
        match attribute.kind() {
            libc::IFA_LOCAL => local = parse_ip(attribute.value()).ok(),
            libc::IFA_ADDRESS => address = parse_ip(attribute.value()).ok(),
            IFA_TARGET_NETNSID => answered = parse_i32(attribute.value()).ok(),
            _ => {}
        }
    }
    if answered != namespace {
        return None;
    }
    // On a point-to-point link IFA_ADDRESS is the other side's (uapi/linux/if_addr.h).
    let address = IpNet::new(local.or(address)?, header.prefix_len).ok()?;
    let learned = !header.flags.contains(AddressHeaderFlags::Permanent);
    Some(FoundAddress { ifindex: header.index, address, learned })
}

/// RTM_NEWROUTE: the links by which a default route leaves.
fn default_route_links(payload: &[u8]) -> Option<Vec<(u32, DefaultRoute)>> {
    let header = RouteHeader::parse(payload).ok()?;
    if header.destination_prefix_length != 0
        || header.kind != RouteType::Unicast
        || header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let mut links = Vec::new();
    for attribute in attributes(payload, ROUTE_HEADER) {
        match attribute.kind() {
            libc::RTA_OIF => links.extend(parse_u32(attribute.value()).ok()),
            libc::RTA_MULTIPATH => links.extend(next_hop_links(attribute.value())),
            _ => {}
        }
    }
    let route = origin(header.protocol);
    Some(links.into_iter().map(|link| (link, route)).collect())
}

/// By whom a route was made (`rtm_protocol`; also programs that speak these protocols in the kernel's place
/// say so).
const fn origin(protocol: RouteProtocol) -> DefaultRoute {
    match protocol {
        RouteProtocol::IcmpRedirect | RouteProtocol::Ra | RouteProtocol::Dhcp => DefaultRoute::Learned,
        _ => DefaultRoute::Set,
    }
}

/// `struct rtnexthop`: length (u16), flags, hops, ifindex, then attributes.
fn next_hop_links(mut hops: &[u8]) -> Vec<u32> {
    let mut links = Vec::new();
    while let [low, high, _, _, a, b, c, d, ..] = *hops {
        links.push(u32::from_ne_bytes([a, b, c, d]));
        let length = usize::from(u16::from_ne_bytes([low, high])).max(NEXT_HOP_HEADER).next_multiple_of(4);
        hops = hops.get(length..).unwrap_or_default();
    }
    links
}

/// The attributes behind a header of so many bytes, up to the first malformed one.
pub(super) fn attributes(payload: &[u8], header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload.get(header..).unwrap_or_default()).map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netkit_device_is_a_pods_interface_as_a_veth_is_and_others_are_not() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        for (kind, is_pair) in [("veth", true), ("netkit", true), ("macvlan", false), ("vethx", false)] {
            let information = attribute(libc::IFLA_INFO_KIND, format!("{kind}\0").as_bytes());
            let mut message = vec![0; LINK_HEADER];
            message[4..8].copy_from_slice(&7_u32.to_ne_bytes());
            message.extend(attribute(libc::IFLA_IFNAME, b"nk1\0"));
            message.extend(attribute(libc::IFLA_LINK, &2_u32.to_ne_bytes()));
            message.extend(attribute(libc::IFLA_LINK_NETNSID, &3_i32.to_ne_bytes()));
            message.extend(attribute(libc::IFLA_LINKINFO, &information));
            let (ifindex, link) = link(&message).unwrap();
            let peer = VethPeer { namespace: 3, ifindex: 2, addresses: BTreeSet::new() };
            assert_eq!((ifindex, link.peer), (7, is_pair.then_some(peer)), "{kind}");
        }
    }
}
