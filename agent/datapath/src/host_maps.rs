//! The maps that only programs at devices with host endpoints read, next to the map of endpoints: the uses of
//! the node's ports, and the deadline of an unconfirmed change.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData};
use podgate_common::{HostGuard, MAX_HOST_SERVICES, PortUse, Protocol, ServiceEnd, ServiceKey};

use crate::{MapTable, monotonic};

const PORTS: usize = 65_536;

/// What the programs at devices with host endpoints look up besides rule sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedHosts {
    /// The uses of the node's own ports.
    pub ports: BTreeMap<(Protocol, u16), PortUse>,
    /// Where packets to addresses and ports of services end.
    pub services: BTreeMap<ServiceKey, ServiceEnd>,
}

/// The maps with it.
#[expect(missing_debug_implementations, reason = "65,536 bytes, three times")]
pub struct HostTables {
    ports: HostPortTable,
    services: MapTable<ServiceKey, u32>,
}

impl HostTables {
    pub(super) fn taken_over(
        ports: Array<MapData, [u8; PORTS]>,
        services: HashMap<MapData, ServiceKey, u32>,
    ) -> Result<Self> {
        Ok(Self {
            ports: HostPortTable::taken_over(ports)?,
            services: MapTable::taken_over("ends of services", services)?,
        })
    }

    /// Adds what is wanted to what is there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write a map.
    pub fn add(&mut self, WantedHosts { ports, services }: &WantedHosts) -> Result<()> {
        self.ports.add(ports)?;
        let (known, services) = (self.services.entries(), values(services));
        let new = services.keys().filter(|key| !known.contains_key(key)).count();
        // What failed publications have left may take the room.
        if known.len() + new > MAX_HOST_SERVICES {
            self.services.keep(&services)?;
        }
        self.services.put_all(&services)
    }

    /// How often this process has written to the map of services.
    pub(super) fn writes(&self) -> u64 {
        self.services.writes()
    }

    /// Removes all else.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write a map.
    pub fn keep(&mut self, WantedHosts { ports, services }: &WantedHosts) -> Result<()> {
        self.ports.set_all(ports)?;
        self.services.keep(&values(services))
    }
}

fn values(services: &BTreeMap<ServiceKey, ServiceEnd>) -> BTreeMap<ServiceKey, u32> {
    services.iter().map(|(key, end)| (*key, *end as u32)).collect()
}

/// The uses of ports, a byte for each: one element for each protocol.
struct HostPortTable {
    map: Array<MapData, [u8; PORTS]>,
    mirror: BTreeMap<(Protocol, u16), PortUse>,
}

impl HostPortTable {
    fn taken_over(map: Array<MapData, [u8; PORTS]>) -> Result<Self> {
        let mut mirror = BTreeMap::new();
        for protocol in Protocol::ALL {
            let ports = map.get(&protocol.index(), 0).context("cannot read the uses of the node's ports")?;
            let known = (0..=u16::MAX).zip(ports).filter(|(_, known)| *known != 0);
            mirror.extend(known.map(|(port, known)| ((protocol, port), PortUse(known))));
        }
        Ok(Self { map, mirror })
    }

    fn add(&mut self, ports: &BTreeMap<(Protocol, u16), PortUse>) -> Result<()> {
        let mut all = self.mirror.clone();
        for (port, uses) in ports {
            let known = all.entry(*port).or_default();
            *known = known.union(*uses);
        }
        self.set_all(&all)
    }

    fn set_all(&mut self, ports: &BTreeMap<(Protocol, u16), PortUse>) -> Result<()> {
        if *ports == self.mirror {
            return Ok(());
        }
        for protocol in Protocol::ALL {
            let of = |ports: &BTreeMap<(Protocol, u16), PortUse>| -> BTreeMap<u16, PortUse> {
                let of_protocol = ports.range((protocol, 0)..=(protocol, u16::MAX));
                of_protocol.map(|((_, port), known)| (*port, *known)).collect()
            };
            let wanted = of(ports);
            if wanted == of(&self.mirror) {
                continue;
            }
            let mut bytes = Box::new([0; PORTS]);
            for (port, known) in wanted {
                bytes[usize::from(port)] = known.0;
            }
            let written = self.map.set(protocol.index(), *bytes, 0);
            written.context("cannot write the uses of the node's ports")?;
        }
        self.mirror.clone_from(ports);
        Ok(())
    }
}

/// The guard as an earlier agent has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftGuard {
    /// There were no host endpoints.
    Nothing,
    /// These rule sets, by their hash, are confirmed.
    Confirmed {
        /// The hash.
        content: u64,
    },
    /// These are not confirmed.
    Armed {
        /// The hash.
        content: u64,
        /// Time until they are undone; zero: they are.
        left: Duration,
    },
}

/// The guard of changes of host endpoints: see [`HostGuard`].
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct HostGuardMap(Array<MapData, HostGuard>);

impl HostGuardMap {
    pub(super) const fn new(map: Array<MapData, HostGuard>) -> Self {
        Self(map)
    }

    /// What an agent has left.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn left(&self) -> Result<LeftGuard> {
        let HostGuard { deadline, content } =
            self.0.get(&0, 0).context("cannot read the guard of host endpoints")?;
        Ok(match (deadline, content) {
            (0, 0) => LeftGuard::Nothing,
            (0, content) => LeftGuard::Confirmed { content },
            (deadline, content) => {
                let left = Duration::from_nanos(deadline.saturating_sub(monotonic()));
                LeftGuard::Armed { content, left }
            }
        })
    }

    /// Starts the deadline: after `window` the programs go back to what they enforced before the change.
    /// `content`: a hash of the rule sets that it is about.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn arm(&mut self, content: u64, window: Duration) -> Result<()> {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX / 2);
        self.set(HostGuard { deadline: monotonic().saturating_add(window), content })
    }

    /// Ends the deadline: what is enforced now is confirmed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn confirm(&mut self, content: u64) -> Result<()> {
        self.set(HostGuard { deadline: 0, content })
    }

    fn set(&mut self, guard: HostGuard) -> Result<()> {
        self.0.set(0, guard, 0).context("cannot write the guard of host endpoints")
    }
}
