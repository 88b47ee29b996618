//! The filter of addresses (`podgate_common::filter_bits`) in user space.
//!
//! In: addresses. Out: for the kernel, its words; here, whether an address may be among them. Nothing can be
//! taken out: it is made again when that is needed.

use std::{fmt, net::IpAddr, sync::Arc};

use podgate_common::{Address, FILTER_WORDS, filter_bits};

/// Takes no memory while it is empty, then 512 KiB, which copies share.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AddressFilter(Option<Arc<[u64]>>);

impl AddressFilter {
    /// Of these addresses.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut addresses = addresses.into_iter().map(Address::from).peekable();
        if addresses.peek().is_none() {
            return Self(None);
        }
        let mut words = vec![0; FILTER_WORDS as usize];
        for address in addresses {
            filter_bits(&address).for_each(|bit| words[bit.word as usize] |= bit.mask);
        }
        Self(Some(words.into()))
    }

    /// Whether nothing was put in.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is a copy of another one: they have the same without a look at it.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(words), Some(others)) => Arc::ptr_eq(words, others),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Whether an address may be one of those that were put in; it is none of them if not, or if no service
    /// can have it.
    pub fn may_have(&self, address: IpAddr) -> bool {
        let address = Address::from(address);
        !self.is_empty()
            && address.may_be_a_services()
            && filter_bits(&address).all(|bit| self.word(bit.word) & bit.mask != 0)
    }

    /// A word, by its number.
    pub fn word(&self, number: u32) -> u64 {
        self.0.as_ref().and_then(|words| words.get(number as usize)).copied().unwrap_or_default()
    }
}

impl fmt::Debug for AddressFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits: u32 = self.0.iter().flat_map(|words| words.iter()).map(|word| word.count_ones()).sum();
        write!(f, "AddressFilter({bits} bits)")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn what_was_put_in_is_there_and_hardly_anything_else() {
        let v4 = |number: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 ^ number));
        let v6 = |number: u32| IpAddr::from(Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number)));
        for address in [&v4 as &dyn Fn(u32) -> IpAddr, &v6] {
            let filter = AddressFilter::of((0..75_000).map(address));
            assert!((0..75_000).all(|number| filter.may_have(address(number))));
            let others = 0x8000_0000_u32..0x8010_0000;
            let taken = others.filter(|number| filter.may_have(address(*number)));
            // Of a million, two in 100,000 are expected.
            assert!(taken.count() < 60);
        }
    }

    #[test]
    fn an_empty_one_has_nothing() {
        let filter = AddressFilter::of([]);
        assert!(filter.is_empty() && filter == AddressFilter::default());
        assert!(!filter.may_have(IpAddr::from([0, 0, 0, 0])));
    }
}
