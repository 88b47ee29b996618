//! Functions that the kernel's verifier checks once, whatever program calls them and wherever: global ones,
//! as it calls them. Of what such a function gets and returns it takes no more for granted than the types.
//!
//! Without the object's type information (BTF) they are functions like any other, which it walks through at
//! each call.

use podgate_common::{
    Address, Endpoint, Entered, Eviction, Flow, FlowSet, Holder, Lookup, Outcome, Pace, PolicyLookup,
    Timeouts, Tuple, by_egress, by_policy,
};

use crate::{
    atomic::Bpf,
    config::config,
    maps::{self, FLOWS},
    tables::Maps,
};

/// [`by_policy`]
///
/// # Safety
///
/// What the pointers point to can be read, `policy_lookup` written.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evaluate_peer(
    peer: *const Address,
    tuple: *const Tuple,
    endpoint: *const Endpoint,
    policy_lookup: *mut PolicyLookup,
) -> Outcome {
    // The verifier insists that this is asked.
    if peer.is_null() || tuple.is_null() || endpoint.is_null() || policy_lookup.is_null() {
        return Outcome::Denied;
    }
    // SAFETY: the caller's.
    unsafe { by_policy(&*peer, &*tuple, &*endpoint, &mut *policy_lookup, &Maps) }
}

/// [`by_egress`]
///
/// # Safety
///
/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evaluate_destination(
    tuple: *const Tuple,
    endpoint: *const Endpoint,
    policy_lookup: *mut PolicyLookup,
) -> Outcome {
    if tuple.is_null() || endpoint.is_null() || policy_lookup.is_null() {
        return Outcome::Denied;
    }
    // SAFETY: the caller's.
    unsafe { by_egress(&*tuple, &*endpoint, &mut *policy_lookup, &Maps) }
}

/// Enters a connection that was looked up, in the share of its veth; false when it cannot be entered.
///
/// # Safety
///
/// What the pointers point to can be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn enter_flow(lookup: *const Lookup, flow: *const Flow) -> bool {
    // The verifier insists that this is asked.
    if lookup.is_null() || flow.is_null() {
        return false;
    }
    // SAFETY: the caller's.
    let (lookup, flow) = unsafe { (&*lookup, &*flow) };
    let Some(set) = FLOWS.get_ptr_mut(lookup.set()) else { return false };
    let timeouts = Timeouts {
        tcp: config!(timeouts.tcp),
        tcp_half: config!(timeouts.tcp_half),
        stream: config!(timeouts.stream),
        unreplied: config!(timeouts.unreplied),
        refresh: config!(timeouts.refresh),
    };
    let Some(share) = maps::share(flow.charged_to()) else { return false };
    // SAFETY: an element lives until the program ends (RCU). What CPUs write at the same time counts once.
    let opened = unsafe { (*share).flows.count(flow.last, Pace::SECONDS * timeouts.refresh) };
    let pace = Pace { opened, sets: config!(flow_sets) };
    // SAFETY: the element is the connection's set, and whoever writes to one uses these functions.
    let entered = unsafe { FlowSet::put::<Bpf>(set.cast(), lookup, flow, &timeouts, Holder::Program, pace) };
    if let Some(eviction) = entered.and_then(Eviction::of) {
        maps::count_eviction(eviction);
    }
    !matches!(entered, None | Some(Entered::Refused))
}
