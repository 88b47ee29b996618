//! Where a program works on its packet.
//!
//! In the kernel this is memory of a map: a BPF program has 512 bytes of stack, and of a map's memory the verifier
//! remembers nothing, so that all ways through the headers go on as one.

use crate::{Direction, Flow, Headers, Judged, Lookup, Outcome, Tracked, Tuple, packet::forget};

/// Memory of one run. What it holds before does not matter.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    pub headers: Headers,
    pub tracked: Tracked,
    /// What was asked of whose policies.
    pub judged: Judged,
    /// Where the packet entered the node, as far as that is known.
    pub(crate) via: u32,
    /// Of a packet that has entered at no interface: the veth of the pod whose address it has.
    pub(crate) claimed: u32,
    /// The packet's connection.
    pub(crate) lookup: Lookup,
    /// The connection that it was before its addresses were rewritten.
    pub(crate) original: Lookup,
    pub(crate) question: Question,
}

/// One side of a connection that must be judged, and the entry that the connection gets when it passes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) entry: Flow,
    pub(crate) side: Direction,
    /// Whether the packet that raises the question is one of the client's.
    pub(crate) from_client: bool,
    /// Whether it was answered before.
    pub(crate) is_judged: bool,
    /// The answer.
    pub(crate) outcome: Outcome,
}

impl Scratch {
    pub const EMPTY: Self = Self {
        headers: Headers::EMPTY,
        tracked: Tracked::EMPTY,
        judged: Judged::NOTHING,
        via: 0,
        claimed: 0,
        lookup: Lookup::EMPTY,
        original: Lookup::EMPTY,
        question: Question {
            entry: Flow::EMPTY,
            side: Direction::Egress,
            from_client: false,
            is_judged: false,
            outcome: Outcome::Held,
        },
    };

    /// Forgets the packet before, of which nothing may be told for this one.
    #[inline(always)]
    pub(crate) const fn begin(&mut self, ifindex: u32, direction: Direction) {
        self.judged = Judged { ifindex, direction, ..Judged::NOTHING };
        self.headers.tuple = Tuple::EMPTY;
        self.question.from_client = true;
    }

    /// Keeps what became of the packet; in the kernel neither compiler nor verifier knows afterwards which it is.
    #[inline(always)]
    pub fn concluded(&mut self, outcome: Outcome) -> Outcome {
        self.question.outcome = outcome;
        forget(&self.question.outcome)
    }

    /// The packet's connection as its client's packets have it; the unspecified addresses where it could not be read.
    #[inline(always)]
    pub const fn client_tuple(&self) -> Tuple {
        if self.question.from_client { self.headers.tuple } else { self.headers.tuple.reversed() }
    }
}
