//! IP addresses as map keys: 16 bytes, IPv4 in its mapped form (`::ffff:a.b.c.d`).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of either family in network byte order.
///
/// The mapped form makes one key type for both families. It cannot be forged: the parser refuses IPv6 packets
/// that carry a mapped address, which are never legitimate on a wire (RFC 4942, 2.2).
///
/// Two words of 64 bits, because it is moved and compared on the fast path; aligned to 4 bytes, because keys
/// of maps have no padding.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64, u64);

/// A copy on the stack, as the key of a map: the verifier of Linux 6.1 takes none from what a global function
/// gets. Aligned, because it lets no one read across the words of the stack.
#[repr(align(8))]
#[derive(Clone, Copy, Debug)]
pub struct AddressKey(pub Address);

/// The upper half of a mapped address without its IPv4 part, as it lies in memory.
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

/// The bits of the upper half that hold an IPv4 address.
const IPV4_PART: u64 = pair(0, u32::MAX);

/// Two words as they lie in memory.
#[inline(always)]
pub(crate) const fn pair(first: u32, second: u32) -> u64 {
    let (first, second) = (first as u64, second as u64);
    if cfg!(target_endian = "little") { first | second << 32 } else { first << 32 | second }
}

/// The inverse of [`pair`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
pub(crate) const fn unpair(word: u64) -> [u32; 2] {
    let (upper, lower) = ((word >> 32) as u32, word as u32);
    if cfg!(target_endian = "little") { [lower, upper] } else { [upper, lower] }
}

impl Address {
    /// `::`
    pub const UNSPECIFIED: Self = Self(0, 0);

    #[inline(always)]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (MAPPED, bytes);
        Self(0, u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
    }

    /// From the 16 bytes of an IPv6 header field.
    #[inline(always)]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p]))
    }

    /// From an IPv4 address as it lies in memory.
    #[inline(always)]
    pub(crate) const fn from_v4_word(word: u32) -> Self {
        Self(0, pair(u32::from_ne_bytes(MAPPED), word))
    }

    /// From the two halves of an IPv6 address as they lie in memory.
    #[inline(always)]
    pub const fn from_halves(upper: u64, lower: u64) -> Self {
        Self(upper, lower)
    }

    /// An IPv4 address as it lies in memory.
    #[inline(always)]
    pub(crate) const fn v4_word(self) -> Option<u32> {
        let [_, word] = unpair(self.1);
        if self.is_v4() { Some(word) } else { None }
    }

    /// The two halves as they lie in memory.
    #[inline(always)]
    pub const fn halves(self) -> [u64; 2] {
        [self.0, self.1]
    }

    /// 1 if it is another address, else 0: a comparison without a jump.
    #[inline(always)]
    pub(crate) const fn difference(self, other: Self) -> u64 {
        let differing = self.0 ^ other.0 | self.1 ^ other.1;
        (differing | differing.wrapping_neg()) >> 63
    }

    /// Any order that is the same for all; the same as that of `Ord`, in fewer instructions.
    #[inline(always)]
    pub(crate) const fn order(self, other: Self) -> ByteOrder {
        if self.0 == other.0 && self.1 == other.1 {
            ByteOrder::Same
        } else if self.0 < other.0 || (self.0 == other.0 && self.1 < other.1) {
            ByteOrder::Less
        } else {
            ByteOrder::Greater
        }
    }

    /// From the four words of an IPv6 address as they lie in memory.
    #[inline(always)]
    pub const fn from_words([a, b, c, d]: [u32; 4]) -> Self {
        Self(pair(a, b), pair(c, d))
    }

    /// The 16 bytes in network order: the data of an LPM key.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
            (self.0.to_ne_bytes(), self.1.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0 == 0 && self.1 & !IPV4_PART == Self::from_v4([0; 4]).1
    }

    /// `0.0.0.0` or `::`, what a host sends from before it has an address.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0 == 0 && (self.1 == 0 || self.1 == Self::from_v4([0; 4]).1)
    }

    /// The unspecified address of the same family.
    #[inline(always)]
    #[must_use]
    pub const fn unspecified(self) -> Self {
        if self.is_v4() { Self::from_v4([0; 4]) } else { Self::UNSPECIFIED }
    }

    /// `fe80::/10`: never routed off the link.
    #[inline(always)]
    pub const fn is_link_local_v6(self) -> bool {
        let [a, b, ..] = self.0.to_ne_bytes();
        a == 0xfe && b & 0xc0 == 0x80
    }

    /// Of multicast, or the broadcast address of IPv4.
    #[inline(always)]
    pub(crate) const fn is_for_many(self) -> bool {
        let [.., a, b, c, d] = self.1.to_ne_bytes();
        if self.is_v4() { a >> 4 == 0xe || a & b & c & d == 0xff } else { self.is_multicast_v6() }
    }

    /// Whether the API server takes it as an address of a Service: it is neither unspecified nor loopback nor
    /// link-local (`ValidateNonSpecialIP`, pkg/apis/core/validation/validation.go).
    #[inline(always)]
    pub const fn may_be_a_services(self) -> bool {
        let [first, second, ..] = self.0.to_ne_bytes();
        let [.., a, b, c, _] = self.1.to_ne_bytes();
        if self.is_v4() {
            !(a == 0 && b == 0 && c == 0 || a == 127 || a == 169 && b == 254 || a == 224 && b == 0 && c == 0)
        } else {
            !(self.0 == 0 && self.1.to_be() <= 1 || self.is_link_local_v6() || first == 0xff && second == 2)
        }
    }

    /// `ff00::/8`
    #[inline(always)]
    pub(crate) const fn is_multicast_v6(self) -> bool {
        let [a, ..] = self.0.to_ne_bytes();
        a == 0xff
    }

    /// The multicast address of link scope at which the host with this IPv6 address is asked for its
    /// link-layer address (RFC 4291, 2.7.1).
    #[inline(always)]
    #[must_use]
    pub(crate) const fn solicited_node(self) -> Self {
        let [.., a, b, c] = self.1.to_ne_bytes();
        let upper = u64::from_ne_bytes([0xff, 2, 0, 0, 0, 0, 0, 0]);
        Self(upper, u64::from_ne_bytes([0, 0, 0, 1, 0xff, a, b, c]))
    }

    /// Whether two IPv6 addresses have their first 64 bits in common, what on-link prefixes have.
    #[inline(always)]
    pub(crate) const fn has_prefix_of(self, other: Self) -> bool {
        self.0 == other.0
    }
}

/// How one address stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Less,
    Same,
    Greater,
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

#[cfg(test)]
mod tests {
    use std::format;

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("a literal of the test").into()
    }

    #[test]
    fn a_service_has_no_address_that_means_something_to_each_host() {
        for (text, expected) in [
            ("0.0.0.0", false),
            ("0.0.1.0", true),
            ("126.255.255.255", true),
            ("127.0.0.1", false),
            ("127.255.255.255", false),
            ("128.0.0.0", true),
            ("169.253.255.255", true),
            ("169.254.169.254", false),
            ("169.255.0.0", true),
            ("224.0.0.251", false),
            ("224.0.1.1", true),
            ("10.96.0.10", true),
            ("::", false),
            ("::1", false),
            ("::2", true),
            ("fe80::1", false),
            ("febf:ffff::1", false),
            ("fec0::1", true),
            ("ff01::1", true),
            ("ff02::fb", false),
            ("ff05::2", true),
            ("fd00::10", true),
        ] {
            assert_eq!(address(text).may_be_a_services(), expected, "{text}");
        }
    }

    #[test]
    fn predicates_know_their_ranges_to_the_last_address() {
        // (address, is v4, is unspecified, is link-local v6)
        let table = [
            ("::", false, true, false),
            ("0.0.0.0", true, true, false),
            ("0.0.0.1", true, false, false),
            ("::1", false, false, false),
            ("::ffff:0.0.0.0", true, true, false),
            ("::fffe:0.0.0.0", false, false, false),
            ("::1:ffff:0:0", false, false, false),
            ("1::ffff:0:0", false, false, false),
            ("255.255.255.255", true, false, false),
            ("169.254.0.1", true, false, false),
            ("fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false, false),
            ("fe80::", false, false, true),
            ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false, true),
            ("fec0::", false, false, false),
            ("ff02::1", false, false, false),
        ];
        for (text, v4, unspecified, link_local) in table {
            let address = address(text);
            assert_eq!(address.is_v4(), v4, "{text} is IPv4");
            assert_eq!(address.is_unspecified(), unspecified, "{text} is unspecified");
            assert_eq!(address.is_link_local_v6(), link_local, "{text} is link-local");
        }
    }

    #[test]
    fn the_mapped_form_is_the_ipv4_address() {
        assert_eq!(address("::ffff:10.1.2.3"), address("10.1.2.3"));
        assert_eq!(IpAddr::from(address("::ffff:10.1.2.3")), IpAddr::from([10, 1, 2, 3]));
        assert_ne!(address("::10.1.2.3"), address("10.1.2.3"));
    }

    proptest! {
        #[test]
        fn an_address_survives_the_way_through_a_map(bytes: [u8; 16], v4: [u8; 4]) {
            prop_assert_eq!(Address::from_v6(bytes).bytes(), bytes);
            prop_assert_eq!(IpAddr::from(Address::from_v4(v4)), IpAddr::from(v4));
            let v6 = Ipv6Addr::from(bytes);
            prop_assume!(v6.to_ipv4_mapped().is_none());
            prop_assert_eq!(IpAddr::from(Address::from_v6(bytes)), IpAddr::V6(v6), "{}", format!("{v6}"));
        }
    }
}
