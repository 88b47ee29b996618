//! The table of link-layer addresses, written through a shared mapping: one store changes one veth's.
//!
//! In: the addresses by ifindex. Out: the array that the programs read. What an agent before this one has
//! left in it is read once, and goes with the first publication that does not want it.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use podgate_common::LinkAddress;

use super::mapping::Mapping;

/// The map with its mapping.
#[derive(Debug)]
pub struct LinkAddressTable {
    mapping: Mapping<AtomicU64>,
    /// What stands in it, by the number of the element.
    entries: BTreeMap<u32, LinkAddress>,
    /// Veths whose element another one has.
    unbound: BTreeSet<u32>,
}

impl LinkAddressTable {
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub(super) fn new(map: &OwnedFd) -> Result<Self> {
        let mapping = Mapping::new(map, LinkAddress::SLOTS as usize, true);
        let mapping = mapping.context("the table of link-layer addresses")?;
        let mut table = Self { mapping, entries: BTreeMap::new(), unbound: BTreeSet::new() };
        for slot in 0..LinkAddress::SLOTS {
            let address = LinkAddress(table.element(slot).load(Ordering::Acquire));
            if address != LinkAddress::NONE {
                table.entries.insert(slot, address);
            }
        }
        Ok(table)
    }

    /// Makes these all the addresses there are. Of two veths with one element the later device has it; the
    /// other one may send from any address, which is logged.
    pub fn set_all(&mut self, addresses: &BTreeMap<u32, [u8; 6]>) {
        let (wanted, unbound) = elements(addresses);
        for ifindex in unbound.difference(&self.unbound) {
            tracing::warn!(
                ifindex,
                "the link-layer address of this pod on a bridge is not checked: a later interface has the same index modulo {}",
                LinkAddress::SLOTS
            );
        }
        self.unbound = unbound;
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
        // SAFETY: it is there as long as the mapping, and only written by atomic stores.
        unsafe { self.mapping.element(slot as usize).as_ref() }
    }
}

/// What belongs into each element, and the veths that are left without one.
fn elements(addresses: &BTreeMap<u32, [u8; 6]>) -> (BTreeMap<u32, LinkAddress>, BTreeSet<u32>) {
    let (mut wanted, mut unbound) = (BTreeMap::new(), BTreeSet::new());
    for (&ifindex, &address) in addresses {
        let element = (ifindex, LinkAddress::new(ifindex, address));
        if let Some((earlier, _)) = wanted.insert(LinkAddress::slot(ifindex), element) {
            unbound.insert(earlier);
        }
    }
    (wanted.into_iter().map(|(slot, (_, address))| (slot, address)).collect(), unbound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_veths_with_one_element_the_later_has_it_and_the_other_is_named() {
        let (first, later) = (7, 7 + LinkAddress::SLOTS);
        let addresses =
            BTreeMap::from([(first, [2, 0, 0, 0, 0, 1]), (8, [2; 6]), (later, [2, 0, 0, 0, 0, 3])]);
        let (wanted, unbound) = elements(&addresses);
        assert_eq!(unbound, BTreeSet::from([first]));
        assert!(wanted[&7].is_of(later) && wanted[&8].is_of(8));
        assert_eq!(wanted.len(), 2);
    }
}
