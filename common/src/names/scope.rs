//! Which addresses a name may open at all.

use crate::Address;

/// Whether a name may open an address: whoever has the name chooses its addresses. Loopback, link-local (the
/// metadata servers of clouds), multicast, broadcast and unspecified addresses are none that a name of the
/// DNS leads to. Addresses of nodes and of services are left out where a connection is evaluated.
#[inline(always)]
pub const fn may_be_opened(address: &Address) -> bool {
    let bytes = address.bytes();
    if address.is_v4() {
        let [.., a, b, _, _] = bytes;
        // 0/8, 127/8, 169.254/16, and from 224/4 on all, which is multicast, reserved, and broadcast.
        return a != 0 && a != 127 && !(a == 169 && b == 254) && a < 224;
    }
    let [upper, lower] = address.halves();
    let [a, b, ..] = bytes;
    // `::/64` has the unspecified address, loopback, and those that embed IPv4 ones; `fd00:ec2::254` is the
    // metadata server of one cloud.
    let is_metadata = upper == u64::from_ne_bytes([0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0])
        && lower == u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0x02, 0x54]);
    upper != 0 && a != 0xff && !(a == 0xfe && b >= 0x80) && !is_metadata
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
            "fd00:ec2::253",
            "fd00:ec2:1::254",
            "fe7f::1",
            "64:ff9b::8.8.8.8",
        ];
        assert_eq!(closed.into_iter().find(|text| is_open(text)), None);
        assert_eq!(open.into_iter().find(|text| !is_open(text)), None);
    }
}
