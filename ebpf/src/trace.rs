//! What `podgate trace` shows: the steps of each decision, by a ring buffer. Compiled with the feature
//! `trace` alone, into programs that are loaded for as long as a trace runs.
//!
//! Typed records in place of aya-log's texts. Where its ring is full, `info!` goes on without a word, and
//! what is lost must be counted. Its reader takes the programs of the process that has loaded them, or looks
//! for a map by its id with CAP_SYS_ADMIN; the agent does neither. Names could stand beside numbers only if
//! texts were parsed. And a message of each step has its parts on the stack, of which the deepest steps have
//! 16 bytes left.

use core::ptr::read_volatile;

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use podgate_common::{
    Address, AddressKey, ClassId, Endpoint, Evaluated, HEARD_BY_NODE, IdentityId, Outcome, PacketTrace,
    PolicyId, PolicyLookup, Recorder, RowKey, TRACE_BYTES, TableSetIndex, Tables, TraceCounts, TraceFilter,
    TraceStep, TracedLookup,
};

use crate::{maps::SCRATCH, tables::Maps};

/// Element 0: which packets are wanted. Who loads the programs writes it, before they are attached.
#[btf_map]
pub(crate) static TRACE_FILTER: Array<TraceFilter, 1> = Array::new();

/// The packet that a CPU evaluates.
#[btf_map]
pub(crate) static TRACE: PerCpuArray<PacketTrace, 1> = PerCpuArray::new();

/// Element 0: what was wanted, and what of it was lost.
#[btf_map]
pub(crate) static TRACE_COUNTS: PerCpuArray<TraceCounts, 1> = PerCpuArray::new();

/// Packets that were wanted. The agent reads.
#[btf_map]
pub(crate) static TRACES: RingBuf<PacketTrace, TRACE_BYTES> = RingBuf::new();

/// Takes the steps of the packet that this CPU evaluates.
pub(crate) struct KernelRecorder;

impl Recorder for KernelRecorder {
    #[inline(always)]
    fn record(&self, TraceStep { kind, words: [a, b, c] }: TraceStep) {
        record_step(kind, a, b, c);
    }

    #[inline(always)]
    fn owner<T: Tables>(&self, _: &T, address: &Address) -> Option<u32> {
        let [upper, lower] = address.halves();
        let found = find_owner(upper, lower);
        #[expect(clippy::cast_possible_truncation, reason = "the owner stands in the lower half")]
        (found >> 32 != 0).then_some(found as u32)
    }

    #[inline(always)]
    fn endpoint<T: Tables>(&self, tables: &T, ifindex: u32) -> Endpoint {
        record_endpoint(ifindex);
        tables.endpoint(ifindex)
    }

    #[inline(always)]
    fn evaluated<T: Tables>(&self, _: &T, evaluated: &Evaluated<'_>) {
        let Evaluated { peer, policy_lookup, is_egress, table_set: _, tuple: _ } = *evaluated;
        // SAFETY: a reference is valid to be read from.
        unsafe {
            if is_egress {
                record_destination(policy_lookup);
            } else {
                let [upper, lower] = peer.halves();
                record_peer(policy_lookup, upper, lower);
            }
        }
    }
}

/// Forgets the packet before.
#[inline(always)]
pub(crate) fn begin() {
    if let Some(trace) = TRACE.get_ptr_mut(0) {
        // SAFETY: this CPU's own element, and TC programs run with bottom halves off: none interrupts
        // another.
        unsafe { (*trace).begin() };
    }
}

/// Reports the packet, if it is wanted.
#[inline(always)]
pub(crate) fn end(outcome: Outcome) {
    end_trace(outcome);
}

/// A global function (see [`crate::global`]) with numbers alone: it leaves the verifier nothing to remember.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn record_step(kind: u64, a: u64, b: u64, c: u64) -> u32 {
    if let Some(trace) = TRACE.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { (*trace).add(TraceStep { kind, words: [a, b, c] }) };
    }
    0
}

/// Whose an address is: in the lower half, if the upper half is not 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn find_owner(upper: u64, lower: u64) -> u64 {
    let address = AddressKey(Address::from_halves(upper, lower)).0;
    let listed = match Maps.listed_owner(&address) {
        Some(owner) => 1 << 32 | u64::from(owner),
        None => 0,
    };
    // Read again: else the compiler compares an owner first that is not there.
    // SAFETY: a reference is valid to be read from.
    let known = unsafe { read_volatile(&raw const listed) };
    #[expect(clippy::cast_possible_truncation, reason = "the owner stands in the lower half")]
    let owner = (known >> 32 != 0 && (known as u32) < HEARD_BY_NODE).then_some(known as u32);
    let TraceStep { kind, words: [a, b, c] } = TraceStep::of(&TracedLookup::Owner { address, owner });
    record_step(kind, a, b, c);
    listed
}

/// Records a veth as it is now. The decision looks it up itself a moment later: a change in between shows in
/// the next packet.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn record_endpoint(ifindex: u32) -> u32 {
    let TraceStep { kind, words: [a, b, c] } =
        TraceStep::of(&TracedLookup::endpoint(ifindex, &Maps.endpoint(ifindex)));
    record_step(kind, a, b, c)
}

/// Records what a rule set was asked about an address, for the connection in [`SCRATCH`].
///
/// # Safety
///
/// `policy_lookup` can be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn record_peer(policy_lookup: *const PolicyLookup, upper: u64, lower: u64) -> u32 {
    if !policy_lookup.is_null() {
        // SAFETY: the caller's.
        record_evaluation(unsafe { &*policy_lookup }, Some(Address::from_halves(upper, lower)));
    }
    0
}

/// The same about the destination of that connection.
///
/// # Safety
///
/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn record_destination(policy_lookup: *const PolicyLookup) -> u32 {
    if !policy_lookup.is_null() {
        // SAFETY: the caller's.
        record_evaluation(unsafe { &*policy_lookup }, None);
    }
    0
}

#[inline(always)]
fn record_evaluation(policy_lookup: &PolicyLookup, peer: Option<Address>) {
    let Some(scratch) = SCRATCH.get_ptr(0) else { return };
    // SAFETY: this CPU's own element, as above.
    let tuple = unsafe { &(*scratch).connection };
    // Callers have no room to keep it.
    let table_set = Maps.endpoint(policy_lookup.ifindex).table_set;
    let record = |step| KernelRecorder.record(step);
    let record_row = |key: RowKey| {
        record_row(table_set.0, key.policy.0, key.identity.0, key.block);
    };
    let (is_egress, peer) = (peer.is_none(), peer.unwrap_or(tuple.destination));
    Evaluated { table_set, peer, tuple, policy_lookup, is_egress }.record(record, record_row);
}

/// Records a row, by the class that was recorded last.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn record_row(table_set: u32, policy: u32, identity: u32, block: u32) -> u32 {
    let Some(trace) = TRACE.get_ptr_mut(0) else { return 0 };
    let key = RowKey { policy: PolicyId(policy), identity: IdentityId(identity), block };
    let row = Maps.row(TableSetIndex(table_set), &key);
    // SAFETY: as above.
    let trace = unsafe { &mut *trace };
    let class = ClassId(trace.class());
    trace.add(TraceStep::of(&TracedLookup::row(&key, class, row.as_ref())));
    0
}

/// Whether an address, by its halves, is one of the filter's clients, or else of its servers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_traced_address(is_client: bool, upper: u64, lower: u64) -> bool {
    let Some(filter) = TRACE_FILTER.get(0) else { return false };
    let addresses = if is_client { &filter.from } else { &filter.to };
    addresses.has(Address::from_halves(upper, lower))
}

/// Reports the packet of [`SCRATCH`], in its share of this second.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn end_trace(outcome: Outcome) -> u32 {
    let (Some(scratch), Some(trace)) = (SCRATCH.get_ptr(0), TRACE.get_ptr_mut(0)) else { return 0 };
    let (Some(counts), Some(filter)) = (TRACE_COUNTS.get_ptr_mut(0), TRACE_FILTER.get(0)) else { return 0 };
    // SAFETY: this CPU's own elements, as above.
    let (scratch, trace, counts) = unsafe { (&*scratch, &mut *trace, &mut *counts) };
    let [is_from, is_to] = [true, false].map(|is_client| {
        move |address: Address| {
            let [upper, lower] = address.halves();
            is_traced_address(is_client, upper, lower)
        }
    });
    if !filter.matches(&scratch.headers.tuple, is_from, is_to) {
        return 0;
    }
    counts.matched += 1;
    let now = Maps.now();
    if !counts.rate.take(filter.per_second, now, Maps.refresh()) {
        counts.limited += 1;
        return 0;
    }
    trace.conclude(scratch, outcome);
    // SAFETY: the helper has no arguments and cannot fail.
    trace.time = unsafe { bpf_ktime_get_ns() };
    (trace.now, trace.revision) = (now, Maps.revision());
    // By reference: the stack has no room for it.
    let packet: &PacketTrace = trace;
    if TRACES.output(packet, 0).is_err() {
        counts.unread += 1;
    }
    0
}
