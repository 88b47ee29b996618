//! All maps. User space writes all of them but the flow table, the fragments and the counters.
//!
//! The compiled tables stand in two slots: an endpoint names the slot that evaluates it, so that a new agent
//! (or one that outgrew a table) fills the free slot and then flips endpoint by endpoint. The sizes of the
//! inner maps here are only the template's: the agent makes them as large as needed.

use core::{mem::MaybeUninit, ptr::read_volatile};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    macros::btf_map,
};
use podgate_common::{
    Address, Direction, EVENT_BYTES, Endpoint, Eviction, FILTER_WORDS, FilteredAs, FlowCounter,
    FlowCounterKey, FlowEvent, FlowSeed, FlowSet, FlowShare, FragmentKey, HostGuard, LabelKey, LinkAddress,
    MAX_ENDPOINTS, MAX_FLOW_COUNTERS, MAX_FRAGMENTS, MAX_HOST_SERVICES, MAX_LABELS, MAX_NAME_TABLES,
    MAX_OWNERS, MAX_RESOLVERS, MAX_TUNNEL_SERVICES, NameCount, NameSet, OpenVeth, Outcome, PartialMessage,
    PortPair, Protocol, RowKey, RuleProtocol, Scratch, ServiceKey, Share, TableSetIndex, Unreported, Walk,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const TABLE_SETS: usize = TableSetIndex::COUNT as usize;
/// Inner maps of one type may differ in size; this one is never used.
const TEMPLATE: usize = 1;

const ADDRESS_FILTER_WORDS: usize = (FILTER_WORDS * FilteredAs::COUNT) as usize;

/// Sets of a pod's table, and elements with those of its streams.
pub(crate) const NAME_SETS: u32 = NameSet::SETS;
const NAME_ELEMENTS: usize = NameSet::ELEMENTS as usize;
const RULE_PROTOCOLS: usize = RuleProtocol::ALL.len();
const PROTOCOLS: usize = Protocol::ALL.len();
const NAME_TABLES: usize = MAX_NAME_TABLES + 1;
const PARTIAL_PLACES: usize = MAX_NAME_TABLES * PartialMessage::PLACES as usize;

const LINK_ADDRESS_SLOTS: usize = LinkAddress::SLOTS as usize;
const OPEN_VETH_SLOTS: usize = OpenVeth::SLOTS as usize;
const FLOW_SHARE_SLOTS: usize = FlowShare::SLOTS as usize;

/// An `IdentityId` or a `ServiceId`.
type RawId = u32;
/// `PortClasses`
type RawPortClasses = [u16; 65_536];
/// `Row`
type RawRow = [u64; 4];
/// `NameSet`
type RawNameSet = [u64; size_of::<NameSet>() / 8];
/// `PartialMessage`
type RawPartialMessage = [u64; size_of::<PartialMessage>() / 8];
/// `FlowSet`
type RawFlowSet = [u64; size_of::<FlowSet>() / 8];
/// `FlowSeed`
type RawFlowSeed = [u32; size_of::<FlowSeed>() / 4];

/// What evaluates each veth. Key: ifindex of its host side. One update is one switch of a pod to a new
/// policy.
#[btf_map]
pub(crate) static ENDPOINTS: HashMap<u32, Endpoint, MAX_ENDPOINTS, NO_PREALLOC> = HashMap::new();

/// The link-layer address of each pod whose veth is a port of a bridge. The agent reads and writes by a
/// shared mapping.
#[btf_map]
pub(crate) static LINK_ADDRESSES: Array<LinkAddress, LINK_ADDRESS_SLOTS, MMAPABLE> = Array::new();

/// Whose address it is: the ifindex of a pod's veth, 0 for the node's own addresses, `OTHER_NODE`
/// for those of other nodes, `HEARD_BY_NODE` for others at which this node takes packets.
#[btf_map]
pub(crate) static OWNERS: HashMap<Address, u32, MAX_OWNERS, NO_PREALLOC> = HashMap::new();

/// Addresses and ports of services over UDP that lead to a tunnel of a node; the values mean nothing.
#[btf_map]
pub(crate) static TUNNEL_SERVICES: HashMap<ServiceKey, u32, MAX_TUNNEL_SERVICES, NO_PREALLOC> =
    HashMap::new();

/// Element 0: a `TunnelPort` for each UDP port.
#[btf_map]
pub(crate) static TUNNEL_PORTS: Array<[u8; 65_536], 1> = Array::new();

/// The filters of addresses (`FilteredAs`): of services over the limit of their namespace, and of those that
/// lead to tunnels and for which `TUNNEL_SERVICES` has no room. The agent writes by a shared mapping.
#[btf_map]
pub(crate) static ADDRESS_FILTER: Array<u64, ADDRESS_FILTER_WORDS, MMAPABLE> = Array::new();

/// Identities of single addresses.
///
/// In maps of maps a value is a plain number or an array of them, never a structure: before Linux 6.2 the
/// kernel takes a map whose value it knows to be a structure for another kind than one that was made without
/// type information, as the agent's are (`bpf_map_meta_equal`, kernel/bpf/map_in_map.c, compares
/// `spin_lock_off`).
#[btf_map]
pub(crate) static ADDRESSES: ArrayOfMaps<HashMap<Address, RawId, TEMPLATE, NO_PREALLOC>, TABLE_SETS> =
    ArrayOfMaps::new();

/// Identities of prefixes, for addresses that are not in `ADDRESSES`.
#[btf_map]
pub(crate) static PREFIXES: ArrayOfMaps<LpmTrie<Address, RawId, TEMPLATE>, TABLE_SETS> = ArrayOfMaps::new();

/// Class of each port; one element for each `RuleProtocol`. User space writes it through mmap, one
/// whole class id at a time.
#[btf_map]
pub(crate) static PORTS: ArrayOfMaps<Array<RawPortClasses, RULE_PROTOCOLS, MMAPABLE>, TABLE_SETS> =
    ArrayOfMaps::new();

/// What is behind each service's address and port, and behind each node port.
#[btf_map]
pub(crate) static SERVICES: ArrayOfMaps<HashMap<ServiceKey, RawId, TEMPLATE, NO_PREALLOC>, TABLE_SETS> =
    ArrayOfMaps::new();

/// Verdicts: one bit for each (policy, identity, class).
#[btf_map]
pub(crate) static ROWS: ArrayOfMaps<HashMap<RowKey, RawRow, TEMPLATE, NO_PREALLOC>, TABLE_SETS> =
    ArrayOfMaps::new();

/// The names of rules as a tree from the right, by label. The values are `NameNode`s.
#[btf_map]
pub(crate) static LABELS: HashMap<LabelKey, u32, MAX_LABELS, NO_PREALLOC> = HashMap::new();

/// Addresses, ports and protocols of resolvers that are believed. The values are `Resolver`s.
#[btf_map]
pub(crate) static RESOLVERS: HashMap<ServiceKey, u32, MAX_RESOLVERS, NO_PREALLOC> = HashMap::new();

/// What pods have learnt, by the number that stands in their endpoint: a table of `NameSet`s for each, which
/// only the programs write, and behind these the words of its streams. The agent makes them.
#[btf_map]
pub(crate) static NAMES: ArrayOfMaps<Array<RawNameSet, NAME_ELEMENTS>, NAME_TABLES> = ArrayOfMaps::new();

/// Messages over several segments that are not whole yet: places of a pod's table, by its number times
/// `PartialMessage::PLACES` plus the number of the place. Programs make them when one is needed, and keep
/// them: what a program may still hold must not become another pod's. The values are `PartialMessage`s.
#[btf_map]
pub(crate) static PARTIAL_MESSAGES: HashMap<u32, RawPartialMessage, PARTIAL_PLACES, NO_PREALLOC> =
    HashMap::new();

/// What such a place holds at first.
#[btf_map]
pub(crate) static EMPTY_PARTIAL_MESSAGE: Array<RawPartialMessage, 1> = Array::new();

/// Where a program walks over a message.
#[btf_map]
pub(crate) static WALK: PerCpuArray<Walk, 1> = PerCpuArray::new();

/// Where packets to addresses and ports of services end, for host endpoints: a `ServiceEnd`.
#[btf_map]
pub(crate) static HOST_SERVICES: HashMap<ServiceKey, u32, MAX_HOST_SERVICES, NO_PREALLOC> = HashMap::new();

/// The uses of ports of the node, for host endpoints: a `PortUse` for each, by protocol.
#[btf_map]
pub(crate) static HOST_PORTS: Array<[u8; 65_536], PROTOCOLS> = Array::new();

/// Element 0: the deadline of an unconfirmed change of host endpoints.
#[btf_map]
pub(crate) static HOST_GUARD: Array<HostGuard, 1> = Array::new();

/// Element 0: number of published changes.
#[btf_map]
pub(crate) static REVISION: Array<u32, 1> = Array::new();

/// Veths between which packets may take the short cut. Only the agent writes, by a shared mapping. Not
/// pinned: no agent goes on with what another one has said.
#[btf_map]
pub(crate) static OPEN_VETHS: Array<OpenVeth, OPEN_VETH_SLOTS, MMAPABLE> = Array::new();

/// Connections that were evaluated; the element is a `FlowSet`. The agent sets the number of sets, by
/// `--flows`, and reads and writes by a shared mapping.
#[btf_map]
pub(crate) static FLOWS: Array<RawFlowSet, TEMPLATE, MMAPABLE> = Array::new();

/// How many connections of `FLOWS` are charged to each veth, by its [`FlowShare::slot`]. The agent reads and
/// writes by a shared mapping.
#[btf_map]
pub(crate) static FLOW_SHARES: Array<FlowShare, FLOW_SHARE_SLOTS, MMAPABLE> = Array::new();

/// Element 0: the seed of the hash by which connections are spread over `FLOWS`. Only the agent reads it, to
/// load new programs over an old table.
#[btf_map]
pub(crate) static FLOW_SEED: Array<RawFlowSeed, 1> = Array::new();

/// Ports of datagrams whose first fragment passed. A veth's share bounds how many it begins in a second, and
/// so how soon what others have begun is given up.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, PortPair, MAX_FRAGMENTS> = LruHashMap::new();

/// Element 0: packets by direction and outcome, for each CPU. One element, so that both directions of the
/// fast path have their counters in one cache line.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<[u64; podgate_common::COUNTERS], 1> = PerCpuArray::new();

/// New connections and dropped packets by what no rule can distinguish, for each CPU.
#[btf_map]
pub(crate) static FLOW_COUNTERS: PerCpuHashMap<FlowCounterKey, FlowCounter, MAX_FLOW_COUNTERS, NO_PREALLOC> =
    PerCpuHashMap::new();

/// What each veth has taken of flow counters, events and fragments. The agent removes those of veths that
/// have gone.
#[btf_map]
pub(crate) static SHARES: HashMap<u32, Share, MAX_ENDPOINTS, NO_PREALLOC> = HashMap::new();

/// Single decisions. The agent's alone: not pinned, so that a new agent begins with an empty one.
#[btf_map]
pub(crate) static EVENTS: RingBuf<FlowEvent, EVENT_BYTES> = RingBuf::new();

/// Where a program works on its packet.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

#[inline(always)]
#[cfg(not(feature = "trace"))]
pub(crate) fn count(direction: Direction, outcome: Outcome) {
    add_one(podgate_common::counter(direction, outcome));
}

/// `count` for an outcome that is not known at compile time.
#[inline(always)]
pub(crate) fn count_any(direction: Direction, outcome: Outcome) {
    let counter = podgate_common::counter(direction, outcome);
    // The compiler knows the number of outcomes, and would remove a comparison that the verifier needs.
    // SAFETY: a reference is valid to be read from.
    add_one(unsafe { read_volatile(&raw const counter) });
}

#[inline(always)]
pub(crate) fn count_eviction(eviction: Eviction) {
    add_one(eviction as u32);
}

#[inline(always)]
pub(crate) fn count_unreported(unreported: Unreported) {
    add_one(unreported as u32);
}

/// The share of a veth, made if there is none. Several processors write to it.
#[inline(never)]
pub(crate) fn share(ifindex: u32) -> Option<*mut Share> {
    SHARES.get_ptr_mut(ifindex).or_else(|| {
        let mut empty = MaybeUninit::<Share>::uninit();
        for word in 0..size_of::<Share>() / size_of::<u32>() {
            // One by one: else a function is called for it, which takes a part of the stack as well.
            // SAFETY: words of the share.
            unsafe { empty.as_mut_ptr().cast::<u32>().add(word).write_volatile(0) };
        }
        // Another CPU may have made it: then it is there.
        // SAFETY: it consists of words, and 0 is one: `Share::EMPTY`.
        let _ = SHARES.insert(ifindex, unsafe { empty.assume_init_ref() }, u64::from(BPF_NOEXIST));
        SHARES.get_ptr_mut(ifindex)
    })
}

#[inline(always)]
pub(crate) fn count_shortcut() {
    add_one(podgate_common::SHORTCUT_COUNTER);
}

/// Counts so many more.
#[inline(always)]
pub(crate) fn count_names(of: NameCount, more: u32) {
    if more != 0
        && let Some(counters) = COUNTERS.get_ptr_mut(0)
    {
        // SAFETY: as below.
        if let Some(counter) = unsafe { (*counters).get_mut(of as usize) } {
            *counter += u64::from(more);
        }
    }
}

#[inline(always)]
fn add_one(counter: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's own, and TC programs run with bottom halves off: none interrupts
        // another.
        if let Some(counter) = unsafe { (*counters).get_mut(counter as usize) } {
            *counter += 1;
        }
    }
}
