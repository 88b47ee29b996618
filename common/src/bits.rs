//! Sets of bits that are values of maps.

/// Gives a type around a `u8` the operations of a set of bits.
macro_rules! bit_set {
    ($name:ident) => {
        impl $name {
            pub const NONE: Self = Self(0);

            /// Whether it has any of the other's bits.
            #[inline(always)]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The bits of both.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

pub(crate) use bit_set;
