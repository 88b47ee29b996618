//! How full the tables are that the programs write. No one keeps count of these, so their entries are counted
//! when somebody asks. Readable from any thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, maps::Map};

use super::{
    flows::{FlowTableReader, OpenedServer},
    sys,
};

/// The tables of connections and of fragments. What needs room in them takes the place of what is worth
/// least: a full one is nothing to worry about, but one that is full of what is in use is too small.
#[derive(Debug)]
pub struct ProgramTables {
    flows: FlowTableReader,
    fragments: Fragments,
}

#[derive(Debug)]
struct Fragments {
    map: OwnedFd,
    /// Bytes.
    key: usize,
    value: usize,
    room: u32,
}

impl ProgramTables {
    pub(super) fn new(ebpf: &Ebpf, flows: FlowTableReader) -> Result<Self> {
        let Some(Map::LruHashMap(data)) = ebpf.map(FRAGMENTS) else {
            bail!("the BPF object has no LRU hash {FRAGMENTS}")
        };
        let info = data.info().context("cannot learn the size of the table of fragments")?;
        let fragments = Fragments {
            map: data.fd().as_fd().try_clone_to_owned().context("cannot keep the fragments open")?,
            key: info.key_size() as usize,
            value: info.value_size() as usize,
            room: info.max_entries(),
        };
        Ok(Self { flows, fragments })
    }

    /// How many connections these veths (by ifindex) have opened to each address, and not ended. It reads the
    /// whole table of connections: some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn opened_by(&self, veths: &BTreeSet<u32>) -> Result<BTreeMap<(u32, IpAddr), usize>> {
        self.flows.opened_by(veths)
    }

    /// To which servers these veths (by ifindex) have connections that they have opened and not ended. It
    /// reads the whole table of connections: some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn servers_of(&self, veths: &BTreeSet<u32>) -> Result<BTreeSet<OpenedServer>> {
        self.flows.servers_of(veths)
    }

    /// Entries and room of each table.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer (it must have `BPF_MAP_LOOKUP_BATCH`, Linux 5.6).
    pub fn fill(&self) -> Result<[(&'static str, usize, Option<u32>); 2]> {
        let Fragments { map, key, value, room } = &self.fragments;
        let fragments = sys::count(map, *key, *value, *room).context("cannot count the fragments")?;
        Ok([
            ("flows", self.flows.count()?, Some(self.flows.capacity())),
            ("fragments", fragments, Some(*room)),
        ])
    }
}

const FRAGMENTS: &str = "FRAGMENTS";
