//! The link-layer address of a pod's interface, where its veth is a port of a bridge.
//!
//! A bridge learns from each frame behind which port its source is, and sends what is for that address there.
//! So a pod that sends from another pod's address takes that pod's frames away from it.

/// One element of the table of link-layer addresses, an array: nothing has to be called to read it.
///
/// The address stands in the lower 48 bits, its first byte lowest, and above it the upper half of the veth's
/// ifindex, of which the lower half is the element's number. 0: no veth's.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkAddress(pub u64);

impl LinkAddress {
    pub const NONE: Self = Self(0);

    /// Elements of the table.
    pub const SLOTS: u32 = 1 << 16;

    const BITS: u32 = 48;

    pub const fn new(ifindex: u32, [a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self::of_frame(ifindex, u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Where a veth's element is.
    #[inline(always)]
    pub const fn slot(ifindex: u32) -> u32 {
        ifindex % Self::SLOTS
    }

    /// Of the 8 bytes of a frame that begin with the address.
    #[inline(always)]
    pub(crate) const fn of_frame(ifindex: u32, bytes: u64) -> Self {
        Self(bytes & ((1 << Self::BITS) - 1) | ((ifindex / Self::SLOTS) as u64) << Self::BITS)
    }

    /// Whether it is this veth's: 65,536 devices later another one has the same element.
    #[inline(always)]
    pub const fn is_of(self, ifindex: u32) -> bool {
        self.0 != 0 && self.0 >> Self::BITS == (ifindex / Self::SLOTS) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_says_whose_address_it_is() {
        let mac = [2, 0, 0, 0, 0, 9];
        for ifindex in [1, 7, 65_535, 65_536, 65_543, i32::MAX.cast_unsigned()] {
            let address = LinkAddress::new(ifindex, mac);
            let [a, b, c, d, e, f] = mac;
            let of_frame = LinkAddress::of_frame(ifindex, u64::from_le_bytes([a, b, c, d, e, f, 8, 0]));
            assert_eq!(address, of_frame, "what follows in the frame does not count");
            assert!(address.is_of(ifindex) && !address.is_of(ifindex ^ LinkAddress::SLOTS));
            assert!(!LinkAddress::NONE.is_of(ifindex));
        }
        assert_eq!(LinkAddress::slot(7), LinkAddress::slot(7 + LinkAddress::SLOTS));
    }
}
