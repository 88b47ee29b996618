//! Learns names from a resolver's reply, and finds what was learnt: the walk of `podgate-common` over maps.
//!
//! Each step is a global function, which the verifier checks once, so that a loop over a thousand of them is
//! cheap to check on every kernel. Without the object's type information they would be walked through at each
//! call: then the configuration leaves all of it out.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use podgate_common::{
    Address, AddressKey, Endpoint, JIFFIES_PER_TICK, LabelKey, Learnt, MAX_LIFETIME, MAX_STEPS,
    NAMES_OF_ADDRESS, NameCount, NameEntry, NameId, NameNode, NameSpots, NameTables, Opened, PolicyLookup,
    Protocol, SharedNameSet, Stream, TRIES_TO_ENTER, Tables as _, Tuple, WAYS_OF_NAMES, by_names,
};

use crate::{
    atomic::Bpf,
    config::{ConfiguredSeed, config},
    cut::cut,
    maps::{self, LABELS, NAME_SETS, NAMES, SCRATCH, WALK},
    partial::{self, keep_message},
    skb::Skb,
    tables::Maps,
};

/// Learns from the packet whose decision stands in [`SCRATCH`]. It may be another, shorter one afterwards.
#[inline(always)]
pub(crate) fn learn(context: &TcContext) {
    // Where there are no names, the verifier takes the rest out.
    if config!(names) != 0 {
        // SAFETY: the packet of the running program.
        unsafe { learn_names(context.skb.skb) };
    }
}

/// As [`learn`]: a global function, so that the verifier checks it apart from all that comes before.
///
/// # Safety
///
/// `packet` is that of the running program.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn learn_names(packet: *mut __sk_buff) -> u32 {
    let context = TcContext::new(packet);
    let (Some(scratch), Some(walk)) = (SCRATCH.get_ptr_mut(0), WALK.get_ptr_mut(0)) else { return 0 };
    // SAFETY: this CPU's own elements, and TC programs run with bottom halves off: none interrupts another.
    let (scratch, walk) = unsafe { (&mut *scratch, &mut *walk) };
    let reply = &scratch.headers.tuple;
    let table = Maps.endpoint(scratch.policy_lookup.ifindex).names;
    if table == 0 {
        return 0;
    }
    Skb::new(&context).pull_message();
    let place = if reply.protocol == Protocol::Tcp as u32 { stream_place(table, reply) } else { None };
    // SAFETY: an element lives until the program ends (RCU). One word: what CPUs write at once is one of it.
    let stream = place.map_or(Stream::default(), |place| Stream(unsafe { place.read_volatile() }));
    let after = match walk.open(&Skb::new(&context), reply, stream, table, &ConfiguredSeed) {
        Opened::Nothing => None,
        Opened::Stream(stream) => Some(stream),
        Opened::Walk => {
            // SAFETY: as the caller's.
            if !(0..MAX_STEPS).any(|_| unsafe { step_names(packet) } == 0) {
                walk.note_unlearnt();
            }
            None
        }
        Opened::Segment => {
            // SAFETY: as the caller's.
            if unsafe { partial::go_on(packet, walk) } && walk.turn_to_messages() {
                // SAFETY: as the caller's.
                if !(0..MAX_STEPS).any(|_| unsafe { step_names(packet) } == 0) {
                    walk.note_unlearnt();
                    walk.lose_stream();
                }
                walk.advance();
            }
            // SAFETY: as the caller's.
            if walk.has_rest() && unsafe { keep_message(packet) } == 0 {
                walk.note_unlearnt();
            }
            // What has not changed another CPU may have changed.
            (walk.stream() != stream).then(|| walk.stream())
        }
    };
    if let (Some(place), Some(after)) = (place, after) {
        // SAFETY: as above.
        unsafe { place.write_volatile(after.0) };
    }
    // SAFETY: as the caller's.
    unsafe { conclude_names(packet) }
}

/// One step of the walk; 0: it has ended.
///
/// # Safety
///
/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn step_names(packet: *mut __sk_buff) -> u32 {
    let context = TcContext::new(packet);
    let Some(walk) = WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let walk = unsafe { &mut *walk };
    u32::from(walk.step(&Skb::new(&context), &Maps))
}

/// Counts what a walk has found. A datagram of which something is missing is cut, so that its client asks
/// again over TCP.
///
/// # Safety
///
/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn conclude_names(packet: *mut __sk_buff) -> u32 {
    let Some(walk) = WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let walk = unsafe { &mut *walk };
    let counted = [
        (NameCount::Learnt, walk.learnt),
        (NameCount::Evicted, walk.evicted),
        (NameCount::Refused, walk.refused),
    ];
    for (of, count) in counted {
        maps::count_names(of, count);
    }
    if walk.wants_cut() {
        let is_cut = cut(&TcContext::new(packet), walk);
        maps::count_names(if is_cut { NameCount::Cut } else { NameCount::Unlearnt }, 1);
    } else {
        maps::count_names(NameCount::Unlearnt, walk.unlearnt);
        maps::count_names(NameCount::Malformed, walk.malformed);
    }
    0
}

impl NameTables for Maps {
    #[inline(always)]
    fn node(&self, key: &LabelKey) -> NameNode {
        // SAFETY: only read, one word.
        NameNode(unsafe { LABELS.get(key) }.copied().unwrap_or(0))
    }

    #[inline(always)]
    fn learn(&self, table: u32, address: &Address, name: NameId, seconds: u32) -> Option<Learnt> {
        (0..TRIES_TO_ENTER).find_map(|_| {
            // SAFETY: a reference is valid to be read from.
            match unsafe { enter_name(table, address, name.0, seconds) } {
                1 => Some(Learnt::New),
                2 => Some(Learnt::Longer),
                3 => Some(Learnt::Instead),
                _ => None,
            }
        })
    }
}

/// Enters an address into the table of a pod; 0: it could not be, this time.
///
/// # Safety
///
/// `address` can be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn enter_name(table: u32, address: *const Address, name: u32, seconds: u32) -> u32 {
    if address.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let address = AddressKey(unsafe { *address }).0;
    let now = Maps.now();
    let seconds = seconds.max(config!(names_keep)).min(MAX_LIFETIME);
    let entry = NameEntry { address, name: NameId(name), until: now.wrapping_add(ticks(seconds)) };
    let spots = NameSpots::of(&address, &ConfiguredSeed, NAME_SETS);
    let (Some(first), Some(second)) = (set(table, spots.first), set(table, spots.second)) else { return 0 };
    match SharedNameSet::enter::<Bpf>([first, second], &entry, now, ticks(MAX_LIFETIME)) {
        Some(Learnt::New) => 1,
        Some(Learnt::Longer) => 2,
        Some(Learnt::Instead) => 3,
        None => 0,
    }
}

/// Writes the names of an address in the table of a pod.
///
/// # Safety
///
/// `address` can be read, `names` written.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn find_names(
    table: u32,
    address: *const Address,
    names: *mut [NameId; NAMES_OF_ADDRESS],
) -> u32 {
    if address.is_null() || names.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let (address, names) = unsafe { (AddressKey(*address).0, &mut *names) };
    let spots = NameSpots::of(&address, &ConfiguredSeed, NAME_SETS);
    let (now, longest) = (Maps.now(), ticks(MAX_LIFETIME));
    let (halves, _) = names.as_chunks_mut::<WAYS_OF_NAMES>();
    for (at, half) in [spots.first, spots.second].into_iter().zip(halves) {
        let found = set(table, at).is_some_and(|set| set.names::<Bpf>(&address, now, longest, half));
        if !found {
            for name in half {
                // SAFETY: a reference is valid to be written to.
                unsafe { core::ptr::write_volatile(name, NameId::NONE) };
            }
        }
    }
    0
}

/// [`by_names`], of the connection in [`SCRATCH`].
///
/// # Safety
///
/// What the pointers point to can be read, `policy_lookup` written.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evaluate_names(endpoint: *const Endpoint, policy_lookup: *mut PolicyLookup) -> bool {
    if config!(names) == 0 || endpoint.is_null() || policy_lookup.is_null() {
        return false;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own element, and no one else uses these fields meanwhile; else the caller's.
    unsafe {
        let destination = &(*scratch).connection.destination;
        by_names(destination, &*endpoint, &mut *policy_lookup, &mut (*scratch).names, &Maps)
    }
}

/// A set of a pod's table.
#[inline(always)]
fn set(table: u32, at: u32) -> Option<SharedNameSet> {
    let set = NAMES.get_value_ptr_mut(table, &at)?;
    // SAFETY: an element lives until the program ends (RCU), and is accessed in this way alone.
    Some(unsafe { SharedNameSet::new(set.cast()) })
}

/// The word of a stream, which stands behind the sets.
#[inline(always)]
fn stream_place(table: u32, reply: &Tuple) -> Option<*mut u64> {
    let place = Stream::place(reply);
    let words = NAMES.get_value_ptr_mut(table, &(NAME_SETS + place / Stream::IN_ELEMENT))?;
    // SAFETY: a word of the element.
    Some(unsafe { words.cast::<u64>().add((place % Stream::IN_ELEMENT) as usize) })
}

/// Seconds as ticks.
#[inline(always)]
fn ticks(seconds: u32) -> u32 {
    seconds * config!(jiffies_per_second) / JIFFIES_PER_TICK
}
