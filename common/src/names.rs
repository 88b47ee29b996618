//! Egress by DNS name: what a reply of a resolver says is learnt before its pod sees it.
//!
//! [`Walk`] goes over one message, in steps of which each reads a label, a record or an address. It finds the
//! name that was asked, and each alias in the answer, in a tree of the names that rules have, and hands each
//! address to [`NameTables::learn`]. [`SharedNameSet`] keeps such addresses for one pod.
//!
//! DNS is not filtered here: whatever a walk ends with, nothing is said of the packet.

mod found;
mod label;
mod partial;
mod reader;
mod record;
mod scope;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod walk;

pub use label::{Label, LabelKey};
pub use partial::{MessageProgress, PartialMessage, SharedPartial};
pub use scope::may_be_opened;
pub use stream::{Opened, Stream, Transport};
pub use table::{
    Learnt, NAMES_OF_ADDRESS, NameEntry, NameSet, NameSpots, SharedNameSet, TRIES_TO_ENTER, WAYS_OF_NAMES,
};
pub use walk::{Next, Walk};

use crate::Address;

/// A name as rules see it: three times the deepest node of the tree of names that it reaches, plus how many
/// labels are left then (0, 1, or 2 for more). So it says at once which patterns match. 0: none can.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(pub u32);

impl NameId {
    pub const NONE: Self = Self(0);

    /// Of the node that a name reaches, and so many labels left.
    #[inline(always)]
    pub const fn new(node: NameNode, left: u32) -> Self {
        Self(3 * (node.0 & NameNode::NUMBER) + case(left))
    }

    /// The number of the node, and how many labels were left: 0, 1, or 2 for more.
    pub const fn parts(self) -> (u32, u32) {
        (self.0 / 3, self.0 % 3)
    }

    /// The key under which its identity stands beside those of addresses: in a block that is no one's (RFC
    /// 4291, 2.4, reserves all of `::/8`).
    #[inline(always)]
    pub const fn as_key(self) -> Address {
        let upper = u64::from_ne_bytes([0, b'n', b'a', b'm', b'e', b's', 0, 0]);
        Address::from_halves(upper, self.0 as u64)
    }

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

const fn case(left: u32) -> u32 {
    if left < 2 { left } else { 2 }
}

/// A node of the tree of names: its number, which no other one ever has, and for each number of labels left
/// whether a pattern matches then. 0: there is none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameNode(pub u32);

impl NameNode {
    /// Above the root there is none, and no name ends there.
    pub const ROOT: Self = Self(0);
    /// The bits of a number, and how many there can be: three times as many are numbers of names.
    const NUMBER: u32 = (1 << 29) - 1;
    pub const MAX_NUMBER: u32 = Self::NUMBER;

    /// `matched`: by the labels left, 0, 1, and 2 for more.
    pub const fn new(number: u32, matched: [bool; 3]) -> Self {
        let [none, one, more] = matched;
        Self(number & Self::NUMBER | (none as u32) << 29 | (one as u32) << 30 | (more as u32) << 31)
    }

    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0 & Self::NUMBER
    }

    /// Whether a pattern matches a name that reaches this node, with so many labels left.
    #[inline(always)]
    pub const fn matches(self, left: u32) -> bool {
        self.0 >> (29 + case(left)) & 1 != 0
    }
}

/// How far a server is believed: a value of the map of resolvers, by address, port and protocol.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolver(pub u32);

impl Resolver {
    /// It is no resolver.
    pub const NONE: Self = Self(0);
    pub const BELIEVED: Self = Self(1);
    /// A service that is not the resolver's claims the same address and port, and may lead packets there to
    /// backends of its own. A reply is believed only if connection tracking says that a resolver's backend
    /// has sent it.
    pub const CLAIMED: Self = Self(2);
}

/// Of a tree of names: more labels than this has no pattern.
pub const MAX_PATTERN_LABELS: usize = 16;

/// How long an address is kept at most, in seconds (a day).
pub const MAX_LIFETIME: u32 = 86_400;

/// Steps of a walk over one packet at the most: enough for 500 addresses.
pub const MAX_STEPS: u32 = 1_024;

/// What a walk looks up, and where it leaves what it learns.
pub trait NameTables {
    /// The node of the tree of names below `key.parent` with this label, [`NameNode::ROOT`] if there is none.
    fn node(&self, key: &LabelKey) -> NameNode;

    /// Learns that a name has an address, for so many seconds, in the table of one pod. `None`: it could not
    /// be entered.
    fn learn(&self, table: u32, address: &Address, name: NameId, seconds: u32) -> Option<Learnt>;
}
