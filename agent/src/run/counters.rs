//! The kernel's counters and table sizes, in the forms in which the servers read them.

use std::sync::Arc;

use podgate_common::Untold;

use crate::{
    api::{Counted, Counter, Evictions, Lost},
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
                .map(|(eviction, connections)| Evictions {
                    state: eviction.state().into(),
                    newcomer: eviction.newcomer().into(),
                    connections,
                })
                .collect(),
            lost: lost(counters.untold()?),
        })
    };
    Arc::new(move || read().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default())
}

fn lost(counts: impl IntoIterator<Item = (Untold, u64)>) -> Lost {
    let mut lost = Lost::default();
    for (cause, count) in counts {
        *match cause {
            Untold::Event => &mut lost.events,
            Untold::EventOfShare => &mut lost.events_of_share,
            Untold::Tally => &mut lost.uncounted,
            Untold::TallyOfShare => &mut lost.unattributed,
            Untold::Fragment => &mut lost.fragments,
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
