//! The table of tunnel ports: a byte for each UDP port, so that there is room for all of them, and nothing
//! has to be called to read one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use podgate_common::TunnelPort;

const PORTS: usize = 65_536;

/// The map, of one element, and what stands in it.
#[expect(missing_debug_implementations, reason = "65,536 bytes")]
pub struct TunnelPortTable {
    map: Array<MapData, [u8; PORTS]>,
    mirror: Box<[u8; PORTS]>,
}

impl TunnelPortTable {
    pub(super) fn taken_over(map: Array<MapData, [u8; PORTS]>) -> Result<Self> {
        let mirror = Box::new(map.get(&0, 0).context("cannot read the table of tunnel ports")?);
        Ok(Self { map, mirror })
    }

    /// What the map says of a port.
    pub fn get(&self, port: u16) -> TunnelPort {
        TunnelPort(self.mirror[usize::from(port)])
    }

    /// Writes what is known of these ports, beside what is there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add(&mut self, ports: &BTreeMap<u16, TunnelPort>) -> Result<()> {
        let mut wanted = self.mirror.clone();
        for (port, known) in ports {
            wanted[usize::from(*port)] |= known.0;
        }
        self.write(wanted)
    }

    /// Makes these all that is known.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn set_all(&mut self, ports: &BTreeMap<u16, TunnelPort>) -> Result<()> {
        let mut wanted = Box::new([0; PORTS]);
        for (port, known) in ports {
            wanted[usize::from(*port)] = known.0;
        }
        self.write(wanted)
    }

    fn write(&mut self, wanted: Box<[u8; PORTS]>) -> Result<()> {
        if wanted != self.mirror {
            self.map.set(0, *wanted, 0).context("cannot write the table of tunnel ports")?;
            self.mirror = wanted;
        }
        Ok(())
    }
}
