//! Rule sets on addresses of a pod's own node.

use super::*;

/// A pod with a policy of some actions on everything, and perhaps a NetworkPolicy that isolates it.
fn tables(tier: Tier, actions: &[Action], is_isolated: bool) -> (usize, CompiledTables) {
    let listed = |ports: u16| {
        Ports::Listed(vec![PortRule::Range { protocol: Protocol::Tcp, first: ports, last: ports }])
    };
    // Each rule has one port more than the one before.
    let rules = actions.iter().zip(0..).map(|(action, number)| ClusterRule {
        action: *action,
        matches: Rule { peers: Peers::Any, ports: if number == 0 { listed(80) } else { Ports::Any } },
    });
    let policy = ClusterNetworkPolicy { tier, ..fixtures::admin_policy("p", rules.collect()) };
    let network_policy = fixtures::policy("isolates", None, Some(vec![]));
    let policies = if is_isolated { vec![network_policy] } else { Vec::new() };
    let mut cluster = cluster(vec![pod("a", "10.0.0.1", &[])], policies);
    cluster.cluster_policies.insert(policy.name.clone(), Arc::new(policy));
    let tables = compiled(&cluster);
    (tables.subjects[&ObjectName::new("x", "a")].egress, tables)
}

fn rows(place: usize, tables: &CompiledTables, closed: &BTreeSet<usize>) -> Rows {
    let signatures = rows::numbered(&tables.identities.signatures);
    compile_rows([(place, &*tables.rule_sets[&place])], signatures, &tables.classes, closed)
}

/// A node's address is open to its pods except for what is denied there. A closed rule set has lost its
/// rules, so if any of them might have denied something there, it denies everything there.
#[test]
fn a_rule_set_that_is_closed_denies_its_own_node_if_it_has_a_deny() {
    for (tier, actions, is_isolated, denies) in [
        (Tier::Admin, [Action::Accept, Action::Deny], false, true),
        (Tier::Admin, [Action::Accept, Action::Deny], true, true),
        (Tier::Baseline, [Action::Accept, Action::Deny], false, true),
        (Tier::Baseline, [Action::Accept, Action::Deny], true, false),
        (Tier::Admin, [Action::Accept, Action::Pass], false, false),
        (Tier::Admin, [Action::Accept, Action::Pass], true, false),
    ] {
        let (place, tables) = tables(tier, &actions, is_isolated);
        let [closed, open] =
            [BTreeSet::from([place]), BTreeSet::new()].map(|closed| rows(place, &tables, &closed));
        for class in 0..tables.classes.signatures.len() {
            assert_eq!(closed.denies_own_node(place, 0, class), denies, "{tier:?} {is_isolated} {class}");
        }
        assert!(closed.allowed.is_empty() && !open.allowed.is_empty() || is_isolated, "{tier:?}");
    }
}

/// A rule set that denies the rest has a row for each identity. A second row for each of them made changes of
/// Calico's policies slow.
#[test]
fn only_what_is_denied_beside_isolation_has_rows_of_the_own_node() {
    for is_isolated in [false, true] {
        let (place, tables) = tables(Tier::Admin, &[Action::Accept, Action::Deny], is_isolated);
        assert_eq!(tables.rows.covering_own_node.contains(&place), !is_isolated);
        assert_eq!(tables.rows.denied_on_own_node.is_empty(), !is_isolated);
        let class = |port| tables.classes.class(Protocol::Tcp, port);
        for (port, denies) in [(80, false), (81, true)] {
            assert_eq!(tables.rows.denies_own_node(place, 0, class(port)), denies, "{port} {is_isolated}");
        }
    }
}
