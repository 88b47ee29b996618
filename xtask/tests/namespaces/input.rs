//! Bad input: each bad file is named in the log, everything else is enforced.

use anyhow::{Result, ensure};
use xtask::lab::{Agent, Lab, PATIENT, Seen, Traffic, until};

use super::{
    Test,
    scene::{EVERY_KIND, apply, becomes, expect, policy, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("bad_files_are_named_and_the_others_are_enforced", bad_files),
    ("a_file_that_turns_unreadable_keeps_its_last_good_state", turns_unreadable),
    ("a_policy_that_is_half_understood_isolates_and_allows_the_understood_half", half_understood),
];

const CLOSE: &str = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress]\n";

/// A file, and what its message must hold besides the file's name.
const BAD: &[(&str, &str, &[&str])] = &[
    ("unreadable.yaml", "kind: [NetworkPolicy\nmetadata: }{\n", &[]),
    (
        "version.yaml",
        "apiVersion: networking.k8s.io/v9\nkind: NetworkPolicy\nmetadata: {name: version, namespace: x}\nspec: {podSelector: {matchLabels: {app: nobody}}}\n",
        &["version", "apiVersion"],
    ),
    (
        "nameless.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: x}\nspec: {podSelector: {matchLabels: {app: nobody}}}\n",
        &["name"],
    ),
];

/// The invalid part of a policy that selects nothing of the lab, and the field that the message must name.
const BAD_RULES: &[(&str, &str, &str)] = &[
    ("end-port", "ports: [{port: 90, endPort: 80}]", "endPort"),
    ("two-peers", "from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]", "from"),
    ("cidr", "from: [{ipBlock: {cidr: 10.0.0.0/33}}]", "cidr"),
    ("except", "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}]", "except"),
];

fn bad_files(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let closed = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let (free, knocker) = (node.pod("x/free").start()?, node.pod("x/knocker").start()?);
    let _servers = [serve_all(&closed.place)?, serve_all(&free.place)?];
    for (file, text, _) in BAD {
        lab.manifests().write(file, text)?;
    }
    for (name, rule, _) in BAD_RULES {
        let spec = format!("  podSelector: {{matchLabels: {{app: nobody}}}}\n  ingress:\n  - {rule}\n");
        apply(lab.manifests(), name, &spec)?;
    }
    apply(lab.manifests(), "close", CLOSE)?;
    let _agent = Agent::start(&node, &[])?;

    expect(&knocker.place, closed.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&knocker.place, free.addresses, &EVERY_KIND, Seen::Reached)?;
    let log = lab.logs();
    let message = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    for (file, _, parts) in BAD {
        ensure!(message(&[&[*file], *parts].concat()), "no line of the log names {file} and {parts:?}");
    }
    for (name, _, field) in BAD_RULES {
        let file = format!("policy-{name}.yaml");
        ensure!(message(&[&file, name, field]), "no line of the log names {file}, {name} and {field}");
    }
    Ok(())
}

fn turns_unreadable(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let [one, two] =
        ["one", "two"].map(|name| node.pod(&format!("x/{name}")).labels(&[("app", name)]).start());
    let (one, two) = (one?, two?);
    let knocker = node.pod("x/knocker").start()?;
    let _servers = [serve_all(&one.place)?, serve_all(&two.place)?];
    let close = |app| policy(app, &format!("  podSelector: {{matchLabels: {{app: {app}}}}}\n"));
    lab.manifests().write("one.yaml", &close("one"))?;
    lab.manifests().write("two.yaml", &close("two"))?;
    let _agent = Agent::start(&node, &[])?;

    lab.manifests().write("one.yaml", "spec: [\n")?;
    until("the log names the file", PATIENT, || Ok(lab.logs().contains("one.yaml").then_some(())))?;
    // The other file is still watched.
    lab.manifests().remove("two.yaml")?;
    becomes(&knocker.place, two.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&knocker.place, one.addresses, &EVERY_KIND, Seen::Blocked)?;
    // And so is this one.
    lab.manifests().write("one.yaml", "# no policy any more\n")?;
    becomes(&knocker.place, one.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)
}

fn half_understood(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let server = node.pod("x/server").labels(&[("app", "closed")]).start()?;
    let (friend, stranger) =
        (node.pod("x/friend").labels(&[("role", "friend")]).start()?, node.pod("x/stranger").start()?);
    let _servers = serve_all(&server.place)?;
    apply(
        lab.manifests(),
        "half",
        "  podSelector: {matchLabels: {app: closed}}\n  ingress:\n  - from:\n    \
         - podSelector: {matchLabels: {role: friend}}\n    - ipBlock: {cidr: 10.244.0.0/99}\n    \
         - podSelector: {matchExpressions: [{key: role, operator: Resembles, values: [friend]}]}\n",
    )?;
    let _agent = Agent::start(&node, &[])?;
    expect(&friend.place, server.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&stranger.place, server.addresses, &EVERY_KIND, Seen::Blocked)
}
