//! A table of port classes, written through a shared mapping: one store changes one port, none is ever half
//! written.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type};
use podgate_common::{ClassId, PortClasses, Protocol};

/// Elements of the array: one for each protocol that has ports.
const ELEMENTS: u32 = 3;
const PORTS: usize = 65_536;
const VALUE_BYTES: u32 = 2 * 65_536;
const BYTES: usize = ELEMENTS as usize * VALUE_BYTES as usize;
const _: () = assert!(VALUE_BYTES as usize == size_of::<PortClasses>());

/// One inner map of `PORTS`, with its mapping.
#[derive(Debug)]
pub struct PortTable {
    map: MapData,
    /// `BYTES` bytes, page-aligned.
    mapping: NonNull<AtomicU16>,
    /// What was written, so that only changes are.
    mirror: Box<[ClassId]>,
    writes: u64,
}

// SAFETY: the mapping is shared memory that is only written by atomic stores.
unsafe impl Send for PortTable {}

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
        let descriptor = map.fd().as_fd().as_raw_fd();
        // SAFETY: a new mapping of a map of this size; the kernel chooses the address.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                descriptor,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map the table of ports");
        }
        let mapping = NonNull::new(address.cast()).context("the kernel mapped the table of ports at 0")?;
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
    pub fn set_all(&mut self, protocol: Protocol, runs: &[(u16, ClassId)]) {
        let base = protocol.index() as usize * PORTS;
        for (at, &(first, class)) in runs.iter().enumerate() {
            let end = runs.get(at + 1).map_or(PORTS, |&(next, _)| usize::from(next));
            for place in base + usize::from(first)..base + end {
                if self.mirror[place] != class {
                    self.mirror[place] = class;
                    self.writes += 1;
                    // SAFETY: inside the mapping, which lives as long as `self`; aligned, because the mapping
                    // is.
                    unsafe { self.mapping.add(place).as_ref() }.store(class.0, Ordering::Release);
                }
            }
        }
    }
}

impl Drop for PortTable {
    fn drop(&mut self) {
        // SAFETY: made by `create` with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), BYTES) };
    }
}
