//! `podgate policies`: what the policies of this node's pods have done.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::{
    output::{Format, say},
    table::TextTable,
};
use crate::{
    api::{self, Hits, Mode, PolicyReport, PolicyStatus},
    options::SOCKET,
    server::Ask,
};

/// Show the policies of this node's pods: how often each rule matched, and how much was denied
#[derive(Debug, Args)]
#[command(after_help = "\
A hit of a rule is a new connection; packets of established connections are not counted. A hit of `denied` is a \
dropped packet, so each retransmission counts. A policy in audit mode (annotation podgate.io/mode: audit, on the \
policy or its namespace) denies nothing; the packets that it would have denied are counted.

Example:
  podgate policies production/api
  podgate policies --unused 7d")]
pub(super) struct PoliciesOptions {
    /// Only this policy; for a ClusterNetworkPolicy, its name
    #[arg(value_name = "NAMESPACE/NAME")]
    policy: Option<String>,
    /// Only rules without a match in the last TIME, for example 90s, 30m, 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    unused: Option<u64>,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl PoliciesOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let mut report: PolicyReport = api::ask(&self.socket, &Ask::Policies)?;
        if let Some(name) = self.policy {
            let is_meant = |policy: &PolicyStatus| {
                policy.policy == name || policy.policy.split_once(' ').is_some_and(|(_, bare)| bare == name)
            };
            report.policies.retain(is_meant);
            if report.policies.is_empty() {
                bail!("no policy {name} selects a pod of this node");
            }
        }
        if let Some(age) = self.unused {
            if report.counted_seconds < age {
                say(format_args!("hits are counted for {} only\n", ago(report.counted_seconds)));
            }
            report = unused(report, age);
        }
        format.print(&report, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `30m` in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, &'static str> {
    let problem = "a time is a number with its unit, as in 90s, 30m, 24h or 7d";
    let unit = text.chars().last().ok_or(problem)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(problem),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| problem)?;
    number.checked_mul(seconds).ok_or(problem)
}

/// Only rules that nothing has matched for so long, and policies with such rules.
fn unused(mut report: PolicyReport, age: u64) -> PolicyReport {
    for policy in &mut report.policies {
        for hits in [&mut policy.ingress, &mut policy.egress] {
            if let Some(Hits { rules, denied, would_deny }) = hits {
                rules.retain(|rule| rule.idle_seconds.is_none_or(|idle| idle >= age));
                (*denied, *would_deny) = (0, 0);
            }
            *hits = hits.take().filter(|hits| !hits.rules.is_empty());
        }
    }
    report.policies.retain(|policy| policy.ingress.is_some() || policy.egress.is_some());
    report
}

fn text(report: &PolicyReport) -> String {
    let mut table = TextTable::with_header(&["POLICY", "MODE", "PODS", "DIRECTION", "RULE", "HITS", "LAST"]);
    for PolicyStatus { policy, mode, object: _, pods, ingress, egress } in &report.policies {
        let (verb, mode) = match mode {
            Mode::Enforce => ("denied", "enforce"),
            Mode::Audit => ("would deny", "audit"),
        };
        for (direction, hits) in [("ingress", ingress), ("egress", egress)] {
            let Some(Hits { rules, denied, would_deny }) = hits else { continue };
            let mut row = |rule: String, hits: u64, last: String| {
                let pods = pods.len().to_string();
                table.row([
                    policy.clone(),
                    mode.into(),
                    pods,
                    direction.into(),
                    rule,
                    hits.to_string(),
                    last,
                ]);
            };
            for rule in rules {
                let last =
                    rule.idle_seconds.map_or_else(|| "never".into(), |idle| format!("{} ago", ago(idle)));
                row(rule.rule.to_string(), rule.hits, last);
            }
            if *denied + *would_deny > 0 || rules.is_empty() {
                row(verb.into(), denied + would_deny, "-".into());
            }
        }
    }
    table.to_string()
}

/// In the largest unit that is not 0.
pub(super) fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RuleHits;

    fn report() -> PolicyReport {
        let rule = |rule, hits, idle_seconds| RuleHits { rule, hits, idle_seconds };
        let policy = |policy: &str, mode, ingress, egress| PolicyStatus {
            policy: policy.into(),
            mode,
            object: None,
            pods: vec!["x/a".into(), "x/b".into()],
            ingress,
            egress,
        };
        let used = vec![rule(0, 12, Some(3)), rule(1, 0, None), rule(2, 1, Some(90_000))];
        PolicyReport {
            counted_seconds: 100_000,
            policies: vec![
                policy("ClusterNetworkPolicy base", Mode::Enforce, None, Some(Hits::default())),
                policy("x/p", Mode::Enforce, Some(Hits { rules: used, denied: 5, would_deny: 0 }), None),
                policy(
                    "x/q",
                    Mode::Audit,
                    None,
                    Some(Hits { rules: vec![rule(0, 1, Some(61))], denied: 0, would_deny: 2 }),
                ),
            ],
        }
    }

    #[test]
    fn each_rule_has_a_line_and_what_was_denied_another() {
        assert_eq!(
            text(&report()),
            "\
POLICY                     MODE     PODS  DIRECTION  RULE        HITS  LAST
ClusterNetworkPolicy base  enforce  2     egress     denied      0     -
x/p                        enforce  2     ingress    0           12    3 s ago
x/p                        enforce  2     ingress    1           0     never
x/p                        enforce  2     ingress    2           1     1 d ago
x/p                        enforce  2     ingress    denied      5     -
x/q                        audit    2     egress     0           1     1 min ago
x/q                        audit    2     egress     would deny  2     -
"
        );
    }

    #[test]
    fn what_has_matched_nothing_for_so_long_is_found() {
        let found = |age| {
            let policies = unused(report(), age).policies.into_iter();
            let rules = policies.flat_map(|policy| {
                let hits = policy.ingress.into_iter().chain(policy.egress).flat_map(|hits| hits.rules);
                hits.map(move |rule| format!("{} {}", policy.policy, rule.rule)).collect::<Vec<_>>()
            });
            rules.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(found(86_400), "x/p 1, x/p 2");
        assert_eq!(found(1_000_000), "x/p 1");
        assert_eq!(found(60), "x/p 1, x/p 2, x/q 0");
    }

    #[test]
    fn a_time_needs_its_unit() {
        let table =
            [("90s", Ok(90)), ("30m", Ok(1_800)), ("24h", Ok(86_400)), ("7d", Ok(604_800)), ("0s", Ok(0))];
        for (text, expected) in table {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for bad in ["", "90", "m", "-1s", "1.5h", "9999999999999999d", "3ü"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
