//! The configuration, as constants in the code: the agent puts its words in before it loads the programs.

use core::{arch::asm, hint::assert_unchecked, mem::offset_of};

use podgate_common::{Config, FlowSeed, Seed};

/// One field of the configuration, a word.
macro_rules! config {
    ($($field:ident).+) => {
        $crate::config::word::<{ core::mem::offset_of!(podgate_common::Config, $($field).+) }>()
    };
}

pub(crate) use config;

/// The word at an offset.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it has 31 bits")]
pub(crate) fn word<const OFFSET: usize>() -> u32 {
    wide::<OFFSET>() as u32
}

/// The same as it stands in its register: to compute with words of 32 bits takes more instructions.
#[inline(always)]
pub(crate) fn wide<const OFFSET: usize>() -> u64 {
    let word: u64;
    // SAFETY: sets a register, by the instruction that the agent looks for. No word is larger.
    unsafe {
        asm!("{} = {}", out(reg) word, const Config::PLACEHOLDER as usize + OFFSET,
            options(nomem, nostack, preserves_flags));
        assert_unchecked(word <= u64::from(Config::MAX_WORD));
    }
    word
}

/// The seed of the flow table.
pub(crate) struct ConfiguredSeed;

impl Seed for ConfiguredSeed {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        const START: usize = offset_of!(Config, flow_seed);
        const _: () = assert!(size_of::<FlowSeed>() == 40);
        match at {
            0 => wide::<{ START }>(),
            1 => wide::<{ START + 4 }>(),
            2 => wide::<{ START + 8 }>(),
            3 => wide::<{ START + 12 }>(),
            4 => wide::<{ START + 16 }>(),
            5 => wide::<{ START + 20 }>(),
            6 => wide::<{ START + 24 }>(),
            7 => wide::<{ START + 28 }>(),
            8 => wide::<{ START + 32 }>(),
            _ => wide::<{ START + 36 }>(),
        }
    }
}
