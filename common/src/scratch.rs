//! Where a program works on its packet.
//!
//! In the kernel this is memory of a map: a BPF program has 512 bytes of stack, and of a map's memory the verifier
//! remembers nothing, so that all ways through the headers go on as one.

use crate::{Direction, Flow, FlowKey, Headers, Seen, Tracked, Tuple};

/// Memory of one run. What it holds before does not matter.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    pub headers: Headers,
    pub tracked: Tracked,
    pub(crate) question: Question,
}

/// One side of a connection that must be judged, and the entry that the connection gets when it passes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) key: FlowKey,
    pub(crate) entry: Flow,
    pub(crate) side: Direction,
    /// Whether the packet that raises the question is one of the client's.
    pub(crate) from_client: bool,
}

impl Scratch {
    pub const EMPTY: Self = Self {
        headers: Headers::EMPTY,
        tracked: Tracked::EMPTY,
        question: Question {
            key: FlowKey {
                low: Tuple::EMPTY.source,
                high: Tuple::EMPTY.source,
                low_port: 0,
                high_port: 0,
                protocol: 0,
            },
            entry: Flow {
                client_if: 0,
                server_if: 0,
                via: 0,
                client_epoch: 0,
                server_epoch: 0,
                last: 0,
                seen: Seen(0),
            },
            side: Direction::Egress,
            from_client: false,
        },
    };
}
