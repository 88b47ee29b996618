//! CIDR blocks as the API server has accepted them over the years, in plain arithmetic.
//!
//! Objects that were stored before strict validation may hold leading zeros (`010.0.0.0/8` is 10.0.0.0/8),
//! host bits (`10.0.0.5/24`, masked) and IPv4-mapped IPv6 (`::ffff:10.0.0.0/104`, an IPv4 block).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that share the first `length` bits of `network`. `width` is 32 or 128, the bits of the
/// family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    width: u32,
    network: u128,
    length: u32,
}

impl Cidr {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: u32 = length.parse().ok()?;
        let (width, network) = match parse_ipv4(address) {
            Some(v4) => bits(IpAddr::V4(v4)),
            None => bits(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)),
        };
        if length > width {
            return None;
        }
        let is_mapped = width == 128 && network >> 32 == 0xffff && length >= 96;
        let (width, length) = if is_mapped { (32, length - 96) } else { (width, length) };
        let network = if is_mapped { network & 0xffff_ffff } else { network };
        Some(Self { width, network: first_bits(network, width, length), length })
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        let (width, number) = bits(address);
        width == self.width && first_bits(number, width, self.length) == self.network
    }

    /// Whether `other` lies in this block and is smaller.
    pub(super) fn contains_strictly(self, other: Self) -> bool {
        other.width == self.width
            && other.length > self.length
            && first_bits(other.network, self.width, self.length) == self.network
    }
}

/// Four decimal numbers. Leading zeros do not make them octal.
fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(parse_octet).collect::<Option<Vec<u8>>>()?;
    let octets: [u8; 4] = parts.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

fn parse_octet(text: &str) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

fn bits(address: IpAddr) -> (u32, u128) {
    match address {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    }
}

/// `number` with all but its first `length` bits cleared.
fn first_bits(number: u128, width: u32, length: u32) -> u128 {
    if length == 0 { 0 } else { number >> (width - length) << (width - length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_exact_boundaries() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"][..], &["9.255.255.255", "11.0.0.0"][..]),
            ("10.1.2.3/32", &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
            ("10.1.2.2/31", &["10.1.2.2", "10.1.2.3"], &["10.1.2.1", "10.1.2.4"]),
            ("128.0.0.0/1", &["128.0.0.0", "255.255.255.255"], &["127.255.255.255"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "::ffff:1.2.3.4"]),
            ("::/0", &["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], &["0.0.0.0", "10.0.0.1"]),
            ("fd00::/64", &["fd00::", "fd00::ffff:ffff:ffff:ffff"], &["fcff::", "fd00:0:0:1::"]),
            ("fd00::1/128", &["fd00::1"], &["fd00::", "fd00::2"]),
            ("10.0.0.5/24", &["10.0.0.0", "10.0.0.255"], &["10.0.1.0"]),
            ("010.000.000.000/8", &["10.0.0.1"], &["8.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0", "::ffff:10.0.0.1"]),
            ("::ffff:0.0.0.0/96", &["1.2.3.4"], &["::1"]),
        ] {
            let cidr = Cidr::parse(block).expect(block);
            for address in inside {
                assert!(cidr.contains(address.parse().unwrap()), "{address} is in {block}");
            }
            for address in outside {
                assert!(!cidr.contains(address.parse().unwrap()), "{address} is not in {block}");
            }
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "::/129",
            "fd00::1",
            "fd00::%eth0/64",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "x/8",
            "10..0.0/8",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_block_contains_smaller_blocks_of_its_family_alone() {
        for (block, other, contains) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "::/1", false),
            ("::/0", "10.0.0.0/8", false),
            ("0.0.0.0/0", "::ffff:10.0.0.0/104", true),
        ] {
            let [block_cidr, other_cidr] = [block, other].map(|text| Cidr::parse(text).expect(text));
            assert_eq!(block_cidr.contains_strictly(other_cidr), contains, "{other} in {block}");
        }
    }
}
