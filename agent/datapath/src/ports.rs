//! A table of port classes, written through a shared mapping: one store changes one port, none is ever half
//! written.

use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type};
use podgate_common::{ClassId, PortClasses, RuleProtocol};

use super::mapping::Mapping;

/// Elements of the array.
#[expect(clippy::cast_possible_truncation, reason = "protocols are few")]
const ELEMENTS: u32 = RuleProtocol::ALL.len() as u32;
const PORTS: usize = 65_536;
const VALUE_BYTES: u32 = 2 * 65_536;
const _: () = assert!(VALUE_BYTES as usize == size_of::<PortClasses>());

/// One inner map of `PORTS`, with its mapping.
#[derive(Debug)]
pub struct PortTable {
    map: MapData,
    mapping: Mapping<[AtomicU16; PORTS]>,
    /// What was written, so that only changes are.
    mirror: Box<[ClassId]>,
    writes: u64,
}

impl PortTable {
    /// # Errors
    ///
    /// When the kernel refuses the map or its mapping.
    pub(super) fn create() -> Result<Self> {
        let map = aya_obj::Map::new_from_params(
            bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
            4,
            VALUE_BYTES,
            ELEMENTS,
            BPF_F_MMAPABLE,
        );
        let map = MapData::create(map, "ports", None).context("cannot make the table of ports")?;
        let mapping = Mapping::new(map.fd(), ELEMENTS as usize, true).context("the table of ports")?;
        let mirror = vec![ClassId::NONE; ELEMENTS as usize * PORTS].into_boxed_slice();
        Ok(Self { map, mapping, mirror, writes: 0 })
    }

    pub(super) const fn map(&self) -> &MapData {
        &self.map
    }

    /// How often this process has changed the class of a port.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    /// Sets the classes of all ports of a protocol. `runs`: first port of each run of one class, from 0 on.
    pub fn set_all(&mut self, protocol: RuleProtocol, runs: &[(u16, ClassId)]) {
        let element = protocol.index() as usize;
        // SAFETY: it is there as long as the mapping, and only written by atomic stores.
        let ports = unsafe { self.mapping.element(element).as_ref() };
        let mirror = &mut self.mirror[element * PORTS..][..PORTS];
        for (at, &(first, class)) in runs.iter().enumerate() {
            let end = runs.get(at + 1).map_or(PORTS, |&(next, _)| usize::from(next));
            let run = usize::from(first)..end;
            for (port, known) in ports[run.clone()].iter().zip(&mut mirror[run]) {
                if *known != class {
                    *known = class;
                    self.writes += 1;
                    port.store(class.0, Ordering::Release);
                }
            }
        }
    }
}
