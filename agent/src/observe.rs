//! What is learned from the kernel and from snapshots: decisions as they happen, hits of policies, and
//! whether the tables say what the rules say.
//!
//! In: snapshots, and handles that only read ([`podgate_datapath::DatapathReaders`]). Out: events, reports,
//! lines of the deny log and records to be exported. Nothing here can change a verdict, and no pass waits for
//! what happens here.

mod counting;
mod eviction_monitor;
mod flows;
pub mod hits;
mod kernel_check;
mod names_of_address;

pub use self::{
    counting::{HitCounting, HitView},
    eviction_monitor::EvictionMonitor,
    flows::{
        AddressOwners, DecidingPolicy, DecisionEvent, Denials, DenyLog, DenyLogWriter, EndOwner, EventEnd,
        EventVerdict, ExportCounts, ExportSignal, FlowClock, FlowExport, FlowHistory, FlowWindow, LogTarget,
        LostLines, MissingName, NameRole, Observer, ObserverCounts, PastFlow, QueuedDenial, RecordResult,
    },
    hits::{DirectionHits, HitReport, PolicyHits, RuleCount},
    kernel_check::{AskTables, check_tables},
    names_of_address::NamesOfAddress,
};

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    /// What writes to the kernel: the part of the agent that does, and the handles that it has.
    const WRITERS: [&str; 7] =
        ["control::", "Attacher", "BpfMaps", "Datapath,", "FlowCounterWriter", "NameWriter", "Publisher"];

    fn files(path: &Path) -> Vec<PathBuf> {
        match path.is_dir() {
            true => fs::read_dir(path).unwrap().flat_map(|entry| files(&entry.unwrap().path())).collect(),
            false => vec![path.to_owned()],
        }
    }

    #[test]
    fn who_observes_or_serves_names_nothing_that_writes_to_the_kernel() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let named = |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            WRITERS.into_iter().filter(|writer| text.contains(writer)).collect::<Vec<_>>()
        };
        assert!(named(&source.join("control.rs")).len() > 2, "these are the names that are in use");
        let parts = ["observe", "server", "server.rs", "api", "api.rs", "snapshot", "snapshot.rs"];
        let files: Vec<PathBuf> = parts.iter().flat_map(|part| files(&source.join(part))).collect();
        assert!(files.len() > 20, "{files:?}");
        for file in files {
            assert!(named(&file).is_empty(), "{}: {:?}", file.display(), named(&file));
        }
    }
}
