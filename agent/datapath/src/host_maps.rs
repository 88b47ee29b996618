//! The maps that only programs at devices with host endpoints read, beside the endpoints: what is known of
//! the node's ports, and until when a change waits for its confirmation.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use podgate_common::{HostGuard, PortUse, Protocol};

use crate::monotonic;

const PORTS: usize = 65_536;

/// What is known of ports, a byte for each: one element for each protocol.
#[expect(missing_debug_implementations, reason = "65,536 bytes, three times")]
pub struct HostPortTable {
    map: Array<MapData, [u8; PORTS]>,
    mirror: BTreeMap<(Protocol, u16), PortUse>,
}

impl HostPortTable {
    pub(super) fn taken_over(map: Array<MapData, [u8; PORTS]>) -> Result<Self> {
        let mut mirror = BTreeMap::new();
        for protocol in Protocol::ALL {
            let ports =
                map.get(&protocol.index(), 0).context("cannot read what is known of the node's ports")?;
            let known = (0..=u16::MAX).zip(ports).filter(|(_, known)| *known != 0);
            mirror.extend(known.map(|(port, known)| ((protocol, port), PortUse(known))));
        }
        Ok(Self { map, mirror })
    }

    /// Makes these all that is known.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
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
            written.context("cannot write what is known of the node's ports")?;
        }
        self.mirror.clone_from(ports);
        Ok(())
    }
}

/// The guard of changes.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct HostGuardMap(Array<MapData, HostGuard>);

impl HostGuardMap {
    pub(super) const fn new(map: Array<MapData, HostGuard>) -> Self {
        Self(map)
    }

    /// What an agent has confirmed last, as a hash; `None`: not all that is enforced is confirmed.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn confirmed(&self) -> Result<Option<u64>> {
        let HostGuard { deadline, confirmed } =
            self.0.get(&0, 0).context("cannot read the guard of host endpoints")?;
        Ok((deadline == 0 && confirmed != 0).then_some(confirmed))
    }

    /// From now on what was enforced before counts again after so long.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn arm(&mut self, window: Duration) -> Result<()> {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX / 2);
        self.set(HostGuard { deadline: monotonic().saturating_add(window), confirmed: 0 })
    }

    /// What is enforced counts for good.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn confirm(&mut self, confirmed: u64) -> Result<()> {
        self.set(HostGuard { deadline: 0, confirmed })
    }

    fn set(&mut self, guard: HostGuard) -> Result<()> {
        self.0.set(0, guard, 0).context("cannot write the guard of host endpoints")
    }
}
