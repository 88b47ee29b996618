//! The kernel's counters and table sizes, in the forms in which the servers read them.

use std::sync::Arc;

use crate::{
    api::{Counted, Counter, Evictions},
    kernel::{Counters, ProgramTables},
    report,
    server::{CountTables, ReadCounters},
};

pub(super) fn read_counters(counters: Arc<Counters>) -> ReadCounters {
    let read = move || {
        let packets = counters.read()?.into_iter();
        let evictions = counters.evictions()?.into_iter();
        Ok::<_, anyhow::Error>(Counted {
            packets: packets
                .map(|(direction, outcome, packets)| Counter { direction, outcome, packets })
                .collect(),
            evictions: evictions
                .map(|(eviction, connections)| Evictions { state: eviction.name().into(), connections })
                .collect(),
            untold: counters.untold()?.map(|(_, count)| count),
        })
    };
    Arc::new(move || read().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default())
}

pub(super) fn count_tables(tables: Arc<ProgramTables>) -> CountTables {
    Arc::new(move || {
        let fill = tables.fill().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default();
        fill.into_iter().map(report::fill).collect()
    })
}
