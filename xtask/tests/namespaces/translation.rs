//! Addresses that the node translates perhaps: external ones that a tenant claims, those of another proxy's
//! services, cluster addresses that the node has itself, and services without endpoints.

use anyhow::{Result, ensure};
use xtask::lab::{Addresses, Agent, ClusterService, Lab, PodNetworkMode, Seen, Service, Traffic};

use super::{
    Test,
    policies::{DENY_ALL_OF_ALL, DENY_EGRESS_OF_ALL, blocks, egress},
    scene::{apply, becomes, expect},
    services::{NODE_PORT, PORT, WEB, allow_egress_to, count, server},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_external_address_opens_nothing_until_the_node_translates_it_routed", |lab| {
        external(lab, PodNetworkMode::Routed)
    }),
    ("an_external_address_opens_nothing_until_the_node_translates_it_bridged", |lab| {
        external(lab, PodNetworkMode::Bridge)
    }),
    ("a_service_that_claims_the_address_of_another_closes_it_for_no_client", claimed),
    ("a_cluster_address_that_the_node_has_itself_is_the_own_node", node_local),
    ("the_refusal_of_a_service_without_endpoints_arrives", refused),
];

/// A tenant's services lead from the address of a forbidden host to an allowed pod: one that the node does
/// not translate yet, and one that nothing ever will.
fn external(lab: &mut Lab, wiring: PodNetworkMode) -> Result<()> {
    let n1 = lab.wired_node("n1", wiring)?;
    let (late, never) = (lab.outside("late")?, lab.outside("never")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let free = n1.pod("x/free").start()?;
    let (good, _good) = server(&n1, "good", "good")?;
    let _servers = [late.place.serve(Service::Http(80))?, never.place.serve(Service::Http(80))?];
    apply(lab.manifests(), "egress", &allow_egress_to("good"))?;
    let service = |name, number, of: Addresses| {
        let service = ClusterService::new(name, number, "TCP", 80).external(of);
        service.to(&good, PORT)
    };
    let of_late = service("x/late", 1, late.addresses);
    of_late.announce(&n1)?;
    service("x/never", 2, never.addresses).other_proxy().announce(&n1)?;
    let _agent = Agent::start(&n1, &[])?;
    for addresses in [late.addresses, never.addresses] {
        expect(&free.place, addresses, &[WEB], Seen::Reached)?;
        expect(&client.place, addresses, &[WEB], Seen::Blocked)?;
    }
    of_late.apply(&[&n1])?;
    expect(&client.place, late.addresses, &[WEB], Seen::Reached)?;
    expect(&client.place, never.addresses, &[WEB], Seen::Blocked)
}

/// A tenant's service claims the cluster address of another one and leads to a forbidden pod, if the node
/// lets it.
fn claimed(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let (near, _near) = server(&n1, "near", "good")?;
    let (far, _far) = server(&n2, "far", "good")?;
    let (bad, _bad) = server(&n2, "bad", "bad")?;
    apply(lab.manifests(), "egress", &allow_egress_to("good"))?;
    let web = ClusterService::new("x/web", 1, "TCP", 80);
    let web = web.to(&near, PORT).to(&far, PORT);
    web.apply(&[&n1, &n2])?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    becomes(&client.place, web.addresses().v4.into(), WEB, Seen::Reached)?;
    let tenants = ClusterService::new("x/tenants", 2, "TCP", 80).external(web.addresses());
    let tenants = tenants.to(&bad, PORT);
    tenants.announce(&n1)?;
    // Its own address says when the agent has read it.
    becomes(&client.place, tenants.addresses().v4.into(), WEB, Seen::Blocked)?;
    for address in web.addresses().both() {
        let reached = count(&client.place, address, WEB, 8)?;
        ensure!(
            reached == 8,
            "{address}: {reached} of 8 reached the service whose address another one claims"
        );
    }
    // The node follows the other one: then its backend counts.
    let Addresses { v4: own, .. } = web.addresses();
    web.to(&bad, PORT).apply(&[&n1, &n2])?;
    let reached = count(&client.place, own.into(), WEB, 9)?;
    ensure!(reached == 6, "{reached} of 9 got through, of three backends two are allowed");
    Ok(())
}

/// As NodeLocal DNSCache has it: the node answers at the cluster address of a service whose endpoints are
/// elsewhere.
fn node_local(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let (far, _far) = server(&n2, "far", "far")?;
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let dns = ClusterService::new("x/dns", 1, "TCP", 80).to(&far, PORT);
    n1.place.ip("link add nodelocaldns type bridge\nlink set nodelocaldns up\n")?;
    n1.place.ip(&dns.addresses().on("nodelocaldns"))?;
    let _cache = n1.place.serve(Service::Http(80))?;
    dns.announce(&n1)?;
    apply(lab.manifests(), "closed", DENY_EGRESS_OF_ALL)?;
    let _agent = Agent::start(&n1, &[])?;
    expect(&client.place, far.addresses, &[Traffic::Http(PORT)], Seen::Blocked)?;
    expect(&client.place, dns.addresses(), &[WEB], Seen::Reached)?;
    let to_cache = format!("to: {}\n    ports: [{{port: 80}}]", blocks(dns.addresses()));
    apply(lab.manifests(), "recipe", &egress("client", &to_cache))?;
    expect(&client.place, dns.addresses(), &[WEB], Seen::Reached)
}

/// The node refuses what goes to a service without endpoints, and says so to those whose policies allow its
/// address.
fn refused(lab: &mut Lab) -> Result<()> {
    let n1 = lab.node("n1")?;
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let closed = n1.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let empty = ClusterService::new("x/empty", 1, "TCP", 80).node_port(NODE_PORT);
    empty.apply(&[&n1])?;
    let to_services = "to: [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: 'fd00:96::/64'}}]";
    apply(lab.manifests(), "closed", DENY_ALL_OF_ALL)?;
    apply(lab.manifests(), "allowed", &egress("client", to_services))?;
    let _agent = Agent::start(&n1, &[])?;
    expect(&client.place, empty.addresses(), &[WEB], Seen::Refused)?;
    expect(&closed.place, empty.addresses(), &[WEB], Seen::Blocked)?;
    // A port of the own node.
    expect(&closed.place, n1.addresses, &[Traffic::Http(NODE_PORT)], Seen::Refused)
}
