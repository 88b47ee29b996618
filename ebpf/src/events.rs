//! Reports a decision: always by a flow counter, now and then by an event.

use core::{
    ffi::c_void,
    ptr::{from_ref, read_volatile},
};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA},
    helpers::{bpf_ktime_get_ns, bpf_ringbuf_query},
};
use podgate_common::{
    EVENT_BYTES, FlowCounter, FlowCounterKey, FlowEvent, Outcome, Scratch, Share, Tables as _, Unreported,
};

use crate::{
    atomic::Bpf,
    maps::{EVENTS, FLOW_COUNTERS, count_unreported, share},
    tables::Maps,
};

/// Reports a new connection, or a packet that is dropped.
#[inline(always)]
pub(crate) fn report(scratch: &Scratch, outcome: Outcome) {
    // SAFETY: a reference is valid to be read from.
    unsafe { report_event(scratch, outcome) };
}

/// A global function (see [`crate::global`]); it returns what verifiers want to see, a number.
///
/// # Safety
///
/// `scratch` can be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn report_event(scratch: *const Scratch, outcome: Outcome) -> u32 {
    if !scratch.is_null() {
        // SAFETY: the caller's.
        count_and_report(unsafe { &*scratch }, outcome);
    }
    0
}

#[inline(always)]
fn count_and_report(scratch: &Scratch, outcome: Outcome) {
    let key = FlowCounterKey::new(&scratch.policy_lookup, outcome);
    let known = FLOW_COUNTERS.get_ptr_mut(key).or_else(|| new_flow_counter(key, scratch.charged_to(&Maps)));
    let Some(flow_counter) = known else { return count_unreported(Unreported::FlowCounter) };
    // SAFETY: this CPU's own value, and TC programs run with bottom halves off: none interrupts another. The
    // agent only reads it, and removes it only when its veth has gone.
    let flow_counter = unsafe { &mut *flow_counter };
    let from = scratch.from_ifindex();
    let is_due = flow_counter.count(outcome, from, Maps.now(), Maps.refresh());
    if !is_due && (outcome.passes() || flow_counter.is_all_from(from)) {
        return;
    }
    let tuple = scratch.client_tuple();
    flow_counter.remember(&tuple, scratch.policy_lookup.direction, Maps.revision());
    // What one veth sends too much of, another has hardly sent.
    if !may_send(scratch.charged_to(&Maps), if is_due { Share::EVENTS } else { Share::EVENTS_OF_QUIET }) {
        if is_due {
            count_unreported(Unreported::EventOfShare);
        }
        return;
    }
    let Some(mut event) = EVENTS.reserve(0) else { return count_unreported(Unreported::Event) };
    // SAFETY: the helper has no arguments and cannot fail.
    let time = unsafe { bpf_ktime_get_ns() };
    event.write(FlowEvent::new(&tuple, &scratch.policy_lookup, outcome, flow_counter, time));
    event.submit(0);
    flow_counter.unreported = 0;
}

/// A flow counter for what is counted for the first time, in a veth's share; beyond it, the one of all the
/// others.
#[inline(always)]
fn new_flow_counter(key: FlowCounterKey, veth: u32) -> Option<*mut FlowCounter> {
    let share = share(veth);
    // SAFETY: an element lives until the program ends (RCU). Volatile, for other CPUs write to it.
    let taken = share
        .map_or(Share::FLOW_COUNTERS, |share| unsafe { read_volatile(&raw const (*share).flow_counters) });
    let is_charged = taken < Share::FLOW_COUNTERS;
    let key = if is_charged { key } else { key.of_others() };
    if !is_charged {
        count_unreported(Unreported::CounterOfShare);
        if let Some(flow_counter) = FLOW_COUNTERS.get_ptr_mut(key) {
            return Some(flow_counter);
        }
    }
    let flow_counter = FlowCounter { charged_to: if is_charged { veth } else { 0 }, ..FlowCounter::EMPTY };
    // Another CPU may have made it: then it is there.
    let is_new = FLOW_COUNTERS.insert(key, flow_counter, u64::from(BPF_NOEXIST)).is_ok();
    if let Some(share) = share.filter(|_| is_new && is_charged) {
        // SAFETY: as above.
        unsafe { Bpf::add_one(&raw mut (*share).flow_counters) };
    }
    FLOW_COUNTERS.get_ptr_mut(key)
}

/// Whether one more event is in a veth's share, which is so many a second.
#[inline(always)]
fn may_send(veth: u32, most: u32) -> bool {
    let ring = from_ref(&EVENTS).cast_mut().cast::<c_void>();
    // SAFETY: the map's address, which stands for it until it is loaded.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    let is_crowded = waiting > EVENT_BYTES as u64 / 2;
    let most = if is_crowded { Share::EVENTS_WHILE_CROWDED } else { most };
    // SAFETY: an element lives until the program ends (RCU). What CPUs write at the same time counts once.
    share(veth).is_some_and(|share| unsafe { (*share).events.take(most, Maps.now(), Maps.refresh()) })
}
