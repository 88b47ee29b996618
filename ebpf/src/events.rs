//! Tells of a decision: always by a tally, now and then by an event.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use podgate_common::{FlowEvent, Outcome, Scratch, Tables as _, Tally, TallyKey, Untold};

use crate::{
    maps::{EVENTS, TALLIES, count_untold},
    tables::Maps,
};

/// Tells of a new connection, or of a packet that is dropped.
///
/// A function of its own in the kernel too: the stack of the decision stays small.
#[inline(never)]
pub(crate) fn tell(scratch: &Scratch, outcome: Outcome) {
    let key = TallyKey::new(&scratch.judged, outcome);
    let Some(tally) = tally(&key) else { return count_untold(Untold::Tally) };
    // SAFETY: this CPU's own value, and TC programs run with bottom halves off: none interrupts another. The agent only
    // reads it, and removes it only when its veth has gone.
    let tally = unsafe { &mut *tally };
    if !tally.count(outcome, Maps.now(), Maps.refresh()) {
        return;
    }
    let tuple = scratch.client_tuple();
    tally.remember(&tuple, scratch.judged.direction, Maps.epoch());
    let Some(mut event) = EVENTS.reserve(0) else { return count_untold(Untold::Event) };
    // SAFETY: the helper has no arguments and cannot fail.
    let time = unsafe { bpf_ktime_get_ns() };
    event.write(FlowEvent::new(&tuple, &scratch.judged, outcome, tally, time));
    event.submit(0);
    tally.untold = 0;
}

/// The tally of what is alike, made if there is none.
#[inline(always)]
fn tally(key: &TallyKey) -> Option<*mut Tally> {
    TALLIES.get_ptr_mut(key).or_else(|| {
        // Another CPU may have made it: then it is there.
        let _ = TALLIES.insert(key, Tally::EMPTY, u64::from(BPF_NOEXIST));
        TALLIES.get_ptr_mut(key)
    })
}
