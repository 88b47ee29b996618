//! The parts of a run on a kernel: each covers another fallback.

use super::{
    catalogue::TestedKernel,
    inside::{ExpectedExit, Part, Run},
    programs::{Program, Programs},
};
use crate::platform::Platform;

/// Packet tests that take minutes on an emulated processor or measure time, and prove nothing of the kernel.
const TOO_LONG: [&str; 5] =
    ["agreement::", "corpus::", "passes::", "publishing::during::", "publishing::scale::"];

/// Loads and verifies the programs; prints the features of the kernel that they can use.
const LOADING: &str = "loading::";

/// Tests between namespaces by part, each name in full. They use the kernel's best hooks unless their names
/// say otherwise.
const SMOKE: [(&str, &[&str]); 6] = [
    (
        "traffic",
        &[
            "a_live_connection_survives_a_change_of_policy",
            "egress_to_a_service_is_evaluated_by_the_backend_routed",
            "a_spoofed_source_address_gets_nowhere",
            "kill_9_of_the_agent_changes_no_verdict",
            "kill_9_of_the_agent_changes_no_verdict_by_clsact",
            "a_running_agent_keeps_only_the_capabilities_and_system_calls_that_it_needs",
        ],
    ),
    (
        "names",
        &[
            "a_name_is_open_at_once_when_it_is_looked_up_also_without_an_agent",
            "an_address_counts_for_as_long_as_a_connection_to_it_lives",
        ],
    ),
    (
        "hosts",
        &[
            "policies_open_a_host_endpoint_and_pods_are_not_affected",
            "a_host_endpoint_that_cuts_the_node_off_is_undone_also_without_an_agent",
        ],
    ),
    ("traces", &["a_trace_shows_each_step_of_what_is_denied_allowed_and_spoofed"]),
    (
        "upgrade",
        &[
            "an_agent_with_other_maps_takes_the_place_of_the_one_before",
            "an_upgrade_takes_over_the_connections_of_the_flow_table_and_no_others",
            CHANGE_OF_HOOK,
        ],
    ),
    (NETKIT, &[]),
];

/// From one kind to the other, where the kernel has both.
const CHANGE_OF_HOOK: &str = "a_change_of_hook_leaves_one_set_of_programs_and_no_gap";

/// Its tests are ignored where the kernel has none.
pub(super) const NETKIT: &str = "netkit";

/// Of a kernel that can give what the part needs; on others it says that it cannot.
pub(super) fn of(kernel: &TestedKernel, programs: &Programs) -> Vec<Part> {
    let check = |wanted| podgate(programs, &["check"], wanted);
    let part = |name: &str, runs| Part { name: name.to_owned(), runs };
    if !kernel.is_supported {
        let manifests = programs.podgate.directory.join("deploy/walkthrough").display().to_string();
        let agent = ["agent", "--manifests", &manifests, "--node", "n1", "--metrics", "off"];
        let floor = "run Linux 5.15 or newer on this node".to_owned();
        return vec![
            part("check", vec![check(ExpectedExit::Refusal(floor.clone()))]),
            part("agent", vec![podgate(programs, &agent, ExpectedExit::Refusal(floor))]),
        ];
    }
    let mut packets: Vec<&str> =
        TOO_LONG.into_iter().chain([LOADING]).flat_map(|name| ["--skip", name]).collect();
    // An emulated processor without KVM takes minutes for each thousand generated packets.
    if kernel.platform != Platform::HOST {
        packets.extend(["--skip", "snapshot::"]);
    }
    let mut parts = vec![
        part("check", vec![check(ExpectedExit::Success)]),
        part("programs", vec![test(&programs.packets, &[LOADING, "--nocapture", "--test-threads=1"])]),
        part("packets", vec![test(&programs.packets, &packets)]),
    ];
    for (name, tests) in SMOKE {
        let runs = match tests {
            [] => vec![test(&programs.namespaces, &[name, "--test-threads=1"])],
            tests => {
                let has_both = kernel.expected.is_none_or(|expected| expected.tcx);
                let tests = tests.iter().filter(|name| has_both || **name != CHANGE_OF_HOOK);
                tests.map(|name| test(&programs.namespaces, &["--exact", name])).collect()
            }
        };
        parts.push(part(name, runs));
    }
    parts
}

fn test(program: &Program, arguments: &[&str]) -> Run {
    Run {
        program: program.executable.clone(),
        directory: program.directory.clone(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        wanted: ExpectedExit::Success,
    }
}

fn podgate(programs: &Programs, arguments: &[&str], wanted: ExpectedExit) -> Run {
    Run { wanted, ..test(&programs.podgate, arguments) }
}
