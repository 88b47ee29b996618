//! `podgate endpoints`: the pods and host endpoints of this node as the agent sees them.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;
use podgate_core::{explain::EndpointRef, model::ObjectName};

use super::{output::Format, table::TextTable};
use crate::options::SOCKET;
use crate::{
    api::{self, EndpointStatus, Isolation, ShortcutStatus},
    server::Ask,
};

/// Show the pods and host endpoints of this node: interface, addresses, and the policies that isolate them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  podgate endpoints production/frontend")]
pub(super) struct EndpointsOptions {
    /// Only this pod
    #[arg(value_name = "NAMESPACE/POD", value_parser = pod_name)]
    pod: Option<ObjectName>,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl EndpointsOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let mut endpoints: Vec<EndpointStatus> = api::ask(&self.socket, &Ask::Endpoints)?;
        if let Some(pod) = self.pod {
            let pod = pod.to_string();
            endpoints.retain(|endpoint| endpoint.pod.as_ref() == Some(&pod));
            if endpoints.is_empty() {
                bail!("the agent knows no interface of pod {pod} on this node");
            }
        }
        format.print(&endpoints, |endpoints| text(endpoints))?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn pod_name(text: &str) -> Result<ObjectName, &'static str> {
    match text.parse() {
        Ok(EndpointRef::Pod(name)) => Ok(name),
        _ => Err("a pod is NAMESPACE/POD"),
    }
}

fn text(endpoints: &[EndpointStatus]) -> String {
    let has_shortcut = endpoints.iter().any(|endpoint| endpoint.shortcut.is_some());
    let mut header = vec!["POD", "INTERFACE", "STATE", "ADDRESSES", "INGRESS", "EGRESS", "REVISION"];
    header.extend(has_shortcut.then_some("SHORTCUT"));
    let mut table = TextTable::with_header(&header);
    for endpoint in endpoints {
        let mut row = Vec::from(endpoint_row(endpoint));
        row.extend(has_shortcut.then(|| match &endpoint.shortcut {
            None => "-".into(),
            Some(ShortcutStatus { open: true, .. }) => "open".into(),
            Some(ShortcutStatus { open: false, obstacle }) => {
                format!("closed: {}", obstacle.as_deref().unwrap_or("-"))
            }
        }));
        table.row(row);
    }
    let why = unenforced_notes(endpoints);
    if why.is_empty() { table.to_string() } else { format!("{table}\n{why}") }
}

/// Pod, interface, state, addresses, what isolates it by direction, revision.
pub(super) fn endpoint_row(endpoint: &EndpointStatus) -> [String; 7] {
    let EndpointStatus {
        pod,
        interface,
        ifindex,
        addresses,
        state,
        ingress,
        egress,
        revision,
        unenforced,
        shortcut: _,
    } = endpoint;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    [
        pod.clone().unwrap_or_else(|| "-".into()),
        if interface.is_empty() { "-".into() } else { format!("{interface} ({ifindex})") },
        if unenforced.is_some() { "UNENFORCED".into() } else { state.to_string() },
        if addresses.is_empty() { "-".into() } else { addresses.join(",") },
        isolation(ingress),
        isolation(egress),
        revision.to_string(),
    ]
}

/// A line for each pod that should be isolated and is not.
pub(super) fn unenforced_notes<'a>(endpoints: impl IntoIterator<Item = &'a EndpointStatus>) -> String {
    let why = endpoints.into_iter().filter_map(|endpoint| {
        let pod = endpoint.pod.as_deref().unwrap_or(&endpoint.interface);
        Some(format!("{pod} should be isolated and is not: {}\n", endpoint.unenforced.as_ref()?))
    });
    why.collect()
}

fn isolation(isolation: &Isolation) -> String {
    let Isolation { isolated, policies, cluster_policies, calico_policies, audit } = isolation;
    // Which of them isolates is a matter of their tiers.
    let (mut isolating, mut selecting) = (policies.clone(), cluster_policies.clone());
    let of_calico = calico_policies.iter().cloned();
    if *isolated {
        isolating.extend(of_calico);
    } else {
        selecting.extend(of_calico);
    }
    let (policies, cluster_policies) = (isolating, selecting);
    let mut text = match (isolated, cluster_policies.is_empty()) {
        // A host endpoint without a profile.
        (true, true) if policies.is_empty() => "isolated, no policy selects it".into(),
        (true, true) => format!("isolated by {}", policies.join(",")),
        (true, false) => {
            format!("isolated by {}, selected by {}", policies.join(","), cluster_policies.join(","))
        }
        (false, false) => format!("selected by {}", cluster_policies.join(",")),
        (false, true) => "not isolated".into(),
    };
    if !audit.is_empty() {
        text += &format!(", in audit mode {}", audit.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_one_line_for_each_veth() {
        let mut known = EndpointStatus::example();
        known.egress.cluster_policies = known.ingress.cluster_policies.clone();
        known.ingress.audit = vec!["x/new".into()];
        let unknown = EndpointStatus {
            pod: None,
            interface: "veth2".into(),
            addresses: vec![],
            state: api::ReportedState::Pending,
            ingress: Isolation::default(),
            egress: Isolation::default(),
            ..known.clone()
        };
        assert_eq!(
            text(&[known, unknown]),
            "\
POD  INTERFACE  STATE       ADDRESSES         INGRESS                                                                          EGRESS                                 REVISION
x/a  veth1 (3)  identified  10.0.0.1,fd00::1  isolated by x/p,x/q, selected by ClusterNetworkPolicy base, in audit mode x/new  selected by ClusterNetworkPolicy base  7
-    veth2 (3)  pending     -                 not isolated                                                                     not isolated                           7
"
        );
    }

    #[test]
    fn a_column_says_where_the_short_cut_is_open_and_why_not() {
        let with = |shortcut| EndpointStatus { shortcut, ..EndpointStatus::example() };
        let closed = Some("it needs TCX".into());
        let shown = text(&[
            with(Some(ShortcutStatus { open: true, obstacle: None })),
            with(Some(ShortcutStatus { open: false, obstacle: closed })),
            with(None),
        ]);
        let last = |line: &str| line.rsplit("  ").next().map(|cell| cell.trim().to_owned());
        let column: Vec<_> = shown.lines().filter_map(last).collect();
        assert_eq!(column, ["SHORTCUT", "open", "closed: it needs TCX", "-"]);
        assert!(!text(&[with(None)]).contains("SHORTCUT"), "no column where it is off");
    }
}
