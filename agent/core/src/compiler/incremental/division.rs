//! Which ports, networks and names the rule sets in use distinguish, and which of them are closed because
//! that is too much.
//!
//! In: what rule sets mention now and did not, or the other way round. Out: the classes of ports of before,
//! if they are others now. Mostly nothing is closed, and only what changed is divided again.

use std::sync::Arc;

use super::{Incremental, Mentioned, Reclassified};
use crate::compiler::{
    atoms::{Holder, blocks},
    classes, limits, names, prefixes,
};

impl Incremental {
    /// Tells ports and networks apart as the rule sets in use do. Out: what was known of ports until now, if
    /// they may be distinguished otherwise.
    pub(super) fn divide(&mut self, mentioned: &Mentioned) -> Option<Reclassified> {
        let has_ports = !mentioned.port_sets.is_empty();
        let has_blocks = mentioned.is_any_of(Holder::Networks);
        let has_names = mentioned.is_any_of(Holder::Names);
        let is_replaced = !mentioned.rule_sets.is_empty() || !mentioned.gone.is_empty();
        if self.tables.closed.is_empty() {
            if !has_ports && !has_blocks && !has_names {
                return None;
            }
            if let Some(reclassified) = self.divide_all(has_ports, has_blocks) {
                return reclassified;
            }
        } else if !is_replaced {
            return None;
        }
        let contents = self.rule_sets.contents();
        let in_use = self.in_use.iter().map(|index| (*index, &contents[index]));
        let (limits::Groups { classes, prefixes }, closed) =
            limits::groups_of(in_use, &self.limits, &mut self.found);
        self.claims.set_prefixes(prefixes);
        let closed = std::mem::replace(&mut self.tables.closed, Arc::new(closed));
        Some(Reclassified { closed, classes: std::mem::replace(&mut self.tables.classes, Arc::new(classes)) })
    }

    /// When everything was open until now: `None`, and nothing is done, when it cannot stay so.
    fn divide_all(&mut self, has_ports: bool, has_blocks: bool) -> Option<Option<Reclassified>> {
        let limits = &self.limits;
        if names::label_count(self.atoms.keys()) > limits.labels {
            return None;
        }
        let classes = if has_ports { Some(classes::compile(self.port_sets.keys(), limits)?) } else { None };
        let prefixes =
            if has_blocks { Some(prefixes::compile(&blocks(self.atoms.keys()), limits)?) } else { None };
        let address_groups = match &prefixes {
            Some(prefixes) => limits::address_groups(prefixes.values().map(Arc::as_ptr)),
            None => limits::address_groups(self.tables.identities.prefixes.values()),
        };
        if !limits::fits(classes.as_ref().unwrap_or(&self.tables.classes), address_groups, limits) {
            return None;
        }
        if let Some(prefixes) = prefixes {
            self.claims.set_prefixes(prefixes);
        }
        Some(classes.map(|classes| Reclassified {
            closed: Arc::default(),
            classes: std::mem::replace(&mut self.tables.classes, Arc::new(classes)),
        }))
    }
}
