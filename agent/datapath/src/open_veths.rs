//! The table of veths between which packets may take the short cut, written through a shared mapping.

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use podgate_common::OpenVeth;

use super::mapping::Mapping;

/// The map with its mapping. It is empty at the start, for it is no agent's but this one's.
#[derive(Debug)]
pub struct OpenVethTable {
    mapping: Mapping<AtomicU64>,
    open: BTreeSet<u32>,
}

impl OpenVethTable {
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub(super) fn new(map: &OwnedFd) -> Result<Self> {
        let mapping = Mapping::new(map, OpenVeth::SLOTS as usize, true).context("the table of open veths")?;
        Ok(Self { mapping, open: BTreeSet::new() })
    }

    /// Says that these are open, by ifindex, and no others; `now`: in ticks. It holds for
    /// [`OpenVeth::SECONDS`].
    pub fn set_all(&mut self, open: BTreeSet<u32>, now: u32) {
        for &ifindex in self.open.difference(&open) {
            self.element(ifindex).store(OpenVeth::NONE.0, Ordering::Release);
        }
        for &ifindex in &open {
            self.element(ifindex).store(OpenVeth::new(ifindex, now).0, Ordering::Release);
        }
        self.open = open;
    }

    fn element(&self, ifindex: u32) -> &AtomicU64 {
        // SAFETY: it is there as long as the mapping, and only written by atomic stores.
        unsafe { self.mapping.element(OpenVeth::slot(ifindex) as usize).as_ref() }
    }
}
