//! IP addresses as map keys: 16 bytes, IPv4 in its mapped form (`::ffff:a.b.c.d`).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of either family in network byte order.
///
/// The mapped form makes one key type for both families. It cannot be forged: the parser refuses IPv6 packets
/// that carry a mapped address, which are never legitimate on a wire (RFC 4942, 2.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u32; 4]);

/// The third word of a mapped address, as it lies in memory.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// `::`
    pub const UNSPECIFIED: Self = Self([0; 4]);

    #[inline(always)]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// From the 16 bytes of an IPv6 header field.
    #[inline(always)]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The 16 bytes in network order: the data of an LPM key.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        let [w, x, y, z] = self.0;
        let ([a, b, c, d], [e, f, g, h]) = (w.to_ne_bytes(), x.to_ne_bytes());
        let ([i, j, k, l], [m, n, o, p]) = (y.to_ne_bytes(), z.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// `0.0.0.0` or `::`, what a host sends from before it has an address.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && (self.0[2] == MAPPED || self.0[2] == 0) && self.0[3] == 0
    }

    /// `fe80::/10`: never routed off the link.
    #[inline(always)]
    pub const fn is_link_local_v6(self) -> bool {
        let [a, b, _, _] = self.0[0].to_ne_bytes();
        a == 0xfe && b & 0xc0 == 0x80
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let bytes = address.bytes();
        if address.is_v4() {
            let [.., a, b, c, d] = bytes;
            Self::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            Self::V6(Ipv6Addr::from(bytes))
        }
    }
}
