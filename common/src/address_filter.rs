//! A filter of addresses (a Bloom filter): it may say of any address that it is one of those that were put
//! in, and never says of one of those that it is none.
//!
//! A tenant may list any number of addresses on Services. All that go beyond the limit of their namespace
//! stand in one filter of fixed size, so that no tenant takes the memory of the others. An address that is
//! taken for one of them is evaluated later or dropped, never let through.

use crate::Address;

/// As what an address was put in: each has a filter of its own. Anyone can choose addresses whose bits cover
/// those of another one, and a service must close no more than a service may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum FilteredAs {
    /// One of a service.
    Service = 0,
    /// One of a service that leads to a tunnel of a node.
    Tunnel = 1,
}

impl FilteredAs {
    /// How many there are.
    pub const COUNT: u32 = 2;

    /// Where its filter begins among the words of all.
    #[inline(always)]
    pub const fn first_word(self) -> u32 {
        match self {
            Self::Service => 0,
            Self::Tunnel => FILTER_WORDS,
        }
    }
}

/// Where one of the bits of an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterBit {
    /// Below [`FILTER_WORDS`].
    pub word: u32,
    /// The bit in it.
    pub mask: u64,
}

/// Words of 64 bits of one filter: 512 KiB. One Service of the largest size that an API server takes, with
/// 75,000 addresses, sets 7 % of the bits: of others, two in 100,000 are then taken for one of them.
pub const FILTER_WORDS: u32 = 65_536;

const BITS: u32 = FILTER_WORDS * u64::BITS;
const BITS_OF_AN_ADDRESS: u32 = 4;

/// The bits of an address. All are set if it was put in.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
pub fn filter_bits(address: &Address) -> impl Iterator<Item = FilterBit> {
    let [upper, lower] = address.halves();
    let mixed = mix(mix(upper) ^ lower);
    // Two hashes make any number of them (Kirsch and Mitzenmacher, Less Hashing, Same Performance).
    let (first, step) = (mixed as u32, (mixed >> 32) as u32 | 1);
    (0..BITS_OF_AN_ADDRESS).map(move |number| {
        let bit = first.wrapping_add(number.wrapping_mul(step)) % BITS;
        FilterBit { word: bit / u64::BITS, mask: 1 << (bit % u64::BITS) }
    })
}

/// Spreads each bit over all of them (the finalizer of splitmix64).
#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

const _: () = assert!(BITS.is_power_of_two());

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, vec::Vec};

    use super::*;

    fn bits(number: u32) -> Vec<FilterBit> {
        filter_bits(&Address::from_v4(number.to_be_bytes())).collect()
    }

    #[test]
    fn each_address_has_bits_of_its_own() {
        for number in 0..10_000 {
            let of_address = bits(number);
            assert!(of_address.len() == 4 && of_address != bits(number + 1));
            assert!(of_address.iter().all(|bit| bit.word < FILTER_WORDS && bit.mask.count_ones() == 1));
        }
    }

    #[test]
    fn addresses_of_one_network_are_spread_over_the_whole_filter() {
        let words: BTreeSet<u32> =
            (0..65_536).flat_map(|number| bits(0xc633_0000 + number)).map(|bit| bit.word).collect();
        // 262,144 balls in 65,536 bins leave 1.8 % of them empty.
        let expected = f64::from(FILTER_WORDS) * (1.0 - (-4.0_f64).exp());
        let found = f64::from(u32::try_from(words.len()).unwrap());
        assert!((found / expected - 1.0).abs() < 0.01, "{found} of {expected}");
    }
}
