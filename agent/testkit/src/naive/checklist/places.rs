//! Items 52 and on: blocks, ports and protocols, nodes, families.

use super::Case;

pub(super) const CASES: &[Case] = &[
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
