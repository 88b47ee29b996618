//! `podgate cni`: no container of a pod starts before the pod's policies are enforced, with an agent or
//! without one.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::{
    lab::{Agent, Daemon, Lab, Node, PATIENT, Pod, PodNetworkMode, Seen, Server, Traffic, join, until},
    workspace,
};

use super::{
    Test,
    scene::{CLOSE, EVERY_KIND, apply, becomes, expect, serve_all},
};

mod forged;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_pod_that_is_added_is_isolated_from_its_first_packet", first_packet),
    ("a_pod_that_the_agent_does_not_know_is_waited_for_and_comes_again_later", unknown_pod),
    ("without_an_agent_a_pod_is_held_unless_its_namespace_is_known_to_be_open", without_agent),
    ("without_an_agent_a_pod_on_a_bridge_is_held_too", bridged),
    ("after_a_reboot_every_pod_is_held_until_the_agent_comes", reboot),
    ("what_is_known_of_a_pod_goes_with_it", forgotten),
    ("an_interface_that_no_device_of_the_node_is_paired_with_is_passed_over", unpaired),
    ("a_pod_waits_for_its_own_object_when_another_has_had_its_name", renewed),
    ("a_socket_that_a_held_pod_forges_passes_for_no_connection", forged::forged),
    ("the_plugin_stays_in_the_configuration_until_it_is_uninstalled", installed),
];

/// A pod as the kubelet starts it: its object is there, its veth is made, nothing says yet which addresses it
/// has.
fn plugged(node: &Node, name: &str, labels: &[(&str, &str)]) -> Result<Pod> {
    let spec = node.pod(name).labels(labels);
    spec.list_pending()?;
    let pod = spec.plug()?;
    pod.assign()?;
    Ok(pod)
}

/// An isolated pod that answers, as far as it may.
fn closed(node: &Node, name: &str) -> Result<(Pod, Vec<Server>)> {
    let pod = plugged(node, name, &[("app", "closed")])?;
    let servers = serve_all(&pod.place)?;
    Ok((pod, servers))
}

fn first_packet(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    apply(lab.manifests(), "close", CLOSE)?;
    let _agent = Agent::start(&node, &[])?;
    let client_allowed = plugged(&node, "x/friend", &[("role", "friend")])?;
    let client_denied = plugged(&node, "x/stranger", &[])?;
    for pod in [&client_allowed, &client_denied] {
        pod.add()?;
        pod.list()?;
    }
    for number in 0..5 {
        let (pod, _servers) = closed(&node, &format!("x/closed-{number}"))?;
        pod.add()?;
        expect(&client_denied.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
        becomes(&client_allowed.place, pod.addresses.v4.into(), EVERY_KIND[0], Seen::Reached)?;
        expect(&client_allowed.place, pod.addresses, &EVERY_KIND, Seen::Reached)?;
        pod.cni_silent("CHECK", json!({}))?;
        pod.cni_silent("DEL", json!({}))?;
    }
    Ok(())
}

/// The kubelet may know a pod before the agent does.
fn unknown_pod(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    apply(lab.manifests(), "close", CLOSE)?;
    let client_denied = node.pod("x/stranger").start()?;
    let _agent = Agent::start(&node, &[])?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).plug()?;
    pod.assign()?;
    let _servers = serve_all(&pod.place)?;
    let refused = pod.cni("ADD", json!({"timeout": 0.2}))?;
    ensure!(!refused.status.success(), "{}", refused.text());
    let error: Value = serde_json::from_str(&refused.stdout)?;
    ensure!(error["code"] == 11 && error["cniVersion"] == "0.4.0", "{error}");
    ensure!(error["msg"].as_str().is_some_and(|text| text.contains("x/closed")), "{error}");
    expect(&client_denied.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
    thread::scope(|scope| {
        let adding = scope.spawn(|| pod.add());
        pod.list()?;
        join(adding)
    })?;
    expect(&client_denied.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
    lab.manifests().remove("policy-close.yaml")?;
    becomes(&client_denied.place, pod.addresses.v4.into(), EVERY_KIND[0], Seen::Reached)
}

/// Two clients of the pods of a node: the policy of namespace `x` allows one of them.
struct Clients {
    client_allowed: Pod,
    client_denied: Pod,
}

impl Clients {
    /// In namespace `x`, which is closed by a policy; `open` is known to have none.
    fn new(lab: &Lab, node: &Node) -> Result<Self> {
        for namespace in ["x", "open"] {
            lab.manifests().namespace(namespace, &[])?;
        }
        apply(lab.manifests(), "close", CLOSE)?;
        let client_allowed = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
        let client_denied = node.pod("x/stranger").start()?;
        Ok(Self { client_allowed, client_denied })
    }

    /// Nothing goes in or out.
    fn cannot_reach(&self, pod: &Pod) -> Result<()> {
        expect(&self.client_allowed.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
        expect(&self.client_denied.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
        expect(&pod.place, self.client_denied.addresses, &[Traffic::Echo], Seen::Blocked)
    }
}

fn without_agent(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    on_node(lab, node)
}

fn bridged(lab: &mut Lab) -> Result<()> {
    let node = lab.wired_node("n1", PodNetworkMode::Bridge)?;
    on_node(lab, node)
}

fn on_node(lab: &Lab, node: Node) -> Result<()> {
    let clients = Clients::new(lab, &node)?;
    let agent = Agent::start(&node, &[])?;
    until("the agent has left what it knows of namespaces", PATIENT, || {
        let text = fs::read_to_string(node.directory().join("namespaces.json")).unwrap_or_default();
        Ok(text.contains("open").then_some(()))
    })?;
    agent.kill()?;
    let (held, _held_servers) = closed(&node, "x/closed")?;
    let (free, _free_servers) = closed(&node, "open/free")?;
    let (unknown, _unknown_servers) = closed(&node, "new/unknown")?;
    let (trusted, _trusted_servers) = closed(&node, "new/trusted")?;
    for pod in [&held, &free, &unknown] {
        pod.add()?;
    }
    trusted.add_with(json!({"whenUnknown": "open"}))?;
    for pod in [&held, &unknown] {
        clients.cannot_reach(pod)?;
        pod.cni_silent("CHECK", json!({}))?;
    }
    for pod in [&free, &trusted] {
        expect(&clients.client_denied.place, pod.addresses, &EVERY_KIND, Seen::Reached)?;
    }
    // Who has waited is let in when the agent is back.
    let (_agent, seen) = thread::scope(|scope| {
        let from = &clients.client_allowed.place;
        let waiting = scope.spawn(|| from.probe(held.addresses.v4.into(), Traffic::Tcp(80), PATIENT));
        Ok::<_, anyhow::Error>((Agent::start(&node, &[])?, join(waiting)?))
    })?;
    ensure!(seen == Seen::Reached, "a connection that waits for the agent: {seen}");
    expect(&clients.client_denied.place, held.addresses, &EVERY_KIND, Seen::Blocked)?;
    for pod in [&free, &trusted, &unknown] {
        pod.list()?;
        becomes(&clients.client_denied.place, pod.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    }
    Ok(())
}

/// What a reboot leaves of a node: nothing in the kernel, nothing below `/run`. Its pods must be gone
/// already.
pub(crate) fn forget_all(node: &Node) -> Result<()> {
    let pins = node.bpffs().join("podgate");
    if pins.exists() {
        fs::remove_dir_all(&pins).with_context(|| format!("removing {}", pins.display()))?;
    }
    for file in ["namespaces.json", "podgate.sock"] {
        // One that is not there is fine.
        let _ = fs::remove_file(node.directory().join(file));
    }
    let _ = fs::remove_dir_all(node.directory().join("cni-pods"));
    Ok(())
}

fn reboot(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let before = Clients::new(lab, &node)?;
    Agent::start(&node, &[])?.kill()?;
    before.client_allowed.remove()?;
    before.client_denied.remove()?;
    forget_all(&node)?;

    let outside = lab.outside("outside")?;
    let _outside = serve_all(&outside.place)?;
    let client_allowed = plugged(&node, "x/friend-2", &[("role", "friend")])?;
    let client_denied = plugged(&node, "x/stranger-2", &[])?;
    let (held, _servers) = closed(&node, "x/closed")?;
    let clients = Clients { client_allowed, client_denied };
    for pod in [&clients.client_allowed, &clients.client_denied, &held] {
        pod.add()?;
        expect(&pod.place, outside.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    clients.cannot_reach(&held)?;
    expect(&outside.place, held.addresses, &EVERY_KIND, Seen::Blocked)?;
    for pod in [&clients.client_allowed, &clients.client_denied] {
        pod.list()?;
    }
    let agent = Agent::start(&node, &[])?;
    becomes(&clients.client_allowed.place, held.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&clients.client_allowed.place, held.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&clients.client_denied.place, held.addresses, &EVERY_KIND, Seen::Blocked)?;
    becomes(&clients.client_denied.place, outside.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;

    // Nothing of it stays in the kernel.
    agent.terminate()?;
    let detached = node.podgate(&["detach"])?;
    ensure!(detached.status.success(), "detach: {}", detached.text());
    expect(&clients.client_denied.place, held.addresses, &EVERY_KIND, Seen::Reached)?;
    ensure!(!node.bpffs().join("podgate").exists(), "pins are left");
    Ok(())
}

/// A StatefulSet's pod is made again under its name, with labels that a policy selects: until the agent knows
/// of that, it knows a pod that no policy is about.
fn renewed(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    apply(lab.manifests(), "close", CLOSE)?;
    let client_denied = node.pod("x/stranger").start()?;
    let earlier = "apiVersion: v1\nkind: Pod\nmetadata: {name: closed, namespace: x, uid: \
                   00000000-0000-4000-8000-0000000000ff}\nspec: {nodeName: n1, containers: [{name: main, image: lab}]}\n";
    lab.manifests().write("pod-x.closed.yaml", earlier)?;
    let _agent = Agent::start(&node, &[])?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).plug()?;
    pod.assign()?;
    let _servers = serve_all(&pod.place)?;
    let refused = pod.cni("ADD", json!({"timeout": 1}))?;
    ensure!(!refused.status.success() && refused.stdout.contains("earlier pod"), "{}", refused.text());
    pod.list()?;
    pod.add()?;
    expect(&client_denied.place, pod.addresses, &EVERY_KIND, Seen::Blocked)
}

/// By DEL, and by GC where DEL was never called.
fn forgotten(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let _agent = Agent::start(&node, &[])?;
    let known = || -> Result<usize> { Ok(fs::read_dir(node.directory().join("cni-pods"))?.count()) };
    let pods = ["x/a", "x/b", "x/c"].map(|name| plugged(&node, name, &[]));
    let pods = pods.into_iter().collect::<Result<Vec<_>>>()?;
    pods.iter().try_for_each(Pod::add)?;
    ensure!(known()? == 3, "{} of 3 pods are known", known()?);
    let [first, second, _] = &pods[..] else { anyhow::bail!("three pods") };
    for _ in 0..2 {
        first.cni_silent("DEL", json!({}))?;
        ensure!(known()? == 2, "DEL forgets one pod");
    }
    let valid = json!([{"containerID": second.container(), "ifname": "eth0"}]);
    second.cni_silent("GC", json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}))?;
    ensure!(known()? == 1, "GC forgets what is gone");
    second.cni_silent("STATUS", json!({"cniVersion": "1.1.0"}))?;
    second.cni_silent("CHECK", json!({}))
}

/// It cannot be enforced, which the agent reports; no pod waits for what never comes.
fn unpaired(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    apply(lab.manifests(), "close", CLOSE)?;
    let _agent = Agent::start(&node, &[])?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).plug()?;
    node.place.ip(&format!("link del {}\n", pod.host_interface))?;
    pod.place.ip("link add eth0 type bridge\nlink set eth0 up\n")?;
    let added = pod.cni("ADD", json!({}))?;
    ensure!(added.status.success() && added.stderr.contains("not paired"), "{}", added.text());
    Ok(())
}

fn installed(lab: &mut Lab) -> Result<()> {
    const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp"}]}"#;
    let node = lab.node("n1")?;
    let (configurations, binaries) = (node.directory().join("net.d"), node.directory().join("bin"));
    fs::create_dir(&configurations)?;
    let podgate = |verb: &str| -> Result<Command> {
        let mut command = Command::new(workspace::podgate()?);
        command.args(["cni", verb, "--conf-dir"]).arg(&configurations);
        if verb == "install" {
            command.arg("--bin-dir").arg(&binaries);
        }
        Ok(command)
    };
    let early = podgate("install")?.output()?;
    ensure!(!early.status.success(), "there is nothing to be installed into yet");
    let supervisor = Daemon::spawn("podgate cni install --watch", podgate("install")?.arg("--watch"))?;
    let list = configurations.join("10-n.conflist");
    let has_entry = |list: &Path| {
        until("the plugin is in the configuration", Duration::from_secs(20), || {
            let text = fs::read_to_string(list).unwrap_or_default();
            Ok(text.contains("podgate-cni").then_some(()))
        })
    };
    // Its owner writes it, again and in one step, and another that comes first.
    fs::write(&list, LIST)?;
    has_entry(&list)?;
    fs::write(configurations.join("draft"), LIST)?;
    fs::rename(configurations.join("draft"), &list)?;
    has_entry(&list)?;
    let first = configurations.join("00-m.conflist");
    fs::write(&first, LIST)?;
    has_entry(&first)?;
    let mut plugin = Command::new(binaries.join("podgate-cni"));
    let mut plugin =
        plugin.env("CNI_COMMAND", "VERSION").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    plugin.stdin.take().context("its input")?.write_all(br#"{"cniVersion": "1.0.0"}"#)?;
    let version = String::from_utf8(plugin.wait_with_output()?.stdout)?;
    ensure!(version.contains("supportedVersions") && version.contains("1.1.0"), "{version}");
    ensure!(supervisor.terminate(PATIENT)?.success(), "it ends in order");
    has_entry(&first)?;
    let uninstalled = podgate("uninstall")?.output()?;
    ensure!(uninstalled.status.success(), "uninstall: {uninstalled:?}");
    ensure!(fs::read_to_string(&list)? == LIST && fs::read_to_string(&first)? == LIST, "every byte is back");
    Ok(())
}
