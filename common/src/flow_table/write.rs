//! Writing to a set: under its lock, one way at a time.

use super::{
    Atomic, BUSY, FlowShares, HASH, Holder, Lookup, NEXT_VERSION, SharedSet, USED, VERSION, WayNumber,
};
use crate::{Flow, Timeouts};

/// What entering a connection did to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nothing, or it took the place of one that was over.
    Alone,
    /// One that lived had to go.
    Instead {
        /// It was answered.
        established: bool,
        /// It was in the share of the same veth ([`Flow::charged_to`]).
        same_pod: bool,
    },
    /// It was not entered: another veth's connection has its place.
    Refused,
}

/// What decides who gives way in a full set.
#[derive(Clone, Copy, Debug)]
pub struct ReplacementRule<'a, S> {
    pub timeouts: &'a Timeouts,
    pub shares: &'a S,
    /// Of the table.
    pub sets: u32,
}

impl<S: FlowShares> ReplacementRule<'_, S> {
    /// At most one connection for 64 sets of the table: such a veth comes to next to no set that is full of
    /// connections of veths that have even fewer.
    #[inline(always)]
    fn is_small(&self, share: u32) -> bool {
        share <= self.sets / 64
    }
}

/// How often a writer tries to get the lock: some microseconds.
const TRIES: u32 = 64;

impl SharedSet {
    /// Enters a connection that was looked up in this set, or puts another entry in the place of its one.
    /// `None`: another writes to the set.
    #[inline(always)]
    pub fn put<A: Atomic, S: FlowShares>(
        self,
        lookup: &Lookup,
        flow: &Flow,
        rule: &ReplacementRule<'_, S>,
        holder: Holder,
    ) -> Option<Entered> {
        self.lock_patiently::<A>(holder).then(|| self.put_locked::<A, S>(lookup, flow, rule))
    }

    /// As [`Self::put`], for an entry that depends on the one that is there.
    pub fn update<A: Atomic, S: FlowShares>(
        self,
        lookup: &mut Lookup,
        rule: &ReplacementRule<'_, S>,
        holder: Holder,
        flow: impl FnOnce(Option<Flow>) -> Flow,
    ) -> Option<Entered> {
        if !self.lock_patiently::<A>(holder) {
            return None;
        }
        let known = self.find::<A>(lookup).then_some(lookup.flow);
        Some(self.put_locked::<A, S>(lookup, &flow(known), rule))
    }

    /// Takes the lock away from an agent that died with it. No agent but the caller's lives.
    pub fn free<A: Atomic>(self) {
        if self.holder() != Holder::Agent as u32 {
            return;
        }
        for way in WayNumber::all() {
            let tag = self.tag(way);
            if tag & BUSY != 0 {
                // Half an entry.
                self.set_tag(way, tag.wrapping_add(NEXT_VERSION) & VERSION);
            }
        }
        self.unlock::<A>();
    }

    #[inline(always)]
    fn lock_patiently<A: Atomic>(self, holder: Holder) -> bool {
        for _ in 0..TRIES {
            if self.try_lock::<A>(holder) {
                return true;
            }
            A::pause();
        }
        false
    }

    /// Writes an entry, and frees the lock, which the caller holds.
    #[inline(always)]
    fn put_locked<A: Atomic, S: FlowShares>(
        self,
        lookup: &Lookup,
        flow: &Flow,
        rule: &ReplacementRule<'_, S>,
    ) -> Entered {
        let choice = self.choose(lookup, flow, rule);
        let way = WayNumber::of(choice);
        if way.is_none() {
            self.unlock::<A>();
            return Entered::Refused;
        }
        let (before, seen, charged) = (self.tag(way), self.seen(way), self.charge_of(way));
        let version = before.wrapping_add(NEXT_VERSION) & VERSION;
        self.set_tag(way, lookup.tag | BUSY | version);
        self.order_writes::<A>();
        self.write(way, &lookup.key, flow);
        self.order_writes::<A>();
        self.set_tag(way, lookup.tag | version);
        self.unlock::<A>();
        let same_pod = charged == flow.charged_to();
        if before & USED == 0 {
            rule.shares.add(flow.charged_to());
        } else if !same_pod {
            rule.shares.subtract(charged);
            rule.shares.add(flow.charged_to());
        }
        if choice >> RANK > rank::LIVE {
            return Entered::Alone;
        }
        Entered::Instead { established: seen.is_replied(), same_pod }
    }

    /// The way to write to, for the lock's holder: the connection's own one, else a free one, else that of
    /// the entry that is worth least; 0: none. Rank, order within the rank and way in one number.
    #[inline(always)]
    fn choose<S: FlowShares>(self, lookup: &Lookup, flow: &Flow, rule: &ReplacementRule<'_, S>) -> u32 {
        self.set_choice(0);
        for way in WayNumber::all() {
            let tag = self.tag(way);
            if (tag ^ lookup.tag) & (HASH | USED) == 0 {
                self.set_choice((rank::OWN << RANK) | way.number());
                break;
            }
            if tag & USED == 0 && (way.number() == lookup.preferred || self.choice() == 0) {
                self.set_choice((rank::FREE << RANK) | way.number());
            }
        }
        // Read again: had it to be remembered, the verifier would walk on once for each way.
        match self.choice() >> RANK {
            0 => self.choose_least(flow, rule),
            rank::OWN => self.choose_alike(lookup, flow, rule.timeouts),
            _ => {}
        }
        self.choice()
    }

    /// Of the way with the tag that the connection would have. Of two ways with one tag readers would not
    /// know which, so it must be this one, or none while it is a live connection of another veth's.
    #[inline(always)]
    fn choose_alike(self, lookup: &Lookup, flow: &Flow, timeouts: &Timeouts) {
        let way = WayNumber::of(self.choice());
        if self.holds(way, &lookup.key) {
            return;
        }
        let idle = timeouts.idle(self.last(way), flow.last);
        let instead = if idle > timeouts.of(self.protocol(way), self.seen(way)) {
            (rank::EXPIRED << RANK) | way.number()
        } else if self.charge_of(way) == flow.charged_to() {
            (rank::LIVE << RANK) | way.number()
        } else {
            0
        };
        self.set_choice(instead);
    }

    /// Of a full set. What is over goes first, then what has ended, the newcomer's own before others'.
    ///
    /// Of live connections one goes that belongs to the veth with the largest share of the whole table. That
    /// is the newcomer's own, or one whose share is as large, to an eighth: so no veth, nor many together,
    /// take from one that has less than they. Of shares of the same [`magnitude`] the newcomer's own gives
    /// way, and within that what was never answered, then what was idle for longest.
    ///
    /// A veth may have the largest share of all that have a connection here, and none here itself. One that
    /// is small takes the place of a connection that was never answered, else of one that was idle for
    /// longest; any other one finds no place.
    ///
    /// A function of its own in the kernel too, for its stack.
    #[inline(never)]
    fn choose_least<S: FlowShares>(self, flow: &Flow, rule: &ReplacementRule<'_, S>) {
        let own = flow.charged_to();
        let own_share = rule.shares.of(own);
        for way in WayNumber::all() {
            let idle = rule.timeouts.idle(self.last(way), flow.last);
            let seen = self.seen(way);
            let veth = self.charge_of(way);
            let is_own = is_same(veth, own);
            let unanswered = u32::from(!seen.is_replied());
            let (rank, order) = if idle > rule.timeouts.of(self.protocol(way), seen) {
                (rank::EXPIRED, 0)
            } else if seen.is_closed() {
                (rank::CLOSED, is_own)
            } else {
                let share = rule.shares.of(veth);
                if veth == own || share + (share >> 3) >= own_share {
                    (rank::LIVE, magnitude(share) << 2 | is_own << 1 | unanswered)
                } else if rule.is_small(own_share) {
                    (rank::LAST, unanswered)
                } else {
                    continue;
                }
            };
            let age = (idle >> AGE_UNIT) & AGE_MASK;
            let worth = (rank << RANK) | (order << ORDER) | (age << AGE) | way.number();
            if worth > self.choice() {
                self.set_choice(worth);
            }
        }
    }

    /// In whose share an entry is: [`Flow::charged_to`], without a jump, as the verifier would walk on once
    /// for each.
    #[inline(always)]
    pub(super) fn charge_of(self, way: WayNumber) -> u32 {
        let (client_if, server_if) = self.veths(way);
        client_if | server_if & is_same(client_if, 0).wrapping_neg()
    }
}

/// Which entry goes first: the highest rank.
mod rank {
    pub(super) const OWN: u32 = 7;
    pub(super) const FREE: u32 = 6;
    pub(super) const EXPIRED: u32 = 5;
    pub(super) const CLOSED: u32 = 4;
    /// From here on, a connection that lives had to go.
    pub(super) const LIVE: u32 = 3;
    /// Of a veth whose share is smaller than the newcomer's.
    pub(super) const LAST: u32 = 2;
}

/// A choice: the rank in the upper bits, then the order within it, then the age in units of 512 ticks, then
/// the way.
const RANK: u32 = 29;
const ORDER: u32 = 19;
const AGE: u32 = 3;
/// The longest time-out has room: what is older has expired, and its age does not matter.
const AGE_UNIT: u32 = 9;
const AGE_MASK: u32 = (1 << (ORDER - AGE)) - 1;

/// A share's order among all, in eight bits: shares are the same that differ by less than an eighth.
#[inline(always)]
const fn magnitude(share: u32) -> u32 {
    let beyond = (u32::BITS - 4) - (share | 8).leading_zeros();
    (beyond << 3) + (share >> beyond)
}

/// 1 if they are the same, else 0. Without a jump.
#[inline(always)]
const fn is_same(one: u32, other: u32) -> u32 {
    (((one ^ other) as u64).wrapping_sub(1) >> 63) as u32
}
