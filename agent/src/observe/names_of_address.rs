//! The names that a pod has learnt for an address, for those who attribute what has passed.

use std::{fmt, net::IpAddr, sync::Arc};

use anyhow::Result;
use podgate_common::Direction;
use podgate_core::compiler::NamePlace;
use podgate_datapath::names::{LearntAddress, NameReader};

use super::MissingName;
use crate::{names::UntrustedServers, snapshot::Context};

/// Looks an address up in the table with a number.
type LookUp = Arc<dyn Fn(u32, IpAddr) -> Result<Vec<LearntAddress>> + Send + Sync>;

/// Where names of addresses are found. Copies share it.
#[derive(Clone)]
pub struct NamesOfAddress {
    look_up: LookUp,
    untrusted: UntrustedServers,
}

/// What a pod has learnt an address for.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundNames {
    pub(super) names: Vec<NamePlace>,
    /// One of them counts now.
    pub(super) has_live: bool,
    /// The pod has rules with names, and none of them has the address.
    pub(super) missing: Option<MissingName>,
}

impl NamesOfAddress {
    pub fn new(look_up: impl Fn(u32, IpAddr) -> Result<Vec<LearntAddress>> + Send + Sync + 'static) -> Self {
        Self { look_up: Arc::new(look_up), untrusted: UntrustedServers::default() }
    }

    pub fn of(reader: NameReader, untrusted: UntrustedServers) -> Self {
        Self { untrusted, ..Self::new(move |table, address| reader.find(table, address)) }
    }

    /// Of a connection of the pod behind a veth, those that have ended, too. None where the pod has no rules
    /// with names, and of ingress.
    pub(super) fn find(
        &self,
        context: &Context,
        ifindex: u32,
        direction: Direction,
        peer: IpAddr,
    ) -> FoundNames {
        let table = context.name_tables.get(&ifindex).filter(|_| direction == Direction::Egress);
        let Some(table) = table else { return FoundNames::default() };
        let found = (self.look_up)(*table, peer).inspect_err(|error| tracing::warn!("{error:#}"));
        let found = found.unwrap_or_default();
        let pod = context.pods.get(&ifindex);
        let is_untrusted = pod.is_some_and(|pod| !self.untrusted.of(&pod.name).is_empty());
        let missing = if is_untrusted { MissingName::ResolverUntrusted } else { MissingName::NameUnlearnt };
        FoundNames {
            missing: found.is_empty().then_some(missing),
            has_live: found.iter().any(|learnt| learnt.left.is_some()),
            names: found.into_iter().map(|learnt| learnt.name).collect(),
        }
    }
}

impl fmt::Debug for NamesOfAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamesOfAddress").finish_non_exhaustive()
    }
}
