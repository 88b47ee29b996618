//! ClusterNetworkPolicies with real sockets: tiers and their changes, what is live, and the own node.

use anyhow::Result;
use xtask::lab::{Addresses, Agent, Lab, Manifests, Seen, Traffic};

use super::{
    Test,
    live::Live,
    policies::DENY_EGRESS_OF_ALL,
    scene::{EVERY_KIND, apply, becomes, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("the_tiers_of_cluster_policies_follow_every_change", tiers),
    ("a_namespace_that_is_labelled_again_comes_under_other_cluster_policies", label_flip),
    ("a_cluster_policy_cuts_nothing_that_is_live_and_lets_answers_pass", live),
    ("a_cluster_policy_holds_on_the_way_to_the_own_node_and_never_from_it", own_node),
];

/// Every pod of every namespace.
const ALL: &str = "{namespaces: {}}";
const SERVER: &str = "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: server}}}}";
const OF_X: &str = "{namespaces: {matchLabels: {kubernetes.io/metadata.name: x}}}";
const OF_Y: &str = "{namespaces: {matchLabels: {kubernetes.io/metadata.name: y}}}";

/// Writes a ClusterNetworkPolicy; `rules` is YAML that is indented by two.
fn apply_wide(
    manifests: &Manifests,
    name: &str,
    (tier, priority): (&str, u16),
    subject: &str,
    rules: &str,
) -> Result<()> {
    let text = format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  tier: {tier}\n  priority: {priority}\n  subject: {subject}\n{rules}"
    );
    manifests.write(&format!("cluster-policy-{name}.yaml"), &text)
}

fn tiers(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let server = n1.pod("x/server").labels(&[("app", "server")]).start()?;
    let (client_allowed, client_denied) = (n2.pod("x/friend").start()?, n1.pod("y/stranger").start()?);
    let _servers = serve_all(&server.place)?;
    let manifests = lab.manifests();
    let deny_all = format!("  ingress:\n  - {{action: Deny, from: [{ALL}]}}\n");
    let accept_x = format!("  ingress:\n  - {{action: Accept, from: [{OF_X}]}}\n");
    apply_wide(manifests, "base", ("Admin", 10), SERVER, &deny_all)?;
    apply_wide(manifests, "friends", ("Admin", 5), SERVER, &accept_x)?;
    let _agent = Agent::start(&n1, &[])?;
    let (to, v4) = (server.addresses, server.addresses.v4.into());

    expect(&client_allowed.place, to, &EVERY_KIND, Seen::Reached)?;
    // A drop, not a refusal.
    expect(&client_denied.place, to, &EVERY_KIND, Seen::Blocked)?;
    // A priority that changes re-orders them.
    apply_wide(manifests, "friends", ("Admin", 20), SERVER, &accept_x)?;
    becomes(&client_allowed.place, v4, Traffic::Tcp(80), Seen::Blocked)?;
    expect(&client_allowed.place, to, &EVERY_KIND, Seen::Blocked)?;
    apply_wide(manifests, "friends", ("Admin", 9), SERVER, &accept_x)?;
    becomes(&client_allowed.place, v4, Traffic::Tcp(80), Seen::Reached)?;
    // Accept and Deny beat what NetworkPolicies say.
    apply(
        manifests,
        "strangers",
        "  podSelector: {matchLabels: {app: server}}\n  ingress:\n  - from:\n    - namespaceSelector: \
         {matchLabels: {kubernetes.io/metadata.name: y}}\n",
    )?;
    let pass =
        format!("  ingress:\n  - {{action: Pass, from: [{OF_Y}]}}\n  - {{action: Deny, from: [{ALL}]}}\n");
    let pass_all = format!("  ingress:\n  - {{action: Pass, from: [{ALL}]}}\n");
    apply_wide(manifests, "base", ("Admin", 10), SERVER, &pass)?;
    becomes(&client_denied.place, v4, Traffic::Tcp(80), Seen::Reached)?;
    expect(&client_allowed.place, to, &EVERY_KIND, Seen::Reached)?;
    // With Pass for all of them the NetworkPolicy decides, and without it the baseline.
    apply_wide(manifests, "friends", ("Admin", 1), SERVER, &pass_all)?;
    becomes(&client_allowed.place, v4, Traffic::Tcp(80), Seen::Blocked)?;
    expect(&client_denied.place, to, &EVERY_KIND, Seen::Reached)?;
    let deny_y = format!("  ingress:\n  - {{action: Deny, from: [{OF_Y}]}}\n");
    apply_wide(manifests, "least", ("Baseline", 0), ALL, &deny_y)?;
    manifests.remove("policy-strangers.yaml")?;
    becomes(&client_allowed.place, v4, Traffic::Tcp(80), Seen::Reached)?;
    expect(&client_denied.place, to, &EVERY_KIND, Seen::Blocked)?;
    manifests.remove("cluster-policy-least.yaml")?;
    becomes(&client_denied.place, v4, Traffic::Tcp(80), Seen::Reached)
}

fn label_flip(lab: &mut Lab) -> Result<()> {
    let n1 = lab.node("n1")?;
    let server = n1.pod("x/server").labels(&[("app", "server")]).start()?;
    let client = n1.pod("y/client").start()?;
    let _servers = [serve_all(&server.place)?, serve_all(&client.place)?];
    let manifests = lab.manifests();
    manifests.namespace("x", &[("house", "lions")])?;
    manifests.namespace("y", &[("house", "snakes")])?;
    let snakes = "{namespaces: {matchLabels: {house: snakes}}}";
    let rules = format!(
        "  ingress:\n  - {{action: Deny, from: [{snakes}]}}\n  egress:\n  - {{action: Deny, to: [{snakes}]}}\n"
    );
    apply_wide(manifests, "house", ("Admin", 0), "{namespaces: {matchLabels: {house: lions}}}", &rules)?;
    let _agent = Agent::start(&n1, &[])?;

    let ends = [(&client, &server), (&server, &client)];
    let all = |seen| {
        let (first, v4) = (&client.place, server.addresses.v4.into());
        becomes(first, v4, Traffic::Tcp(80), seen)?;
        ends.iter().try_for_each(|(from, to)| expect(&from.place, to.addresses, &EVERY_KIND, seen))
    };
    all(Seen::Blocked)?;
    // The peer's namespace, then the subject's.
    manifests.namespace("y", &[("house", "badgers")])?;
    all(Seen::Reached)?;
    manifests.namespace("y", &[("house", "snakes")])?;
    all(Seen::Blocked)?;
    manifests.namespace("x", &[])?;
    all(Seen::Reached)
}

fn live(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let server = n1.pod("x/server").labels(&[("app", "server")]).start()?;
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let remote = n2.pod("x/remote").start()?;
    let _servers = [serve_all(&server.place)?, serve_all(&client.place)?];
    let manifests = lab.manifests();
    let rules = format!(
        "  ingress:\n  - {{action: Deny, from: [{ALL}]}}\n  egress:\n  - {{action: Accept, to: [{SERVER}]}}\n  \
         - {{action: Deny, to: [{{networks: [0.0.0.0/0, '::/0']}}]}}\n"
    );
    let subject = "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: client}}}}";
    apply_wide(manifests, "client", ("Admin", 3), subject, &rules)?;
    let _agent = Agent::start(&n1, &[])?;

    // Answers to what is accepted come in, errors about it too; nothing else does.
    expect(&client.place, server.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&client.place, server.addresses, &[Traffic::Udp(9), Traffic::Tcp(9)], Seen::Refused)?;
    expect(&server.place, client.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&client.place, remote.addresses, &EVERY_KIND, Seen::Blocked)?;

    let open = |to| [&client.place, &remote.place].map(|from| Live::open(from, to));
    let mut connections = server.addresses.both().into_iter().flat_map(open).collect::<Result<Vec<_>>>()?;
    let deny_all = format!("  ingress:\n  - {{action: Deny, from: [{ALL}]}}\n");
    apply_wide(manifests, "server", ("Admin", 1), SERVER, &deny_all)?;
    for place in [&client.place, &remote.place] {
        becomes(place, server.addresses.v4.into(), Traffic::Tcp(7), Seen::Blocked)?;
        expect(place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    connections.iter_mut().try_for_each(Live::goes_on)
}

fn own_node(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let pod = n1.pod("x/pod").labels(&[("app", "server")]).start()?;
    let _servers = [serve_all(&pod.place)?, serve_all(&n1.place)?, serve_all(&n2.place)?];
    let manifests = lab.manifests();
    // A peer of another kind than is known: everything is denied.
    let no_ingress = "  ingress:\n  - {action: Deny, from: [{services: {}}]}\n";
    apply_wide(manifests, "in", ("Admin", 0), ALL, no_ingress)?;
    apply(manifests, "out", DENY_EGRESS_OF_ALL)?;
    let Addresses { v4, v6 } = n1.addresses;
    let networks = format!("[{v4}/32, '{v6}/128']");
    let web = "protocols: [{tcp: {destinationPort: {number: 80}}}]";
    let no_web = format!("  egress:\n  - {{action: Deny, to: [{{networks: {networks}}}], {web}}}\n");
    apply_wide(manifests, "out", ("Admin", 1), SERVER, &no_web)?;
    let _agent = Agent::start(&n1, &[])?;

    expect(&n1.place, pod.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&n2.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&pod.place, n1.addresses, &[Traffic::Tcp(80)], Seen::Blocked)?;
    let others = [Traffic::Tcp(7), Traffic::Udp(7), Traffic::Echo];
    expect(&pod.place, n1.addresses, &others, Seen::Reached)?;
    // By its labels the node is the same one.
    let by_name = "{nodes: {matchLabels: {kubernetes.io/hostname: n1}}}";
    apply_wide(
        manifests,
        "out",
        ("Admin", 1),
        SERVER,
        &format!("  egress:\n  - {{action: Deny, to: [{by_name}]}}\n"),
    )?;
    becomes(&pod.place, v4.into(), Traffic::Tcp(7), Seen::Blocked)?;
    expect(&pod.place, n1.addresses, &EVERY_KIND, Seen::Blocked)?;
    // Without it the NetworkPolicy alone holds, and not here.
    manifests.remove("cluster-policy-out.yaml")?;
    becomes(&pod.place, v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&pod.place, n1.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&pod.place, n2.addresses, &EVERY_KIND, Seen::Blocked)
}
