//! What is exposed, by an example that has samples of each family.

mod monitoring;
mod reference;

use podgate_common::Outcome;
use podgate_core::model::ObjectName;

use super::*;
use crate::{
    api::{self, AgentNameCounts},
    observe::{ExportCounts, ExportSignal, RecordResult},
};

/// Has samples of each family.
pub(super) fn example() -> String {
    let mut status = Status::example();
    status.sources[0].name = "a \"b\"\\\nc".into();
    status.holds = api::Holds { long: 3, expired: 1 };
    status.unenforced = vec![api::UnenforcedPod {
        pod: "x/a".into(),
        reason: "macvlan".into(),
        detail: "it is".into(),
        age_seconds: 9,
    }];
    let hits = HitReport {
        drops: (0..600)
            .map(|pod| {
                let pod = ObjectName::new("x", format!("p{pod:03}"));
                ((pod, Direction::Ingress, Outcome::Denied), 2)
            })
            .collect(),
        ..HitReport::example()
    };
    let events = ObserverCounts { denied: 7, skipped: 2, ..ObserverCounts::default() };
    status.lost = Lost { events: 4, events_of_share: 3, uncounted: 1, unattributed: 9, fragments: 5 };
    let agent = AgentNameCounts { answered: 21, unanswered: 22, left_out: 23, entered: 24, renewed: 25 };
    status.names =
        NameCounts { learnt: 11, evicted: 2, refused: 1, cut: 4, unlearnt: 3, malformed: 8, agent };
    let names = NameTableSizes { tables: 2, live: 9 };
    let export = ExportCounts::default();
    export.take(7);
    export.record(RecordResult::Refused, 3);
    export.request(ExportSignal::Logs, Err("refused".into()));
    status.export = Some(ExportStatus::of("http://collector:4318".into(), &export));
    let observed = Observed { events, unwritten: 6, restarts: [("events", 3)].into(), names, untrusted: 7 };
    text(&families(&status, &hits, &observed))
}

#[test]
fn each_family_is_announced_once_before_its_samples() {
    let text = example();
    for line in [
        "podgate_build_info{version=\"0.1.0\",node=\"n1\"} 1",
        "podgate_uptime_seconds 60",
        "podgate_ready 1",
        "podgate_failing 0",
        "podgate_pins_last 1",
        "podgate_packets_total{direction=\"egress\",outcome=\"denied\"} 12",
        "podgate_packets_total{direction=\"ingress\",outcome=\"own-node\"} 0",
        "podgate_name_addresses_total{result=\"evicted\"} 2",
        "podgate_name_replies_total{result=\"cut\"} 4",
        "podgate_name_questions_total{result=\"left-out\"} 23",
        "podgate_name_entered_total{result=\"renewed\"} 25",
        "podgate_name_tables 2",
        "podgate_name_entries 9",
        "podgate_name_untrusted_pods 7",
        "podgate_endpoints{state=\"pending\"} 1",
        "podgate_flow_evictions_total{state=\"half-open\",newcomer=\"same-pod\"} 4",
        "podgate_unenforced_pods{reason=\"macvlan\"} 1",
        "podgate_unenforced_pods{reason=\"no-device\"} 0",
        "podgate_long_holds_total 3",
        "podgate_expired_holds_total 1",
        "podgate_policies 3",
        "podgate_flow_events_total{verdict=\"denied\"} 7",
        "podgate_flow_events_lost_total{where=\"ring\"} 4",
        "podgate_flow_events_lost_total{where=\"agent\"} 2",
        "podgate_flow_events_lost_total{where=\"pod\"} 3",
        "podgate_uncounted_packets_total 1",
        "podgate_task_restarts_total{task=\"events\"} 3",
        "podgate_unattributed_packets_total 9",
        "podgate_fragments_limited_total 5",
        "podgate_deny_log_errors_total 6",
        "podgate_otlp_records_total{result=\"refused\"} 3",
        "podgate_otlp_records_total{result=\"no-room\"} 0",
        "podgate_otlp_waiting_records 4",
        "podgate_otlp_requests_total{signal=\"logs\",result=\"failed\"} 1",
        "podgate_policy_hits_total{policy=\"x/p\",direction=\"ingress\",result=\"matched\"} 15",
        "podgate_policy_hits_total{policy=\"x/p\",direction=\"ingress\",result=\"denied\"} 5",
        "podgate_pod_drops_total{pod=\"x/p499\",direction=\"ingress\",reason=\"denied\"} 2",
        "podgate_pod_drops_total{pod=\"(others)\",direction=\"ingress\",reason=\"denied\"} 200",
        "podgate_revision 7",
        "podgate_source_age_seconds{source=\"a \\\"b\\\"\\\\\\nc\"} 5",
        "podgate_source_objects{source=\"a \\\"b\\\"\\\\\\nc\",kind=\"pods\"} 3",
        "podgate_programming_latency_seconds_bucket{le=\"0.050000\"} 2",
        "podgate_programming_latency_seconds_bucket{le=\"+Inf\"} 3",
        "podgate_programming_latency_seconds_sum 0.070500",
        "podgate_programming_latency_seconds_count 3",
        "podgate_watch_restarts_total{kind=\"Pod\"} 2",
        "podgate_watch_age_seconds{kind=\"Pod\"} 9",
        "podgate_table_entries{table=\"flows\"} 10",
        "podgate_table_capacity_entries{table=\"flows\"} 262144",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let mut announced = Vec::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            announced.push(family.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = name.rsplit_once('_').map_or(name, |(family, _part)| family);
            assert!(announced.last().is_some_and(|last| [name, of_histogram].contains(last)), "{line}");
        }
    }
    let mut once = announced.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), announced.len());
}
