//! Sets of ports as bit sets of port classes.

use std::collections::HashMap;

use podgate_common::{BITS_PER_ROW, Row};

use super::set;
use crate::{
    compiler::{Classes, Shared},
    model::PortSet,
};

/// The port classes of each set of ports, as bits.
pub(super) struct ClassBits {
    pub(super) all: Box<[Row]>,
    by_set: HashMap<Shared<PortSet>, Box<[Row]>>,
}

impl ClassBits {
    pub(super) fn new<'a>(classes: &Classes, sets: impl IntoIterator<Item = &'a Shared<PortSet>>) -> Self {
        let blocks = classes.signatures.len().div_ceil(usize::from(BITS_PER_ROW));
        let none = || vec![Row::default(); blocks].into_boxed_slice();
        let mut all = none();
        (0..classes.signatures.len()).for_each(|class| set(&mut all, class));
        let mut by_set: HashMap<Shared<PortSet>, Box<[Row]>> = HashMap::new();
        for ports in sets {
            by_set.entry(ports.clone()).or_insert_with(|| {
                let mut bits = none();
                classes.of(ports).for_each(|class| set(&mut bits, class));
                bits
            });
        }
        Self { all, by_set }
    }

    /// Empty for the empty set alone: classes are made from the sets of these rule sets.
    pub(super) fn of(&self, ports: &Shared<PortSet>) -> &[Row] {
        self.by_set.get(ports).map_or(&[], |bits| &bits[..])
    }

    pub(super) fn none(&self) -> Box<[Row]> {
        vec![Row::default(); self.all.len()].into_boxed_slice()
    }
}
