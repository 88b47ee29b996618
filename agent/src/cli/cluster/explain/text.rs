//! The answer for people: the verdict first, then each side with who enforces it.

use podgate_core::explain::{KernelCheck, Verdict};

use super::{
    super::super::explain::{circumstances, loud, side_lines},
    connection::ConnectionReport,
    side::{SideEnforcement, SideReport},
};
use crate::fleet::names;

pub(super) fn text(report: &ConnectionReport) -> String {
    let ConnectionReport { kernel, uncertain_because, .. } = report;
    let mut lines: Vec<String> = kernel
        .iter()
        .flat_map(|(node, check)| loud(check).into_iter().map(move |line| format!("{node}: {line}")))
        .collect();
    lines.extend(uncertain_because.iter().map(|reason| format!("UNCERTAIN: {reason}")));
    connection(report, &mut lines);
    let is_same = |check: &KernelCheck| check.asked > 0 && check.disagreements.is_empty();
    let same: Vec<&String> =
        kernel.iter().filter(|(_, check)| is_same(check)).map(|(node, _)| node).collect();
    if !same.is_empty() {
        let asked: usize = same.iter().map(|node| kernel[*node].asked).sum();
        lines.push(String::new());
        lines.push(format!("the tables in the kernel of {} say the same ({asked} asked)", names(&same)));
    }
    if report.what_if {
        lines.push(String::new());
        lines.push("this is the answer with the change, which was not applied".into());
    }
    lines.join("\n") + "\n"
}

fn connection(report: &ConnectionReport, lines: &mut Vec<String>) {
    let ConnectionReport { verdict, from, to, port, egress, ingress, backends, explanation, .. } = report;
    let named = |end: String, side: &Option<SideReport>| {
        let pod = side.as_ref().and_then(|side| side.pod.as_ref()).filter(|pod| **pod != end);
        pod.map_or_else(|| end.clone(), |pod| format!("{end} ({pod})"))
    };
    let (from, to) = (named(from.to_string(), egress), named(to.to_string(), ingress));
    lines.push(format!("{}: {from} -> {to} {port}", word(*verdict)));
    if let Some(backends) = backends {
        let allowed = backends.iter().filter(|backend| backend.verdict == Some(Verdict::Allow)).count();
        lines.push(format!("  allowed to {allowed} of {} backends", backends.len()));
        for backend in backends {
            lines.push(String::new());
            connection(backend, lines);
        }
        return;
    }
    lines.extend(explanation.iter().flat_map(circumstances));
    for (direction, name, side) in [("egress", from, egress), ("ingress", to, ingress)] {
        let Some(side) = side else { continue };
        lines.push(String::new());
        lines.extend(self::side(direction, &name, side));
    }
}

/// The first line says what happens and who sees to it.
fn side(direction: &str, name: &str, side: &SideReport) -> Vec<String> {
    let SideReport { pod: _, node, enforcement, because, verdict: _, policies, quoted_from, notes } = side;
    let place = node.as_ref().map_or_else(String::new, |node| format!(", on {node}"));
    let head = format!("{direction} of {name}{place}");
    let because = because.as_deref().unwrap_or_default();
    let by = quoted_from.as_ref().map_or_else(String::new, |node| format!("by the agent of {node}, "));
    let mut said = policies.iter().flat_map(|policies| side_lines(direction, policies));
    let first = said.next();
    let mut lines = match (enforcement, first) {
        (SideEnforcement::Enforced, Some(first)) => vec![format!("{head}: {first}")],
        (SideEnforcement::Elsewhere, _) => vec![format!("{head}: {because}")],
        (SideEnforcement::NotEnforced, first) => {
            let policies = first.map(|first| format!("  {by}its policies would say: {first}"));
            std::iter::once(format!("{head}: NOT ENFORCED: {because}")).chain(policies).collect()
        }
        (SideEnforcement::Enforced | SideEnforcement::Unknown, first) => {
            let policies = first.map(|first| format!("  {by}its policies say: {first}"));
            let left = "  what its agent last enforced is in force".to_owned();
            std::iter::once(format!("{head}: NOT KNOWN: {because}")).chain([left]).chain(policies).collect()
        }
    };
    lines.extend(said);
    lines.extend(notes.iter().map(|note| format!("  note: {note}")));
    lines
}

fn word(verdict: Option<Verdict>) -> String {
    verdict.map_or_else(|| "not known".into(), |verdict| verdict.to_string())
}
