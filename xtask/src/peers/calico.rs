//! Policies as iptables rules, in the shape that Calico (3.30, iptables mode) writes them for a node.
//!
//! In: a cluster's objects and the veths of a node's pods. Out: ipsets and, for one family, the table
//! `filter`: a dispatch to a chain for each pod and direction that lets established connections pass, asks
//! every policy that isolates the pod, and drops what none accepts. Written from the policies' text alone; it
//! shares no code with podgate or the naive evaluator. Left out: INPUT and OUTPUT (a pod and its own node
//! always reach each other), the tables raw, mangle and nat, and what the API server refuses.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use serde_json::Value;

use super::objects::{addresses, cidr, is_kubernetes, is_placed, list, namespace, selects};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// The rules of one node and one family.
#[derive(Clone, Debug)]
pub struct Rules {
    /// For `ipset restore`.
    pub sets: String,
    /// For `iptables-nft-restore`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

struct Writer<'a> {
    objects: &'a [Value],
    family: Family,
    /// Sets by what is in them.
    sets: BTreeMap<Set, String>,
    prefix: String,
    chains: String,
    rules: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Set {
    kind: &'static str,
    entries: Vec<String>,
}

/// `veth` and one digit.
const FIRST_DIGIT: usize = 5;
const ACCEPT: &str = "-j MARK --set-xmark 0x10000/0x10000";
const ACCEPTED: &str = "-m mark --mark 0x10000/0x10000";

/// The rules for one node: `pods` holds its pods, which are among the objects, and their interfaces `veth…`.
///
/// Names of sets are new with each `generation`: rules hold on to their sets until they are replaced.
pub fn rules(objects: &[Value], generation: u32, family: Family, pods: &[(&Value, &str)]) -> Rules {
    let digit = if family == Family::V4 { 4 } else { 6 };
    let mut writer = Writer {
        objects,
        family,
        sets: BTreeMap::new(),
        prefix: format!("cali{digit}0s:{generation}-"),
        chains: String::new(),
        rules: String::new(),
    };
    writer.forward();
    for (number, policy) in writer.policies().iter().enumerate() {
        writer.policy(number, policy);
    }
    for (pod, veth) in pods {
        writer.pod(pod, veth);
    }
    let veths: Vec<_> = pods.iter().map(|(_, veth)| *veth).collect();
    for direction in [Direction::Egress, Direction::Ingress] {
        writer.dispatch(direction, &veths);
    }
    writer.finish()
}

impl<'a> Writer<'a> {
    fn forward(&mut self) {
        // Policies for hosts and blocked addresses: chains that are there, and empty.
        for chain in ["cali-FORWARD", "cali-from-hep-forward", "cali-to-hep-forward", "cali-cidr-block"] {
            self.chain(chain);
        }
        self.rule("FORWARD", "-j cali-FORWARD");
        self.rule("FORWARD", &format!("{ACCEPTED} -j ACCEPT"));
        self.rule("FORWARD", ACCEPT);
        self.rule("cali-FORWARD", "-j MARK --set-xmark 0x0/0xfffe0000");
        self.rule("cali-FORWARD", "-m mark --mark 0x0/0x10000 -j cali-from-hep-forward");
        self.rule("cali-FORWARD", "-i veth+ -j cali-from-wl-dispatch");
        self.rule("cali-FORWARD", "-o veth+ -j cali-to-wl-dispatch");
        self.rule("cali-FORWARD", "-j cali-to-hep-forward");
        self.rule("cali-FORWARD", "-j cali-cidr-block");
    }

    /// From an interface to its chain, in two steps: by the first digit of its name, then by the name.
    fn dispatch(&mut self, direction: Direction, veths: &[&str]) {
        let (dispatch, way) = (direction.dispatch(), direction.way());
        let unknown = "-m comment --comment \"Unknown interface\" -j DROP";
        self.chain(dispatch);
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for veth in veths {
            groups.entry(veth.get(..FIRST_DIGIT).unwrap_or(veth)).or_default().push(veth);
        }
        for (prefix, group) in groups {
            let to_chain = |veth: &str| format!("{way} {veth} -g {}{veth}", direction.endpoints());
            match group[..] {
                [veth] => self.rule(dispatch, &to_chain(veth)),
                _ => {
                    let chain = format!("{dispatch}-{}", &prefix["veth".len()..]);
                    self.rule(dispatch, &format!("{way} {prefix}+ -g {chain}"));
                    self.chain(&chain);
                    for veth in group {
                        self.rule(&chain, &to_chain(veth));
                    }
                    self.rule(&chain, unknown);
                }
            }
        }
        self.rule(dispatch, unknown);
    }

    fn policies(&self) -> Vec<&'a Value> {
        self.objects.iter().filter(|it| it["kind"] == "NetworkPolicy" && is_kubernetes(it)).collect()
    }

    fn policy(&mut self, number: usize, policy: &Value) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let (rules, peers) = match direction {
                Direction::Ingress => ("ingress", "from"),
                Direction::Egress => ("egress", "to"),
            };
            let chain = format!("{}{number}", direction.policies());
            self.chain(&chain);
            for rule in list(&policy["spec"][rules]) {
                let peers = self.peers(namespace(policy), list(&rule[peers]), direction);
                let ports = self.ports(list(&rule["ports"]));
                for peer in &peers {
                    for port in &ports {
                        self.rule(&chain, &format!("{port} {peer} {ACCEPT}"));
                        self.rule(&chain, &format!("{ACCEPTED} -j RETURN"));
                    }
                }
            }
        }
    }

    fn pod(&mut self, pod: &Value, veth: &str) {
        for direction in [Direction::Egress, Direction::Ingress] {
            let chain = format!("{}{veth}", direction.endpoints());
            self.chain(&chain);
            self.rule(&chain, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
            self.rule(&chain, "-m conntrack --ctstate INVALID -j DROP");
            self.rule(&chain, "-j MARK --set-xmark 0x0/0x30000");
            if direction == Direction::Egress {
                // Pods may not speak the overlay's protocols: VXLAN and IP in IP.
                self.rule(&chain, "-p udp -m multiport --destination-ports 4789 -j DROP");
                self.rule(&chain, "-p 4 -j DROP");
            }
            self.rule(
                &chain,
                "-m comment --comment \"Start of tier default\" -j MARK --set-xmark 0x0/0x20000",
            );
            let policies = self.policies();
            let isolating = policies.iter().enumerate().filter(|(_, policy)| {
                namespace(policy) == namespace(pod)
                    && selects(&policy["spec"]["podSelector"], &pod["metadata"]["labels"])
                    && isolates(policy, direction)
            });
            let isolating: Vec<_> = isolating.map(|(number, _)| number).collect();
            for number in &isolating {
                let policy = format!("{}{number}", direction.policies());
                self.rule(&chain, &format!("-m mark --mark 0x0/0x20000 -j {policy}"));
                self.rule(&chain, &format!("{ACCEPTED} -j RETURN"));
            }
            if isolating.is_empty() {
                self.rule(&chain, ACCEPT);
                self.rule(&chain, &format!("{ACCEPTED} -j RETURN"));
            }
            // The end of the tier, and of a pod that no profile lets through.
            self.rule(&chain, "-m mark --mark 0x0/0x20000 -j DROP");
            self.rule(&chain, "-j DROP");
        }
    }

    /// A match for each peer of this family. None at all when there are peers, but of the other family.
    fn peers(&mut self, namespace: &str, peers: &[Value], direction: Direction) -> Vec<String> {
        if peers.is_empty() {
            return vec![String::new()];
        }
        let side = match direction {
            Direction::Ingress => "src",
            Direction::Egress => "dst",
        };
        let sets = peers.iter().filter_map(|peer| {
            let entries = match peer["ipBlock"].is_null() {
                true => self.selected(namespace, peer),
                false => self.block(&peer["ipBlock"])?,
            };
            Some(Set { kind: "hash:net", entries })
        });
        let sets: Vec<_> = sets.collect();
        sets.into_iter().map(|set| format!("-m set --match-set {} {side}", self.name(set))).collect()
    }

    fn selected(&self, policy_namespace: &str, peer: &Value) -> Vec<String> {
        let pods = self.objects.iter().filter(|object| is_placed(object)).filter(|pod| {
            let namespaces = &peer["namespaceSelector"];
            let is_in = match namespaces.is_null() {
                true => namespace(pod) == policy_namespace,
                false => selects(namespaces, &self.namespace_labels(namespace(pod))),
            };
            is_in && selects(&peer["podSelector"], &pod["metadata"]["labels"])
        });
        let found = pods.flat_map(addresses).filter(|address| self.family.has(address));
        found.map(|address| address.to_string()).collect()
    }

    fn namespace_labels(&self, name: &str) -> Value {
        let of_name = |object: &&Value| object["kind"] == "Namespace" && object["metadata"]["name"] == name;
        let declared = self.objects.iter().find(of_name).map(|it| it["metadata"]["labels"].clone());
        let mut labels = declared.filter(|labels| !labels.is_null()).unwrap_or_else(|| serde_json::json!({}));
        labels["kubernetes.io/metadata.name"] = name.into();
        labels
    }

    /// `None` for a block of the other family.
    fn block(&self, block: &Value) -> Option<Vec<String>> {
        let (address, length) = cidr(&block["cidr"]);
        if !self.family.has(&address) {
            return None;
        }
        let mut entries = match (length, self.family) {
            // Such a set holds no prefix of length 0.
            (0, Family::V4) => vec!["0.0.0.0/1".to_owned(), "128.0.0.0/1".to_owned()],
            (0, Family::V6) => vec!["::/1".to_owned(), "8000::/1".to_owned()],
            _ => vec![format!("{address}/{length}")],
        };
        for except in list(&block["except"]) {
            let (address, length) = cidr(except);
            entries.push(format!("{address}/{length} nomatch"));
        }
        Some(entries)
    }

    fn ports(&mut self, ports: &[Value]) -> Vec<String> {
        if ports.is_empty() {
            return vec![String::new()];
        }
        let matches = ports.iter().map(|port| {
            let name = port["protocol"].as_str().unwrap_or("TCP");
            let protocol = name.to_lowercase();
            let first = &port["port"];
            if let Some(wanted) = first.as_str() {
                let set = Set { kind: "hash:ip,port", entries: self.named(wanted, name) };
                format!("-p {protocol} -m set --match-set {} dst,dst", self.name(set))
            } else if first.is_null() {
                format!("-p {protocol}")
            } else if port["endPort"].is_null() || port["endPort"] == *first {
                format!("-p {protocol} -m multiport --destination-ports {first}")
            } else {
                format!("-p {protocol} -m multiport --destination-ports {first}:{}", port["endPort"])
            }
        });
        matches.collect()
    }

    /// Every pod's address and port of this name.
    fn named(&self, name: &str, protocol: &str) -> Vec<String> {
        let mut entries = Vec::new();
        for pod in self.objects.iter().filter(|object| is_placed(object)) {
            let sidecars = list(&pod["spec"]["initContainers"]).iter();
            let sidecars = sidecars.filter(|container| container["restartPolicy"] == "Always");
            let containers = list(&pod["spec"]["containers"]).iter().chain(sidecars);
            for port in containers.flat_map(|container| list(&container["ports"])) {
                if port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol {
                    let own = addresses(pod).into_iter().filter(|address| self.family.has(address));
                    let number = &port["containerPort"];
                    entries
                        .extend(own.map(|address| format!("{address},{}:{number}", protocol.to_lowercase())));
                }
            }
        }
        entries.sort();
        entries.dedup();
        entries
    }

    fn name(&mut self, set: Set) -> String {
        let new = format!("{}{}", self.prefix, self.sets.len());
        self.sets.entry(set).or_insert(new).clone()
    }

    fn chain(&mut self, name: &str) {
        writeln!(self.chains, ":{name} - -").expect("writing to a string");
    }

    fn rule(&mut self, chain: &str, rule: &str) {
        writeln!(self.rules, "-A {chain} {rule}").expect("writing to a string");
    }

    fn finish(self) -> Rules {
        let family = if self.family == Family::V4 { "inet" } else { "inet6" };
        let mut sets = String::new();
        for (Set { kind, entries }, name) in &self.sets {
            writeln!(sets, "create {name} {kind} family {family}").expect("writing to a string");
            for entry in entries {
                writeln!(sets, "add -exist {name} {entry}").expect("writing to a string");
            }
        }
        Rules {
            sets,
            filter: format!("*filter\n:FORWARD ACCEPT [0:0]\n{}{}COMMIT\n", self.chains, self.rules),
        }
    }
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// What loads its rules.
    pub fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-nft-restore",
            Self::V6 => "ip6tables-nft-restore",
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

impl Direction {
    /// How chains of policies are called.
    fn policies(self) -> &'static str {
        match self {
            Self::Ingress => "cali-pi-knp-",
            Self::Egress => "cali-po-knp-",
        }
    }

    /// How chains of pods are called.
    fn endpoints(self) -> &'static str {
        match self {
            Self::Ingress => "cali-tw-",
            Self::Egress => "cali-fw-",
        }
    }

    fn dispatch(self) -> &'static str {
        match self {
            Self::Ingress => "cali-to-wl-dispatch",
            Self::Egress => "cali-from-wl-dispatch",
        }
    }

    /// By which side of a forwarded packet a pod's interface is known.
    fn way(self) -> &'static str {
        match self {
            Self::Ingress => "-o",
            Self::Egress => "-i",
        }
    }
}

fn isolates(policy: &Value, direction: Direction) -> bool {
    let types = list(&policy["spec"]["policyTypes"]);
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|it| it == "Ingress"),
        Direction::Egress if types.is_empty() => !list(&policy["spec"]["egress"]).is_empty(),
        Direction::Egress => types.iter().any(|it| it == "Egress"),
    }
}
