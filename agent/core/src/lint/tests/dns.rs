//! Egress without DNS, by the verdict of all policies together.

use podgate_common::Protocol::{Tcp, Udp};

use super::*;
use crate::{
    fixtures::{from, has, policy, rule},
    model::{DomainPattern, Peer, Peers, PortRule, Ports, Rule},
};

fn port(protocol: Protocol, first: u16, last: u16) -> PortRule {
    PortRule::Range { protocol, first, last }
}

fn to_backend(ports: Vec<PortRule>) -> Rule {
    rule(Peers::Listed(vec![in_own(has("role", "backend"))]), Ports::Listed(ports))
}

fn found(policies: Vec<NetworkPolicy>) -> Vec<(&'static str, String)> {
    let findings = lint(&cluster(policies), &ObjectNotes::default()).into_iter();
    let names = [LintName::DnsUnreachable, LintName::DnsTcpUnreachable];
    let of_dns = findings.filter(|finding| names.contains(&finding.name));
    of_dns.map(|finding| (finding.name.as_str(), finding.object)).collect()
}

#[test]
fn egress_that_reaches_no_resolver_is_found() {
    let (no_dns, no_tcp) = (Some("dns-unreachable"), Some("dns-tcp-unreachable"));
    let web = || port(Tcp, 80, 80);
    for (rules, expected) in [
        (vec![to_backend(vec![web()])], no_dns),
        (vec![to_backend(vec![web(), port(Udp, 53, 53)])], no_tcp),
        (vec![to_backend(vec![web(), port(Udp, 53, 53), port(Tcp, 50, 60)])], None),
        (vec![to_backend(vec![web(), PortRule::Protocol(Udp), PortRule::Protocol(Tcp)])], None),
        (vec![to_backend(vec![port(Tcp, 53, 53)])], no_dns),
        (vec![from(in_own(has("role", "backend")))], None),
        (vec![rule(Peers::Any, Ports::Any)], None),
        // No pod has it, so nothing is reached.
        (vec![to_backend(vec![web()]), from(in_own(has("role", "nothing")))], no_dns),
        // Sealed.
        (vec![], None),
    ] {
        let expected = expected.map(|name| (name, "NetworkPolicy x/web".to_owned()));
        assert_eq!(
            found(vec![policy("web", None, Some(rules.clone()))]),
            Vec::from_iter(expected),
            "{rules:?}"
        );
    }
}

#[test]
fn a_name_opens_no_resolver_before_it_is_resolved() {
    let name = |ports| rule(Peers::Listed(vec![Peer::Name(DomainPattern::parse("*.test").unwrap())]), ports);
    let dns = rule(Peers::Any, Ports::Listed(vec![port(Udp, 53, 53), port(Tcp, 53, 53)]));
    let expected = vec![("dns-unreachable", "NetworkPolicy x/web".to_owned())];
    let web = Ports::Listed(vec![port(Tcp, 443, 443)]);
    for ports in [Ports::Any, web] {
        assert_eq!(found(vec![policy("web", None, Some(vec![name(ports.clone())]))]), expected, "{ports:?}");
        assert_eq!(found(vec![policy("web", None, Some(vec![dns.clone(), name(ports)]))]), []);
    }
}

#[test]
fn another_policy_may_allow_dns_for_the_same_pods() {
    let web = policy("web", None, Some(vec![to_backend(vec![port(Tcp, 80, 80)])]));
    let dns = policy(
        "dns",
        None,
        Some(vec![rule(Peers::Any, Ports::Listed(vec![port(Udp, 53, 53), port(Tcp, 53, 53)]))]),
    );
    let for_backend = NetworkPolicy { subject: has("role", "backend"), ..dns.clone() };
    assert_eq!(found(vec![web.clone(), dns]), []);
    let expected = [("dns-unreachable", "NetworkPolicy x/web".to_owned())];
    assert_eq!(found(vec![web.clone(), for_backend]), expected, "pod a has none");
    let ingress_alone = policy("web", Some(vec![to_backend(vec![port(Tcp, 80, 80)])]), None);
    assert_eq!(found(vec![ingress_alone]), []);
    assert_eq!(found(vec![NetworkPolicy { audit: true, ..web }]), []);
}

#[test]
fn pods_without_an_address_are_reached_too() {
    let dns = Peers::Listed(vec![across(has("purpose", "test"), has("app", "dns"))]);
    let rules = vec![rule(dns, Ports::Listed(vec![port(Udp, 53, 53), port(Tcp, 53, 53)]))];
    let mut cluster = cluster(vec![policy("web", None, Some(rules))]);
    let resolver = crate::fixtures::pod("y/dns", "n1", &[], &[("app", "dns")]);
    assert_eq!(places(&cluster, &ObjectNotes::default(), LintName::DnsUnreachable), [""; 0], "sealed");
    cluster.pods.insert(resolver.name.clone(), resolver.into());
    assert_eq!(places(&cluster, &ObjectNotes::default(), LintName::DnsUnreachable), [""; 0]);
    let web = NetworkPolicy {
        subject: Selector::EVERYTHING,
        ..policy("web", None, Some(vec![to_backend(vec![port(Tcp, 80, 80)])]))
    };
    cluster.policies.insert(web.name.clone(), web.into());
    let found = places(&cluster, &ObjectNotes::default(), LintName::DnsUnreachable);
    assert_eq!(found, ["NetworkPolicy x/web: spec.egress"]);
}
