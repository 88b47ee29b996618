//! The filter of addresses in the kernel, written through a shared mapping.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use podgate_common::FILTER_WORDS;
use podgate_core::address_filter::AddressFilter;

use super::mapping::Mapping;

/// The map, mapped only while it changes: its pages would count as the agent's memory. An agent finds in it
/// what the one before has put in.
#[derive(Debug)]
pub struct AddressFilterTable {
    map: OwnedFd,
    /// These and no others stand in it, if that is known: nearly every pass leaves it as it is.
    known: Option<[AddressFilter; 2]>,
}

/// Filters of which the kernel's is made.
type FilterParts<'a> = [&'a AddressFilter; 2];

impl AddressFilterTable {
    pub(super) const fn new(map: OwnedFd) -> Self {
        Self { map, known: None }
    }

    /// Puts these in. What is there stays.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn add(&mut self, filters: FilterParts<'_>) -> Result<()> {
        if !self.is_known_as(filters) {
            self.known = None;
            self.each_word(filters, |held, wanted| {
                held.fetch_or(wanted, Ordering::AcqRel);
            })?;
        }
        Ok(())
    }

    /// Whether all of one stand in it.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn has_all_of(&self, filter: &AddressFilter) -> Result<bool> {
        let mut has_all = true;
        self.each_word([filter, filter], |held, wanted| {
            has_all &= wanted & !held.load(Ordering::Acquire) == 0;
        })?;
        Ok(has_all)
    }

    /// Whether others may stand in it than these.
    pub fn may_have_others(&self, filters: FilterParts<'_>) -> bool {
        !self.is_known_as(filters)
    }

    /// Takes out all but these.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn keep(&mut self, filters: FilterParts<'_>) -> Result<()> {
        if !self.is_known_as(filters) {
            self.each_word(filters, |held, wanted| {
                held.fetch_and(wanted, Ordering::AcqRel);
            })?;
            self.known = Some(filters.map(AddressFilter::clone));
        }
        Ok(())
    }

    fn is_known_as(&self, filters: FilterParts<'_>) -> bool {
        let known = self.known.iter().flatten();
        self.known.is_some() && known.zip(filters).all(|(known, filter)| known.is(filter))
    }

    /// Each word of the kernel's, and as it is wanted.
    fn each_word(&self, filters: FilterParts<'_>, mut act: impl FnMut(&AtomicU64, u64)) -> Result<()> {
        let mapping =
            Mapping::new(&self.map, FILTER_WORDS as usize, true).context("the filter of addresses")?;
        for (number, held) in (0..).zip(mapping.elements()) {
            // SAFETY: it is there as long as the mapping, and only written by atomic operations.
            act(unsafe { held.as_ref() }, filters.iter().fold(0, |word, filter| word | filter.word(number)));
        }
        Ok(())
    }
}
