//! podgate's TC programs: `from_pod` and `to_pod` on the host side of each pod's veth, `to_wire` or
//! `to_tunnel` where packets leave the node, `from_netdev` and `to_netdev` at devices with a host endpoint.
//!
//! They adapt a packet and the maps to the traits of `podgate-common`, call its `decide`, count the outcome
//! and report it. Nothing is decided here. `ticks`, `verdict` and `enter` are for the agent to ask; they
//! are never attached.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "atomic operations: `core` has no others for this target")]
#![expect(unreachable_pub, reason = "the loader finds programs by their public symbols")]

mod atomic;
mod config;
mod connection;
mod cut;
mod events;
mod global;
mod kernel;
mod maps;
mod names;
mod partial;
mod skb;
mod socket;
mod tables;
#[cfg(feature = "trace")]
mod trace;
mod tracking;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_redirect_peer,
    macros::classifier,
    programs::TcContext,
};
use podgate_common::{Direction, NameRequest, Outcome, Packet as _, Scratch, Tables, VerdictQuery, decide};
#[cfg(not(feature = "trace"))]
use podgate_common::{
    FirstLook, Passage, decide_at_host, decide_on_wire, established_v4_fast_path, is_established,
};

use crate::{
    config::config,
    events::report,
    maps::SCRATCH,
    skb::Skb,
    tables::{Maps, TABLES},
};

/// TC ingress of the veth's host side: what the pod sends.
#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    run(&context, Some(Direction::Egress))
}

/// TC egress of the veth's host side: what the pod receives.
#[classifier]
pub fn to_pod(context: TcContext) -> i32 {
    run(&context, Some(Direction::Ingress))
}

/// Both, where the kernel tells at which of the two hooks a packet is: the second time its code is in the
/// cache.
#[classifier]
pub fn at_pod(context: TcContext) -> i32 {
    run(&context, None)
}

/// TC egress of the node's other devices, while a service's backend can only be evaluated there.
#[cfg(not(feature = "trace"))]
#[classifier]
pub fn to_wire(context: TcContext) -> i32 {
    verdict_on_wire(&Skb::new(&context))
}

/// The same of devices without link headers: tunnels, PPP.
#[cfg(not(feature = "trace"))]
#[classifier]
pub fn to_tunnel(context: TcContext) -> i32 {
    verdict_on_wire(&Skb::without_link_header(&context))
}

#[cfg(not(feature = "trace"))]
#[inline(always)]
fn verdict_on_wire<const LINK_HEADER: usize>(skb: &Skb<'_, LINK_HEADER>) -> i32 {
    let ingress_ifindex = skb.ingress_ifindex();
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return TC_ACT_UNSPEC };
    // SAFETY: this CPU's own element, and TC programs run with bottom halves off: none interrupts another.
    let scratch = unsafe { &mut *scratch };
    let Some(outcome) = decide_on_wire(skb, scratch, ingress_ifindex, &TABLES) else { return TC_ACT_UNSPEC };
    let outcome = conclude(scratch, Direction::Egress, outcome);
    // What passes was reported at the pod's veth.
    if !outcome.passes() || outcome == Outcome::WouldDeny {
        report(scratch, outcome);
    }
    action(outcome)
}

/// TC ingress of a device of the node's own that has a host endpoint: incoming packets.
#[cfg(not(feature = "trace"))]
#[classifier]
pub fn from_netdev(context: TcContext) -> i32 {
    verdict_at_host(&Skb::new(&context), Direction::Ingress)
}

/// TC egress of such a device: outgoing packets.
#[cfg(not(feature = "trace"))]
#[classifier]
pub fn to_netdev(context: TcContext) -> i32 {
    verdict_at_host(&Skb::new(&context), Direction::Egress)
}

/// `from_netdev` for devices without link headers.
#[cfg(not(feature = "trace"))]
#[classifier]
pub fn from_bare_netdev(context: TcContext) -> i32 {
    verdict_at_host(&Skb::without_link_header(&context), Direction::Ingress)
}

/// `to_netdev` for devices without link headers.
#[cfg(not(feature = "trace"))]
#[classifier]
pub fn to_bare_netdev(context: TcContext) -> i32 {
    verdict_at_host(&Skb::without_link_header(&context), Direction::Egress)
}

#[cfg(not(feature = "trace"))]
#[inline(always)]
fn verdict_at_host<const LINK_HEADER: usize>(skb: &Skb<'_, LINK_HEADER>, direction: Direction) -> i32 {
    // Without its scratch memory the program evaluates nothing: the node stays reachable.
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return TC_ACT_UNSPEC };
    // SAFETY: this CPU's own element, and TC programs run with bottom halves off: none interrupts another.
    let scratch = unsafe { &mut *scratch };
    let hook = skb.at_netdev(direction);
    let Some(outcome) = decide_at_host(skb, scratch, &hook, &TABLES) else { return TC_ACT_UNSPEC };
    let outcome = conclude(scratch, direction, outcome);
    if outcome.is_reported() {
        report(scratch, outcome);
    }
    action(outcome)
}

/// What entries of the flow table are dated with, for the agent to date its own: user space cannot see the
/// kernel's ticks.
#[classifier]
pub fn ticks(_: TcContext) -> i32 {
    Maps.now().cast_signed()
}

/// What the tables say to a question that the packet carries. The agent asks it by test runs; it is never
/// attached.
#[classifier]
pub fn verdict(context: TcContext) -> i32 {
    let Some(bytes) = Skb::new(&context).read::<{ VerdictQuery::SIZE }>(VerdictQuery::OFFSET) else {
        return -1;
    };
    // SAFETY: as many bytes, and every bit pattern is valid.
    let query: VerdictQuery = unsafe { core::mem::transmute(bytes) };
    (query.answer(&Maps) as u32).cast_signed()
}

/// Enters an address that the packet carries into the table of a pod's names, as a reply would. The agent
/// asks it by test runs; it is never attached.
///
/// It is a program so that the agent writes to these tables by the code of the packet path, which holds no
/// lock for longer than some instructions. A process that mapped them could be stopped with a lock held.
#[classifier]
pub fn enter(context: TcContext) -> i32 {
    if config!(names) == 0 {
        return -1;
    }
    let Some(bytes) = Skb::new(&context).read::<{ NameRequest::SIZE }>(VerdictQuery::OFFSET) else {
        return -1;
    };
    // SAFETY: as many bytes, and every bit pattern is valid.
    let request: NameRequest = unsafe { core::mem::transmute(bytes) };
    (request.answer(&Maps) as u32).cast_signed()
}

/// Evaluates a packet at a pod's veth.
#[cfg(feature = "trace")]
#[inline(always)]
fn run(context: &TcContext, direction: Option<Direction>) -> i32 {
    // No fast path: the whole decision says the same of what would pass on it, step by step.
    // The compiler makes less use of the stack of what has both.
    match core::hint::black_box(direction.unwrap_or_else(|| Skb::new(context).direction())) {
        Direction::Egress => evaluate(context, Direction::Egress),
        Direction::Ingress => evaluate(context, Direction::Ingress),
    }
}

/// Evaluates a packet at a pod's veth.
#[cfg(not(feature = "trace"))]
#[inline(always)]
fn run(context: &TcContext, direction: Option<Direction>) -> i32 {
    let skb = Skb::new(context);
    let nearly = || skb.hook(direction);
    // Put together again each time: what functions get a pointer to would stand in memory on the fast path,
    // too.
    let opens = match established_v4_fast_path(&skb, nearly, &Maps) {
        FirstLook::Passes(passage) => return go_on(context, passage),
        first_look => matches!(first_look, FirstLook::Opens),
    };
    if !opens {
        let passage = is_established(&Skb::new(context), &nearly(), &Maps);
        if passage.passes() {
            return go_on(context, passage);
        }
    }
    match direction.unwrap_or_else(|| skb.direction()) {
        Direction::Egress => evaluate(context, Direction::Egress),
        Direction::Ingress => evaluate(context, Direction::Ingress),
    }
}

/// Lets a packet of a known connection pass.
#[cfg(not(feature = "trace"))]
#[inline(always)]
fn go_on(context: &TcContext, passage: Passage) -> i32 {
    maps::count(passage.direction(), Outcome::Established);
    // Where there is none, the verifier takes the rest out.
    if !Maps.has_shortcut() {
        return TC_ACT_UNSPEC;
    }
    let receiver = passage.receiver();
    if receiver == 0 {
        return TC_ACT_UNSPEC;
    }
    maps::count(Direction::Ingress, Outcome::Established);
    hand_over(context, receiver)
}

/// Hands a packet to the pod behind another veth of the node; the caller counts what `to_pod` would have
/// counted there.
#[inline(always)]
fn hand_over(context: &TcContext, receiver: u32) -> i32 {
    maps::count_shortcut();
    // Marks are the node's: none comes into the namespace of a pod.
    // SAFETY: the context is valid while the program runs; the kernel checks the offset.
    unsafe { (&raw mut (*context.skb.skb).mark).write_volatile(0) };
    // SAFETY: the helper takes numbers alone.
    #[expect(clippy::cast_possible_truncation, reason = "an action of TC")]
    unsafe {
        bpf_redirect_peer(receiver, 0) as i32
    }
}

#[inline(always)]
fn evaluate(context: &TcContext, direction: Direction) -> i32 {
    let skb = Skb::new(context);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: this CPU's own element, and TC programs run with bottom halves off: none interrupts another.
    let scratch = unsafe { &mut *scratch };
    #[cfg(feature = "trace")]
    trace::begin();
    let outcome = decide(&skb, scratch, &skb.hook(Some(direction)), &TABLES);
    let outcome = conclude(scratch, direction, outcome);
    #[cfg(feature = "trace")]
    trace::end(outcome);
    if outcome.is_reported() {
        report(scratch, outcome);
    }
    if scratch.learns && matches!(direction, Direction::Ingress) {
        names::learn(context);
    }
    if scratch.receiver != 0 && outcome.passes() && matches!(direction, Direction::Egress) {
        maps::count_any(Direction::Ingress, outcome);
        return hand_over(context, scratch.receiver);
    }
    action(outcome)
}

/// Counts an outcome, and reads it again: had it to be remembered, the verifier would walk on once for each.
#[inline(always)]
fn conclude(scratch: &mut Scratch, direction: Direction, outcome: Outcome) -> Outcome {
    let outcome = scratch.concluded(outcome);
    maps::count_any(direction, outcome);
    outcome
}

/// "Unspecified" lets the programs after this one have their say, under TCX and under clsact.
#[inline(always)]
fn action(outcome: Outcome) -> i32 {
    if outcome.passes() { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked in: the programs have no panicking operation, else the verifier would refuse this loop.
    loop {}
}

/// The kernel's helpers are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
