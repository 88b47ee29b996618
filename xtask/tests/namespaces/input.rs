//! Bad input: each bad file is named in the log, everything else is enforced.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use xtask::lab::{Agent, Lab, Node, PATIENT, Seen, Source, Traffic, until};

use super::{
    Test,
    fixture::AllowDenyFixture,
    policies::DENY_INGRESS,
    scene::{EVERY_KIND, apply, becomes, expect, policy, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("bad_files_are_named_and_the_others_are_enforced", bad_files),
    ("a_file_that_turns_unreadable_keeps_its_last_good_state", turns_unreadable),
    ("an_agent_that_finds_no_object_opens_nothing_that_is_isolated", nothing_found),
    ("an_empty_directory_that_is_meant_is_enforced", meant_empty),
    ("a_file_that_is_broken_when_an_agent_starts_again_opens_nothing", broken_at_restart),
    ("an_agent_whose_kubeconfig_cannot_be_read_leaves_nothing_in_the_kernel", bad_kubeconfig),
    ("a_policy_that_is_half_understood_isolates_and_allows_the_understood_half", half_understood),
];

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
    apply(lab.manifests(), "close", DENY_INGRESS)?;
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
    let fixture = AllowDenyFixture::new(lab)?;
    apply(
        lab.manifests(),
        "close",
        "  podSelector: {matchLabels: {app: closed}}\n  ingress:\n  - from:\n    \
         - podSelector: {matchLabels: {role: friend}}\n    - ipBlock: {cidr: 10.244.0.0/99}\n    \
         - podSelector: {matchExpressions: [{key: role, operator: Resembles, values: [friend]}]}\n",
    )?;
    let _agent = Agent::start(&fixture.node, &[])?;
    fixture.verdicts_hold()
}

/// Starts an agent, and waits until it says why it is not ready.
fn refused(node: &Node, path: &Path, reason: &str) -> Result<Agent> {
    let agent = Agent::spawn(node, Source::Path(path), &[])?;
    let status = agent.until("the agent says what it lacks", PATIENT, "status", |status| {
        status["last_error"].is_string()
    })?;
    let error = status["last_error"].as_str().context("an error is text")?;
    ensure!(error.contains(reason), "{error:?} does not say {reason:?}");
    ensure!(status["ready"] == false && !agent.is_ready(), "it says that it is ready: {status}");
    Ok(agent)
}

fn nothing_found(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    Agent::start(&fixture.node, &[])?.kill()?;
    let empty = fixture.node.directory().join("empty");
    let foreign = fixture.node.directory().join("foreign.yaml");
    let broken = fixture.node.directory().join("broken.yaml");
    fs::create_dir(&empty).context("making a directory")?;
    fs::write(&foreign, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
        .context("writing a file")?;
    fs::write(&broken, "kind: [NetworkPolicy\n").context("writing a file")?;
    for (path, reason) in [
        (fixture.node.directory().join("misspelt"), "No such file"),
        (empty, "holds no object"),
        (foreign, "holds no object"),
        (broken, "unclosed bracket"),
    ] {
        let agent = refused(&fixture.node, &path, reason)?;
        fixture.verdicts_hold()?;
        agent.terminate()?;
        fixture.verdicts_hold()?;
    }
    let _agent = Agent::start(&fixture.node, &[])?;
    fixture.verdicts_hold()
}

fn meant_empty(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    Agent::start(&fixture.node, &[])?.kill()?;
    let empty = fixture.node.directory().join("empty");
    fs::create_dir(&empty).context("making a directory")?;
    let _agent = Agent::start_from(&fixture.node, Source::Path(&empty), &["--allow-empty"])?;
    fixture.denied_client_becomes(Seen::Reached)
}

fn broken_at_restart(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    Agent::start(&fixture.node, &[])?.kill()?;
    lab.manifests().write("policy-close.yaml", "kind: [NetworkPolicy\n")?;
    let agent = refused(&fixture.node, lab.manifests().directory(), "policy-close.yaml")?;
    fixture.verdicts_hold()?;
    // What is put right is enforced.
    apply(lab.manifests(), "close", "  podSelector: {}\n  ingress: [{}]\n")?;
    fixture.denied_client_becomes(Seen::Reached)?;
    // It says so a moment after the kernel's tables are written.
    until("an agent with a full picture is ready", PATIENT, || Ok(agent.is_ready().then_some(())))
}

fn bad_kubeconfig(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    for kubeconfig in [node.directory().join("absent"), node.directory().to_owned()] {
        let status = Agent::spawn(&node, Source::ApiServer(&kubeconfig), &[])?.ended()?;
        ensure!(status.code() == Some(1), "it ended with {status}");
        ensure!(!node.bpffs().join("podgate").exists(), "it has left pins");
    }
    Ok(())
}
