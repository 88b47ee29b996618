//! `podgate explain`: why a connection is allowed or denied, rule by rule.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{offline, output::Format};
use crate::options::SOCKET;
use crate::{
    api::{self, Ask},
    explain::{
        ClusterPolicyTrace, End, Explanation, PolicyTrace, Question, RuleTrace, Side, Verdict, explain,
    },
    port_spec::PortSpec,
};

/// Lines of one rule that are shown; JSON has all of them.
const SHOWN_MISSES: usize = 6;

/// Say why a connection is allowed or denied, rule by rule
#[derive(Debug, Args)]
#[command(after_help = "\
X and Y: NAMESPACE/POD, NAMESPACE/svc:SERVICE, node/NAME or an address; the address of a pod is that pod. Without \
--manifests the agent of this node answers, from what it knows.

Several addresses: all pairs of one family must be allowed. A port name that has several numbers on the destination \
stands for all of them. Of a service PORT is the service's own, and all backends must be allowed that it may lead to.

Example:
  podgate explain --from production/frontend --to development/backend --port TCP/80 --manifests cluster.yaml")]
pub(super) struct Options {
    /// Who connects
    #[arg(long, value_name = "X")]
    from: End,
    /// To whom
    #[arg(long, value_name = "Y")]
    to: End,
    /// PROTOCOL/NUMBER or PROTOCOL/NAME of the destination
    #[arg(long, value_name = "PORT")]
    port: PortSpec,
    /// File or directory of objects, `-` for standard input, instead of a running agent (repeatable)
    #[arg(long, value_name = "PATH", conflicts_with = "socket")]
    manifests: Vec<PathBuf>,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Options {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { from, to, port, manifests, socket } = self;
        let answer = if manifests.is_empty() {
            api::ask(&socket, &Ask::Explain { from, to, port })?
        } else {
            explain(&offline::read(&manifests)?, &Question { from, to, port })?
        };
        format.print(&answer, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(answer: &Explanation) -> String {
    let Explanation { verdict, from, to, port, numbers, pairs, egress, ingress, backends } = answer;
    let mut lines = vec![format!("{verdict}: {from} -> {to} {port}")];
    if let Some(backends) = backends.as_ref().filter(|backends| !backends.is_empty()) {
        let allowed = backends.iter().filter(|backend| backend.verdict == Verdict::Allow).count();
        lines.push(format!("  allowed to {allowed} of {} backends", backends.len()));
        return lines.join("\n") + "\n\n" + &backends.iter().map(text).collect::<Vec<_>>().join("\n");
    }
    if !numbers.iter().any(|number| port.to_string().ends_with(&format!("/{number}"))) {
        let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
        lines.push(format!("  {port} is {} there", numbers.join(", ")));
    }
    lines.extend(pairs.iter().map(|pair| format!("  {} -> {}", pair.from, pair.to)));
    if pairs.is_empty() && backends.is_none() {
        lines.push("  no address family in common".into());
    }
    side("egress", &from.to_string(), egress, &mut lines);
    side("ingress", &to.to_string(), ingress, &mut lines);
    lines.join("\n") + "\n"
}

fn side(direction: &str, name: &str, side: &Side, lines: &mut Vec<String>) {
    let Side { isolated: _, verdict, reason, note, denied_peers, policies, cluster_policies } = side;
    lines.push(String::new());
    lines.push(format!("{direction} of {name}: {verdict} ({reason})"));
    lines.extend(note.iter().map(|note| format!("  note: {note}")));
    let matched = policies.iter().map(|policy| &policy.matched);
    let mut matched = matched.chain(cluster_policies.iter().map(|policy| &policy.matched));
    if denied_peers.len() > 1 || matched.any(|matched| !matched.is_empty()) {
        lines.extend(denied_peers.iter().map(|peer| format!("  nothing allows {peer}")));
    }
    for policy in cluster_policies {
        let ClusterPolicyTrace { kind, name, tier, priority, matched: _, decided, rules } = policy;
        lines.push(format!("  {kind} {name} ({tier}, priority {priority})"));
        for rule in rules {
            let RuleTrace { rule: index, matched, why_not } = &rule.trace;
            let outcome = match (decided.contains(index), matched) {
                (true, _) => "decides",
                (false, true) => "matches",
                (false, false) => "does not match",
            };
            lines.push(format!("    {direction}[{index}] {} {outcome}", rule.action));
            shown(why_not, lines);
        }
    }
    for PolicyTrace { namespace, name, matched: _, rules } in policies {
        let empty = if rules.is_empty() { ": no rules, allows nothing" } else { "" };
        lines.push(format!("  {namespace}/{name}{empty}"));
        for RuleTrace { rule, matched, why_not } in rules {
            lines.push(format!(
                "    {direction}[{rule}] {}",
                if *matched { "matches" } else { "does not match" }
            ));
            shown(why_not, lines);
        }
    }
}

fn shown(why_not: &[String], lines: &mut Vec<String>) {
    lines.extend(why_not.iter().take(SHOWN_MISSES).map(|why_not| format!("      {why_not}")));
    if let Some(more @ 1..) = why_not.len().checked_sub(SHOWN_MISSES) {
        lines.push(format!("      and {more} more, see -o json"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explain::{ClusterRuleTrace, Pair, Reason},
        model::{Action, ClusterPolicyKind, Tier},
    };

    fn trace(rule: usize, why_not: &[&str]) -> RuleTrace {
        let why_not: Vec<String> = why_not.iter().map(|line| (*line).to_owned()).collect();
        RuleTrace { rule, matched: why_not.is_empty(), why_not }
    }

    #[test]
    fn the_text_shows_the_verdict_first_then_each_side_rule_by_rule() {
        let policy = |name: &str, rules: Vec<RuleTrace>| PolicyTrace {
            namespace: "x".into(),
            name: name.into(),
            matched: rules.iter().filter(|rule| rule.matched).map(|rule| rule.rule).collect(),
            rules,
        };
        let free = Side {
            isolated: false,
            verdict: Verdict::Allow,
            reason: Reason::NotIsolated,
            note: None,
            denied_peers: [].into(),
            policies: vec![],
            cluster_policies: vec![],
        };
        let many = ["1", "2", "3", "4", "5", "6", "7", "8"];
        let answer = Explanation {
            verdict: Verdict::Deny,
            from: "x/a".parse().unwrap(),
            to: "x/b".parse().unwrap(),
            port: "TCP/http".parse().unwrap(),
            numbers: vec![80, 8080],
            pairs: vec![Pair { from: [10, 0, 0, 1].into(), to: [10, 0, 0, 2].into() }],
            egress: free.clone(),
            ingress: Side {
                isolated: true,
                verdict: Verdict::Deny,
                reason: Reason::NoRuleMatches,
                note: Some("look".into()),
                denied_peers: [[10, 0, 0, 1].into()].into(),
                policies: vec![
                    policy("deny", vec![]),
                    policy("p", vec![trace(0, &["from[0] wants a"]), trace(1, &[]), trace(2, &many)]),
                ],
                cluster_policies: vec![ClusterPolicyTrace {
                    kind: ClusterPolicyKind::ClusterNetworkPolicy,
                    name: "base".into(),
                    tier: Tier::Admin,
                    priority: 7,
                    matched: vec![1, 2],
                    decided: vec![2],
                    rules: [Action::Accept, Action::Pass, Action::Deny]
                        .into_iter()
                        .enumerate()
                        .map(|(rule, action)| ClusterRuleTrace {
                            action,
                            trace: trace(rule, if rule == 0 { &["from[0] wants b"] } else { &[] }),
                        })
                        .collect(),
                }],
            },
            backends: None,
        };
        assert_eq!(
            text(&answer),
            "\
deny: x/a -> x/b TCP/http
  TCP/http is 80, 8080 there
  10.0.0.1 -> 10.0.0.2

egress of x/a: allow (not isolated, no policy selects it for this direction)

ingress of x/b: deny (isolated, no rule matches)
  note: look
  nothing allows 10.0.0.1
  ClusterNetworkPolicy base (Admin, priority 7)
    ingress[0] Accept does not match
      from[0] wants b
    ingress[1] Pass matches
    ingress[2] Deny decides
  x/deny: no rules, allows nothing
  x/p
    ingress[0] does not match
      from[0] wants a
    ingress[1] matches
    ingress[2] does not match
      1
      2
      3
      4
      5
      6
      and 2 more, see -o json
"
        );
    }

    #[test]
    fn the_text_of_a_service_has_each_of_its_backends() {
        let free = |reason: Reason| Side {
            isolated: false,
            verdict: reason.verdict(),
            reason,
            note: None,
            denied_peers: [].into(),
            policies: vec![],
            cluster_policies: vec![],
        };
        let answer = |to: &str, port: &str, egress: Reason, pairs, backends| Explanation {
            verdict: egress.verdict(),
            from: "x/a".parse().unwrap(),
            to: to.parse().unwrap(),
            port: port.parse().unwrap(),
            numbers: vec![80],
            pairs,
            egress: free(egress),
            ingress: free(Reason::NotAPod),
            backends,
        };
        let pair = |to: [u8; 4]| vec![Pair { from: [10, 0, 0, 1].into(), to: to.into() }];
        let one = answer("192.0.2.1", "TCP/80", Reason::NoRuleMatches, pair([192, 0, 2, 1]), None);
        let other = answer("192.0.2.2", "TCP/80", Reason::NotIsolated, pair([192, 0, 2, 2]), None);
        let both = answer("x/svc:web", "TCP/http", Reason::NoRuleMatches, vec![], Some(vec![one, other]));
        assert_eq!(
            text(&both),
            "\
deny: x/a -> x/svc:web TCP/http
  allowed to 1 of 2 backends

deny: x/a -> 192.0.2.1 TCP/80
  10.0.0.1 -> 192.0.2.1

egress of x/a: deny (isolated, no rule matches)

ingress of 192.0.2.1: allow (not a pod with a network of its own, so no policy selects it)

allow: x/a -> 192.0.2.2 TCP/80
  10.0.0.1 -> 192.0.2.2

egress of x/a: allow (not isolated, no policy selects it for this direction)

ingress of 192.0.2.2: allow (not a pod with a network of its own, so no policy selects it)
"
        );
        let none = answer("x/svc:web", "TCP/80", Reason::NoBackend, vec![], Some(vec![]));
        assert_eq!(
            text(&none),
            "\
deny: x/a -> x/svc:web TCP/80

egress of x/a: deny (the service leads nowhere from there)

ingress of x/svc:web: allow (not a pod with a network of its own, so no policy selects it)
"
        );
    }
}
