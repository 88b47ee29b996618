//! The answer of `explain` for people: the verdict first, then each side, policy by policy and rule by rule.
//!
//! Below a rule stand the entries that match (✓) and, when it does not match everything in question, why not
//! (✗).

use podgate_core::{
    explain::{
        CalicoPolicyTrace, ClusterPolicyTrace, ClusterRuleTrace, DirectionResult, EndpointRef, EntryTrace,
        Explanation, KernelCheck, KnownAddress, PolicyTrace, RuleTrace, SelectedPods, Verdict, Wording,
    },
    model::{Action, ObjectName},
    port_spec::Port,
};

/// Lines of one sort that are shown for a rule; JSON has all of them.
const SHOWN: usize = 6;

pub(super) fn text(answer: &Explanation) -> String {
    let Explanation {
        verdict,
        from,
        to,
        port,
        from_pod,
        to_pod,
        egress,
        ingress,
        backends,
        uncertain_because,
        unenforced,
        kernel,
        ..
    } = answer;
    let named = |end: String, pod: &Option<ObjectName>| match pod {
        Some(pod) => format!("{end} ({pod})"),
        None => end,
    };
    let (from, to) = (named(from.to_string(), from_pod), named(to.to_string(), to_pod));
    let mut lines = unenforced.clone();
    lines.extend(kernel.iter().flat_map(loud));
    lines.extend(uncertain_because.iter().map(|reason| format!("UNCERTAIN: {reason}")));
    lines.push(format!("{verdict}: {from} -> {to} {port}"));
    if let Some(backends) = backends.as_ref().filter(|backends| !backends.is_empty()) {
        let allowed = backends.iter().filter(|backend| backend.verdict == Verdict::Allow).count();
        lines.push(format!("  allowed to {allowed} of {} backends", backends.len()));
        return lines.join("\n") + "\n\n" + &backends.iter().map(text).collect::<Vec<_>>().join("\n");
    }
    lines.extend(circumstances(answer));
    for (direction, name, side) in [("egress", from, egress), ("ingress", to, ingress)] {
        let said = side_lines(direction, side);
        lines.push(String::new());
        lines.push(format!("{direction} of {name}: {}", said.join("\n")));
    }
    if let Some(KernelCheck { asked: asked @ 1.., disagreements }) = kernel
        && disagreements.is_empty()
    {
        lines.push(String::new());
        lines.push(format!("the tables in this node's kernel say the same ({asked} asked)"));
    }
    lines.join("\n") + "\n"
}

/// Which numbers, addresses and learnt names the answer is about, one line each.
pub(in crate::cli) fn circumstances(answer: &Explanation) -> Vec<String> {
    let Explanation { to, port, numbers, pairs, backends, learnt, .. } = answer;
    let mut lines = Vec::new();
    let stands_for_others = match port.port {
        Port::Number(number) => !numbers.contains(&number),
        Port::Name(_) => true,
    };
    if stands_for_others {
        let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
        lines.push(format!("  {port} is {} there", numbers.join(", ")));
    }
    lines.extend(pairs.iter().map(|pair| format!("  {} -> {}", pair.from, pair.to)));
    match to {
        EndpointRef::Name(_) => {
            lines.push(
                "  at an address that no rule has beside its name, once the client has looked it up".into(),
            );
        }
        _ if pairs.is_empty() && backends.is_none() => lines.push("  no address family in common".into()),
        _ => {}
    }
    lines.extend(learnt.iter().flat_map(|learnt| known(learnt, to)));
    lines
}

/// What the client has learnt, one line each.
fn known(learnt: &[KnownAddress], to: &EndpointRef) -> Vec<String> {
    let line = |KnownAddress { address, name, seconds_left }: &KnownAddress| {
        format!("  the client has learnt {address} for {name}, which counts for {seconds_left} s")
    };
    let lines: Vec<String> = learnt.iter().take(SHOWN).map(line).collect();
    match (learnt.len().checked_sub(SHOWN), to) {
        (Some(more @ 1..), _) => [lines, vec![format!("  and {more} more, see -o json")]].concat(),
        (_, EndpointRef::Name(_)) if lines.is_empty() => {
            vec!["  the client has learnt no address for it that counts now".into()]
        }
        _ => lines,
    }
}

/// Before anything else: what stands below is not what happens.
pub(in crate::cli) fn loud(check: &KernelCheck) -> Vec<String> {
    let mut lines: Vec<String> =
        check.disagreements.iter().map(|line| format!("THE KERNEL SAYS OTHERWISE: {line}")).collect();
    if !lines.is_empty() {
        lines.push(
            "This is a fault of podgate's: please report it with the archive of `podgate doctor`.\n".into(),
        );
    }
    lines
}

/// What one end says. The first line is the verdict with its reason, and has no indent.
pub(in crate::cli) fn side_lines(direction: &str, side: &DirectionResult) -> Vec<String> {
    let DirectionResult {
        isolated: _,
        host_endpoint,
        verdict,
        reason,
        note,
        denied_peers,
        policies,
        cluster_policies,
        calico_policies,
        audit,
    } = side;
    let mut lines = vec![format!("{verdict} ({reason})")];
    lines.extend(host_endpoint.iter().map(|host| format!("  of HostEndpoint {host}")));
    lines.extend(note.iter().map(|note| format!("  note: {note}")));
    let matched = policies.iter().map(|policy| &policy.matched);
    let matched = matched.chain(cluster_policies.iter().map(|policy| &policy.matched));
    let mut matched = matched.chain(calico_policies.iter().map(|policy| &policy.matched));
    if denied_peers.len() > 1 || matched.any(|matched| !matched.is_empty()) {
        lines.extend(denied_peers.iter().map(|peer| format!("  nothing allows {peer}")));
    }
    for policy in cluster_policies {
        let ClusterPolicyTrace { kind, name, tier, priority, selects, matched: _, decided, rules } = policy;
        lines.push(format!("  {kind} {name} ({tier}, priority {priority}){}", of(selects)));
        ordered_rules(direction, rules, decided, Action::to_string, &mut lines);
    }
    for policy in calico_policies {
        let CalicoPolicyTrace { kind, namespace, name, tier, order, selects, decided, denied_at_end, .. } =
            policy;
        let namespace = namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
        let order = order.as_ref().map_or_else(|| "no order".into(), |order| format!("order {order}"));
        lines.push(format!("  {kind} {namespace}{name} (tier {tier}, {order}){}", of(selects)));
        ordered_rules(direction, &policy.rules, decided, calico_action, &mut lines);
        if *denied_at_end {
            lines.push(format!("    tier {tier} ends: what none of its rules matches is denied"));
        }
    }
    for PolicyTrace { namespace, name, selects, matched: _, rules } in policies {
        let empty = if rules.is_empty() { ": no rules, allows nothing" } else { "" };
        lines.push(format!("  {namespace}/{name}{}{empty}", of(selects)));
        for rule in rules {
            let outcome = if rule.matched { "matches" } else { "does not match" };
            let of =
                rule.annotation.as_ref().map_or_else(String::new, |annotation| format!(" ({annotation})"));
            lines.push(format!("    {direction}[{}]{of} {outcome}", rule.rule));
            entries(rule, &mut lines);
        }
    }
    if let Some(audit) = audit {
        let mut audited = DirectionResult::clone(audit);
        audited.policies.retain(|policy| {
            !policies.iter().any(|known| (&known.namespace, &known.name) == (&policy.namespace, &policy.name))
        });
        audited.cluster_policies.retain(|policy| {
            !cluster_policies.iter().any(|known| (known.kind, &known.name) == (policy.kind, &policy.name))
        });
        audited.calico_policies.retain(|policy| {
            let name =
                |policy: &CalicoPolicyTrace| (policy.kind, policy.namespace.clone(), policy.name.clone());
            !calico_policies.iter().any(|known| name(known) == name(policy))
        });
        let said = side_lines(direction, &audited);
        lines.push(format!("  with what is in audit mode: {}", said[0]));
        lines.extend(said[1..].iter().map(|line| format!("  {line}")));
    }
    lines
}

/// As Calico calls it.
fn calico_action(action: &Action) -> String {
    match action {
        Action::Accept => "Allow".into(),
        Action::Deny | Action::Pass | Action::Log => action.to_string(),
    }
}

/// Rules of which the first that matches decides.
fn ordered_rules(
    direction: &str,
    rules: &[ClusterRuleTrace],
    decided: &[usize],
    action: impl Fn(&Action) -> String,
    lines: &mut Vec<String>,
) {
    for rule in rules {
        let outcome = match (decided.contains(&rule.trace.rule), rule.trace.matched) {
            (true, _) => "decides",
            (false, true) => "matches",
            (false, false) => "does not match",
        };
        lines.push(format!("    {direction}[{}] {} {outcome}", rule.trace.rule, action(&rule.action)));
        entries(&rule.trace, lines);
    }
}

/// An agent of before does not say which pods a policy is for.
fn of(selects: &Wording<SelectedPods>) -> String {
    let selects = selects.to_string();
    if selects.is_empty() { selects } else { format!(", for {selects}") }
}

fn entries(trace: &RuleTrace, lines: &mut Vec<String>) {
    let RuleTrace { rule: _, annotation: _, matched: _, why_not, peers, ports } = trace;
    let met = peers.iter().chain(ports).filter(|entry| entry.matched);
    let met = met.flat_map(|EntryTrace { entry, matched: _, why }| {
        why.iter().map(move |why| format!("✓ {entry} {why}"))
    });
    shown(met.collect(), lines);
    shown(why_not.iter().map(|miss| format!("✗ {miss}")).collect(), lines);
}

fn shown(all: Vec<String>, lines: &mut Vec<String>) {
    let more = all.len().saturating_sub(SHOWN);
    lines.extend(all.into_iter().take(SHOWN).map(|line| format!("      {line}")));
    if more > 0 {
        lines.push(format!("      and {more} more, see -o json"));
    }
}

#[cfg(test)]
mod tests;
