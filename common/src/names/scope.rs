//! Which addresses a name may open at all.

use crate::Address;

/// Whether a name may open an address: whoever has the name chooses its addresses. Loopback, link-local,
/// multicast, broadcast and unspecified addresses, and those at which clouds give secrets to their machines,
/// are none that a name of the DNS leads to. Addresses of nodes and of services are left out where a
/// connection is evaluated.
#[inline(always)]
pub const fn may_be_opened(address: &Address) -> bool {
    let bytes = address.bytes();
    if address.is_v4() {
        let [.., a, b, c, d] = bytes;
        return may_be_opened_v4([a, b, c, d]);
    }
    let [upper, _] = address.halves();
    let [a, b, c, d, e, f, g, h, i, j, k, l, v4 @ ..] = bytes;
    if a == 0 {
        // A gateway translates these prefixes to the IPv4 address at their end: the well-known one, which has
        // public addresses alone (RFC 6052, 3.1), and local ones of any use (RFC 8215).
        let is_well_known = matches!([e, f, g, h, i, j, k, l], [0, 0, 0, 0, 0, 0, 0, 0]);
        return match [b, c, d] {
            [0x64, 0xff, 0x9b] if is_well_known => may_be_opened_v4(v4) && !is_private(v4),
            [0x64, 0xff, 0x9b] if e == 0 && f == 1 => may_be_opened_v4(v4),
            // `::/64` has the unspecified address, loopback, and those that embed IPv4 ones.
            _ => upper != 0,
        };
    }
    // 6to4 (RFC 3056).
    if a == 0x20 && b == 0x02 {
        return may_be_opened_v4([c, d, e, f]) && !is_private([c, d, e, f]);
    }
    let is_metadata = matches!([a, b, c, d], [0xfd, 0, 0x0e, 0xc2]) // EC2
        || matches!([a, b, c, d, e, f], [0xfd, 0x20, 0, 0xce, 0, 0]); // Google's
    a != 0xff && !(a == 0xfe && b >= 0x80) && !is_metadata
}

/// The same of an IPv4 address.
#[inline(always)]
const fn may_be_opened_v4([a, b, c, d]: [u8; 4]) -> bool {
    // Azure's, which gives a node its certificates and the settings of its extensions; Alibaba's.
    let is_metadata = matches!([a, b, c, d], [168, 63, 129, 16] | [100, 100, 100, 200]);
    // 0/8, 127/8, 169.254/16, 192.0.0/24 (Oracle's metadata among others), and from 224/4 on all, which is
    // multicast, reserved, and broadcast.
    let is_special = a == 0 || a == 127 || (a == 169 && b == 254) || (a == 192 && b == 0 && c == 0);
    !is_special && !is_metadata && a < 224
}

/// RFC 1918, and the shared space of RFC 6598.
#[inline(always)]
const fn is_private([a, b, ..]: [u8; 4]) -> bool {
    a == 10 || (a == 172 && b & 0xf0 == 16) || (a == 192 && b == 168) || (a == 100 && b & 0xc0 == 64)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn what_no_name_may_open_is_known_to_the_last_address() {
        let is_open = |text: &str| {
            may_be_opened(&Address::from(text.parse::<IpAddr>().expect("a literal of the test")))
        };
        let closed = [
            "0.0.0.0",
            "0.255.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::100.64.0.1",
            "64:ff9b::172.31.0.1",
            "64:ff9b::192.168.0.1",
            "64:ff9b::168.63.129.16",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:7::127.0.0.1",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
        ];
        let open = [
            "1.0.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "10.0.0.1",
            "192.168.0.1",
            "223.255.255.255",
            "2001:db8::1",
            "fd00::1",
            "fd00:ec3::254",
            "fd20:cf::254",
            "fe7f::1",
            "168.63.129.17",
            "100.100.100.201",
            "192.0.1.1",
            "64:ff9b::8.8.8.8",
            "64:ff9b::172.32.0.1",
            "64:ff9b::100.128.0.1",
            "64:ff9b:1::10.0.0.1",
            "64:ff9a::10.0.0.1",
            "2002:808:808::1",
        ];
        assert_eq!(closed.into_iter().find(|text| is_open(text)), None);
        assert_eq!(open.into_iter().find(|text| !is_open(text)), None);
    }
}
