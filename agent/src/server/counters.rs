//! The kernel's counters and table sizes, in the forms of the socket and the metrics.

use std::sync::Arc;

use podgate_common::{NameCount, Unreported};
use podgate_datapath::{Counters, ProgramTables};

use super::{CountTables, ReadCounters};
use crate::{
    api::{AgentNameCounts, Counter, Evictions, KernelCounters, Lost, NameCounts},
    names::{NameWork, NameWorkCounts},
    snapshot::TableSize,
};

pub fn read_counters(counters: Arc<Counters>, name_work: NameWork) -> ReadCounters {
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
            shortcut: counters.shortcut()?,
            names: names(counters.names()?, name_work.read()),
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

fn names(counts: impl IntoIterator<Item = (NameCount, u64)>, work: NameWorkCounts) -> NameCounts {
    let NameWorkCounts { answered, unanswered, left_out, entered, renewed } = work;
    let agent = AgentNameCounts { answered, unanswered, left_out, entered, renewed };
    let mut names = NameCounts { agent, ..NameCounts::default() };
    for (what, count) in counts {
        *match what {
            NameCount::Learnt => &mut names.learnt,
            NameCount::Evicted => &mut names.evicted,
            NameCount::Refused => &mut names.refused,
            NameCount::Cut => &mut names.cut,
            NameCount::Unlearnt => &mut names.unlearnt,
            NameCount::Malformed => &mut names.malformed,
        } = count;
    }
    names
}

pub fn count_tables(tables: Arc<ProgramTables>) -> CountTables {
    Arc::new(move || {
        let fill = tables.fill().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default();
        let size = |(name, entries, capacity)| TableSize { name, entries, capacity }.into();
        fill.into_iter().map(size).collect()
    })
}
