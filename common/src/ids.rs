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

/// A set of policies for one direction, compiled: its number, and whether its verdicts hold for the pod's own
/// node, too. 0: not isolated.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

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
    /// The bit of [`PolicyId::covers_own_node`].
    const COVERS_OWN_NODE: u32 = 1 << 31;

    /// The id of a policy that [covers the own node](Self::covers_own_node) or does not. The number has 31
    /// bits.
    pub const fn new(number: u32, covers_own_node: bool) -> Self {
        Self(if covers_own_node { number | Self::COVERS_OWN_NODE } else { number })
    }

    pub const fn number(self) -> u32 {
        self.0 & !Self::COVERS_OWN_NODE
    }

    /// Whether the rows of other addresses decide about those of the pod's own node, too. Otherwise these
    /// are open but for [the rows of their own](crate::RowKey::of_own_node).
    #[inline(always)]
    pub const fn covers_own_node(self) -> bool {
        self.0 & Self::COVERS_OWN_NODE != 0
    }

    #[inline(always)]
    pub const fn isolates(self) -> bool {
        self.0 != Self::NOT_ISOLATED.0
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl ClassId {
    pub const NONE: Self = Self(0);
}

impl TableSetIndex {
    /// One is in force and one is being filled; the others are for an agent that is killed between two flips.
    pub const COUNT: u32 = 4;
}
