//! Functions that the kernel's verifier checks once, whatever program calls them and wherever: global ones,
//! as it calls them. Of what such a function gets and returns it takes no more for granted than the types.
//!
//! Without the object's type information (BTF) they are functions like any other, which it walks through at
//! each call.

use podgate_common::{
    Address, AddressKey, Endpoint, Entered, Eviction, FilteredAs, Flow, FlowSet, FlowShare, FlowShares,
    Holder, Lookup, Outcome, PolicyLookup, ReplacementRule, SharedSet, Timeouts, Tuple, by_egress, by_policy,
    is_filtered, is_own,
};

use crate::{
    atomic::Bpf,
    config::config,
    maps::{self, FLOW_SHARES, FLOWS, SCRATCH},
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
    unsafe { by_policy(&AddressKey(*peer).0, &*tuple, &*endpoint, &mut *policy_lookup, &Maps) }
}

/// [`is_own`]
///
/// # Safety
///
/// What the pointers point to can be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn owns_address(
    address: *const Address,
    endpoint: *const Endpoint,
    ifindex: u32,
) -> bool {
    if address.is_null() || endpoint.is_null() {
        return false;
    }
    // SAFETY: the caller's.
    unsafe { is_own(&AddressKey(*address).0, &*endpoint, ifindex, &Maps) }
}

/// [`is_filtered`], by the number of the kind.
///
/// # Safety
///
/// What the pointer points to can be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn may_be_filtered(kind: u64, address: *const Address) -> bool {
    if address.is_null() {
        return true;
    }
    let kind = if kind == FilteredAs::Service as u64 { FilteredAs::Service } else { FilteredAs::Tunnel };
    // The agent fills the filter before it flags the endpoint, which was read before.
    Bpf::order_reads_of_maps();
    // SAFETY: the caller's.
    is_filtered(kind, unsafe { &*address }, &Maps)
}

/// [`by_egress`], of the connection in [`SCRATCH`].
///
/// # Safety
///
/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evaluate_destination(
    endpoint: *const Endpoint,
    policy_lookup: *mut PolicyLookup,
) -> Outcome {
    if endpoint.is_null() || policy_lookup.is_null() {
        return Outcome::Denied;
    }
    let Some(scratch) = SCRATCH.get_ptr(0) else { return Outcome::Denied };
    // SAFETY: this CPU's own element, and no one writes to this field meanwhile; else the caller's.
    unsafe { by_egress(&(*scratch).connection, &*endpoint, &mut *policy_lookup, &Maps) }
}

/// [`SharedSet::find_everywhere`]
///
/// # Safety
///
/// `set` is an element of the flow table, and `lookup` can be written.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn find_everywhere(set: *mut FlowSet, lookup: *mut Lookup) -> bool {
    if set.is_null() || lookup.is_null() {
        return false;
    }
    // SAFETY: the caller's; elements are accessed in this way alone.
    unsafe { SharedSet::new(set).find_everywhere::<Bpf>(&mut *lookup) }
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
    let rule = ReplacementRule { timeouts: &timeouts, shares: &Shares, sets: config!(flow_sets) };
    // SAFETY: an element lives until the program ends (RCU), and is accessed in this way alone.
    let set = unsafe { SharedSet::new(set.cast()) };
    let entered = set.put::<Bpf, _>(lookup, flow, &rule, Holder::Program);
    if let Some(eviction) = entered.and_then(Eviction::of) {
        maps::count_eviction(eviction);
    }
    !matches!(entered, None | Some(Entered::Refused))
}

/// The map of shares.
struct Shares;

impl FlowShares for Shares {
    #[inline(always)]
    fn of(&self, veth: u32) -> u32 {
        flow_share(veth)
    }

    #[inline(always)]
    fn add(&self, veth: u32) {
        if let Some(share) = FLOW_SHARES.get_ptr_mut(FlowShare::slot(veth)) {
            // SAFETY: memory of a map.
            unsafe { Bpf::add(share, 1) };
        }
    }

    #[inline(always)]
    fn subtract(&self, veth: u32) {
        if let Some(share) = FLOW_SHARES.get_ptr_mut(FlowShare::slot(veth)) {
            // SAFETY: as above.
            unsafe { Bpf::add(share, -1) };
        }
    }
}

/// How many connections are charged to a veth.
///
/// A function of its own in the kernel too, of whose answer the verifier knows nothing.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn flow_share(veth: u32) -> u32 {
    FLOW_SHARES.get(FlowShare::slot(veth)).map_or(0, |share| share.count())
}
