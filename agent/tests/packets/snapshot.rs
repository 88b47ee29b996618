//! What really stands in the kernel's maps, read through their pins: no knowledge of the publisher is used.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData},
};
use podgate_common::{
    Address, ClassId, Direction, Endpoint, FragmentKey, IdentityId, NameId, PortPair, PrefixKey, Row, RowKey,
    RuleProtocol, TableSetIndex,
};
use podgate_datapath::Pins;

/// The pinned maps.
#[derive(Clone, Debug)]
pub(crate) struct Pinned(PathBuf);

impl Pinned {
    pub(crate) fn new(pins: &Pins) -> Self {
        Self(pins.directory().join("maps"))
    }

    pub(crate) fn fragments(&self) -> HashMap<MapData, FragmentKey, PortPair> {
        Map::LruHashMap(open(&self.0, "FRAGMENTS")).try_into().expect("a hash table")
    }

    pub(crate) fn read(&self) -> Snapshot {
        let endpoints: HashMap<MapData, u32, Endpoint> =
            Map::HashMap(open(&self.0, "ENDPOINTS")).try_into().expect("a hash table");
        let owners: HashMap<MapData, Address, u32> =
            Map::HashMap(open(&self.0, "OWNERS")).try_into().expect("a hash table");
        let sets = (0..TableSetIndex::COUNT)
            .map(TableSetIndex)
            .filter_map(|table_set| Some((table_set, self.set(table_set)?)))
            .collect();
        Snapshot { endpoints: entries(&endpoints), owners: entries(&owners), sets }
    }

    /// `None`: the slot is empty.
    fn set(&self, table_set: TableSetIndex) -> Option<Set> {
        let outer = |name| Map::ArrayOfMaps(open(&self.0, name));
        let rows: ArrayOfMaps<MapData, HashMap<MapData, RowKey, Row>> =
            outer("ROWS").try_into().expect("a map of maps");
        let addresses: ArrayOfMaps<MapData, HashMap<MapData, Address, IdentityId>> =
            outer("ADDRESSES").try_into().expect("a map of maps");
        let prefixes: ArrayOfMaps<MapData, LpmTrie<MapData, Address, IdentityId>> =
            outer("PREFIXES").try_into().expect("a map of maps");
        let ports: ArrayOfMaps<MapData, Array<MapData, Classes>> =
            outer("PORTS").try_into().expect("a map of maps");
        let rows = rows.get(&table_set.0, 0).ok()?;
        let complete = "a slot holds all four tables or none";
        let addresses = addresses.get(&table_set.0, 0).expect(complete);
        let prefixes = prefixes.get(&table_set.0, 0).expect(complete);
        let ports = ports.get(&table_set.0, 0).expect(complete);
        let prefixes = prefixes.iter().map(|entry| {
            let (key, identity) = entry.expect("no one writes");
            (PrefixKey { length: key.prefix_len(), address: key.data() }, identity)
        });
        Some(Set {
            rows: entries(&rows),
            addresses: entries(&addresses),
            prefixes: prefixes.collect(),
            ports: RuleProtocol::ALL
                .map(|protocol| Box::new(ports.get(&protocol.index(), 0).expect(complete))),
        })
    }
}

fn open(directory: &Path, name: &str) -> MapData {
    MapData::from_pin(directory.join(name)).expect("every map of the programs is pinned")
}

pub(crate) fn entries<K: Pod + Ord, V: Pod>(map: &HashMap<MapData, K, V>) -> BTreeMap<K, V> {
    map.iter().collect::<Result<_, _>>().expect("no one writes")
}

/// All entries of all tables.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) endpoints: BTreeMap<u32, Endpoint>,
    pub(crate) owners: BTreeMap<Address, u32>,
    pub(crate) sets: BTreeMap<TableSetIndex, Set>,
}

/// One slot's tables.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) rows: BTreeMap<RowKey, Row>,
    pub(crate) addresses: BTreeMap<Address, IdentityId>,
    pub(crate) prefixes: BTreeMap<PrefixKey, IdentityId>,
    ports: [Box<Classes>; RuleProtocol::ALL.len()],
}

/// The element of the table of ports, in a type that aya reads.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
struct Classes([ClassId; 65_536]);

// SAFETY: an array of plain numbers.
unsafe impl Pod for Classes {}

impl Snapshot {
    /// The one slot that every endpoint is evaluated by.
    pub(crate) fn table_set(&self) -> TableSetIndex {
        let mut table_sets: Vec<TableSetIndex> =
            self.endpoints.values().map(|endpoint| endpoint.table_set).collect();
        table_sets.dedup();
        assert_eq!(table_sets.len(), 1, "endpoints are evaluated by the slots {table_sets:?}");
        table_sets[0]
    }

    /// The tables in force.
    pub(crate) fn set(&self) -> &Set {
        &self.sets[&self.table_set()]
    }

    /// What the tables say of a pod, written down without the code under test. `port` is a place of the
    /// protocol.
    pub(crate) fn allows(
        &self,
        veth: u32,
        direction: Direction,
        peer: IpAddr,
        protocol: RuleProtocol,
        port: u16,
    ) -> bool {
        let endpoint = &self.endpoints[&veth];
        let policy = endpoint.policy(direction);
        if policy.0 == 0 {
            return true;
        }
        let set = &self.sets[&endpoint.table_set];
        let class = set.class(protocol, port);
        let identity = set.identity(peer.into());
        let key = RowKey { policy, identity, block: u32::from(class.0) / 256 };
        set.rows.get(&key).is_some_and(|row| {
            let bit = usize::from(class.0) % 256;
            row.0[bit / 64] & 1 << (bit % 64) != 0
        })
    }
}

impl Set {
    pub(crate) fn class(&self, protocol: RuleProtocol, port: u16) -> ClassId {
        self.ports[protocol.index() as usize].0[usize::from(port)]
    }

    pub(crate) fn identity(&self, address: Address) -> IdentityId {
        let covers = |prefix: &&PrefixKey| {
            let bits = |address: Address| u128::from_be_bytes(address.bytes());
            let differing = bits(prefix.address) ^ bits(address);
            differing.leading_zeros() >= prefix.length
        };
        let longest = || self.prefixes.keys().filter(covers).max_by_key(|prefix| prefix.length);
        self.addresses
            .get(&address)
            .or_else(|| longest().map(|prefix| &self.prefixes[prefix]))
            .copied()
            .unwrap_or(IdentityId::NONE)
    }

    /// How many entries each table has; ports that have a class count one each. Names are left out: those
    /// that no rule has any more stay for as long as something may live that was learnt for them.
    pub(crate) fn sizes(&self) -> [usize; 4] {
        let classed = self.ports.iter().flat_map(|classes| &classes.0).filter(|class| class.0 != 0);
        let is_name = |address: &&Address| address.bytes()[..8] == NameId(0).as_key().bytes()[..8];
        let addresses = self.addresses.keys().filter(|address| !is_name(address));
        [self.rows.len(), addresses.count(), self.prefixes.len(), classed.count()]
    }
}
