//! The table of link-layer addresses, written through a shared mapping: one store changes one veth's.
//!
//! In: the addresses by ifindex. Out: the array that the programs read. What an agent before this one has
//! left in it is read once, and goes with the first publication that does not want it.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use podgate_common::LinkAddress;

const BYTES: usize = LinkAddress::SLOTS as usize * size_of::<LinkAddress>();

/// The map with its mapping.
#[derive(Debug)]
pub struct LinkAddressTable {
    /// `BYTES` bytes, page-aligned.
    mapping: NonNull<AtomicU64>,
    /// What stands in it, by the number of the element.
    entries: BTreeMap<u32, LinkAddress>,
}

// SAFETY: the mapping is shared memory that is only written by atomic stores.
unsafe impl Send for LinkAddressTable {}

impl LinkAddressTable {
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub(super) fn new(map: &OwnedFd) -> Result<Self> {
        // SAFETY: a new mapping of a map of this size; the kernel chooses the address.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map the table of link-layer addresses");
        }
        let mapping = NonNull::new(address.cast()).context("the kernel mapped a table at 0")?;
        let mut table = Self { mapping, entries: BTreeMap::new() };
        for slot in 0..LinkAddress::SLOTS {
            let address = LinkAddress(table.element(slot).load(Ordering::Acquire));
            if address != LinkAddress::NONE {
                table.entries.insert(slot, address);
            }
        }
        Ok(table)
    }

    /// Makes these all the addresses there are. Of two veths with one element the later device has it.
    pub fn set_all(&mut self, addresses: &BTreeMap<u32, [u8; 6]>) {
        let wanted: BTreeMap<u32, LinkAddress> = addresses
            .iter()
            .map(|(&ifindex, &address)| (LinkAddress::slot(ifindex), LinkAddress::new(ifindex, address)))
            .collect();
        for &slot in self.entries.keys().filter(|slot| !wanted.contains_key(slot)) {
            self.element(slot).store(LinkAddress::NONE.0, Ordering::Release);
        }
        for (&slot, &address) in
            wanted.iter().filter(|(slot, address)| self.entries.get(slot) != Some(address))
        {
            self.element(slot).store(address.0, Ordering::Release);
        }
        self.entries = wanted;
    }

    fn element(&self, slot: u32) -> &AtomicU64 {
        // SAFETY: inside the mapping, which lives as long as `self`; aligned, because the mapping is.
        unsafe { self.mapping.add((slot % LinkAddress::SLOTS) as usize).as_ref() }
    }
}

impl Drop for LinkAddressTable {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), BYTES) };
    }
}
