//! Messages over several segments, over maps: `podgate_common`'s `PartialMessage`.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    programs::TcContext,
};
use podgate_common::{MAX_STEPS, MessageProgress, PartialMessage, SharedPartial, Stream, Tables as _, Walk};

use crate::{
    atomic::Bpf,
    maps::{EMPTY_PARTIAL_MESSAGE, PARTIAL_MESSAGES, WALK},
    skb::Skb,
    tables::Maps,
};

/// What [`go_on_message`] returns when no message begins in the segment, and when the stream has none that is
/// kept; else it is the key of one that is whole.
const MORE: u32 = 0;
const NONE: u32 = 1;
const _: () = assert!(NONE < PartialMessage::PLACES, "the first table has number 1");

/// Takes what a segment has of a message that its stream has begun before; when that is whole, learns from
/// it. False: no other message begins in the segment.
///
/// # Safety
///
/// `packet` is that of the running program, `walk` stands in [`WALK`].
#[inline(always)]
pub(crate) unsafe fn go_on(packet: *mut __sk_buff, walk: &mut Walk) -> bool {
    // SAFETY: the caller's.
    let key = unsafe { go_on_message(packet) };
    if key <= NONE {
        return key == NONE;
    }
    // SAFETY: the caller's.
    if !(0..MAX_STEPS).any(|_| unsafe { step_message(key) } == 0) {
        walk.note_unlearnt();
    }
    if let Some(partial) = place(key) {
        partial.release::<Bpf>(Stream::default());
    }
    true
}

/// The key of the message, which this program has taken, if it is whole now; else [`MORE`] or [`NONE`].
///
/// # Safety
///
/// `packet` is that of the running program.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn go_on_message(packet: *mut __sk_buff) -> u32 {
    let context = TcContext::new(packet);
    let Some(walk) = WALK.get_ptr_mut(0) else { return NONE };
    // SAFETY: this CPU's own element, and TC programs run with bottom halves off: none interrupts another.
    let walk = unsafe { &mut *walk };
    const { assert!(PartialMessage::PLACES == 2) };
    let first = walk.table() * PartialMessage::PLACES;
    let own = own_place(first, walk).or_else(|| own_place(first + 1, walk));
    let Some((key, partial)) = own else { return NONE };
    // Another CPU has a segment of the same stream: this one is lost, and a gap for those behind it.
    if !partial.take::<Bpf>() {
        return MORE;
    }
    if partial.stream() != walk.stream() {
        partial.release::<Bpf>(partial.stream());
        return MORE;
    }
    match walk.go_on(partial, &Skb::new(&context), Maps.now()) {
        MessageProgress::Whole => return key,
        MessageProgress::More => partial.release::<Bpf>(walk.stream()),
        MessageProgress::Lost => {
            partial.release::<Bpf>(Stream::default());
            return NONE;
        }
    }
    MORE
}

/// A place, if it belongs to the stream of the segment.
#[inline(always)]
fn own_place(key: u32, walk: &Walk) -> Option<(u32, SharedPartial<'static>)> {
    let partial = place(key)?;
    (partial.stream() == walk.stream()).then_some((key, partial))
}

/// One step of the walk over a message that is whole; 0: it has ended.
///
/// # Safety
///
/// This program has taken the message.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn step_message(key: u32) -> u32 {
    let (Some(walk), Some(partial)) = (WALK.get_ptr_mut(0), place(key)) else { return 0 };
    // SAFETY: as above.
    let walk = unsafe { &mut *walk };
    u32::from(walk.step(&partial, &Maps))
}

/// Keeps the message that goes on in other segments; 0: it cannot.
///
/// # Safety
///
/// `packet` is that of the running program.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keep_message(packet: *mut __sk_buff) -> u32 {
    let context = TcContext::new(packet);
    let Some(walk) = WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let walk = unsafe { &mut *walk };
    let Some(partial) = free_place(walk.table()) else { return 0 };
    if !partial.take::<Bpf>() {
        return 0;
    }
    if !partial.stream().is_none() {
        // What stood there is torn.
        walk.note_unlearnt();
    }
    let is_kept = walk.keep(partial, &Skb::new(&context), Maps.now());
    partial.release::<Bpf>(if is_kept { walk.stream() } else { Stream::default() });
    u32::from(is_kept)
}

/// A place of a pod that is free, else the one that has waited for the longest time.
#[inline(always)]
fn free_place(table: u32) -> Option<SharedPartial<'static>> {
    const { assert!(PartialMessage::PLACES == 2) };
    let key = table * PartialMessage::PLACES;
    let first = made_place(key)?;
    if first.stream().is_none() {
        return Some(first);
    }
    let second = made_place(key + 1)?;
    let is_older = second.used().wrapping_sub(first.used()).cast_signed() < 0;
    Some(if second.stream().is_none() || is_older { second } else { first })
}

/// A place, which is made if there is none.
#[inline(always)]
fn made_place(key: u32) -> Option<SharedPartial<'static>> {
    if let Some(partial) = place(key) {
        return Some(partial);
    }
    // Another CPU may make it first. When the kernel has no memory, there is none.
    let _ = PARTIAL_MESSAGES.insert(key, EMPTY_PARTIAL_MESSAGE.get(0)?, u64::from(BPF_NOEXIST));
    place(key)
}

#[inline(always)]
fn place(key: u32) -> Option<SharedPartial<'static>> {
    let partial = PARTIAL_MESSAGES.get_ptr_mut(key)?;
    // SAFETY: elements are never removed, and are accessed in this way alone.
    Some(unsafe { SharedPartial::new(partial.cast()) })
}
