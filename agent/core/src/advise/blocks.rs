//! Blocks of addresses that are no pods'. A few are listed one by one, as far as they do not fill a block; of
//! many it is assumed that more will come.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An `ipBlock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressBlock {
    /// The block.
    pub cidr: IpNet,
    /// Blocks in it that do not count.
    pub except: Vec<IpNet>,
}

/// More addresses than this are not listed one by one.
const FEW: usize = 16;

/// What is no one's on the Internet: RFC 1918, RFC 6598, link-local addresses; RFC 4193 and link-local ones.
const PRIVATE: [&str; 7] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

/// A whole network of private addresses: /24 and /64.
const NETWORK: [u8; 2] = [24, 64];

/// Blocks that hold all of these addresses.
pub(super) fn merged(addresses: Vec<IpNet>) -> Vec<AddressBlock> {
    let private: Vec<IpNet> =
        PRIVATE.iter().map(|block| block.parse().expect("a literal of this file")).collect();
    let mut merged = Vec::new();
    for is_v4 in [true, false] {
        let of_family = |block: &IpNet| matches!(block, IpNet::V4(_)) == is_v4;
        let private: Vec<IpNet> = private.iter().copied().filter(of_family).collect();
        let own = addresses.iter().copied().filter(of_family);
        let (inner, outer): (Vec<IpNet>, Vec<IpNet>) =
            own.partition(|address| private.iter().any(|block| block.contains(address)));
        if outer.len() > FEW {
            let all = if is_v4 { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) };
            merged.push(AddressBlock { cidr: all, except: private });
        } else {
            merged.extend(listed(&outer));
        }
        if inner.len() > FEW {
            let length = NETWORK[usize::from(!is_v4)];
            let network = |address: &IpNet| {
                IpNet::new(address.addr(), length).map_or(*address, |network| network.trunc())
            };
            merged.extend(listed(&inner.iter().map(network).collect::<Vec<_>>()));
        } else {
            merged.extend(listed(&inner));
        }
    }
    merged
}

fn listed(blocks: &[IpNet]) -> Vec<AddressBlock> {
    let blocks = IpNet::aggregate(&blocks.to_vec());
    blocks.into_iter().map(|cidr| AddressBlock { cidr, except: Vec::new() }).collect()
}
