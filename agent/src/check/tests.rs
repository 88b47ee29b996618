//! Findings on nodes that lack something.

use super::*;

/// A node that has everything, less what a test takes away.
struct Tree(tempfile::TempDir);

const EVERYTHING: [(&str, &str); 8] = [
    ("proc/sys/kernel/osrelease", "6.18.2-arch1\n"),
    ("sys/kernel/btf/vmlinux", ""),
    ("proc/sys/net/core/bpf_jit_enable", "1\n"),
    ("proc/self/status", "Name:\tpodgate\nCapEff:\t000001ffffffffff\n"),
    (
        "proc/self/mountinfo",
        "21 1 0:20 / / rw - ext4 /dev/sda rw\n30 21 0:27 / /sys/fs/bpf rw,nosuid - bpf bpf rw\n",
    ),
    ("proc/sys/net/ipv4/ip_forward", "1\n"),
    ("proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
    ("cni/results/cbr0-1", "{}"),
];

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        EVERYTHING.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    fn check(&self) -> Vec<Finding> {
        self.check_beside(Ok(BTreeMap::new()))
    }

    fn check_beside(&self, engines: Result<BTreeMap<&str, Vec<Trace>>>) -> Vec<Finding> {
        let places = CheckPaths {
            root: self.0.path().into(),
            bpffs: "/sys/fs/bpf".into(),
            cni_results: self.0.path().join("cni/results"),
        };
        check(&places, engines)
    }
}

#[test]
fn another_engine_is_named_by_what_it_keeps_in_the_kernel() {
    let chain = |name: &str| Trace { kind: podgate_datapath::engines::TraceKind::Chain, name: name.into() };
    let engines = BTreeMap::from([
        ("Azure NPM", vec![chain("AZURE-NPM")]),
        ("Calico", vec![chain("cali-FORWARD"), chain("cali-INPUT"), chain("cali-OUTPUT")]),
    ]);
    for (engines, found, state) in [
        (
            Ok(engines),
            "Azure NPM (chain AZURE-NPM), Calico (chain cali-FORWARD and 2 more)",
            FindingState::Warning,
        ),
        (Ok(BTreeMap::new()), "none", FindingState::Ok),
        (Err(anyhow::anyhow!("not permitted")), "cannot be looked for: not permitted", FindingState::Warning),
    ] {
        let findings = Tree::new().check_beside(engines);
        let last = findings.last().unwrap();
        assert_eq!((last.item, last.found.as_str(), &last.state), ("other policy engines", found, &state));
    }
}

#[test]
fn a_node_that_has_everything_is_ok() {
    for finding in Tree::new().check() {
        assert_eq!((&finding.state, &finding.advice), (&FindingState::Ok, &None), "{finding:?}");
    }
}

#[test]
fn what_is_not_there_is_named_alone_and_with_advice() {
    use FindingState::{FallBack, Missing, Warning};
    let no_capabilities = "CapEff:\t0000000000000000\n";
    type Change = (&'static str, Option<&'static str>);
    let cases: [(Change, &[(&str, FindingState)]); 9] = [
        (
            ("proc/sys/kernel/osrelease", Some("5.4.0-100\n")),
            &[
                ("kernel", Missing),
                ("hooks", FallBack("clsact filters, about 50 ns a packet slower")),
                ("locked memory", Missing),
            ],
        ),
        (
            ("proc/sys/kernel/osrelease", Some("6.1.0-18-amd64\n")),
            &[("hooks", FallBack("clsact filters, about 50 ns a packet slower"))],
        ),
        (
            ("sys/kernel/btf/vmlinux", None),
            &[(
                "BTF",
                FallBack(
                    "programs that do not read connection tracking, so that masqueraded packets count as the node's, \
                     nor names: rules with domainNames allow nothing",
                ),
            )],
        ),
        (
            ("proc/sys/net/core/bpf_jit_enable", Some("0\n")),
            &[("BPF JIT", FallBack("the interpreter, several times slower"))],
        ),
        (
            ("proc/self/status", Some(no_capabilities)),
            &[
                ("CAP_NET_ADMIN", Missing),
                ("CAP_NET_BROADCAST", Missing),
                ("CAP_BPF", Missing),
                ("CAP_PERFMON", Missing),
                (
                    "CAP_SYS_ADMIN",
                    FallBack(
                        "a BPF file system that is mounted already, and to live connections being evaluated again \
                             at the first start",
                    ),
                ),
            ],
        ),
        (
            ("proc/self/status", Some("CapEff:\t0000000000201800\n")),
            &[
                ("CAP_BPF", FallBack("CAP_SYS_ADMIN, which a running agent then keeps")),
                ("CAP_PERFMON", FallBack("CAP_SYS_ADMIN, which a running agent then keeps")),
            ],
        ),
        (
            ("proc/self/mountinfo", None),
            &[("BPF file system", FallBack("mounting it when the agent starts"))],
        ),
        (("proc/sys/net/ipv4/ip_forward", Some("0\n")), &[("IPv4 forwarding", Warning)]),
        (("proc/sys/net/ipv6/conf/all/forwarding", None), &[]),
    ];
    for ((path, text), expected) in cases {
        let tree = Tree::new();
        match text {
            Some(text) => tree.write(path, text),
            None => tree.remove(path),
        }
        let found: Vec<(&str, FindingState)> = tree
            .check()
            .into_iter()
            .filter(|finding| finding.state != FindingState::Ok)
            .inspect(|finding| assert!(finding.advice.is_some(), "{finding:?}"))
            .map(|finding| (finding.item, finding.state))
            .collect();
        assert_eq!(found, expected, "{path} {text:?}");
    }
}

#[test]
fn what_closes_the_short_cut_is_named() {
    let setting = |name: &str| format!("proc/sys/net/netfilter/nf_conntrack_tcp_{name}");
    let closed = "closed, also with --shortcut local: it needs";
    for (path, text, found) in [
        (setting("be_liberal"), "1\n", "open, with --shortcut local".into()),
        (setting("be_liberal"), "0\n", format!("{closed} net.netfilter.nf_conntrack_tcp_be_liberal = 1")),
        (setting("loose"), "0\n", format!("{closed} net.netfilter.nf_conntrack_tcp_loose = 1")),
        ("proc/sys/kernel/osrelease".into(), "6.14.9\n", format!("{closed} Linux 6.15")),
    ] {
        let tree = Tree::new();
        tree.write(&path, text);
        let findings = tree.check();
        let finding = findings.iter().find(|finding| finding.item == "short cut").unwrap();
        assert_eq!((&finding.state, &finding.found), (&FindingState::Ok, &found), "{path} {text}");
    }
}

#[test]
fn the_mount_that_lies_on_top_counts() {
    let mounts = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /sys rw shared:1 - sysfs b rw\n\
                      3 2 0:3 / /sys/fs/bpf rw - bpf c rw\n4 1 0:4 / /a\\040b rw - tmpfs d rw\n\
                      5 1 0:5 / /a\\040b rw - bpf e rw";
    for (path, kind) in [
        ("/sys/fs/bpf", "bpf"),
        ("/sys/fs/bpf/deeper", "bpf"),
        ("/sys/fs/bpfx", "sysfs"),
        ("/home", "ext4"),
        ("/a b", "bpf"),
    ] {
        assert_eq!(bpffs::mount_over(mounts, Path::new(path)).map(|mount| mount.kind), Some(kind), "{path}");
    }
}

#[test]
fn the_json_form_tags_the_state() {
    let json = |finding| serde_json::to_value(finding).unwrap();
    assert_eq!(
        json(hooks(Some(KernelVersion(6, 1)))),
        serde_json::json!({"item": "hooks", "state": "fall-back", "found": "no TCX",
                "fall_back_to": "clsact filters, about 50 ns a packet slower", "advice": "Linux 6.6 or newer has it"})
    );
    assert_eq!(json(hooks(Some(KernelVersion(6, 6))))["state"], "ok");
}

/// The verifier's message alone would not name the kernel as the reason.
#[test]
fn an_agent_whose_programs_are_refused_names_a_kernel_that_is_too_old() {
    let tree = Tree::new();
    assert_eq!(kernel_advice(tree.0.path()), None);
    tree.write("proc/sys/kernel/osrelease", "5.10.0-46-cloud-amd64\n");
    let expected = format!("this node runs Linux 5.10: run Linux {OLDEST} or newer on this node");
    assert_eq!(kernel_advice(tree.0.path()), Some(expected));
}
