//! How full the tables are that the programs write. Nobody keeps count of these, so their entries are counted when
//! somebody asks. Readable from any thread.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, maps::Map};

use super::sys;

/// The tables of connections and of fragments. Both throw the entry away that was not used for longest when they need
/// room: a full one is nothing to worry about, but one that is full of what is in use is too small.
#[derive(Debug)]
pub struct ProgramTables([ProgramTable; 2]);

#[derive(Debug)]
struct ProgramTable {
    name: &'static str,
    map: OwnedFd,
    /// Bytes.
    key: usize,
    value: usize,
    room: u32,
}

impl ProgramTables {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self([table(ebpf, "flows", "FLOWS")?, table(ebpf, "fragments", "FRAGMENTS")?]))
    }

    /// Entries and room of each table. Takes 0.2 s for 262,144 connections, 5 ms for none.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer (it must have `BPF_MAP_LOOKUP_BATCH`, Linux 5.6).
    pub fn fill(&self) -> Result<Vec<(&'static str, usize, Option<u32>)>> {
        let fill = |table: &ProgramTable| {
            let entries = sys::count(&table.map, table.key, table.value, table.room)
                .with_context(|| format!("cannot count the {}", table.name))?;
            Ok((table.name, entries, Some(table.room)))
        };
        self.0.iter().map(fill).collect()
    }
}

fn table(ebpf: &Ebpf, name: &'static str, map: &str) -> Result<ProgramTable> {
    let Some(Map::LruHashMap(data)) = ebpf.map(map) else { bail!("the BPF object has no LRU hash {map}") };
    let info = data.info().with_context(|| format!("cannot learn the size of map {map}"))?;
    Ok(ProgramTable {
        name,
        map: data.fd().as_fd().try_clone_to_owned().with_context(|| format!("cannot keep map {map} open"))?,
        key: info.key_size() as usize,
        value: info.value_size() as usize,
        room: info.max_entries(),
    })
}
