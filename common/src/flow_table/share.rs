//! How much of the table each veth has: the connections that are charged to it ([`Flow::charged_to`]).
//!
//! Whoever enters or removes an entry counts it, so that the programs need no agent to know the shares. Two
//! things are counted falsely: what an agent was about to do when it died, and a way that is given to another
//! connection in the moment in which the agent frees it. Each is one connection, perhaps one a day. To count
//! all again when an agent starts would be wrong by more: the programs go on meanwhile.
//!
//! [`Flow::charged_to`]: crate::Flow::charged_to

/// The shares of all veths.
pub trait FlowShares {
    /// Connections of a veth, those included whose time is up and that no one has removed yet.
    fn of(&self, veth: u32) -> u32;

    /// Counts one more.
    fn add(&self, veth: u32);

    /// Counts one less.
    fn subtract(&self, veth: u32);
}

/// One veth's: element of an array, which several processors add to. It may be less than nothing for a
/// moment, as one processor may count an end before another one has counted the beginning.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowShare(pub i64);

impl FlowShare {
    /// Elements of the array.
    pub const SLOTS: u32 = 1 << 14;

    /// Bits of the number of an element in a cache line of 64 bytes.
    const LINE: u32 = 3;

    /// Where a veth's share stands. Veths that were made one after another do not stand in one cache line.
    /// 16,384 devices later another one has the same element: both then count as having what they have
    /// together.
    #[inline(always)]
    pub const fn slot(veth: u32) -> u32 {
        let line = veth % (Self::SLOTS >> Self::LINE);
        let place = veth / (Self::SLOTS >> Self::LINE) % (1 << Self::LINE);
        line << Self::LINE | place
    }

    /// What it counts.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no table holds as many")]
    pub const fn count(self) -> u32 {
        if self.0 > 0 { self.0 as u32 } else { 0 }
    }
}
