//! The kernel's counters and table sizes, in the forms in which the servers read them.

use std::sync::Arc;

use podgate_common::Unreported;
use podgate_datapath::{Counters, ProgramTables};

use crate::{
    api::{Counter, Evictions, KernelCounters, Lost},
    report,
    server::{CountTables, ReadCounters},
};

pub(super) fn read_counters(counters: Arc<Counters>) -> ReadCounters {
    let read = move || {
        let packets = counters.read()?.into_iter();
        let evictions = counters.evictions()?.into_iter();
        Ok::<_, anyhow::Error>(KernelCounters {
            packets: packets
                .map(|(direction, outcome, packets)| Counter { direction, outcome, packets })
                .collect(),
            evictions: evictions
                .map(|(eviction, connections)| Evictions {
                    state: eviction.state().into(),
                    newcomer: eviction.newcomer().into(),
                    connections,
                })
                .collect(),
            lost: lost(counters.unreported()?),
        })
    };
    Arc::new(move || read().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default())
}

fn lost(counts: impl IntoIterator<Item = (Unreported, u64)>) -> Lost {
    let mut lost = Lost::default();
    for (cause, count) in counts {
        *match cause {
            Unreported::Event => &mut lost.events,
            Unreported::EventOfShare => &mut lost.events_of_share,
            Unreported::FlowCounter => &mut lost.uncounted,
            Unreported::CounterOfShare => &mut lost.unattributed,
            Unreported::Fragment => &mut lost.fragments,
        } = count;
    }
    lost
}

pub(super) fn count_tables(tables: Arc<ProgramTables>) -> CountTables {
    Arc::new(move || {
        let fill = tables.fill().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default();
        fill.into_iter().map(report::fill).collect()
    })
}
