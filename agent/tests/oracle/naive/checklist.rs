//! The evaluator's verdicts, derived by hand from the semantics checklist, whose numbers stand at each case.
//!
//! All cases share one small world; each adds policies, written `NAMESPACE: SPEC`, and says what is then open and
//! what is blocked.

use serde_json::{Value, json};

use crate::oracle::{manifest, question::Question};

struct Case {
    items: &'static [u16],
    why: &'static str,
    policies: &'static [&'static str],
    open: &'static [&'static str],
    blocked: &'static [&'static str],
}

/// x/a, x/b, x/c and y/a, y/b with labels `app`; z/a in a namespace that no object declares; nodes n1 (x) and n2 (y, z).
fn world() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "red"}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "y", "labels": {"team": "blue"}}}),
        node("n1", "10.10.0.1"),
        node("n2", "10.10.0.2"),
        pod("x", "a", "n1", json!({"app": "a", "tier": "web"}), &["10.0.0.1", "fd00::1"], http(8080)),
        pod("x", "b", "n1", json!({"app": "b", "tier": ""}), &["10.0.0.2", "fd00::2"], http(9090)),
        pod("x", "c", "n1", json!({}), &["10.0.0.3", "fd00::3"], json!([])),
        pod("y", "a", "n2", json!({"app": "a"}), &["10.0.1.1", "fd00:1::1"], http(8081)),
        pod("y", "b", "n2", json!({"app": "b"}), &["10.0.1.2", "fd00:1::2"], json!([])),
        pod("z", "a", "n2", json!({"app": "a"}), &["10.0.2.1"], json!([])),
    ]
}

fn pod(namespace: &str, name: &str, node: &str, labels: Value, addresses: &[&str], ports: Value) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips},
    })
}

fn http(number: u16) -> Value {
    json!([
        {"name": "http", "containerPort": number},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"containerPort": 7000},
    ])
}

fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
    })
}

const CASES: &[Case] = &[
    Case {
        items: &[1],
        why: "without a policy everything is open",
        policies: &[],
        open: &["x/a x/b TCP/80", "x/b x/a SCTP/80", "x/a 198.51.100.7 UDP/53", "2001:db8::7 x/a ICMP"],
        blocked: &[],
    },
    Case {
        items: &[2, 19],
        why: "an ingress policy isolates ingress alone, and nobody else",
        policies: &["x: {podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress]}"],
        open: &["x/a x/b TCP/80", "x/b x/c TCP/80", "x/b y/a TCP/80", "x/a 198.51.100.7 TCP/80"],
        blocked: &["x/b x/a TCP/80", "x/b x/a UDP/80", "y/a x/a TCP/80", "198.51.100.7 x/a TCP/80"],
    },
    Case {
        items: &[3],
        why: "an egress policy isolates egress alone",
        policies: &["x: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]}"],
        open: &["x/b x/a TCP/80", "198.51.100.7 x/a TCP/80"],
        blocked: &["x/a x/b TCP/80", "x/a 198.51.100.7 TCP/80", "x/a 2001:db8::7 UDP/53"],
    },
    Case {
        items: &[4],
        why: "both types without rules: nothing in, nothing out, but for itself and its node",
        policies: &["x: {podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress]}"],
        open: &["x/a x/a TCP/80", "x/a 10.0.0.1 TCP/80", "node/n1 x/a TCP/80", "x/a node/n1 TCP/80"],
        blocked: &["x/b x/a TCP/80", "x/a x/b TCP/80", "x/a x/b ICMP"],
    },
    Case {
        items: &[5, 7],
        why: "an empty podSelector selects all pods of the policy's namespace and no others",
        policies: &["x: {podSelector: {}}"],
        open: &["x/a y/a TCP/80", "y/b y/a TCP/80"],
        blocked: &["y/a x/a TCP/80", "y/a x/b TCP/80", "x/a x/c TCP/80"],
    },
    Case {
        items: &[6],
        why: "an absent podSelector, or one that is null, is an empty one",
        policies: &["x: {policyTypes: [Ingress]}", "y: {podSelector: null, policyTypes: [Ingress]}"],
        open: &["x/a z/a TCP/80"],
        blocked: &["x/b x/a TCP/80", "y/a y/b TCP/80"],
    },
    Case {
        items: &[7],
        why: "equal labels in another namespace do not make a subject",
        policies: &["y: {podSelector: {matchLabels: {app: a}}}"],
        open: &["y/b x/a TCP/80"],
        blocked: &["x/b y/a TCP/80"],
    },
    Case {
        items: &[8],
        why: "policyTypes missing and only ingress rules: Ingress",
        policies: &["x: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}"],
        open: &["x/a y/a TCP/81", "y/a x/a TCP/80"],
        blocked: &["y/a x/a TCP/81"],
    },
    Case {
        items: &[9],
        why: "policyTypes missing and an egress rule: both, though no ingress rule is there",
        policies: &["x: {podSelector: {}, egress: [{ports: [{port: 80}]}]}"],
        open: &["x/a y/a TCP/80"],
        blocked: &["x/a y/a TCP/81", "y/a x/a TCP/80"],
    },
    Case {
        items: &[9],
        why: "policyTypes empty counts as missing",
        policies: &["x: {podSelector: {}, policyTypes: [], egress: [{}]}"],
        open: &["x/a y/a TCP/80"],
        blocked: &["y/a x/a TCP/80"],
    },
    Case {
        items: &[10],
        why: "policyTypes missing and egress empty: Ingress only",
        policies: &["x: {podSelector: {}, egress: []}"],
        open: &["x/a y/a TCP/80"],
        blocked: &["y/a x/a TCP/80"],
    },
    Case {
        items: &[11],
        why: "policyTypes rules over what is written: ingress rules of an Egress policy do not isolate",
        policies: &["x: {podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 80}]}]}"],
        open: &["y/a x/a TCP/81"],
        blocked: &["x/a y/a TCP/80"],
    },
    Case {
        items: &[11],
        why: "... nor do their allowances count beside another policy",
        policies: &[
            "x: {podSelector: {}, policyTypes: [Egress], ingress: [{}], egress: [{}]}",
            "x: {podSelector: {}, policyTypes: [Ingress]}",
        ],
        open: &["x/a y/a TCP/80"],
        blocked: &["y/a x/a TCP/80"],
    },
    Case {
        items: &[12],
        why: "a type may be listed twice",
        policies: &["x: {podSelector: {}, policyTypes: [Ingress, Ingress]}"],
        open: &["x/a y/a TCP/80"],
        blocked: &["y/a x/a TCP/80"],
    },
    Case {
        items: &[13, 68],
        why: "the rule {} allows everyone, on every port of every protocol",
        policies: &["x: {podSelector: {}, ingress: [{}]}"],
        open: &["y/a x/a TCP/1", "198.51.100.7 x/a SCTP/9", "2001:db8::7 x/a ICMP", "10.10.0.2 x/a UDP/5"],
        blocked: &[],
    },
    Case {
        items: &[14],
        why: "two policies: the union of their rules",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 80}]}]}",
            "x: {podSelector: {}, ingress: [{ports: [{port: 81}]}]}",
        ],
        open: &["x/b x/a TCP/80", "x/b x/a TCP/81", "x/a x/b TCP/81"],
        blocked: &["x/b x/a TCP/82", "x/a x/b TCP/80"],
    },
    Case {
        items: &[14],
        why: "the union is of rules, not of peers and of ports: no cross product",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 80}]}]}",
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 81}]}]}",
        ],
        open: &["x/b x/a TCP/80", "y/a x/a TCP/81"],
        blocked: &["x/b x/a TCP/81", "y/a x/a TCP/80"],
    },
    Case {
        items: &[15],
        why: "allow all and deny all: allow all",
        policies: &["x: {podSelector: {}, ingress: [{}]}", "x: {podSelector: {}}"],
        open: &["y/a x/a TCP/80"],
        blocked: &[],
    },
    Case {
        items: &[15],
        why: "... in either order",
        policies: &["x: {podSelector: {}}", "x: {podSelector: {}, ingress: [{}]}"],
        open: &["y/a x/a TCP/80"],
        blocked: &[],
    },
    Case {
        items: &[18],
        why: "both ends must allow",
        policies: &[
            "x: {policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}",
            "y: {podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress]}",
            "z: {policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]}",
        ],
        open: &["x/a y/b TCP/80", "y/b z/a TCP/80"],
        blocked: &["x/a y/a TCP/80", "x/a z/a TCP/80", "y/b y/a TCP/80"],
    },
    Case {
        items: &[20],
        why: "directions are independent when they come from different policies",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{ports: [{port: 1}]}]}",
            "x: {podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 2}]}]}",
        ],
        open: &["x/a x/b TCP/1", "x/b x/a TCP/2"],
        blocked: &["x/a x/b TCP/2", "x/b x/a TCP/1"],
    },
    Case {
        items: &[21, 22],
        why: "a policy that selects nobody, and one in a namespace without objects, do nothing",
        policies: &["x: {podSelector: {matchLabels: {app: none}}}", "w: {}"],
        open: &["x/b x/a TCP/80", "z/a x/a TCP/80"],
        blocked: &[],
    },
    Case {
        items: &[24],
        why: "from missing, null and [] are all sources",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 1}]}]}",
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [], ports: [{port: 2}]}]}",
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: null, ports: [{port: 3}]}]}",
        ],
        open: &["x/b x/a TCP/1", "198.51.100.7 x/a TCP/2", "2001:db8::7 x/a TCP/3"],
        blocked: &["x/b x/a TCP/4"],
    },
    Case {
        items: &[25, 29],
        why: "a podSelector peer is the policy's own namespace",
        policies: &["x: {ingress: [{from: [{podSelector: {}}]}]}"],
        open: &["x/b x/a TCP/80"],
        blocked: &["y/a x/a TCP/80", "198.51.100.7 x/a TCP/80", "node/n2 x/a TCP/80"],
    },
    Case {
        items: &[26],
        why: "a namespaceSelector {} is all pods, undeclared namespaces too, but neither outside nor nodes",
        policies: &["x: {ingress: [{from: [{namespaceSelector: {}}]}]}"],
        open: &["x/b x/a TCP/80", "y/a x/a TCP/80", "z/a x/a TCP/80"],
        blocked: &["198.51.100.7 x/a TCP/80", "node/n2 x/a TCP/80", "10.10.0.1 x/a TCP/80"],
    },
    Case {
        items: &[27],
        why: "both selectors in one peer: AND",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: b}}}]}]}",
        ],
        open: &["y/b x/a TCP/80"],
        blocked: &["y/a x/a TCP/80", "x/b x/a TCP/80"],
    },
    Case {
        items: &[28],
        why: "the same in two peers: OR",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: b}}}]}]}",
        ],
        open: &["y/b x/a TCP/80", "y/a x/a TCP/80", "x/b x/a TCP/80"],
        blocked: &["x/c x/a TCP/80", "z/a x/a TCP/80"],
    },
    Case {
        items: &[30],
        why: "matchLabels and matchExpressions are ANDed",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}, matchExpressions: [{key: tier, operator: Exists}]}}",
            "y: {podSelector: {matchLabels: {app: a}, matchExpressions: [{key: tier, operator: Exists}]}}",
            "x: {podSelector: {matchLabels: {app: b, tier: web}}}",
        ],
        open: &["x/a x/b TCP/80", "x/a y/a TCP/80"],
        blocked: &["x/b x/a TCP/80"],
    },
    Case {
        items: &[31],
        why: "In needs the key with one of the values",
        policies: &[
            "z: {ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [b, q]}]}}]}]}",
        ],
        open: &["x/b z/a TCP/80", "y/b z/a TCP/80"],
        blocked: &["x/a z/a TCP/80", "x/c z/a TCP/80"],
    },
    Case {
        items: &[31, 32],
        why: "NotIn matches other values, and pods without the key",
        policies: &[
            "z: {ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [b, q]}]}}]}]}",
        ],
        open: &["x/a z/a TCP/80", "x/c z/a TCP/80"],
        blocked: &["x/b z/a TCP/80", "y/b z/a TCP/80"],
    },
    Case {
        items: &[31],
        why: "Exists, also with an empty value",
        policies: &[
            "z: {ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}]}]}",
        ],
        open: &["x/a z/a TCP/80", "x/b z/a TCP/80"],
        blocked: &["x/c z/a TCP/80", "y/a z/a TCP/80"],
    },
    Case {
        items: &[31],
        why: "DoesNotExist",
        policies: &[
            "z: {ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist, values: []}]}}]}]}",
        ],
        open: &["x/c z/a TCP/80", "y/a z/a TCP/80"],
        blocked: &["x/a z/a TCP/80", "x/b z/a TCP/80"],
    },
    Case {
        items: &[33],
        why: "an empty value needs the key",
        policies: &[
            "z: {ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {tier: ''}}}]}]}",
        ],
        open: &["x/b z/a TCP/80"],
        blocked: &["x/a z/a TCP/80", "x/c z/a TCP/80"],
    },
    Case {
        items: &[34],
        why: "kubernetes.io/metadata.name selects a namespace, declared or not",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [y, z]}]}}]}]}",
        ],
        open: &["y/b x/a TCP/80", "z/a x/a TCP/80"],
        blocked: &["x/b x/a TCP/80"],
    },
    Case {
        items: &[34, 39],
        why: "NotIn on a namespace label takes in the namespace that no object declares",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [blue]}]}}]}]}",
        ],
        open: &["x/b x/a TCP/80", "z/a x/a TCP/80"],
        blocked: &["y/b x/a TCP/80"],
    },
    Case {
        items: &[35],
        why: "a namespaceSelector may select the policy's own namespace",
        policies: &["x: {ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}"],
        open: &["x/b x/a TCP/80"],
        blocked: &["y/b x/a TCP/80"],
    },
    Case {
        items: &[40],
        why: "a selector that is not valid matches nothing, also under NotIn; the policy isolates",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: ['bad value!']}]}}]}]}",
            "y: {ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: Inside, values: [red]}]}}]}]}",
            "z: {ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: []}]}}]}]}",
        ],
        open: &["x/a x/b TCP/80"],
        blocked: &["x/b x/a TCP/80", "x/a y/a TCP/80", "x/a z/a TCP/80"],
    },
    Case {
        items: &[41],
        why: "a bad peer takes nothing from its siblings",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{}, {ipBlock: {cidr: 10.0.0.0/99}}, {podSelector: {matchLabels: {app: b}}}]}]}",
            "x: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 0.0.0.0/0}}]}]}",
        ],
        open: &["x/b x/a TCP/80"],
        blocked: &["x/c x/a TCP/80", "198.51.100.7 x/a TCP/80", "x/a x/b TCP/80", "198.51.100.7 x/b TCP/80"],
    },
    Case {
        items: &[41],
        why: "a bad port takes nothing from its siblings",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 0}, {port: 65536}, {port: 90, endPort: 80}, {endPort: 90}, {port: http, endPort: 9000}, {protocol: tcp}, {port: '80'}, {port: 443}]}]}",
        ],
        open: &["x/b x/a TCP/443"],
        blocked: &["x/b x/a TCP/80", "x/b x/a TCP/85", "x/b x/a TCP/90", "x/b x/a TCP/8080", "x/b x/a TCP/1"],
    },
    Case {
        items: &[41],
        why: "except outside of its cidr, or not smaller: the block matches nothing",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.2]}}]}]}",
        ],
        open: &[],
        blocked: &["x/b x/a TCP/80", "y/a x/a TCP/80"],
    },
    Case {
        items: &[50],
        why: "peers on another node count by their labels",
        policies: &["x: {ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}"],
        open: &["y/a x/a TCP/80"],
        blocked: &["z/a x/a TCP/80"],
    },
    Case {
        items: &[52, 61],
        why: "ipBlock: inside and outside of its boundaries, pods like any other address",
        policies: &["z: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.2/31}}]}]}"],
        open: &["x/b z/a TCP/80", "x/c z/a TCP/80", "10.0.0.2 z/a TCP/80"],
        blocked: &["x/a z/a TCP/80", "10.0.0.4 z/a TCP/80", "10.0.0.1 z/a TCP/80"],
    },
    Case {
        items: &[53, 54],
        why: "except takes its range away, nested and double ones too",
        policies: &[
            "z: {ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.64/26, 198.51.100.64/26, 198.51.100.80/28, 198.51.100.128/25]}}]}]}",
        ],
        open: &["198.51.100.0 z/a TCP/80", "198.51.100.63 z/a TCP/80"],
        blocked: &[
            "198.51.100.64 z/a TCP/80",
            "198.51.100.85 z/a TCP/80",
            "198.51.100.127 z/a TCP/80",
            "198.51.100.128 z/a TCP/80",
            "198.51.100.255 z/a TCP/80",
            "198.51.101.0 z/a TCP/80",
        ],
    },
    Case {
        items: &[55],
        why: "except subtracts from its own peer only",
        policies: &[
            "z: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.0.0/24]}}, {ipBlock: {cidr: 10.0.0.2/32}}]}]}",
            "z: {ingress: [{from: [{podSelector: {}, namespaceSelector: {matchLabels: {team: red}}}], ports: [{port: 81}]}]}",
        ],
        open: &["x/b z/a TCP/80", "x/a z/a TCP/81", "y/a z/a TCP/80"],
        blocked: &["x/a z/a TCP/80"],
    },
    Case {
        items: &[56, 57],
        why: "overlapping blocks: the ports of all blocks that cover the address",
        policies: &[
            "x: {policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}, {to: [{ipBlock: {cidr: 10.1.0.0/16}}], ports: [{port: 81}]}]}",
            "x: {policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.1.1.0/24, except: [10.1.1.128/25]}}], ports: [{port: 82}]}]}",
        ],
        open: &[
            "x/a 10.1.1.5 TCP/80",
            "x/a 10.1.1.5 TCP/81",
            "x/a 10.1.1.5 TCP/82",
            "x/a 10.1.1.200 TCP/80",
            "x/a 10.1.1.200 TCP/81",
            "x/a 10.1.2.1 TCP/81",
            "x/a 10.2.0.1 TCP/80",
        ],
        blocked: &[
            "x/a 10.1.1.200 TCP/82",
            "x/a 10.1.2.1 TCP/82",
            "x/a 10.2.0.1 TCP/81",
            "x/a 11.0.0.1 TCP/80",
        ],
    },
    Case {
        items: &[58, 59, 60],
        why: "old forms of blocks: host bits, leading zeros, IPv4-mapped",
        policies: &[
            "x: {policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.77/24}}], ports: [{port: 58}]}, {to: [{ipBlock: {cidr: 010.0.0.0/8}}], ports: [{port: 59}]}, {to: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}], ports: [{port: 60}]}]}",
        ],
        open: &["x/a 198.51.100.1 TCP/58", "x/a 10.9.9.9 TCP/59", "x/a 10.9.9.9 TCP/60"],
        blocked: &["x/a 198.51.101.1 TCP/58", "x/a 8.0.0.1 TCP/59", "x/a 11.0.0.1 TCP/60"],
    },
    Case {
        items: &[62, 49],
        why: "ipBlock matches the addresses of nodes",
        policies: &["x: {ingress: [{from: [{ipBlock: {cidr: 10.10.0.2/32}}]}]}"],
        open: &["node/n2 x/a TCP/80", "10.10.0.2 x/a TCP/80"],
        blocked: &["10.10.0.1 x/a TCP/80", "10.10.0.3 x/a TCP/80"],
    },
    Case {
        items: &[63, 181],
        why: "0.0.0.0/0 is IPv4 alone and ::/0 is IPv6 alone; one policy isolates both families",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}",
            "x: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}",
        ],
        open: &["198.51.100.7 x/a TCP/80", "2001:db8::7 x/b TCP/80", "z/a x/a TCP/80"],
        blocked: &["2001:db8::7 x/a TCP/80", "198.51.100.7 x/b TCP/80", "y/a x/a TCP/80", "y/a x/b TCP/80"],
    },
    Case {
        items: &[65],
        why: "IPv6 blocks and their excepts",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: '2001:db8::/64', except: ['2001:db8::100/120']}}, {ipBlock: {cidr: '2001:db8:1::9/128'}}]}]}",
        ],
        open: &["2001:db8::ff x/a TCP/80", "2001:db8::200 x/a TCP/80", "2001:db8:1::9 x/a TCP/80"],
        blocked: &["2001:db8::100 x/a TCP/80", "2001:db8::1ff x/a TCP/80", "2001:db8:1::8 x/a TCP/80"],
    },
    Case {
        items: &[69],
        why: "a port without protocol is TCP",
        policies: &["x: {ingress: [{ports: [{port: 80}]}]}"],
        open: &["y/a x/a TCP/80"],
        blocked: &["y/a x/a UDP/80", "y/a x/a SCTP/80", "y/a x/a ICMP"],
    },
    Case {
        items: &[70],
        why: "a protocol alone is all its ports",
        policies: &["x: {ingress: [{ports: [{protocol: UDP}]}]}"],
        open: &["y/a x/a UDP/1", "y/a x/a UDP/65535"],
        blocked: &["y/a x/a TCP/80", "y/a x/a SCTP/80"],
    },
    Case {
        items: &[71],
        why: "the port {} is all of TCP",
        policies: &["x: {ingress: [{ports: [{}]}]}"],
        open: &["y/a x/a TCP/1", "y/a x/a TCP/65535"],
        blocked: &["y/a x/a UDP/80", "y/a x/a SCTP/80", "y/a x/a ICMP"],
    },
    Case {
        items: &[72],
        why: "several entries: OR, several protocols on one number",
        policies: &[
            "x: {ingress: [{ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}, {port: 9, protocol: SCTP}]}]}",
        ],
        open: &["y/a x/a UDP/53", "y/a x/a TCP/53", "y/a x/a SCTP/9"],
        blocked: &["y/a x/a SCTP/53", "y/a x/a TCP/9"],
    },
    Case {
        items: &[73, 74],
        why: "endPort is included; ranges may overlap, have one port, or be all ports",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 100, endPort: 200}, {port: 150, endPort: 300}, {port: 400, endPort: 400}]}]}",
            "x: {podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 1, endPort: 65535, protocol: UDP}]}]}",
        ],
        open: &[
            "x/c x/a TCP/100",
            "x/c x/a TCP/175",
            "x/c x/a TCP/200",
            "x/c x/a TCP/300",
            "x/c x/a TCP/400",
            "x/c x/b UDP/1",
            "x/c x/b UDP/65535",
        ],
        blocked: &[
            "x/c x/a TCP/99",
            "x/c x/a TCP/301",
            "x/c x/a TCP/399",
            "x/c x/a TCP/401",
            "x/c x/b TCP/1",
        ],
    },
    Case {
        items: &[76, 77, 79],
        why: "protocols do not stand for each other",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}",
            "x: {podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 80, protocol: UDP}]}]}",
        ],
        open: &["x/c x/a SCTP/80", "x/c x/b UDP/80"],
        blocked: &["x/c x/a TCP/80", "x/c x/a UDP/80", "x/c x/b TCP/80", "x/c x/b SCTP/80"],
    },
    Case {
        items: &[80, 81, 85],
        why: "a named port of an ingress rule is looked up on each subject pod",
        policies: &["x: {ingress: [{ports: [{port: http}]}]}"],
        open: &["y/a x/a TCP/8080", "y/a x/b TCP/9090"],
        blocked: &["y/a x/a TCP/9090", "y/a x/b TCP/8080", "y/a x/c TCP/8080", "y/a x/a UDP/8080"],
    },
    Case {
        items: &[82],
        why: "name and protocol must both be the pod's",
        policies: &["x: {ingress: [{ports: [{port: dns}, {port: http, protocol: UDP}]}]}"],
        open: &[],
        blocked: &["y/a x/a UDP/53", "y/a x/a TCP/53", "y/a x/a UDP/8080", "y/a x/a TCP/8080"],
    },
    Case {
        items: &[83, 84],
        why: "a named port of an egress rule is looked up on each destination, in all namespaces; outside nothing has it",
        policies: &["x: {policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"],
        open: &["x/a x/b TCP/9090", "x/a y/a TCP/8081", "x/b x/a TCP/8080"],
        blocked: &[
            "x/a y/a TCP/8080",
            "x/a y/b TCP/8081",
            "x/a 198.51.100.7 TCP/8081",
            "x/a 198.51.100.7 TCP/8080",
        ],
    },
    Case {
        items: &[84],
        why: "a named port beside an ipBlock allows nothing outside",
        policies: &[
            "x: {policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}], ports: [{port: http}]}]}",
        ],
        open: &[],
        blocked: &["x/a 198.51.100.7 TCP/8080", "x/a 198.51.100.7 TCP/80", "x/a y/a TCP/8081"],
    },
    Case {
        items: &[92, 93],
        why: "protocols without ports need a rule without ports",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 1, endPort: 65535}]}]}",
            "x: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {}}]}]}",
        ],
        open: &["x/c x/b GRE", "x/c x/b ICMP"],
        blocked: &["x/c x/a GRE", "x/c x/a ICMP", "x/c x/a TCP/0"],
    },
    Case {
        items: &[117, 118, 119],
        why: "the own node reaches its pods; another node does not, and its bare address proves nothing",
        policies: &["x: {policyTypes: [Ingress, Egress]}"],
        open: &["node/n1 x/a TCP/80"],
        blocked: &["node/n2 x/a TCP/80", "10.10.0.1 x/a TCP/80"],
    },
    Case {
        items: &[120, 121],
        why: "an isolated pod reaches its own node and no other",
        policies: &["x: {policyTypes: [Egress]}"],
        open: &["x/a node/n1 TCP/443", "x/a 10.10.0.1 TCP/443"],
        blocked: &["x/a node/n2 TCP/443", "x/a 10.10.0.2 TCP/443"],
    },
    Case {
        items: &[182, 185],
        why: "selectors, names and ranges hold in both families",
        policies: &[
            "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}, {port: 1, endPort: 2}]}]}",
        ],
        open: &[
            "x/b x/a TCP/8080",
            "fd00::2 x/a TCP/8080",
            "fd00::2 fd00::1 TCP/2",
            "10.0.0.2 10.0.0.1 TCP/2",
        ],
        blocked: &["fd00::9 x/a TCP/8080", "fd00::2 fd00::1 TCP/3"],
    },
];

#[test]
fn every_case_has_the_verdicts_of_the_checklist() {
    for Case { items, why, policies, open, blocked } in CASES {
        let mut objects = world();
        objects.extend(policies.iter().enumerate().map(|(index, text)| policy(index, text)));
        let expected = open.iter().map(|text| (text, true)).chain(blocked.iter().map(|text| (text, false)));
        for (text, expected) in expected {
            let question: Question = text.parse().unwrap();
            assert_eq!(question.is_allowed(&objects), expected, "{items:?} {why}: {question}");
        }
    }
}

fn policy(index: usize, text: &str) -> Value {
    let (namespace, spec) = text.split_once(": ").expect("a policy is written NAMESPACE: SPEC");
    let spec = manifest::read(spec).unwrap_or_else(|error| panic!("{spec}: {error}")).remove(0);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": format!("p{index}")}, "spec": spec,
    })
}

/// Items 6, 38 to 51, 86, 87, 186: what depends on the pods, not on the policies.
mod pods {
    use super::*;

    const DENY_ALL_BUT_B: &str = "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}";

    fn is_open(objects: &[Value], question: &str) -> bool {
        question.parse::<Question>().unwrap().is_allowed(objects)
    }

    fn find<'a>(objects: &'a mut [Value], namespace: &str, name: &str) -> &'a mut Value {
        objects
            .iter_mut()
            .find(|object| object["metadata"]["namespace"] == namespace && object["metadata"]["name"] == name)
            .unwrap()
    }

    #[test]
    fn labels_of_pods_and_namespaces_decide_36_37_38() {
        let mut objects = world();
        objects.push(policy(0, DENY_ALL_BUT_B));
        assert!(!is_open(&objects, "x/c x/a TCP/80"));
        find(&mut objects, "x", "c")["metadata"]["labels"] = json!({"app": "b"});
        assert!(is_open(&objects, "x/c x/a TCP/80"), "the peer got the label");
        find(&mut objects, "x", "a")["metadata"]["labels"] = json!({"app": "q"});
        assert!(is_open(&objects, "y/a x/a TCP/80"), "the subject lost the label");
    }

    #[test]
    fn a_finished_pod_is_no_peer_and_its_address_is_the_next_pods_44_51() {
        for (phase, counts) in
            [("Succeeded", false), ("Failed", false), ("Pending", true), ("Unknown", true), ("Running", true)]
        {
            let mut objects = world();
            objects.push(policy(0, DENY_ALL_BUT_B));
            find(&mut objects, "x", "b")["status"]["phase"] = phase.into();
            assert_eq!(is_open(&objects, "10.0.0.2 x/a TCP/80"), counts, "{phase}");
        }
        let mut objects = world();
        objects.push(policy(0, DENY_ALL_BUT_B));
        find(&mut objects, "x", "b")["status"]["phase"] = "Failed".into();
        objects.push(pod("x", "new", "n1", json!({}), &["10.0.0.2"], json!([])));
        assert!(!is_open(&objects, "10.0.0.2 x/a TCP/80"), "the address is that of x/new");
    }

    #[test]
    fn a_terminating_pod_stays_subject_and_peer_45() {
        let mut objects = world();
        objects.push(policy(0, DENY_ALL_BUT_B));
        for name in ["a", "b"] {
            find(&mut objects, "x", name)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        assert!(is_open(&objects, "x/b x/a TCP/80"));
        assert!(!is_open(&objects, "x/c x/a TCP/80"));
    }

    #[test]
    fn a_host_network_pod_is_neither_subject_nor_selected_peer_48() {
        let mut objects = world();
        let mut host = pod("x", "host", "n2", json!({"app": "b"}), &["10.10.0.2"], json!([]));
        host["spec"]["hostNetwork"] = true.into();
        objects.push(host);
        objects.push(policy(0, DENY_ALL_BUT_B));
        objects.push(policy(
            1,
            "x: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress], egress: [{}]}",
        ));
        assert!(is_open(&objects, "x/b x/a TCP/80"));
        assert!(!is_open(&objects, "x/host x/a TCP/80"), "its labels do not count");
        assert!(is_open(&objects, "y/a x/host TCP/80"), "it is not isolated");
        find(&mut objects, "x", "host")["spec"]["nodeName"] = "n1".into();
        assert!(is_open(&objects, "x/host x/a TCP/80"), "it is on the own node of x/a");
    }

    #[test]
    fn named_ports_of_sidecars_and_several_containers_count_86_87() {
        let mut objects = world();
        objects.push(policy(0, "x: {ingress: [{ports: [{port: http}]}]}"));
        let spec = &mut find(&mut objects, "x", "c")["spec"];
        spec["containers"] = json!([
            {"name": "one", "ports": [{"name": "http", "containerPort": 1}]},
            {"name": "two", "ports": [{"name": "http", "containerPort": 2, "protocol": "TCP"}]},
        ]);
        spec["initContainers"] = json!([
            {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 3}]},
            {"name": "init", "ports": [{"name": "http", "containerPort": 4}]},
        ]);
        for (port, open) in [(1, true), (2, true), (3, true), (4, false)] {
            assert_eq!(is_open(&objects, &format!("y/a x/c TCP/{port}")), open, "port {port}");
        }
    }

    #[test]
    fn every_namespace_has_its_own_name_label_whatever_its_object_says_34() {
        let mut objects = world();
        objects[0]["metadata"]["labels"]["kubernetes.io/metadata.name"] = "y".into();
        let only_y =
            "z: {ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}";
        objects.push(policy(0, only_y));
        assert!(!is_open(&objects, "x/a z/a TCP/80"));
        assert!(is_open(&objects, "y/a z/a TCP/80"));
    }

    #[test]
    fn a_pod_has_all_of_its_pod_ips_or_else_its_pod_ip_186() {
        let mut objects = world();
        objects.push(policy(0, "x: {ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}"));
        assert!(!is_open(&objects, "y/a x/a TCP/80"), "its IPv6 address is not in the block");
        find(&mut objects, "y", "a")["status"] = json!({"podIP": "10.0.1.1"});
        assert!(is_open(&objects, "y/a x/a TCP/80"));
    }
}

/// The JSON of `podgate matrix`.
mod matrix {
    use super::*;
    use crate::oracle::naive::matrix;

    #[test]
    fn the_matrix_has_a_row_for_each_source_and_a_character_for_each_destination() {
        let mut objects = world();
        objects.retain(|object| object["kind"] != "Pod" || object["metadata"]["namespace"] == "x");
        objects.push(policy(0, "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}"));
        let seen = matrix(&objects, &["TCP/80", "TCP/http", "UDP/http"]);
        let expected = json!({
            "pods": ["x/a", "x/b", "x/c"],
            "ports": {
                "TCP/80": {"x/a": "...", "x/b": "...", "x/c": "X.."},
                "TCP/http": {"x/a": "..-", "x/b": "..-", "x/c": "X.-"},
                "UDP/http": {"x/a": "---", "x/b": "---", "x/c": "---"},
            },
        });
        assert_eq!(seen, expected);
    }

    #[test]
    fn finished_and_host_network_pods_and_those_without_address_are_left_out() {
        let mut objects = vec![
            pod("x", "live", "n1", json!({}), &["10.0.0.1"], json!([])),
            pod("x", "done", "n1", json!({}), &["10.0.0.2"], json!([])),
            pod("x", "host", "n1", json!({}), &["10.0.0.3"], json!([])),
            pod("x", "starting", "n1", json!({}), &["10.0.0.4"], json!([])),
            pod("x-1", "live", "n1", json!({}), &["10.0.0.5"], json!([])),
        ];
        objects[1]["status"]["phase"] = "Succeeded".into();
        objects[2]["spec"]["hostNetwork"] = true.into();
        objects[3]["status"] = json!({"phase": "Pending", "podIPs": []});
        objects[4]["metadata"].as_object_mut().unwrap().remove("namespace");
        assert_eq!(matrix(&objects, &[])["pods"], json!(["default/live", "x/live"]));
    }

    #[test]
    fn pods_without_a_family_in_common_do_not_reach_each_other() {
        let objects = [
            pod("x", "v4", "n1", json!({}), &["10.0.0.1"], json!([])),
            pod("x", "v6", "n1", json!({}), &["fd00::1"], json!([])),
        ];
        let seen = matrix(&objects, &["TCP/80"]);
        assert_eq!(seen["ports"]["TCP/80"], json!({"x/v4": ".X", "x/v6": "X."}));
    }

    #[test]
    fn a_name_with_several_numbers_must_be_open_on_all_of_them() {
        let ports = json!([{"name": "web", "containerPort": 1}, {"name": "web", "containerPort": 2}]);
        let mut objects = vec![
            pod("x", "a", "n1", json!({}), &["10.0.0.1"], ports),
            pod("x", "b", "n1", json!({}), &["10.0.0.2"], json!([])),
            policy(0, "x: {ingress: [{ports: [{port: 1}]}]}"),
        ];
        assert_eq!(matrix(&objects, &["TCP/web"])["ports"]["TCP/web"]["x/b"], "X-");
        objects[2]["spec"]["ingress"][0]["ports"] = json!([{"port": "web"}]);
        assert_eq!(matrix(&objects, &["TCP/web"])["ports"]["TCP/web"]["x/b"], ".-");
    }
}
