//! Calico's host endpoints: the node's own traffic at its devices, what it forwards, and the guard that
//! undoes what cuts it off.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xtask::lab::{Agent, Host, Lab, Node, PATIENT, Pod, Seen, Server, Service, Traffic, until};

use super::{
    Test,
    live::Live,
    scene::{becomes, expect},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_host_endpoint_without_policies_leaves_only_failsafe_ports_open", closed),
    ("policies_open_a_host_endpoint_and_pods_are_not_affected", opened),
    ("a_host_endpoint_for_all_devices_and_policies_for_forwarded_traffic", forwarded),
    ("a_live_connection_of_the_node_survives_its_first_host_endpoint", live),
    ("a_host_endpoint_holds_while_no_agent_runs_and_when_the_next_one_comes", restarted),
    ("a_host_endpoint_that_cuts_the_node_off_is_undone_also_without_an_agent", undone),
    ("a_bad_change_of_a_host_endpoint_gives_way_to_what_was_before", changed_back),
    ("a_new_agent_keeps_the_deadline_of_a_change_and_what_was_undone", deadline),
    ("what_rules_of_a_host_endpoint_refer_to_changes_at_once_and_for_good", referred),
    ("a_host_endpoint_without_a_device_or_without_its_programs_is_reported", unenforced),
];

/// No kubelet runs in the lab.
const NO_KUBELET: [&str; 2] = ["--kubelet-healthz", "off"];

const HTTP: Traffic = Traffic::Tcp(80);
const SSH: Traffic = Traffic::Tcp(22);
const API: Traffic = Traffic::Tcp(6443);

const POLICY: &str = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n";

/// A node, a host outside and a pod, with servers on each.
struct Fixture {
    node: Node,
    outside: Host,
    pod: Pod,
    _servers: Vec<Server>,
}

impl Fixture {
    fn new(lab: &mut Lab) -> Result<Self> {
        let (node, outside) = (lab.node("n1")?, lab.outside("out")?);
        let pod = node.pod("x/pod").start()?;
        let services = [
            Service::Http(80),
            Service::TcpEcho(7),
            Service::UdpEcho(7),
            Service::Http(22),
            Service::Http(6443),
        ];
        let places = [&node.place, &outside.place, &pod.place];
        let servers =
            places.map(|place| place.serve_together(&services)).into_iter().collect::<Result<_>>()?;
        Ok(Self { node, outside, pod, _servers: servers })
    }

    fn comes_in(&self, traffic: Traffic, expected: Seen) -> Result<()> {
        expect(&self.outside.place, self.node.addresses, &[traffic], expected)
    }

    fn goes_out(&self, traffic: Traffic, expected: Seen) -> Result<()> {
        expect(&self.node.place, self.outside.addresses, &[traffic], expected)
    }

    fn comes_in_at_last(&self, traffic: Traffic, expected: Seen) -> Result<()> {
        becomes(&self.outside.place, self.node.addresses.v4.into(), traffic, expected)
    }

    /// In both directions, and with the node itself.
    fn pod_is_reached(&self) -> Result<()> {
        let kinds = [HTTP, Traffic::Udp(7), Traffic::Echo];
        expect(&self.outside.place, self.pod.addresses, &kinds, Seen::Reached)?;
        expect(&self.pod.place, self.outside.addresses, &kinds, Seen::Reached)?;
        expect(&self.node.place, self.pod.addresses, &kinds, Seen::Reached)?;
        expect(&self.pod.place, self.node.addresses, &kinds, Seen::Reached)
    }
}

fn host_endpoint(lab: &Lab, devices: &str) -> Result<()> {
    lab.manifests().write(
        "host.yaml",
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: n1-host, labels: {{role: \
             node}}}}\nspec: {{node: n1, {devices}}}\n"
        ),
    )
}

/// A policy for everything with the node's labels; `spec` is YAML in one line.
fn policy(lab: &Lab, name: &str, spec: &str) -> Result<()> {
    let text =
        format!("{POLICY}metadata: {{name: {name}}}\nspec: {{selector: \"role == 'node'\", {spec}}}\n");
    lab.manifests().write(&format!("host-{name}.yaml"), &text)
}

fn closed(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    host_endpoint(lab, "interfaceName: eth0")?;
    let agent = Agent::start(&fixture.node, &NO_KUBELET)?;
    for traffic in [HTTP, Traffic::Udp(7), Traffic::Echo, API] {
        let expected = if traffic == API { Seen::Reached } else { Seen::Blocked };
        fixture.comes_in(traffic, expected)?;
        fixture.goes_out(traffic, expected)?;
    }
    fixture.comes_in(SSH, Seen::Reached)?;
    fixture.goes_out(SSH, Seen::Blocked)?;
    fixture.pod_is_reached()?;

    let listed = agent.ask(&["endpoints"])?;
    let of_host = |endpoint: &&serde_json::Value| endpoint["pod"] == "HostEndpoint/n1-host";
    let host = listed.as_array().into_iter().flatten().find(of_host);
    let is_listed = host.is_some_and(|it| it["interface"] == "eth0" && it["ingress"]["isolated"] == true);
    ensure!(is_listed, "{listed}");
    until("flows tell of the host endpoint", PATIENT, || {
        let flows = fixture.node.podgate(&["flows"])?.stdout;
        let has = |verdict: &str| {
            flows.lines().any(|line| line.contains("HostEndpoint/n1-host") && line.contains(verdict))
        };
        let is_certain = !flows.contains("changed at that moment");
        Ok((has("failsafe") && has("denied") && is_certain).then_some(()))
    })?;

    // And without it everything is as before.
    lab.manifests().remove("host.yaml")?;
    fixture.comes_in_at_last(HTTP, Seen::Reached)?;
    fixture.goes_out(HTTP, Seen::Reached)
}

fn opened(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    let [out, _] = fixture.outside.addresses.both();
    host_endpoint(lab, "interfaceName: eth0, expectedIPs: []")?;
    policy(
        lab,
        "in",
        &format!(
            "ingress: [{{action: Allow, protocol: TCP, source: {{nets: [{out}/32]}}, destination: {{ports: [80]}}}}]"
        ),
    )?;
    policy(lab, "out", "egress: [{action: Allow, protocol: UDP, destination: {ports: [7]}}]")?;
    let _agent = Agent::start(&fixture.node, &NO_KUBELET)?;
    fixture.comes_in_at_last(HTTP, Seen::Reached)?;
    let [v4, v6] = fixture.node.addresses.both();
    let probe = |to, traffic, expected| fixture.outside.place.probe_expecting(to, traffic, expected);
    ensure!(probe(v6, HTTP, Seen::Blocked)? == Seen::Blocked, "the policy names an IPv4 address");
    ensure!(probe(v4, Traffic::Tcp(7), Seen::Blocked)? == Seen::Blocked, "the policy names one port");
    fixture.goes_out(Traffic::Udp(7), Seen::Reached)?;
    fixture.goes_out(HTTP, Seen::Blocked)?;
    fixture.comes_in(SSH, Seen::Reached)?;
    fixture.pod_is_reached()
}

fn forwarded(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    host_endpoint(lab, "interfaceName: '*', profiles: [projectcalico-default-allow]")?;
    let _agent = Agent::start(&fixture.node, &NO_KUBELET)?;
    fixture.comes_in(HTTP, Seen::Reached)?;
    fixture.goes_out(HTTP, Seen::Reached)?;
    fixture.pod_is_reached()?;

    policy(
        lab,
        "forward",
        "applyOnForward: true, types: [Ingress], ingress: [{action: Allow, protocol: UDP}]",
    )?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    fixture.comes_in(Traffic::Udp(7), Seen::Reached)?;
    fixture.goes_out(HTTP, Seen::Reached)?;
    expect(&fixture.outside.place, fixture.pod.addresses, &[HTTP], Seen::Blocked)?;
    expect(&fixture.outside.place, fixture.pod.addresses, &[SSH], Seen::Blocked)?;
    expect(&fixture.outside.place, fixture.pod.addresses, &[Traffic::Udp(7)], Seen::Reached)?;
    expect(&fixture.pod.place, fixture.outside.addresses, &[HTTP], Seen::Reached)?;

    // Evaluated before all others, and for forwarded traffic, too.
    policy(lab, "first", "preDNAT: true, applyOnForward: true, order: 1, ingress: [{action: Allow}]")?;
    fixture.comes_in_at_last(HTTP, Seen::Reached)?;
    fixture.pod_is_reached()
}

fn live(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    let _agent = Agent::start(&fixture.node, &NO_KUBELET)?;
    let [outside, node] =
        [(&fixture.outside.place, fixture.node.addresses), (&fixture.node.place, fixture.outside.addresses)];
    let open = [outside, node].map(|(from, to)| to.both().map(|to| Live::open(from, to)));
    let mut connections = open.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    host_endpoint(lab, "interfaceName: eth0")?;
    fixture.comes_in_at_last(Traffic::Tcp(7), Seen::Blocked)?;
    connections.iter_mut().try_for_each(Live::goes_on)
}

fn restarted(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    host_endpoint(lab, "interfaceName: eth0")?;
    policy(lab, "in", "ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]")?;
    let agent = Agent::start(&fixture.node, &NO_KUBELET)?;
    fixture.comes_in_at_last(Traffic::Tcp(7), Seen::Blocked)?;
    agent.until("the host endpoint is confirmed", PATIENT, "endpoints", |listed| {
        listed.to_string().contains("\"identified\"") && !listed.to_string().contains("unconfirmed")
    })?;
    let holds = || {
        fixture.comes_in(HTTP, Seen::Reached)?;
        fixture.comes_in(Traffic::Tcp(7), Seen::Blocked)
    };
    agent.kill()?;
    holds()?;
    // A restarted agent does not ask about what it finds confirmed.
    let deaf = ["--kubelet-healthz", "http://127.0.0.1:9/healthz", "--host-endpoints-guard", "2"];
    let agent = Agent::start(&fixture.node, &deaf)?;
    let listed = agent.ask(&["endpoints"])?;
    ensure!(!listed.to_string().contains("unconfirmed"), "{listed}");
    holds()?;
    agent.kill()?;
    holds()
}

/// Whoever may change labels or networks must not have the guard open the node.
fn referred(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    let outside = fixture.outside.addresses;
    let set = |nets: &[String]| {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: bad, labels: {{bad: \
             'yes'}}}}\nspec: {{nets: [{}]}}\n",
            nets.join(", ")
        );
        lab.manifests().write("set.yaml", &text)
    };
    set(&["192.0.2.0/24".to_owned()])?;
    host_endpoint(lab, "interfaceName: eth0")?;
    policy(
        lab,
        "in",
        "ingress: [{action: Deny, source: {selector: \"bad == 'yes'\"}}, {action: Allow}], egress: [{action: Allow}]",
    )?;
    let health = fixture.outside.place.serve_together(&[Service::Http(81)])?;
    let url = format!("http://{}:81/", outside.v4);
    let options = ["--kubelet-healthz", &url, "--host-endpoints-guard", "3"];
    let agent = Agent::start(&fixture.node, &options)?;
    agent.until("the host endpoint is confirmed", PATIENT, "endpoints", |listed| {
        listed.to_string().contains("n1-host") && !listed.to_string().contains("unconfirmed")
    })?;
    fixture.comes_in(HTTP, Seen::Reached)?;
    // Nothing is confirmed any more, and nothing need be.
    drop(health);
    set(&outside.both().map(|at| at.to_string()))?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    std::thread::sleep(Duration::from_secs(4));
    fixture.comes_in(HTTP, Seen::Blocked)
}

fn unenforced(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    host_endpoint(lab, "interfaceName: eth7")?;
    let agent = Agent::start(&fixture.node, &NO_KUBELET)?;
    let becomes_reported = |what: &str, reason: Option<&str>| {
        let is_so = |listed: &serde_json::Value| {
            let of_host = |it: &&serde_json::Value| it["pod"] == "HostEndpoint/n1-host";
            let host = listed.as_array().into_iter().flatten().find(of_host);
            host.is_some_and(|it| match reason {
                Some(part) => it["unenforced"].as_str().unwrap_or_default().contains(part),
                None => it["unenforced"].is_null(),
            })
        };
        agent.until(what, PATIENT, "endpoints", is_so).map(|_| ())
    };
    becomes_reported("it is reported", Some("no device eth7"))?;
    fixture.comes_in(HTTP, Seen::Reached)?;
    host_endpoint(lab, "interfaceName: eth0")?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    becomes_reported("it is reported no longer", None)?;
    fixture.node.podgate(&["detach"])?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)
}

/// The health endpoint of a test's agent: a server outside.
fn healthz(fixture: &Fixture) -> String {
    format!("http://{}:80/", fixture.outside.addresses.v4)
}

fn undone(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    let url = healthz(&fixture);
    let options = ["--kubelet-healthz", &url, "--host-endpoints-guard", "6"];
    let agent = Agent::start(&fixture.node, &options)?;
    host_endpoint(lab, "interfaceName: eth0")?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    agent.until("the change is undone", PATIENT, "endpoints", |listed| {
        listed.to_string().contains("\"undone\"")
    })?;
    fixture.comes_in(HTTP, Seen::Reached)?;
    fixture.goes_out(HTTP, Seen::Reached)?;

    // With a way out it is kept.
    policy(lab, "out", "egress: [{action: Allow}]")?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    agent.until("the change is confirmed", PATIENT, "endpoints", |listed| {
        let text = listed.to_string();
        !text.contains("\"undone\"") && !text.contains("\"unconfirmed\"") && text.contains("n1-host")
    })?;
    std::thread::sleep(Duration::from_secs(7));
    fixture.comes_in(HTTP, Seen::Blocked)?;
    lab.manifests().remove("host.yaml")?;
    fixture.comes_in_at_last(HTTP, Seen::Reached)?;

    // And the kernel goes back by itself.
    lab.manifests().remove("host-out.yaml")?;
    host_endpoint(lab, "interfaceName: eth0")?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    agent.kill()?;
    fixture.comes_in_at_last(HTTP, Seen::Reached)?;
    fixture.goes_out(HTTP, Seen::Reached)
}

fn deadline(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    let url = healthz(&fixture);
    let options = ["--kubelet-healthz", &url, "--host-endpoints-guard", "12"];
    let agent = Agent::start(&fixture.node, &options)?;
    host_endpoint(lab, "interfaceName: eth0")?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    let begun = Instant::now();
    // However often it is started again, the node is cut off for one window.
    let mut agent = Some(agent);
    while begun.elapsed() < Duration::from_secs(8) {
        agent.take().map(Agent::kill).transpose()?;
        let next = Agent::start(&fixture.node, &options)?;
        std::thread::sleep(Duration::from_secs(1));
        agent = Some(next);
    }
    fixture.comes_in_at_last(HTTP, Seen::Reached)?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(20), "the node was cut off for {took:?}");
    // The next one finds it undone, and does not try it again.
    agent.take().map(Agent::kill).transpose()?;
    let agent = Agent::start(&fixture.node, &options)?;
    agent.until("the change stays undone", PATIENT, "endpoints", |listed| {
        listed.to_string().contains("\"undone\"")
    })?;
    fixture.comes_in(HTTP, Seen::Reached)?;
    policy(lab, "out", "egress: [{action: Allow}]")?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)
}

fn changed_back(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    let url = healthz(&fixture);
    let options = ["--kubelet-healthz", &url, "--host-endpoints-guard", "5"];
    host_endpoint(lab, "interfaceName: eth0")?;
    policy(
        lab,
        "good",
        "order: 5, ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}], egress: [{action: Allow}]",
    )?;
    let agent = Agent::start(&fixture.node, &options)?;
    agent.until("it is confirmed", PATIENT, "endpoints", |listed| {
        listed.to_string().contains("n1-host") && !listed.to_string().contains("unconfirmed")
    })?;
    policy(lab, "bad", "order: 1, ingress: [{action: Deny}], egress: [{action: Deny}]")?;
    fixture.comes_in_at_last(HTTP, Seen::Blocked)?;
    until("the node is reached again", PATIENT, || {
        let seen = fixture.outside.place.probe(
            fixture.node.addresses.v4.into(),
            HTTP,
            Duration::from_millis(200),
        )?;
        Ok((seen == Seen::Reached).then_some(()))
    })?;
    fixture.goes_out(HTTP, Seen::Reached)?;
    fixture.comes_in(Traffic::Tcp(7), Seen::Blocked)?;
    drop(agent);
    fixture.comes_in(HTTP, Seen::Reached)?;
    fixture.comes_in(Traffic::Tcp(7), Seen::Blocked)
}
