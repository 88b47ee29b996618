//! Ids that reach the kernel. Chosen by this node's agent, meaningless elsewhere.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Addresses that no rule of this node can distinguish. 0: no rule matches the address.
    IdentityId(u32)
);
id!(
    /// A set of policies for one direction, compiled. 0: not isolated.
    PolicyId(u32)
);
id!(
    /// Ports that no rule of this node can distinguish. 0: no rule names the port; also everything without
    /// ports.
    ClassId(u16)
);
id!(
    /// Which of the table sets an endpoint is evaluated by. A new agent fills the free one, then flips the
    /// endpoints.
    TableSetIndex(u32)
);

id!(
    /// Services whose backends no rule of this node can distinguish.
    ServiceId(u32)
);

impl IdentityId {
    pub const NONE: Self = Self(0);
}

impl PolicyId {
    pub const NOT_ISOLATED: Self = Self(0);

    #[inline(always)]
    pub const fn isolates(self) -> bool {
        self.0 != Self::NOT_ISOLATED.0
    }
}

impl ClassId {
    pub const NONE: Self = Self(0);
}

impl TableSetIndex {
    /// One is in force and one is being filled; the others are for an agent that is killed between two flips.
    pub const COUNT: u32 = 4;
}
