//! Typed handles on the maps: those that all table sets share, and the table sets.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, PerCpuArray},
};
use aya_obj::generated::BPF_F_NO_PREALLOC;
use podgate_common::{
    Address, COUNTERS, Direction, Endpoint, Eviction, IdentityId, NameCount, Outcome, PrefixKey, Row, RowKey,
    SHORTCUT_COUNTER, ServiceId, ServiceKey, TableSetIndex, Unreported, counter,
};

use super::{
    AddressFilterTable, FlowTable, HostGuardMap, HostTables, LinkAddressTable, MapTable, OpenVethTable,
    PortTable, TunnelPortTable, names::NameMaps, sys,
};

/// Prefixes take memory as they come; this many are more than 32-bit addresses can name one by one.
const MAX_PREFIXES: u32 = u32::MAX;

/// The maps that are shared by all table sets, and the slots of the sets.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct BpfMaps {
    /// By ifindex.
    pub endpoints: MapTable<u32, Endpoint>,
    /// Whose an address is: an ifindex, or one for which `is_nodes` holds.
    pub owners: MapTable<Address, u32>,
    /// UDP ports at which the node takes packets in packets.
    pub tunnel_ports: TunnelPortTable,
    /// Addresses and ports of services that lead to tunnels of nodes.
    pub tunnel_services: MapTable<ServiceKey, u32>,
    /// Addresses of services that have no room of their own.
    pub filter: AddressFilterTable,
    /// What only programs at host endpoints look up.
    pub hosts: HostTables,
    /// The deadline of an unconfirmed change of host endpoints.
    pub host_guard: HostGuardMap,
    /// Link-layer addresses of pods on bridges, by ifindex.
    pub link_addresses: LinkAddressTable,
    /// Known connections.
    pub flows: FlowTable,
    /// Names of rules, resolvers, and what pods have learnt.
    pub names: NameMaps,
    /// Veths between which packets may take the short cut.
    pub open_veths: OpenVethTable,
    /// The programs let pods send packets in packets to nodes.
    pub passes_encapsulation: bool,
    revision: Array<MapData, u32>,
    addresses: ArrayOfMaps<MapData, HashMap<MapData, Address, IdentityId>>,
    prefixes: ArrayOfMaps<MapData, LpmTrie<MapData, Address, IdentityId>>,
    ports: ArrayOfMaps<MapData, MapData>,
    rows: ArrayOfMaps<MapData, HashMap<MapData, RowKey, Row>>,
    services: ArrayOfMaps<MapData, HashMap<MapData, ServiceKey, ServiceId>>,
    /// The five maps of maps once more, as descriptors.
    outer: Vec<(&'static str, OwnedFd)>,
}

/// The packet counters. Readable from any thread, without waiting.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Counters(PerCpuArray<MapData, [u64; COUNTERS]>);

impl Counters {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        take(ebpf, "COUNTERS").map(Self)
    }

    /// Packets by direction and outcome since the maps were made.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn read(&self) -> Result<Vec<(Direction, Outcome, u64)>> {
        let sums = self.sums()?;
        let mut counters = Vec::with_capacity(2 * Outcome::ALL.len());
        for direction in Direction::ALL {
            for outcome in Outcome::ALL {
                counters.push((direction, outcome, sums[counter(direction, outcome) as usize]));
            }
        }
        Ok(counters)
    }

    /// Live connections that had to leave the flow table since the maps were made.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn evictions(&self) -> Result<[(Eviction, u64); Eviction::ALL.len()]> {
        let sums = self.sums()?;
        Ok(Eviction::ALL.map(|eviction| (eviction, sums[eviction as usize])))
    }

    /// What the programs could not tell since the maps were made.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn unreported(&self) -> Result<[(Unreported, u64); Unreported::ALL.len()]> {
        let sums = self.sums()?;
        Ok(Unreported::ALL.map(|unreported| (unreported, sums[unreported as usize])))
    }

    /// What became of replies of resolvers to pods with rules that have names, since the maps were made.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn names(&self) -> Result<[(NameCount, u64); NameCount::ALL.len()]> {
        let sums = self.sums()?;
        Ok(NameCount::ALL.map(|of| (of, sums[of as usize])))
    }

    /// Packets that took the short cut.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn shortcut(&self) -> Result<u64> {
        Ok(self.sums()?[SHORTCUT_COUNTER as usize])
    }

    /// All counters, over all CPUs.
    fn sums(&self) -> Result<[u64; COUNTERS]> {
        let mut sums = [0; COUNTERS];
        for block in self.0.get(&0, 0).context("cannot read the counters")?.iter() {
            for (sum, counter) in sums.iter_mut().zip(block) {
                *sum += counter;
            }
        }
        Ok(sums)
    }
}

impl BpfMaps {
    pub(super) fn new(ebpf: &mut Ebpf, flows: FlowTable, passes_encapsulation: bool) -> Result<Self> {
        let outer = ["ADDRESSES", "PREFIXES", "PORTS", "ROWS", "SERVICES"]
            .map(|name| Ok((name, descriptor(ebpf, name)?)));
        Ok(Self {
            outer: outer.into_iter().collect::<Result<_>>()?,
            endpoints: MapTable::taken_over("endpoints", take(ebpf, "ENDPOINTS")?)?,
            owners: MapTable::taken_over("owners", take(ebpf, "OWNERS")?)?,
            tunnel_ports: TunnelPortTable::taken_over(take(ebpf, "TUNNEL_PORTS")?)?,
            tunnel_services: MapTable::taken_over(
                "services that lead to tunnels",
                take(ebpf, "TUNNEL_SERVICES")?,
            )?,
            hosts: HostTables::taken_over(take(ebpf, "HOST_PORTS")?, take(ebpf, "HOST_SERVICES")?)?,
            host_guard: HostGuardMap::new(take(ebpf, "HOST_GUARD")?),
            filter: AddressFilterTable::new(descriptor(ebpf, "ADDRESS_FILTER")?),
            link_addresses: LinkAddressTable::new(&descriptor(ebpf, "LINK_ADDRESSES")?)?,
            flows,
            names: NameMaps::new(ebpf)?,
            open_veths: OpenVethTable::new(&descriptor(ebpf, "OPEN_VETHS")?)?,
            passes_encapsulation,
            revision: take(ebpf, "REVISION")?,
            addresses: take(ebpf, "ADDRESSES")?,
            prefixes: take(ebpf, "PREFIXES")?,
            ports: take(ebpf, "PORTS")?,
            rows: take(ebpf, "ROWS")?,
            services: take(ebpf, "SERVICES")?,
        })
    }

    /// The number of published changes.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn revision(&self) -> Result<u32> {
        self.revision.get(&0, 0).context("cannot read the revision")
    }

    /// # Errors
    ///
    /// When the kernel does not take it.
    pub fn set_revision(&mut self, revision: u32) -> Result<()> {
        self.revision.set(0, revision, 0).context("cannot write the revision")
    }

    /// Puts a table set into a slot. When this returns, no program uses the set that was there: the kernel
    /// waits for all running programs after each change of a map of maps (`maybe_wait_bpf_programs`,
    /// kernel/bpf/syscall.c).
    ///
    /// # Errors
    ///
    /// When the kernel refuses one of the maps.
    pub fn install(&mut self, table_set: TableSetIndex, set: &TableSet) -> Result<()> {
        self.addresses.set(table_set.0, set.addresses.map(), 0).context("cannot install the addresses")?;
        self.prefixes.set(table_set.0, set.prefixes.map(), 0).context("cannot install the prefixes")?;
        self.ports.set(table_set.0, set.ports.map(), 0).context("cannot install the ports")?;
        self.rows.set(table_set.0, set.rows.map(), 0).context("cannot install the rows")?;
        self.services.set(table_set.0, set.services.map(), 0).context("cannot install the services")?;
        Ok(())
    }

    /// Removes the table set at an index: the kernel frees it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn clear(&mut self, table_set: TableSetIndex) -> Result<()> {
        for (name, map) in &self.outer {
            sys::delete(map, table_set.0)
                .with_context(|| format!("cannot clear table set {table_set} of the {name}"))?;
        }
        Ok(())
    }

    /// Waits until no program runs that began before this call.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the map that is installed again.
    pub fn wait_for_programs(&mut self, table_set: TableSetIndex, set: &TableSet) -> Result<()> {
        self.rows.set(table_set.0, set.rows.map(), 0).context("cannot wait for running programs")
    }
}

/// How many entries the hash tables of a set have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Addresses with an identity of their own.
    pub addresses: u32,
    /// Rows of rule sets.
    pub rows: u32,
    /// Verdicts on addresses of services.
    pub services: u32,
}

/// The compiled tables in the kernel.
#[derive(Debug)]
pub struct TableSet {
    /// Identities of single addresses.
    pub addresses: MapTable<Address, IdentityId>,
    /// Identities of blocks; the longest prefix counts.
    pub prefixes: MapTable<PrefixKey, IdentityId, LpmTrie<MapData, Address, IdentityId>>,
    /// Classes of ports.
    pub ports: PortTable,
    /// What rule sets allow.
    pub rows: MapTable<RowKey, Row>,
    /// Verdicts on addresses of services.
    pub services: MapTable<ServiceKey, ServiceId>,
}

impl TableSet {
    /// How often this process has written to these tables.
    pub const fn writes(&self) -> u64 {
        self.addresses.writes()
            + self.prefixes.writes()
            + self.ports.writes()
            + self.rows.writes()
            + self.services.writes()
    }

    /// Makes empty tables.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one of the maps.
    pub fn create(capacity: Capacity) -> Result<Self> {
        let addresses = HashMap::create(capacity.addresses, BPF_F_NO_PREALLOC)
            .context("cannot make the table of addresses")?;
        let prefixes =
            LpmTrie::create(MAX_PREFIXES, BPF_F_NO_PREALLOC).context("cannot make the table of prefixes")?;
        let rows =
            HashMap::create(capacity.rows, BPF_F_NO_PREALLOC).context("cannot make the table of rows")?;
        let services = HashMap::create(capacity.services, BPF_F_NO_PREALLOC)
            .context("cannot make the table of services")?;
        Ok(Self {
            addresses: MapTable::empty("addresses", addresses),
            prefixes: MapTable::empty("prefixes", prefixes),
            ports: PortTable::create()?,
            rows: MapTable::empty("rows", rows),
            services: MapTable::empty("services", services),
        })
    }
}

pub(super) fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> Result<M>
where
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf.take_map(name).with_context(|| format!("the BPF object has no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name} has another type"))
}

/// A second handle on a hash.
pub(super) fn share<M: TryFrom<Map>>(ebpf: &Ebpf, name: &str) -> Result<M>
where
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let map = match ebpf.map(name) {
        Some(Map::HashMap(map)) => Map::HashMap(copy(map)?),
        Some(Map::PerCpuHashMap(map)) => Map::PerCpuHashMap(copy(map)?),
        _ => bail!("the BPF object has no hash {name}"),
    };
    M::try_from(map).with_context(|| format!("map {name} has another type"))
}

fn copy(map: &MapData) -> Result<MapData> {
    MapData::from_fd(keep_open(map)?).context("cannot learn what a map is")
}

pub(super) fn descriptor(ebpf: &Ebpf, name: &str) -> Result<OwnedFd> {
    let Some(Map::ArrayOfMaps(map) | Map::Array(map)) = ebpf.map(name) else {
        bail!("the BPF object has no array {name}");
    };
    map.fd().as_fd().try_clone_to_owned().with_context(|| format!("cannot keep map {name} open"))
}

pub(super) fn keep_open(map: &MapData) -> Result<OwnedFd> {
    map.fd().as_fd().try_clone_to_owned().context("cannot keep a map open")
}
