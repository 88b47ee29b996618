//! `cargo xtask e2e --move`: from Calico to podgate on a real cluster, by the steps of
//! `agent/docs/calico.md`.
//!
//! In: the image, Calico's agent as a process of each node, its definitions and policies. Out: one line for
//! each step. Each rule has a connection that shows it; all are tried before, between and after the steps,
//! while datagrams and an earlier connection continue. Left out: Calico's own CNI plugin and operator.

use std::{
    io::Write,
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{INSTALLED, PATIENCE, Run};
use crate::{
    cluster::{self, Cluster, NODES, deploy},
    flags::{Cni, UpFlags},
    image,
    kubernetes::CalicoPrograms,
    lab::{Daemon, Log, until},
    platform::Platform,
    workspace,
};

const OBJECTS: &str = include_str!("moving.yaml");

/// Where Calico's agent says that it enforces what it has read.
const READINESS: &str = "http://127.0.0.1:9099/readiness";
/// How long it may take to start, and to end.
const START: Duration = Duration::from_secs(90);
const END: Duration = Duration::from_secs(30);

/// Takes away what Calico's agent leaves on a node, as `agent/docs/calico.md` has it.
const FLUSH: &str = "for t in iptables ip6tables; do $t-save | grep -v cali | $t-restore; done; \
                     for f in ip ip6; do nft delete table $f calico 2> /dev/null; done; \
                     ipset list -n | grep ^cali | xargs -r -n1 ipset destroy";

/// A connection to the server, and the rule that decides it.
struct Case {
    from: &'static str,
    port: u16,
    is_allowed: bool,
    rule: &'static str,
}

const fn case(from: &'static str, port: u16, is_allowed: bool, rule: &'static str) -> Case {
    Case { from, port, is_allowed, rule }
}

/// The port of the server's service.
const OF_SERVICE: u16 = 8080;

const CASES: [Case; 15] = [
    case("shop/friend", 80, true, "default.web allows the label"),
    case("shop/friend", 81, true, "the NetworkPolicy allows the label, at order 1000"),
    case("shop/friend", OF_SERVICE, true, "default.web, behind the service"),
    case("shop/stranger", 80, false, "nothing in the tier default matches"),
    case("shop/stranger", 81, false, "nothing in the tier default matches"),
    case("shop/stranger", OF_SERVICE, false, "nothing matches behind the service"),
    case("shop/blocked", 80, false, "security.web denies the label"),
    case("shop/blocked", 81, false, "security.web denies the label before default.web allows it"),
    case("garden/robot", 80, true, "security.web allows the service account"),
    case("garden/robot", 81, false, "security.web passes, nothing matches"),
    case("garden/visitor", 80, true, "default.visitors lets it out to the service's endpoints"),
    case("garden/visitor", 81, false, "default.visitors has no rule for this port"),
    case("garden/visitor", OF_SERVICE, true, "default.visitors lets it out to the service's endpoints"),
    case("shop/guest", 80, false, "default.web allows the network set another port"),
    case("shop/guest", 81, true, "default.web allows the network set"),
];

pub(super) fn run() -> Result<ExitCode> {
    let calico = CalicoPrograms::built()?;
    let image = image::build(INSTALLED)?;
    let up = UpFlags { cni: Cni::PtpCalico, ..UpFlags::default() };
    let cluster = cluster::up(up)?;
    let run = Run { cluster: &cluster, up, quick: false, passed: 0 };
    let outcome = cluster.load_image(&image.path).and_then(|()| run.moves(&calico));
    if outcome.is_err() {
        cluster.show_pods();
    }
    cluster::down()?;
    println!("{} checks passed", outcome?);
    Ok(ExitCode::SUCCESS)
}

impl Run<'_> {
    fn moves(mut self, calico: &CalicoPrograms) -> Result<usize> {
        self.check("pods on two nodes, a connection that stays open", |run| {
            run.begin()?;
            run.apply(OBJECTS)?;
            let namespaces = ["shop", "garden"];
            namespaces.iter().try_for_each(|namespace| {
                let ready = ["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"];
                run.ask(&[&["-n", namespace], &ready[..]].concat()).map(|_| ())
            })
        })?;
        let mut felix = Vec::new();
        self.check("Calico enforces: every rule has its verdict", |run| {
            run.write_policies(calico)?;
            felix = NODES.iter().map(|node| run.start_felix(calico, node)).collect::<Result<_>>()?;
            run.verdicts_become_those_of_the_rules()?;
            run.goes_on()
        })?;
        self.check("step 1, look: `podgate check --calico` carries every object whole", |run| {
            let mut check = run.cluster.client(&image::program(Platform::HOST)?)?;
            let output = check.args(["check", "--calico"]).output().context("starting podgate")?;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(output.status.success() && said.contains("carried whole"), "{}: {said}", output.status);
            println!("  {}", said.trim());
            Ok(())
        })?;
        self.check("step 2, compare on paper: `podgate explain` gives the same verdicts", Self::explained)?;
        self.check("step 3, install next to Calico: no datagram lost, no verdict changed", |run| {
            run.verdicts_hold_while(|| run.install_beside())?;
            run.verdicts_are_those_of_the_rules()?;
            run.goes_on()
        })?;
        self.check("the way back: uninstalled, Calico has enforced all the time; installed again", |run| {
            run.verdicts_hold_while(|| {
                run.ask(&["apply", "-k", &deploy("uninstall")?])?;
                run.cluster.agents_are_ready()?;
                run.ask(&["delete", "-k", &deploy("uninstall")?, "--wait=true"]).map(|_| ())
            })?;
            run.nothing_is_left()?;
            run.verdicts_are_those_of_the_rules()?;
            run.verdicts_hold_while(|| run.install_beside())
        })?;
        self.check("step 4, wait: every node enforces, and `podgate check` names Calico's chains", |run| {
            run.ask_podgate(&["rollout", "status", "--all", "-A", "--timeout", "60s"])?;
            let said = run.checked()?;
            ensure!(said.contains("Calico"), "{said}");
            Ok(())
        })?;
        self.check(
            "step 5, remove Calico: no datagram lost, no verdict changed while its chains stay",
            |run| {
                run.verdicts_hold_while(|| {
                    NODES.iter().zip(felix).try_for_each(|(node, felix)| run.stop_felix(node, felix))?;
                    run.verdicts_are_those_of_the_rules()
                })?;
                run.goes_on()
            },
        )?;
        self.check(
            "its chains are flushed: no datagram lost, no verdict changed, nothing of it left",
            |run| {
                run.verdicts_hold_while(|| {
                    NODES.iter().try_for_each(|node| {
                        let status = run.cluster.command_on(node, "sh")?.args(["-c", FLUSH]).status();
                        ensure!(status.context("starting sh")?.success(), "flushing on {node}");
                        Ok(())
                    })?;
                    run.verdicts_are_those_of_the_rules()
                })?;
                let said = run.checked()?;
                ensure!(!said.contains("Calico"), "{said}");
                run.goes_on()
            },
        )?;
        self.check("a policy that goes now is podgate's alone to take away", |run| {
            run.ask(&["-n", "shop", "delete", "networkpolicies.crd.projectcalico.org", "default.web"])?;
            run.becomes("friend", false)
        })?;
        self.check("a host endpoint: confirmed by the API server and the kubelet", Self::host_endpoint)?;
        Ok(self.passed)
    }

    /// The definitions, what is in every cluster of Calico's, and policies: through Calico's own library.
    fn write_policies(&self, calico: &CalicoPrograms) -> Result<()> {
        let definitions = calico.definitions().to_str().context("a path as text")?;
        self.ask(&["apply", "--server-side", "-f", definitions])?;
        self.ask(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        let mut store = self.cluster.client(&calico.path("calico-store"))?;
        store.env("DATASTORE_TYPE", "kubernetes").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut store = store.spawn().context("starting calico-store")?;
        let mut stdin = store.stdin.take().context("stdin is piped")?;
        writeln!(stdin, "{}", json!(policies(&self.address("guest")?))).context("writing to calico-store")?;
        drop(stdin);
        let output = store.wait_with_output().context("waiting for calico-store")?;
        let refusals: Vec<String> = serde_json::from_slice(&output.stdout).context("its answer")?;
        ensure!(refusals.iter().all(String::is_empty), "refused: {refusals:?}");
        Ok(())
    }

    fn start_felix(&self, calico: &CalicoPrograms, node: &str) -> Result<Daemon> {
        let mut felix = self.cluster.command_on(node, calico.path("calico-felix"))?;
        felix.env("KUBECONFIG", Cluster::kubeconfig()?).env("FELIX_FELIXHOSTNAME", node);
        felix.envs(CalicoPrograms::FELIX);
        let log = workspace::target()?.join(format!("cluster/{node}/felix.log"));
        let mut felix = Daemon::start(&format!("Felix on {node}"), &mut felix, &Log::new(log))?;
        felix.ready(START, || {
            let mut ask = self.cluster.command_on(node, "busybox")?;
            let ask =
                ask.args(["wget", "-q", "-O", "-", READINESS]).stderr(Stdio::null()).stdout(Stdio::null());
            Ok(ask.status().context("starting busybox")?.success())
        })?;
        Ok(felix)
    }

    /// The process that was started here only waits for that in the node.
    fn stop_felix(&self, node: &str, felix: Daemon) -> Result<()> {
        let mut stop = self.cluster.command_on(node, "sh")?;
        let status = stop.args(["-c", "kill $(pidof calico-felix)"]).status().context("starting sh")?;
        ensure!(status.success(), "ending Felix on {node}: {status}");
        felix.ended(END).map(|_| ())
    }

    fn install_beside(&self) -> Result<()> {
        self.ask(&["apply", "-k", &deploy("overlays/calico")?])?;
        self.cluster.agents_are_ready()
    }

    fn verdicts_become_those_of_the_rules(&self) -> Result<()> {
        until("every rule has its verdict", PATIENCE, || {
            Ok(self.verdicts_are_those_of_the_rules().is_ok().then_some(()))
        })
        .or_else(|_| self.verdicts_are_those_of_the_rules())
    }

    fn verdicts_are_those_of_the_rules(&self) -> Result<()> {
        for Case { from, port, is_allowed, rule } in CASES {
            let address = if port == OF_SERVICE { super::SERVICE.to_owned() } else { self.address("web")? };
            let (namespace, pod) = from.split_once('/').context("a namespace and a pod")?;
            // Port 81 sends back what it gets.
            let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} {port}; true");
            let answer = self.ask(&["-n", namespace, "exec", pod, "--", "sh", "-c", &ask])?;
            ensure!(answer.is_empty() != is_allowed, "{from} to {port}, {rule}: {answer:?}");
        }
        Ok(())
    }

    /// From a dump alone.
    fn explained(&self) -> Result<()> {
        let mut dump = self.cluster.client(&image::program(Platform::HOST)?)?;
        let dump = dump.arg("dump").output().context("starting podgate")?;
        ensure!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let file = workspace::target()?.join("cluster/dump.yaml");
        std::fs::write(&file, &dump.stdout).with_context(|| format!("writing {}", file.display()))?;
        for Case { from, port, is_allowed, rule } in CASES {
            let to = if port == OF_SERVICE { "shop/svc:web" } else { "shop/web" };
            let mut explain = self.cluster.client(&image::program(Platform::HOST)?)?;
            explain.arg("explain").arg(&file).args(["--from", from, "--to", to, "-o", "json", "--port"]);
            let output = explain.arg(format!("TCP/{port}")).output().context("starting podgate")?;
            let answer: Value = serde_json::from_slice(&output.stdout)
                .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
            let verdict = if is_allowed { "allow" } else { "deny" };
            ensure!(answer["verdict"] == verdict, "{from} to {port}, {rule}: {answer:#}");
        }
        Ok(())
    }

    /// What `podgate check` says of both nodes.
    fn checked(&self) -> Result<String> {
        let agents = ["-n", "kube-system", "get", "pods", "-l", super::AGENTS, "-o", "name"];
        let agents = self.ask(&agents)?;
        let check = |pod| self.ask(&["-n", "kube-system", "exec", pod, "--", "/podgate", "check"]);
        Ok(agents.lines().map(check).collect::<Result<Vec<_>>>()?.concat())
    }

    pub(super) fn ask_podgate(&self, arguments: &[&str]) -> Result<String> {
        let mut plugin = self.cluster.client(&image::program(Platform::HOST)?)?;
        let output = plugin.arg("cluster").args(arguments).output().context("starting podgate")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "podgate cluster {}: {}", arguments.join(" "), complaint.trim());
        String::from_utf8(output.stdout).context("the output of podgate")
    }
}

/// As users write them. `guest` is the address of a pod that a network set names.
fn policies(guest: &str) -> Vec<Value> {
    let object = |kind: &str, metadata: Value, spec: Value| json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec});
    let friend = json!({"selector": "role == 'friend'"});
    vec![
        object("Tier", json!({"name": "security"}), json!({"order": 500})),
        object(
            "GlobalNetworkPolicy",
            json!({"name": "security.web"}),
            json!({
                "tier": "security", "order": 10, "selector": "app == 'web'", "types": ["Ingress"],
                "ingress": [
                    {"action": "Deny", "source": {"selector": "role == 'blocked'"}},
                    {
                        "action": "Allow", "protocol": "TCP", "destination": {"ports": [80]},
                        "source": {
                            "serviceAccounts": {"names": ["robot"]},
                            "namespaceSelector": "projectcalico.org/name == 'garden'",
                        },
                    },
                    {"action": "Pass"},
                ],
            }),
        ),
        object(
            "GlobalNetworkSet",
            json!({"name": "guests", "labels": {"set": "guests"}}),
            json!({"nets": [format!("{guest}/32")]}),
        ),
        object(
            "NetworkPolicy",
            json!({"name": "default.web", "namespace": "shop"}),
            json!({
                "order": 100, "selector": "app == 'web'", "types": ["Ingress"],
                "ingress": [
                    {"action": "Allow", "protocol": "TCP", "source": friend, "destination": {"ports": [80]}},
                    {"action": "Allow", "protocol": "UDP", "source": friend, "destination": {"ports": ["7000:8000"]}},
                    {
                        "action": "Allow", "protocol": "TCP", "destination": {"ports": [80, 81]},
                        "source": {
                            "selector": "role in {'visitor', 'blocked'}",
                            "namespaceSelector": "projectcalico.org/name in {'garden', 'shop'}",
                        },
                    },
                    {
                        "action": "Allow", "protocol": "TCP", "destination": {"ports": [81]},
                        "source": {"namespaceSelector": "global()", "selector": "set == 'guests'"},
                    },
                ],
            }),
        ),
        object(
            "GlobalNetworkPolicy",
            json!({"name": "default.visitors"}),
            json!({
                "order": 200, "selector": "role == 'visitor'", "types": ["Egress"],
                "namespaceSelector": "projectcalico.org/name == 'garden'",
                "egress": [{"action": "Allow", "destination": {"services": {"name": "web", "namespace": "shop"}}}],
            }),
        ),
    ]
}
