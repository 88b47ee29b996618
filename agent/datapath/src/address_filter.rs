//! The filters of addresses in the kernel, written through a shared mapping.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use podgate_common::{FILTER_WORDS, FilteredAs};
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

/// By the number of [`FilteredAs`].
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

    /// Whether all of these stand in it, as addresses that lead to tunnels.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn has_all_tunnels(&self, filter: &AddressFilter) -> Result<bool> {
        let mut has_all = true;
        self.each_word([&AddressFilter::default(), filter], |held, wanted| {
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
        let all = (FILTER_WORDS * FilteredAs::COUNT) as usize;
        let mapping = Mapping::new(&self.map, all, true).context("the filters of addresses")?;
        let wanted = filters.into_iter().flat_map(|filter| (0..FILTER_WORDS).map(|at| filter.word(at)));
        for (wanted, held) in wanted.zip(mapping.elements()) {
            // SAFETY: it is there as long as the mapping, and only written by atomic operations.
            act(unsafe { held.as_ref() }, wanted);
        }
        Ok(())
    }
}
