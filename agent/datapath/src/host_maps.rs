//! The maps that only programs at devices with host endpoints read, next to the map of endpoints: the uses of
//! the node's ports, and the deadline of an unconfirmed change.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use podgate_common::{HostGuard, PortUse, Protocol};

use crate::monotonic;

const PORTS: usize = 65_536;

/// The uses of ports, a byte for each: one element for each protocol.
#[expect(missing_debug_implementations, reason = "65,536 bytes, three times")]
pub struct HostPortTable {
    map: Array<MapData, [u8; PORTS]>,
    mirror: BTreeMap<(Protocol, u16), PortUse>,
}

impl HostPortTable {
    pub(super) fn taken_over(map: Array<MapData, [u8; PORTS]>) -> Result<Self> {
        let mut mirror = BTreeMap::new();
        for protocol in Protocol::ALL {
            let ports = map.get(&protocol.index(), 0).context("cannot read the uses of the node's ports")?;
            let known = (0..=u16::MAX).zip(ports).filter(|(_, known)| *known != 0);
            mirror.extend(known.map(|(port, known)| ((protocol, port), PortUse(known))));
        }
        Ok(Self { map, mirror })
    }

    /// Replaces all uses of ports.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn set_all(&mut self, ports: &BTreeMap<(Protocol, u16), PortUse>) -> Result<()> {
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

/// The guard of changes of host endpoints: see [`HostGuard`].
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct HostGuardMap(Array<MapData, HostGuard>);

impl HostGuardMap {
    pub(super) const fn new(map: Array<MapData, HostGuard>) -> Self {
        Self(map)
    }

    /// The hash of what an agent has confirmed last; `None`: a change is not confirmed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn confirmed(&self) -> Result<Option<u64>> {
        let HostGuard { deadline, confirmed } =
            self.0.get(&0, 0).context("cannot read the guard of host endpoints")?;
        Ok((deadline == 0 && confirmed != 0).then_some(confirmed))
    }

    /// Starts the deadline: after `window` the programs go back to what they enforced before the change.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn arm(&mut self, window: Duration) -> Result<()> {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX / 2);
        self.set(HostGuard { deadline: monotonic().saturating_add(window), confirmed: 0 })
    }

    /// Ends the deadline: what is enforced now is confirmed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn confirm(&mut self, confirmed: u64) -> Result<()> {
        self.set(HostGuard { deadline: 0, confirmed })
    }

    fn set(&mut self, guard: HostGuard) -> Result<()> {
        self.0.set(0, guard, 0).context("cannot write the guard of host endpoints")
    }
}
