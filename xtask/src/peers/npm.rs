//! Policies as iptables rules, in the shape that Azure NPM (v2, Linux) writes them for every node.
//!
//! In: policies of one namespace that select pods by their label `app`, and these pods. Out: ipsets, and the
//! table `filter`: a new connection tries one policy after the other, whichever pods they select, first for
//! ingress, then for egress; packets of known connections meet none of it. Names, order and matches are those
//! of NPM's sources (`npm/pkg/dataplane/policies/chain-management_linux.go`). Left out: selectors with
//! several labels or namespaces, ipBlocks and named ports, which a benchmark of equal policies does not have.

use std::{collections::BTreeSet, fmt::Write, net::Ipv4Addr};

use sha2::{Digest, Sha256};

/// A pod and its label `app`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub app: String,
    pub address: Ipv4Addr,
}

/// A policy for both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    /// The app that it isolates.
    pub app: String,
    /// The app that may come in.
    pub from: String,
    /// The app that it may go to.
    pub to: String,
    pub ports: Vec<Ports>,
}

/// Ports of one protocol, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// The rules of a node.
#[derive(Clone, Debug)]
pub struct Rules {
    /// For `ipset restore`.
    pub sets: String,
    /// For `iptables-nft-restore` or `iptables-legacy-restore`.
    pub filter: String,
}

/// What NPM writes when it starts: drops of what was marked, and the way from ingress to egress.
const BASE: &str = "\
-A FORWARD -m conntrack --ctstate NEW -j AZURE-NPM
-A AZURE-NPM -j AZURE-NPM-INGRESS
-A AZURE-NPM -j AZURE-NPM-EGRESS
-A AZURE-NPM -j AZURE-NPM-ACCEPT
-A AZURE-NPM-INGRESS-ALLOW-MARK -j MARK --set-mark 0x200/0x200 -m comment --comment SET-INGRESS-ALLOW-MARK-0x200/0x200
-A AZURE-NPM-INGRESS-ALLOW-MARK -j AZURE-NPM-EGRESS
-A AZURE-NPM-ACCEPT -j ACCEPT
";
const CHAINS: [&str; 5] = [
    "AZURE-NPM",
    "AZURE-NPM-INGRESS",
    "AZURE-NPM-INGRESS-ALLOW-MARK",
    "AZURE-NPM-EGRESS",
    "AZURE-NPM-ACCEPT",
];
/// After the jumps to policies, which NPM inserts above.
const ENDS: &str = "\
-A AZURE-NPM-INGRESS -j DROP -m mark --mark 0x400/0x400 -m comment --comment DROP-ON-INGRESS-DROP-MARK-0x400/0x400
-A AZURE-NPM-EGRESS -j DROP -m mark --mark 0x800/0x800 -m comment --comment DROP-ON-EGRESS-DROP-MARK-0x800/0x800
-A AZURE-NPM-EGRESS -j AZURE-NPM-ACCEPT -m mark --mark 0x200/0x200 -m comment --comment ACCEPT-ON-INGRESS-ALLOW-MARK-0x200/0x200
";

/// The rules for all policies of `namespace`, in their order. They stand in one batch and are appended in the
/// order that NPM's insertions lead to: what is measured is the result, not how long its loading takes.
pub fn rules(namespace: &str, pods: &[Pod], policies: &[Policy]) -> Rules {
    let (mut chains, mut rules, mut jumps) = (String::new(), BASE.to_owned(), String::new());
    for chain in CHAINS {
        line(&mut chains, format_args!(":{chain} - -"));
    }
    for part in policies.iter().flat_map(|policy| parts(namespace, policy)) {
        line(&mut chains, format_args!(":{} - -", part.chain));
        rules.push_str(&part.rules);
        line(&mut jumps, format_args!("-A {}", part.jump()));
    }
    let filter = format!("*filter\n:FORWARD ACCEPT [0:0]\n{chains}{rules}{jumps}{ENDS}COMMIT\n");
    Rules { sets: sets(namespace, pods), filter }
}

/// One more policy, for a restore that leaves alone what is there (`--noflush`).
pub fn policy_comes(namespace: &str, policy: &Policy) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for part in parts(namespace, policy) {
        line(&mut chains, format_args!(":{} - -", part.chain));
        rules.push_str(&part.rules);
        line(&mut rules, format_args!("-I {}", part.jump().replacen(' ', " 1 ", 1)));
    }
    format!("*filter\n{chains}{rules}COMMIT\n")
}

/// The same for one less.
pub fn policy_goes(namespace: &str, policy: &Policy) -> String {
    let mut rules = String::new();
    for part in parts(namespace, policy) {
        line(&mut rules, format_args!("-D {}", part.jump()));
        line(&mut rules, format_args!("-F {}", part.chain));
        line(&mut rules, format_args!("-X {}", part.chain));
    }
    format!("*filter\n{rules}COMMIT\n")
}

/// One more pod in the sets that there are, for `ipset restore`, or one less.
pub fn pod_comes(namespace: &str, pod: &Pod) -> String {
    members(namespace, pod, "-A")
}

pub fn pod_goes(namespace: &str, pod: &Pod) -> String {
    members(namespace, pod, "-D")
}

/// One direction of a policy.
struct Part {
    direction: &'static str,
    chain: String,
    /// The chain's rules, a line each.
    rules: String,
    /// Whom it is for, and the comment.
    matches: String,
}

impl Part {
    /// The rule that leads to the chain.
    fn jump(&self) -> String {
        format!("AZURE-NPM-{} -j {} {}", self.direction, self.chain, self.matches)
    }
}

fn parts(namespace: &str, policy: &Policy) -> [Part; 2] {
    let Policy { name, app, from, to, ports } = policy;
    let in_namespace = set(&format!("ns-{namespace}"));
    let key = format!("{namespace}/{name}");
    let own = set(&label(app));
    [
        ("INGRESS", "FROM", "dst", from, "src", "AZURE-NPM-INGRESS-ALLOW-MARK", "0x400/0x400"),
        ("EGRESS", "TO", "src", to, "dst", "AZURE-NPM-ACCEPT", "0x800/0x800"),
    ]
    .map(|(direction, word, own_side, peer, peer_side, accept, mark)| {
        let chain = format!("AZURE-NPM-{direction}-{}", chain_digits(&key));
        let (peer_set, peer) = (set(&label(peer)), label(peer));
        let mut rules = String::new();
        for Ports { protocol, first, last } in ports {
            let protocol = protocol.name();
            let (range, shown) = if first == last {
                (first.to_string(), first.to_string())
            } else {
                (format!("{first}:{last}"), format!("{first}-{last}"))
            };
            line(
                &mut rules,
                format_args!(
                    "-A {chain} -j {accept} -p {protocol} --dport {range} -m set --match-set {peer_set} {peer_side} \
                     -m set --match-set {in_namespace} {peer_side} -m comment --comment \
                     ALLOW-{word}-{peer}-AND-ns-{namespace}-ON-{protocol}-TO-PORT-{shown}"
                ),
            );
        }
        line(&mut rules, format_args!("-A {chain} -j MARK --set-mark {mark} -m comment --comment DROP-ALL"));
        let matches = format!(
            "-m set --match-set {own} {own_side} -m set --match-set {in_namespace} {own_side} -m comment --comment \
             {direction}-POLICY-{key}-OF-{}-IN-ns-{namespace}",
            label(app)
        );
        Part { direction, chain, rules, matches }
    })
}

/// Each pod is in the set of its namespace, of its label's key, and of its label.
fn sets(namespace: &str, pods: &[Pod]) -> String {
    let mut text = String::new();
    let (own, all, key) =
        (set(&format!("ns-{namespace}")), set("nslabel-all-namespaces"), set("podlabel-app"));
    for (name, kind) in [(&own, "nethash"), (&key, "nethash"), (&all, "setlist")] {
        line(&mut text, format_args!("-N {name} --exist {kind}"));
    }
    line(&mut text, format_args!("-A {all} {own}"));
    let apps: BTreeSet<&str> = pods.iter().map(|pod| pod.app.as_str()).collect();
    for app in apps {
        line(&mut text, format_args!("-N {} --exist nethash", set(&label(app))));
    }
    for pod in pods {
        text.push_str(&members(namespace, pod, "-A"));
    }
    text
}

/// What is done to a pod's membership of each of its sets.
fn members(namespace: &str, Pod { app, address }: &Pod, command: &str) -> String {
    let sets = [set(&format!("ns-{namespace}")), set("podlabel-app"), set(&label(app))];
    sets.map(|name| format!("{command} {name} {address}\n")).concat()
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string");
}

fn label(app: &str) -> String {
    format!("podlabel-app:{app}")
}

/// The kernel's name of a set: the first 20 digits to base 36 of its SHA-256 (`npm/util/util.go`,
/// `GetHashedName`).
fn set(prefixed: &str) -> String {
    let digits = base36(&Sha256::digest(prefixed));
    format!("azure-npm-{}", &digits[..20])
}

/// The last 10 digits to base 36 (`GetHashedChainName`): names of chains have 28 characters at most.
fn chain_digits(key: &str) -> String {
    let digits = base36(&Sha256::digest(key));
    digits[digits.len() - 10..].to_owned()
}

/// A big-endian number in the 50 digits to base 36 that 256 bits need.
fn base36(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = bytes.to_vec();
    let mut digits = Vec::new();
    while number.iter().any(|&byte| byte != 0) {
        let mut rest = 0_u16;
        for byte in &mut number {
            let value = rest << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 36).expect("the rest is below 36");
            rest = value % 36;
        }
        digits.push(char::from(DIGITS[usize::from(rest)]));
    }
    digits.iter().rev().collect()
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_digits_of_the_hash() {
        for (bytes, expected) in [(&[35][..], "z"), (&[36], "10"), (&[1, 0], "74"), (&[0], "")] {
            assert_eq!(base36(bytes), expected, "{bytes:?}");
        }
        assert_eq!(set("ns-bench").len(), "azure-npm-".len() + 20);
        assert!(format!("AZURE-NPM-INGRESS-{}", chain_digits("bench/p1")).len() <= 28);
    }

    #[test]
    fn a_policy_is_two_chains_a_jump_to_each_and_a_rule_for_each_port() {
        let ports = vec![
            Ports { protocol: Protocol::Tcp, first: 80, last: 90 },
            Ports { protocol: Protocol::Udp, first: 53, last: 53 },
        ];
        let of = |app: &str| app.to_owned();
        let policy = Policy { name: of("p"), app: of("b"), from: of("a"), to: of("c"), ports };
        let pods = [Pod { app: of("b"), address: Ipv4Addr::new(10, 0, 0, 1) }];
        let rules = rules("x", &pods, &[policy]);
        let (a, b) = (set("podlabel-app:a"), set("podlabel-app:b"));
        for (needle, count) in [
            ("\n:AZURE-NPM-INGRESS-", 2),
            ("\n:AZURE-NPM-EGRESS-", 1),
            ("-j AZURE-NPM-INGRESS-ALLOW-MARK -p TCP --dport 80:90 ", 1),
            ("-j AZURE-NPM-ACCEPT -p UDP --dport 53 ", 1),
            ("--set-mark 0x400/0x400 -m comment --comment DROP-ALL", 1),
            (&format!("--match-set {a} src"), 2),
            (&format!("--match-set {b} dst"), 1),
            (&format!("--match-set {b} src"), 1),
        ] {
            assert_eq!(rules.filter.matches(needle).count(), count, "{needle}\n{}", rules.filter);
        }
        assert_eq!(rules.sets.matches(" 10.0.0.1\n").count(), 3, "{}", rules.sets);
        let jump = rules.filter.find("INGRESS-POLICY-x/p").expect("the jump");
        let end = rules.filter.find("DROP-ON-INGRESS").expect("the end of the chain");
        assert!(jump < end, "what was marked is dropped after the policies have marked it");
    }
}
