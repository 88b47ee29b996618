//! What a walk has found, once it has ended.

use super::{Next, Walk};
use crate::packet::{forget, overwrite};

impl Walk {
    /// How it ended, after its last step.
    #[inline(always)]
    pub fn next(&self) -> Next {
        forget(&self.next)
    }

    /// Whose table learns.
    #[inline(always)]
    pub fn table(&self) -> u32 {
        forget(&self.table)
    }

    /// Where the message begins in the packet.
    #[inline(always)]
    pub fn message_start(&self) -> u32 {
        forget(&self.message)
    }

    /// Whether the packet is a datagram for a name of rules of which something is missing: the rest of it is
    /// in other fragments, or could not be learnt.
    #[inline(always)]
    pub fn wants_cut(&self) -> bool {
        let is_missing = forget(&self.is_fragment) != 0 || forget(&self.unlearnt) != 0;
        forget(&self.first) == 0 && is_missing && self.is_matched() && forget(&self.question_end) != 0
    }

    /// Whether rules have any of the names.
    #[inline(always)]
    pub fn is_matched(&self) -> bool {
        forget(&self.known) != 0
    }

    /// Notes a message of which not all that counts was learnt.
    #[inline(always)]
    pub fn note_unlearnt(&mut self) {
        let unlearnt = forget(&self.unlearnt) + 1;
        overwrite(&mut self.unlearnt, unlearnt);
    }
}
