//! The tables of a decision over BPF maps.

use core::{mem::offset_of, ptr::NonNull};

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::lpm_trie::Key,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
};
use podgate_common::{
    Address, ClassId, Config, Endpoint, EntryHandle, FilteredAs, Flow, FlowKey, FlowSummary, FragmentKey,
    IdentityId, JIFFIES_PER_TICK, LinkAddress, Lookup, NAMES_OF_ADDRESS, NameId, OpenVeth, Outcome,
    PolicyLookup, PortPair, PortUse, Protocol, Reach, Resolver, Row, RowKey, RuleProtocol, Seen, ServiceEnd,
    ServiceId, ServiceKey, Share, SharedSet, Spot, TableSetIndex, Tables, Timeout, TunnelPort, Tuple,
    Unreported,
};

use crate::atomic::Bpf;
use crate::config::{ConfiguredSeed, config, wide};
use crate::global::{
    enter_flow, evaluate_destination, evaluate_peer, find_everywhere, may_be_filtered, owns_address,
};
use crate::maps::{
    self, ADDRESS_FILTER, ADDRESSES, ENDPOINTS, FLOWS, FRAGMENTS, HOST_GUARD, HOST_PORTS, HOST_SERVICES,
    LINK_ADDRESSES, OPEN_VETHS, OWNERS, PORTS, PREFIXES, RESOLVERS, REVISION, ROWS, SERVICES, TUNNEL_PORTS,
    TUNNEL_SERVICES,
};
use crate::names::{evaluate_names, find_names};

pub(crate) struct Maps;

/// What decisions look things up in.
#[cfg(not(feature = "trace"))]
pub(crate) const TABLES: Maps = Maps;

/// The same, with each look-up recorded.
#[cfg(feature = "trace")]
pub(crate) const TABLES: podgate_common::Traced<Maps, crate::trace::KernelRecorder> =
    podgate_common::Traced(Maps, crate::trace::KernelRecorder);

impl Tables for Maps {
    type FlowHandle = SharedSet;
    type Entry = EntryHandle;

    #[inline(always)]
    fn endpoint(&self, ifindex: u32) -> Endpoint {
        // SAFETY: an element is replaced as a whole and lives until the program ends (RCU).
        unsafe { ENDPOINTS.get(ifindex) }.copied().unwrap_or(Endpoint::PENDING)
    }

    #[inline(always)]
    fn link_address(&self, ifindex: u32) -> LinkAddress {
        LINK_ADDRESSES.get(LinkAddress::slot(ifindex)).copied().unwrap_or(LinkAddress::NONE)
    }

    #[inline(always)]
    fn listed_owner(&self, address: &Address) -> Option<u32> {
        // SAFETY: as above.
        unsafe { OWNERS.get(address) }.copied()
    }

    #[inline(always)]
    fn tunnel_port(&self, port: u16) -> TunnelPort {
        // SAFETY: the table has an element for each value of a u16.
        let known = |ports: &[u8; 65_536]| unsafe { *ports.get_unchecked(usize::from(port)) };
        TunnelPort(TUNNEL_PORTS.get(0).map_or(0, known))
    }

    #[inline(always)]
    fn has_tunnel_key(&self, key: &ServiceKey) -> bool {
        // SAFETY: as above.
        unsafe { TUNNEL_SERVICES.get(key) }.is_some()
    }

    #[inline(always)]
    fn identity(&self, table_set: TableSetIndex, address: &Address) -> IdentityId {
        if let Some(exact) = ADDRESSES.get_value_ptr_mut(table_set.0, address) {
            // SAFETY: the element lives until the program ends (RCU), and is only read.
            return IdentityId(unsafe { *exact });
        }
        match PREFIXES.get_value_ptr_mut(table_set.0, &Key::new(128, *address)) {
            // SAFETY: as above.
            Some(covering) => IdentityId(unsafe { *covering }),
            None => IdentityId::NONE,
        }
    }

    #[inline(always)]
    fn class(&self, table_set: TableSetIndex, protocol: RuleProtocol, place: u16) -> ClassId {
        match PORTS.get_value(table_set.0, &protocol.index()) {
            // SAFETY: the table has an element for each value of a u16.
            Some(classes) => ClassId(unsafe { *(*classes).get_unchecked(usize::from(place)) }),
            None => ClassId::NONE,
        }
    }

    #[inline(always)]
    fn row(&self, table_set: TableSetIndex, key: &RowKey) -> Option<Row> {
        // SAFETY: the element lives until the program ends (RCU), and is only read.
        row(table_set.0, key).map(|row| Row(unsafe { row.read() }))
    }

    #[inline(always)]
    fn service(&self, table_set: TableSetIndex, key: &ServiceKey) -> Option<ServiceId> {
        // SAFETY: as above.
        service(table_set.0, key).map(|service| ServiceId(unsafe { service.read() }))
    }

    #[inline(always)]
    fn filter_word(&self, word: u32) -> u64 {
        // What cannot be read may be in it.
        ADDRESS_FILTER.get(word).copied().unwrap_or(u64::MAX)
    }

    #[inline(always)]
    fn is_filtered(&self, kind: FilteredAs, address: &Address) -> bool {
        // SAFETY: a reference is valid to be read from.
        unsafe { may_be_filtered(kind as u64, address) }
    }

    #[inline(always)]
    fn flow(&self, lookup: &mut Lookup, reach: Reach) -> Option<SharedSet> {
        let set = FLOWS.get_ptr_mut(lookup.place(&ConfiguredSeed, config!(flow_sets)))?.cast();
        // SAFETY: an element lives until the program ends (RCU), and is accessed in this way alone.
        let shared = unsafe { SharedSet::new(set) };
        let is_found = find_at_first(shared, lookup)
            // SAFETY: the set, and a reference.
            || reach == Reach::Everywhere && unsafe { find_everywhere(set, lookup) };
        is_found.then_some(shared)
    }

    #[inline(always)]
    fn known_flow(&self, key: &FlowKey, reach: Reach) -> Option<(FlowSummary, EntryHandle)> {
        let spot = Spot::of(key, &ConfiguredSeed, config!(flow_sets));
        let set = FLOWS.get_ptr_mut(spot.set)?.cast();
        // SAFETY: as above.
        unsafe { SharedSet::new(set) }.peek::<Bpf>(key, &spot, reach)
    }

    #[inline(always)]
    fn touch_flow(&self, entry: EntryHandle, now: u32) {
        entry.touch(now);
    }

    #[inline(always)]
    fn mark_flow(&self, entry: EntryHandle, seen: Seen) {
        entry.mark::<Bpf>(seen);
    }

    #[inline(always)]
    fn put_flow(&self, lookup: &Lookup, flow: &Flow) -> bool {
        // SAFETY: references are valid to be read from.
        unsafe { enter_flow(lookup, flow) }
    }

    #[inline(always)]
    fn refresh_flow(&self, set: SharedSet, lookup: &Lookup, now: u32, seen: Seen) {
        set.refresh::<Bpf>(lookup, now, seen);
    }

    #[inline(always)]
    fn resolver(&self, key: &ServiceKey) -> Resolver {
        // SAFETY: only read, one word.
        Resolver(unsafe { RESOLVERS.get(key) }.copied().unwrap_or(0))
    }

    #[inline(always)]
    fn names(&self, table: u32, address: &Address, names: &mut [NameId; NAMES_OF_ADDRESS]) {
        // SAFETY: references are valid to be read from, and this one to be written to.
        unsafe { find_names(table, address, names) };
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<PortPair> {
        // SAFETY: only read, one word.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, ports: PortPair, charged_to: u32) {
        let (now, second) = (self.now(), self.refresh());
        // SAFETY: an element lives until the program ends (RCU). What CPUs write at the same time counts
        // once.
        let take = |share: *mut Share| unsafe { (*share).fragments.count(now, second) <= Share::FRAGMENTS };
        if !maps::share(charged_to).is_some_and(take) {
            return maps::count_unreported(Unreported::Fragment);
        }
        // Without room the later fragments are unknown: dropped for an isolated direction, and counted.
        let _ = FRAGMENTS.insert(key, ports, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper has no arguments and cannot fail. Inlined by the verifier: it costs a load.
        let jiffies = unsafe { bpf_jiffies64() };
        ((jiffies / u64::from(JIFFIES_PER_TICK)) & 0xffff_ffff) as u32
    }

    #[inline(always)]
    fn revision(&self) -> u32 {
        let revision = REVISION.get(0).copied().unwrap_or(0);
        // The agent writes it last.
        Bpf::order_reads_of_maps();
        revision
    }

    #[inline(always)]
    fn timeout(&self, of: Timeout) -> u32 {
        match of {
            Timeout::Tcp => config!(timeouts.tcp),
            Timeout::TcpHalf => config!(timeouts.tcp_half),
            Timeout::Stream => config!(timeouts.stream),
            Timeout::Unreplied => config!(timeouts.unreplied),
        }
    }

    #[inline(always)]
    fn refresh(&self) -> u32 {
        config!(timeouts.refresh)
    }

    #[inline(always)]
    fn recheck(&self) -> bool {
        wide::<{ offset_of!(Config, recheck) }>() != 0
    }

    #[inline(always)]
    fn passes_masqueraded(&self) -> bool {
        config!(masqueraded) != 0
    }

    #[inline(always)]
    fn passes_encapsulation(&self) -> bool {
        config!(encapsulation) != 0
    }

    #[inline(always)]
    fn has_shortcut(&self) -> bool {
        wide::<{ offset_of!(Config, shortcut) }>() != 0
    }

    #[inline(always)]
    fn host_service(&self, key: &ServiceKey) -> Option<ServiceEnd> {
        // SAFETY: as above.
        unsafe { HOST_SERVICES.get(key) }.copied().map(ServiceEnd::of)
    }

    #[inline(always)]
    fn host_port(&self, protocol: Protocol, port: u16) -> PortUse {
        // SAFETY: the table has an element for each value of a u16.
        let known = |ports: &[u8; 65_536]| unsafe { *ports.get_unchecked(usize::from(port)) };
        PortUse(HOST_PORTS.get(protocol.index()).map_or(0, known))
    }

    #[inline(always)]
    fn host_change_expired(&self) -> bool {
        let Some(guard) = HOST_GUARD.get(0) else { return false };
        // SAFETY: the helper has no arguments and cannot fail.
        guard.deadline != 0 && guard.has_expired(unsafe { bpf_ktime_get_ns() })
    }

    #[inline(always)]
    fn is_open(&self, ifindex: u32) -> bool {
        OPEN_VETHS
            .get(OpenVeth::slot(ifindex))
            .is_some_and(|open| open.is(ifindex, self.now(), self.refresh()))
    }

    #[inline(always)]
    fn by_policy(
        &self,
        peer: &Address,
        tuple: &Tuple,
        endpoint: &Endpoint,
        policy_lookup: &mut PolicyLookup,
    ) -> Outcome {
        // SAFETY: references are valid to be read from, and this one to be written to.
        unsafe { evaluate_peer(peer, tuple, endpoint, policy_lookup) }
    }

    #[inline(always)]
    fn by_names(&self, _: &Tuple, endpoint: &Endpoint, policy_lookup: &mut PolicyLookup) -> bool {
        // SAFETY: as above.
        unsafe { evaluate_names(endpoint, policy_lookup) }
    }

    #[inline(always)]
    fn is_own(&self, address: &Address, endpoint: &Endpoint, ifindex: u32) -> bool {
        // SAFETY: references are valid to be read from.
        unsafe { owns_address(address, endpoint, ifindex) }
    }

    #[inline(always)]
    fn by_egress(&self, _: &Tuple, endpoint: &Endpoint, policy_lookup: &mut PolicyLookup) -> Outcome {
        // SAFETY: as above.
        unsafe { evaluate_destination(endpoint, policy_lookup) }
    }
}

/// A function of its own in the kernel too, as the next one: with the keys of several look-ups on its stack,
/// their caller would take more than Linux before 6.9 allows, which counts in steps of 32 bytes.
#[cfg_attr(not(feature = "trace"), inline(never))]
#[cfg_attr(feature = "trace", inline(always))]
fn row(table_set: u32, key: &RowKey) -> Option<NonNull<[u64; 4]>> {
    NonNull::new(ROWS.get_value_ptr_mut(table_set, key)?)
}

#[inline(never)]
fn service(table_set: u32, key: &ServiceKey) -> Option<NonNull<u32>> {
    NonNull::new(SERVICES.get_value_ptr_mut(table_set, key)?)
}

/// The same for programs that trace, which have less room left; others are quicker without a call.
#[cfg_attr(feature = "trace", inline(never))]
#[cfg_attr(not(feature = "trace"), inline(always))]
fn find_at_first(set: SharedSet, lookup: &mut Lookup) -> bool {
    set.find_at_first::<Bpf>(lookup)
}
