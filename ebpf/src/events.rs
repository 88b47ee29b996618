//! Tells of a decision: always by a tally, now and then by an event.

use core::{
    ffi::c_void,
    ptr::{from_ref, read_volatile},
};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA},
    helpers::{bpf_ktime_get_ns, bpf_ringbuf_query},
};
use podgate_common::{EVENT_BYTES, FlowEvent, Outcome, Scratch, Share, Tables as _, Tally, TallyKey, Untold};

use crate::{
    atomic::Bpf,
    maps::{EVENTS, TALLIES, count_untold, share},
    tables::Maps,
};

/// Tells of a new connection, or of a packet that is dropped.
#[inline(always)]
pub(crate) fn tell(scratch: &Scratch, outcome: Outcome) {
    // SAFETY: a reference is valid to be read from.
    unsafe { tell_of(scratch, outcome) };
}

/// A global function (see [`crate::global`]); it returns what verifiers want to see, a number.
///
/// # Safety
///
/// `scratch` can be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tell_of(scratch: *const Scratch, outcome: Outcome) -> u32 {
    if !scratch.is_null() {
        // SAFETY: the caller's.
        count_and_tell(unsafe { &*scratch }, outcome);
    }
    0
}

#[inline(always)]
fn count_and_tell(scratch: &Scratch, outcome: Outcome) {
    let key = TallyKey::new(&scratch.judged, outcome);
    let known = TALLIES.get_ptr_mut(key).or_else(|| new_tally(key, scratch.charged_to(&Maps)));
    let Some(tally) = known else { return count_untold(Untold::Tally) };
    // SAFETY: this CPU's own value, and TC programs run with bottom halves off: none interrupts another. The agent only
    // reads it, and removes it only when its veth has gone.
    let tally = unsafe { &mut *tally };
    let is_due = tally.count(outcome, Maps.now(), Maps.refresh());
    if !is_due && outcome.passes() {
        return;
    }
    let tuple = scratch.client_tuple();
    tally.remember(&tuple, scratch.judged.direction, Maps.epoch());
    // What one veth sends too much of, another has hardly sent.
    if !may_send(scratch.charged_to(&Maps), if is_due { Share::EVENTS } else { Share::EVENTS_OF_QUIET }) {
        if is_due {
            count_untold(Untold::EventOfShare);
        }
        return;
    }
    let Some(mut event) = EVENTS.reserve(0) else { return count_untold(Untold::Event) };
    // SAFETY: the helper has no arguments and cannot fail.
    let time = unsafe { bpf_ktime_get_ns() };
    event.write(FlowEvent::new(&tuple, &scratch.judged, outcome, tally, time));
    event.submit(0);
    tally.untold = 0;
}

/// A tally for what is counted for the first time, in a veth's share; beyond it, the one of all the others.
#[inline(always)]
fn new_tally(key: TallyKey, veth: u32) -> Option<*mut Tally> {
    let share = share(veth);
    // SAFETY: an element lives until the program ends (RCU). Volatile, for other CPUs write to it.
    let taken = share.map_or(Share::TALLIES, |share| unsafe { read_volatile(&raw const (*share).tallies) });
    let is_charged = taken < Share::TALLIES;
    let key = if is_charged { key } else { key.of_others() };
    if !is_charged {
        count_untold(Untold::TallyOfShare);
        if let Some(tally) = TALLIES.get_ptr_mut(key) {
            return Some(tally);
        }
    }
    let tally = Tally { charged_to: veth, is_charged: u32::from(is_charged), ..Tally::EMPTY };
    // Another CPU may have made it: then it is there.
    let is_new = TALLIES.insert(key, tally, u64::from(BPF_NOEXIST)).is_ok();
    if let Some(share) = share.filter(|_| is_new && is_charged) {
        // SAFETY: as above.
        unsafe { Bpf::add_one(&raw mut (*share).tallies) };
    }
    TALLIES.get_ptr_mut(key)
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
