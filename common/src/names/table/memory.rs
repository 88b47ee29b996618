//! Access to memory that others read and write: whole words, in the order of the code, none left out by the
//! compiler. In tests it may be the memory of a model.

#[cfg(not(test))]
pub(super) use core::ptr::{read_volatile as read, write_volatile as write};

#[cfg(test)]
pub(super) use crate::names::tests::modelled::{read, write};
