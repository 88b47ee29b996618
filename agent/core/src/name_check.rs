//! Pods whose rules have names of the DNS, and whose resolver is not believed or may not be seen: such rules
//! may open nothing for them, or say less than they seem to.
//!
//! In: a cluster, what its pods say of DNS, and whose replies are believed. Out: findings, each about one
//! pod. Left out: what a pod really asks. Only a running agent sees that.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use podgate_common::{BITS_PER_ROW, ClassId, Protocol};
use serde::Serialize;

use crate::{
    compiler::{self, CompiledTables, Subject},
    model::{Cluster, ObjectName, Pod},
};

/// What a pod says of the resolvers that it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDns {
    /// `dnsPolicy`.
    pub policy: DnsPolicy,
    /// `dnsConfig.nameservers`, as they are written.
    pub nameservers: Vec<String>,
}

/// Where a pod's resolvers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsPolicy {
    /// The cluster's: `ClusterFirst`, and `ClusterFirstWithHostNet`.
    Cluster,
    /// Those of its node: `Default`.
    Node,
    /// Only those that it lists: `None`.
    Listed,
}

/// One thing about one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NameCheckFinding {
    /// The pod.
    pub pod: ObjectName,
    /// What it is.
    pub name: NameCheckKind,
    /// In words.
    pub message: String,
}

/// Kinds of such findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameCheckKind {
    /// It asks the resolvers of its node.
    NodeResolver,
    /// It lists a server that is not believed.
    UntrustedNameserver,
    /// It may reach public resolvers over TLS or QUIC.
    DnsOverTls,
    /// It may reach public resolvers over HTTPS.
    DnsOverHttps,
}

impl NameCheckKind {
    /// As users see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NodeResolver => "node-resolver",
            Self::UntrustedNameserver => "untrusted-nameserver",
            Self::DnsOverTls => "dns-over-tls",
            Self::DnsOverHttps => "dns-over-https",
        }
    }
}

impl fmt::Display for NameCheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Pods with rules for names, and what was found about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameCheck {
    /// How many pods have such rules.
    pub pods: usize,
    /// By pod.
    pub findings: Vec<NameCheckFinding>,
}

/// Public resolvers that answer over TLS, QUIC and HTTPS at their own addresses, by who runs them:
/// Cloudflare, Google, Quad9, OpenDNS, AdGuard. Clients know them without asking (of browsers, those of the
/// first two).
const PUBLIC: [IpAddr; 15] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V4(Ipv4Addr::new(1, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4)),
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V4(Ipv4Addr::new(149, 112, 112, 112)),
    IpAddr::V4(Ipv4Addr::new(208, 67, 222, 222)),
    IpAddr::V4(Ipv4Addr::new(208, 67, 220, 220)),
    IpAddr::V4(Ipv4Addr::new(94, 140, 14, 14)),
    IpAddr::V4(Ipv4Addr::new(94, 140, 15, 15)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1001)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844)),
    IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe)),
];

/// What is not read, and where it is asked: over TLS (RFC 7858), QUIC (RFC 9250), and HTTPS over either
/// (RFC 8484).
const HIDDEN: [(NameCheckKind, Protocol, u16); 4] = [
    (NameCheckKind::DnsOverTls, Protocol::Tcp, 853),
    (NameCheckKind::DnsOverTls, Protocol::Udp, 853),
    (NameCheckKind::DnsOverHttps, Protocol::Tcp, 443),
    (NameCheckKind::DnsOverHttps, Protocol::Udp, 443),
];

/// `dns`: of the pods that say something of it. `is_believed`: whether replies of a server on port 53 are.
pub fn check_names(
    cluster: &Cluster,
    dns: &BTreeMap<ObjectName, PodDns>,
    is_believed: impl Fn(IpAddr) -> bool,
) -> NameCheck {
    let pods: Vec<&Pod> = cluster.pods.values().map(Arc::as_ref).filter(|pod| !pod.host_network).collect();
    let tables = compiler::compile(cluster, None, pods.iter().copied(), []);
    let mut check = NameCheck { pods: 0, findings: Vec::new() };
    let mut hidden: HashMap<usize, Vec<(NameCheckKind, String)>> = HashMap::new();
    for pod in pods {
        let egress = tables.subjects.get(&pod.name).copied().unwrap_or(Subject::NOT_ISOLATED).egress;
        if !tables.strata.contains_key(&egress) {
            continue;
        }
        check.pods += 1;
        let of_dns = dns.get(&pod.name).map(|dns| of_dns(dns, &is_believed)).unwrap_or_default();
        let hidden = hidden.entry(egress).or_insert_with(|| reachable(&tables, egress));
        let found = of_dns.into_iter().chain(hidden.iter().cloned());
        check.findings.extend(found.map(|(name, message)| finding(pod, name, message)));
    }
    check.findings.sort();
    check
}

fn finding(pod: &Pod, name: NameCheckKind, message: String) -> NameCheckFinding {
    NameCheckFinding { pod: pod.name.clone(), name, message }
}

fn of_dns(
    PodDns { policy, nameservers }: &PodDns,
    is_believed: impl Fn(IpAddr) -> bool,
) -> Vec<(NameCheckKind, String)> {
    let mut found = Vec::new();
    if *policy == DnsPolicy::Node {
        let message = "spec.dnsPolicy Default: it asks the resolvers of its node, from which nothing is learnt \
                       unless --resolvers names them";
        found.push((NameCheckKind::NodeResolver, message.to_owned()));
    }
    for (index, text) in nameservers.iter().enumerate() {
        if !text.parse().is_ok_and(&is_believed) {
            let message = format!(
                "spec.dnsConfig.nameservers[{index}] {text}: is no resolver that is believed, nothing is learnt \
                 from it"
            );
            found.push((NameCheckKind::UntrustedNameserver, message));
        }
    }
    found
}

/// Which public resolvers a rule set lets a pod ask in a way that is not read.
fn reachable(tables: &CompiledTables, egress: usize) -> Vec<(NameCheckKind, String)> {
    let mut found = Vec::new();
    for (name, protocol, port) in HIDDEN {
        let class = tables.classes.class(protocol, port);
        let class =
            ClassId(u16::try_from(class).expect("the compiler refuses more classes than an id has room for"));
        let block = usize::from(class.0 / BITS_PER_ROW);
        let is_open = |address: &&IpAddr| {
            let row = tables.rows.row(egress, tables.identities.identity(**address), block);
            row.is_some_and(|row| row.has(class))
        };
        let open: Vec<&IpAddr> = PUBLIC.iter().filter(is_open).collect();
        let Some(first) = open.first() else { continue };
        let others = match open.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more public resolvers"),
        };
        let message = format!(
            "its policies let it reach {protocol}/{port} of {first}{others}: what they say is not read"
        );
        found.push((name, message));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{block, cluster, from, policy, rule},
        model::{DomainPattern, Peer, Peers, PortRule, Ports, Rule},
    };

    const RESOLVER: &str = "10.96.0.10";

    fn believed(address: IpAddr) -> bool {
        address.to_string() == RESOLVER
    }

    /// The pods of `x` may reach a name, and what these rules allow; those of `y` have no rules.
    fn with(rules: Vec<Rule>) -> Cluster {
        let name = from(Peer::Name(DomainPattern::parse("a.test").unwrap()));
        cluster(vec![policy("p", None, Some([vec![name], rules].concat()))])
    }

    fn names(check: &NameCheck) -> Vec<(String, NameCheckKind)> {
        check.findings.iter().map(|found| (found.pod.to_string(), found.name)).collect()
    }

    #[test]
    fn resolvers_that_are_not_believed_are_named_of_pods_with_rules_for_names_alone() {
        let cluster = with(Vec::new());
        let of = |policy, nameservers: &[&str]| {
            let nameservers: Vec<_> = nameservers.iter().map(|&text| text.to_owned()).collect();
            let dns = ["a", "c"].map(|pod| {
                let namespace = if pod == "a" { "x" } else { "y" };
                let nameservers = nameservers.clone();
                (ObjectName::new(namespace, pod), PodDns { policy, nameservers })
            });
            check_names(&cluster, &dns.into(), believed)
        };
        assert_eq!(
            check_names(&cluster, &BTreeMap::new(), believed),
            NameCheck { pods: 2, findings: vec![] }
        );
        let found = of(DnsPolicy::Node, &[]);
        assert_eq!(names(&found), [("x/a".to_owned(), NameCheckKind::NodeResolver)]);
        assert_eq!(names(&of(DnsPolicy::Listed, &[RESOLVER])), []);
        let found = of(DnsPolicy::Cluster, &[RESOLVER, "192.0.2.53", "resolver"]);
        let expected = ["nameservers[1] 192.0.2.53: is no", "nameservers[2] resolver: is no"];
        assert_eq!(found.findings.len(), 2);
        for (found, expected) in found.findings.iter().zip(expected) {
            assert_eq!(found.name, NameCheckKind::UntrustedNameserver);
            assert!(found.message.contains(expected), "{found:?}");
        }
    }

    #[test]
    fn ways_to_public_resolvers_that_are_not_read_are_named() {
        let tcp =
            |port| Ports::Listed(vec![PortRule::Range { protocol: Protocol::Tcp, first: port, last: port }]);
        let of = |rules| check_names(&with(rules), &BTreeMap::new(), believed).findings;
        assert_eq!(of(vec![from(block("192.0.2.0/24", &[]))]), []);
        let found = of(vec![rule(Peers::Listed(vec![block("0.0.0.0/0", &[])]), tcp(443))]);
        assert!(!found.is_empty() && found.iter().all(|it| it.name == NameCheckKind::DnsOverHttps));
        let https = "its policies let it reach TCP/443 of 1.1.1.1 and 9 more public resolvers: what they say is not read";
        assert_eq!(found[0].message, https);
        let found = of(vec![rule(Peers::Listed(vec![block("9.9.9.9/32", &[])]), tcp(853))]);
        let tls = "its policies let it reach TCP/853 of 9.9.9.9: what they say is not read";
        assert!(!found.is_empty() && found.iter().all(|it| it.message == tls), "{found:?}");
        let found = of(vec![from(block("2001:4860::/32", &[]))]);
        let ways: std::collections::BTreeSet<_> = found.iter().map(|it| it.message.clone()).collect();
        assert_eq!(ways.len(), HIDDEN.len(), "{found:?}");
    }
}
