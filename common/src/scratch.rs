//! Where a program works on its packet.
//!
//! In the kernel this is memory of a map: a BPF program has 512 bytes of stack, and of a map's memory the verifier
//! remembers nothing, so that all ways through the headers go on as one.

use crate::{Direction, Flow, Headers, Lookup, Outcome, Tracked};

/// Memory of one run. What it holds before does not matter.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    pub headers: Headers,
    pub tracked: Tracked,
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
    pub(crate) judged: bool,
    /// The answer.
    pub(crate) outcome: Outcome,
}

impl Scratch {
    pub const EMPTY: Self = Self {
        headers: Headers::EMPTY,
        tracked: Tracked::EMPTY,
        lookup: Lookup::EMPTY,
        original: Lookup::EMPTY,
        question: Question {
            entry: Flow::EMPTY,
            side: Direction::Egress,
            from_client: false,
            judged: false,
            outcome: Outcome::Held,
        },
    };
}
