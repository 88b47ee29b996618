//! Nodes as CNI plug-ins and kube-proxy lay them out: routes by tables of their own, link addresses that
//! repeat, services' addresses on the node.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::lab::{Addresses, Agent, ClusterService, Lab, Node, Pod, Seen, Server, Service, Traffic};

use super::{
    Test,
    policies::{DENY_INGRESS_OF_ALL, blocks, egress, ingress, pods},
    scene::{EVERY_KIND, apply, becomes, expect, serve_all},
    services::{NODE_PORT, PORT, WEB, count},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("pods_routed_by_a_table_of_their_own_are_isolated", second_interface),
    ("pods_behind_veths_of_one_link_address_are_isolated", one_link_address),
    ("the_node_reaches_isolated_pods_by_a_service_address_of_its_own", from_service_address),
];

/// A client that may reach one of two servers on its node and one of two on the other, and is reached by no
/// one.
struct Fixture {
    nodes: [Node; 2],
    client: Pod,
    allowed: [Pod; 2],
    denied: [Pod; 2],
    _servers: Vec<Vec<Server>>,
}

impl Fixture {
    fn new(lab: &mut Lab) -> Result<Self> {
        let nodes = [lab.node("n1")?, lab.node("n2")?];
        let client = nodes[0].pod("x/client").labels(&[("app", "client")]).start()?;
        let of = |app: &str| -> Result<[Pod; 2]> {
            let [near, far] = [&nodes[0], &nodes[1]]
                .map(|node| node.pod(&format!("x/{app}-{}", node.name())).labels(&[("app", app)]).start());
            Ok([near?, far?])
        };
        let (allowed, denied) = (of("good")?, of("bad")?);
        let places = allowed.iter().chain(&denied).chain([&client]).map(|pod| &pod.place);
        let servers = places.map(serve_all).collect::<Result<_>>()?;
        Ok(Self { nodes, client, allowed, denied, _servers: servers })
    }

    fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.allowed.iter().chain(&self.denied).chain([&self.client])
    }

    fn is_isolated(&self, lab: &Lab) -> Result<()> {
        apply(lab.manifests(), "egress", &egress("client", &format!("to: {}", pods("good"))))?;
        apply(
            lab.manifests(),
            "ingress",
            &ingress("client", "from: [{podSelector: {matchLabels: {app: no}}}]"),
        )?;
        becomes(&self.client.place, self.denied[0].addresses.v4.into(), Traffic::Tcp(80), Seen::Blocked)?;
        for pod in &self.allowed {
            expect(&self.client.place, pod.addresses, &EVERY_KIND, Seen::Reached)?;
        }
        for pod in &self.denied {
            expect(&self.client.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
        }
        for pod in self.allowed.iter().chain(&self.denied) {
            expect(&pod.place, self.client.addresses, &EVERY_KIND, Seen::Blocked)?;
        }
        expect(&self.nodes[0].place, self.client.addresses, &EVERY_KIND, Seen::Reached)
    }
}

/// What a plug-in leaves in libcni's cache, in the place of what the lab would write.
fn cache(pod: &Pod, interfaces: &Value) -> Result<()> {
    pod.cache_cni_result()?;
    let file = pod.node().cni_results().join(format!("lab-{}-eth0", pod.container()));
    let record = std::fs::read_to_string(&file).context("the record was just written")?;
    let mut record: Value = serde_json::from_str(&record).context("it is JSON")?;
    record["result"]["interfaces"] = interfaces.clone();
    for address in record["result"]["ips"].as_array_mut().into_iter().flatten() {
        address.as_object_mut().map(|address| address.remove("interface"));
    }
    std::fs::write(&file, record.to_string()).with_context(|| file.display().to_string())
}

/// Pods of a second interface, as the AWS VPC CNI makes them: their packets are routed by that interface's
/// table, packets to them by the main one, and answers to packets of the first interface return there by a
/// mark. The CNI result has table numbers where others have link addresses.
fn second_interface(lab: &mut Lab) -> Result<()> {
    let fixture = Fixture::new(lab)?;
    let outside = lab.outside("outside")?;
    for (node, other) in [(0, 1), (1, 0)].map(|(node, other)| (&fixture.nodes[node], &fixture.nodes[other])) {
        let wire = |at: Addresses| format!("via {} dev eth0", at.v4);
        let mut script = format!(
            "rule add pref 1024 fwmark 0x80/0x80 lookup main\n\
             route add default {} table 2\n",
            wire(other.addresses)
        );
        for pod in fixture.pods().filter(|pod| pod.node().name() == node.name()) {
            let v4 = pod.addresses.v4;
            script +=
                &format!("rule add pref 512 to {v4} lookup main\nrule add pref 1536 from {v4} lookup 2\n");
        }
        for pod in fixture.pods().filter(|pod| pod.node().name() != node.name()) {
            script += &format!("route add {} {} table 2\n", pod.addresses.v4, wire(other.addresses));
        }
        script += &format!("route add {} dev eth0 table 2\n", outside.addresses.v4);
        node.place.ip(&script)?;
        node.place.nft(
            "table inet eni { chain prerouting { type filter hook prerouting priority -150;\n\
             iifname \"eth0\" fib daddr type local ct mark set ct mark or 0x80\n\
             iifname \"veth*\" meta mark set ct mark and 0x80\n}\n}",
        )?;
    }
    for pod in fixture.pods() {
        let sandbox = format!("/run/netns/{}", pod.container());
        cache(
            pod,
            &json!([
                {"name": pod.host_interface},
                {"name": "eth0", "sandbox": sandbox, "mac": "2"},
                {"name": "dummy0123456789", "sandbox": "1", "mac": "0"},
            ]),
        )?;
    }
    let web = ClusterService::new("x/web", 1, "TCP", 80).node_port(NODE_PORT);
    let web = web.to(&fixture.allowed[0], 80).to(&fixture.denied[1], 80);
    web.apply(&[&fixture.nodes[0], &fixture.nodes[1]])?;
    let _agents = [Agent::start(&fixture.nodes[0], &[])?, Agent::start(&fixture.nodes[1], &[])?];
    fixture.is_isolated(lab)?;
    let reached = count(&fixture.client.place, web.addresses().v4.into(), WEB, 8)?;
    ensure!(reached == 4, "{reached} of 8 got through to the backend that is allowed, not 4");
    // By a node port, and back by the mark.
    let at = fixture.nodes[0].addresses;
    expect(&outside.place, at, &[Traffic::Http(NODE_PORT)], Seen::Reached)?;
    apply(lab.manifests(), "closed", DENY_INGRESS_OF_ALL)?;
    becomes(&outside.place, at.v4.into(), Traffic::Http(NODE_PORT), Seen::Blocked)?;
    expect(&outside.place, at, &[Traffic::Http(NODE_PORT)], Seen::Blocked)
}

/// As the CNI plug-in of Azure makes them: all ends at the node have the same address, and its result names
/// the pod's end alone, without saying that it is in the pod.
fn one_link_address(lab: &mut Lab) -> Result<()> {
    const ALL: &str = "aa:aa:aa:aa:aa:aa";
    let fixture = Fixture::new(lab)?;
    for pod in fixture.pods() {
        pod.node().place.ip(&format!("link set {} address {ALL}\n", pod.host_interface))?;
        pod.place.ip(&format!(
            "neigh replace 169.254.1.1 lladdr {ALL} dev eth0 nud permanent\n\
             neigh replace fe80::1 lladdr {ALL} dev eth0 nud permanent\n"
        ))?;
        pod.node().place.sysctls(&[(&format!("ipv4/conf/{}/proxy_arp", pod.host_interface), "1")])?;
        cache(pod, &json!([{"name": "eth0"}]))?;
    }
    let _agents = [Agent::start(&fixture.nodes[0], &[])?, Agent::start(&fixture.nodes[1], &[])?];
    fixture.is_isolated(lab)
}

/// A socket of the node takes the service's address as its source when that address is on the node, as on
/// `kube-ipvs0` in kube-proxy's ipvs mode; the node then rewrites it. The kernel here need not have IPVS: the
/// packet takes the same path to the pod.
fn from_service_address(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let web = n1.pod("x/web").labels(&[("app", "web")]).start()?;
    let _server = web.place.serve(Service::Http(PORT))?;
    let service = ClusterService::new("x/web", 1, "TCP", 80).to(&web, PORT);
    service.apply(&[&n1, &n2])?;
    let at = service.addresses();
    for node in [&n1, &n2] {
        node.place.ip(&format!("link add kube-ipvs0 type bridge\n{}", at.on("kube-ipvs0")))?;
    }
    apply(lab.manifests(), "closed", DENY_INGRESS_OF_ALL)?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    becomes(&n2.place, web.addresses.v4.into(), Traffic::Http(PORT), Seen::Blocked)?;
    expect(&n1.place, at, &[WEB], Seen::Reached)?;
    expect(&n2.place, at, &[WEB], Seen::Blocked)?;
    // The other node comes under its own address, not under the service's.
    let from_n2 = format!("from: {}", blocks(n2.addresses));
    apply(lab.manifests(), "from-n2", &ingress("web", &from_n2))?;
    becomes(&n2.place, at.v4.into(), WEB, Seen::Reached)?;
    expect(&n2.place, at, &[WEB], Seen::Reached)
}
