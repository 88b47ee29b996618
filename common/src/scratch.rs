//! Where a program works on its packet.
//!
//! In the kernel this is memory of a map: a BPF program has 512 bytes of stack, and of a map's memory the
//! verifier remembers nothing, so that all ways through the headers go on as one.

use crate::{
    Direction, Endpoint, Flow, Headers, Hook, Lookup, NAMES_OF_ADDRESS, NODE, NameId, Outcome, PolicyLookup,
    Tables, Tracked, Tuple, packet::forget,
};

/// Memory of one run. What it holds before does not matter.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// Where the packet is; where packets leave the node, the veth of the pod that sent it.
    pub(crate) hook: Hook,
    pub headers: Headers,
    pub tracked: Tracked,
    /// What was asked of whose policies.
    pub policy_lookup: PolicyLookup,
    /// The same of the sender's, where the receiver's were asked first.
    pub(crate) sender_lookup: PolicyLookup,
    /// Where the packet entered the node, as far as that is known.
    pub(crate) ingress_ifindex: u32,
    /// Of a packet that has entered at no interface: the veth of the pod whose address it has.
    pub(crate) claimed: u32,
    /// At a device of the node's own: the key of the host endpoint by which it is evaluated.
    pub(crate) host_key: u32,
    /// The packet's connection.
    pub(crate) lookup: Lookup,
    /// The connection that it was before its addresses were rewritten.
    pub(crate) original: Lookup,
    pub(crate) evaluation: SideEvaluation,
    /// The veth of the pod that the packet is handed to; 0: it goes its usual way.
    pub receiver: u32,
    /// Of the pod whose side was evaluated, and what the enforced policies said alone; of a receiver's side,
    /// what its own policies said.
    pub(crate) endpoint: Endpoint,
    pub(crate) enforced: Outcome,
    /// Of the pod that sent the packet, where its policies are asked behind its veth.
    pub(crate) sender: Endpoint,
    /// The packet is a resolver's reply, from which its pod is to learn names.
    pub learns: bool,
    /// Where the names of a destination are put while it is evaluated.
    pub names: [NameId; NAMES_OF_ADDRESS],
    /// The connection as its client's packets have it, while one of its sides is evaluated. Not on the stack,
    /// which has no room for it; and a function that the verifier checks by itself finds it here, as the
    /// verifier of Linux 6.1 takes no key of a map from its arguments.
    pub connection: Tuple,
}

/// One side of a connection that must be evaluated, and the entry that the connection gets when it passes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideEvaluation {
    pub(crate) entry: Flow,
    pub(crate) side: Direction,
    /// Whether the packet that causes the evaluation is one of the client's.
    pub(crate) from_client: bool,
    /// Whether it was answered before.
    pub(crate) is_evaluated: bool,
    /// Whether the answer is one of the sender's policies, where the packet is evaluated behind its veth.
    pub(crate) is_senders: bool,
    /// The answer.
    pub(crate) outcome: Outcome,
    /// Whether the connection gets the entry.
    pub(crate) enters: bool,
    /// Whether the pod is isolated in any direction, so that nothing passes which cannot be entered.
    pub(crate) is_closed: bool,
}

impl Scratch {
    pub const EMPTY: Self = Self {
        hook: Hook { direction: Direction::Egress, ifindex: NODE, ingress_ifindex: NODE },
        headers: Headers::EMPTY,
        tracked: Tracked::EMPTY,
        policy_lookup: PolicyLookup::NOTHING,
        sender_lookup: PolicyLookup::NOTHING,
        ingress_ifindex: 0,
        claimed: 0,
        host_key: 0,
        lookup: Lookup::EMPTY,
        original: Lookup::EMPTY,
        receiver: 0,
        endpoint: Endpoint::PENDING,
        enforced: Outcome::Pending,
        sender: Endpoint::PENDING,
        learns: false,
        names: [NameId::NONE; NAMES_OF_ADDRESS],
        connection: Tuple::EMPTY,
        evaluation: SideEvaluation {
            entry: Flow::EMPTY,
            side: Direction::Egress,
            from_client: false,
            is_evaluated: false,
            is_senders: false,
            outcome: Outcome::Pending,
            enters: false,
            is_closed: true,
        },
    };

    /// Forgets the packet before, of which nothing may be reported for this one.
    #[inline(always)]
    pub(crate) fn begin(&mut self, hook: &Hook) {
        self.hook = *hook;
        self.receiver = 0;
        self.learns = false;
        self.policy_lookup.begin(hook.ifindex, hook.direction);
        self.evaluation.from_client = true;
        self.evaluation.is_senders = false;
    }

    /// In whose share it is to report the packet, or to remember something of it: the veth of the pod that
    /// sent it, else of the one that receives it.
    ///
    /// A function of its own in the kernel too, as it is asked for in several places.
    #[inline(never)]
    pub fn charged_to<T: Tables>(&self, tables: &T) -> u32 {
        let from = self.from_ifindex();
        if from == NODE || tables.endpoint(from).is_pending() { self.hook.ifindex } else { from }
    }

    /// Where the packet comes from: its pod's veth, or the device by which it has entered the node.
    #[inline(always)]
    pub const fn from_ifindex(&self) -> u32 {
        match self.hook.direction {
            Direction::Egress => self.hook.ifindex,
            Direction::Ingress => self.hook.ingress_ifindex,
        }
    }

    /// Keeps what became of the packet; in the kernel neither compiler nor verifier knows afterwards which it
    /// is.
    #[inline(always)]
    pub fn concluded(&mut self, outcome: Outcome) -> Outcome {
        self.evaluation.outcome = outcome;
        forget(&self.evaluation.outcome)
    }

    /// The packet's connection as its client's packets have it; the unspecified addresses where it could not
    /// be read.
    #[inline(always)]
    pub const fn client_tuple(&self) -> Tuple {
        if self.evaluation.from_client { self.headers.tuple } else { self.headers.tuple.reversed() }
    }
}
