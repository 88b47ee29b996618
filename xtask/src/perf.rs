//! `cargo xtask perf`: the two measurements of network policies in Kubernetes' perf-tests, on a real cluster.
//!
//! In: how many pods and policies. Out: how long after its creation a pod is reached by clients whose egress
//! is isolated, with podgate and without any engine, and how long after its creation a policy is enforced;
//! the 50th, 90th and 99th of a hundred samples. Defined as in clusterloader2's NetworkPolicyEnforcement:
//! clients poll their targets from before the change, and the first success counts. Two things are finer than
//! there: clients ask every 10 ms instead of every second, and a policy's time begins with the request, where
//! a creationTimestamp has whole seconds.

mod clients;

use std::{
    io::{BufRead, BufReader},
    process::{ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    bench::percentile,
    cluster::{self, Cluster, NODES},
    flags::{self, PerfFlags},
    image,
    lab::until,
    root,
    screen::{Cell, Tone, table},
    setup,
};
use clients::Clients;

/// A client on each node, in a namespace that allows its egress to the targets alone.
const OBJECTS: &str = include_str!("perf/objects.yaml");
const TARGETS: &str = include_str!("perf/targets.yaml");
const NAMESPACE: &str = "perf";
/// The number of pods that are polled when a policy is created: each pair of client and target is a thread.
const ASKED: usize = 10;
/// Time limit until all pods of a measurement exist, on two processors.
const PATIENCE: Duration = Duration::from_secs(300);

/// One line of the result, in milliseconds.
struct Line {
    figure: &'static str,
    engine: &'static str,
    samples: Vec<f64>,
}

pub(crate) fn run(flags: &PerfFlags) -> Result<ExitCode> {
    root::require("a cluster in namespaces")?;
    setup::run()?;
    let image = match &flags.image {
        Some(archive) => archive.clone(),
        None => image::build(env!("CARGO_PKG_VERSION"))?.path,
    };
    let cluster = cluster::up(flags.up)?;
    let outcome = cluster.load_image(&image).and_then(|()| measure(&cluster, flags));
    if outcome.is_err() {
        cluster.show_pods();
    }
    cluster::down()?;
    let (cni, proxy) = (flags::name(flags.up.cni), flags::name(flags.up.proxy));
    println!("{} pods, {} policies, {cni}, kube-proxy {proxy}", flags.pods, flags.policies);
    print!("{}", lines(&outcome?));
    Ok(ExitCode::SUCCESS)
}

fn measure(cluster: &Cluster, flags: &PerfFlags) -> Result<Vec<Line>> {
    cluster.apply(OBJECTS)?;
    cluster.ask(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"])?;
    let clients = Clients::of(&NODES.map(|node| format!("client-{node}")))?;
    let mut all = pods_are_reached(cluster, &clients, flags.pods, "none")?;
    cluster.ask(&["-n", NAMESPACE, "delete", "deployment", "targets", "--wait=true"])?;
    cluster.ask(&["-n", NAMESPACE, "wait", "--for=delete", "pod", "-l", "app=target", "--timeout=120s"])?;
    cluster.install_podgate()?;
    all.extend(pods_are_reached(cluster, &clients, flags.pods, "podgate")?);
    all.extend(policies_are_enforced(cluster, &clients, flags.policies)?);
    Ok(all)
}

/// Pods are created at once; each is polled from the time its address is known.
fn pods_are_reached(
    cluster: &Cluster,
    clients: &Clients,
    pods: usize,
    engine: &'static str,
) -> Result<Vec<Line>> {
    let path = "jsonpath={.metadata.name} {.status.podIP}{'\\n'}";
    let mut watch =
        cluster.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", "app=target", "--watch", "-o", path])?;
    let mut watch = watch.stdout(Stdio::piped()).spawn().context("starting kubectl")?;
    let events = BufReader::new(watch.stdout.take().context("stdout is piped")?);
    let (known, addresses) = mpsc::channel();
    // It ends with the first event that no one takes any more, or with the cluster: kubectl's parent alone
    // can be ended from here.
    thread::spawn(move || {
        for line in events.lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once(' ')
                && let Ok(address) = address.parse()
                && known.send((address, Instant::now())).is_err()
            {
                break;
            }
        }
    });
    let created = Instant::now();
    cluster.apply(&TARGETS.replace("REPLICAS", &pods.to_string()))?;
    let outcome = clients.reach_each(&addresses, pods, PATIENCE);
    let _ = watch.kill();
    watch.wait().context("waiting for kubectl")?;
    let reached = outcome?;
    let since = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    Ok(vec![
        Line {
            figure: "Deployment sent → a pod has its address",
            engine,
            samples: reached.iter().map(|pod| since(created, pod.known)).collect(),
        },
        Line {
            figure: "a pod has its address → a client reaches it",
            engine,
            samples: reached
                .iter()
                .flat_map(|pod| pod.reached.iter().map(move |reached| since(pod.known, *reached)))
                .collect(),
        },
    ])
}

/// Clients poll under a policy that denies them; a policy that allows them is created, again and again.
fn policies_are_enforced(cluster: &Cluster, clients: &Clients, policies: usize) -> Result<Vec<Line>> {
    let path = "jsonpath={.items[*].status.podIP}";
    let addresses = cluster.ask(&["-n", NAMESPACE, "get", "pods", "-l", "app=target", "-o", path])?;
    let addresses = addresses.split_whitespace().take(ASKED).map(str::parse);
    let addresses: Vec<_> = addresses.collect::<Result<_, _>>().context("addresses of pods")?;
    cluster.ask(&["-n", NAMESPACE, "delete", "networkpolicy", "to-targets"])?;
    let (mut answered, mut enforced) = (Vec::new(), Vec::new());
    for round in 0..policies {
        until("the clients are denied", PATIENCE, || Ok(clients.none_reaches(&addresses).then_some(())))?;
        let name = format!("to-targets-{round}");
        let polling = clients.poll(&addresses, PATIENCE);
        let (sent, answer) = cluster.run(|client| {
            let policies: Api<NetworkPolicy> = Api::namespaced(client, NAMESPACE);
            let policy = policy(&name);
            async move {
                let policy = policy?;
                // The connection and its handshake are there.
                policies.list(&kube::api::ListParams::default().limit(1)).await?;
                let sent = Instant::now();
                policies.create(&PostParams::default(), &policy).await?;
                Ok((sent, Instant::now()))
            }
        })?;
        let reached = polling.first_successes()?;
        ensure!(reached.iter().all(|time| *time > sent), "a client was let in before there was a policy");
        answered.push((answer - sent).as_secs_f64() * 1e3);
        enforced.extend(reached.iter().map(|time| (*time - sent).as_secs_f64() * 1e3));
        cluster.run(|client| async move {
            let policies: Api<NetworkPolicy> = Api::namespaced(client, NAMESPACE);
            policies.delete(&name, &DeleteParams::default()).await?;
            Ok(())
        })?;
    }
    let line = |figure, samples| Line { figure, engine: "podgate", samples };
    Ok(vec![
        line("policy sent → the API server has it", answered),
        line("policy sent → a client reaches its target", enforced),
    ])
}

fn policy(name: &str) -> Result<NetworkPolicy> {
    let to = json!([{"podSelector": {"matchLabels": {"app": "target"}}}]);
    let spec = json!({
        "podSelector": {"matchLabels": {"role": "client"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": to}],
    });
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).context("a policy")
}

fn lines(all: &[Line]) -> String {
    let title = |text: &str| Cell::new(text, Tone::Title);
    let mut rows = vec![["FIGURE, ms", "ENGINE", "P50", "P90", "P99", "SAMPLES"].map(title).to_vec()];
    for Line { figure, engine, samples } in all {
        let part = |percent| Cell::from(format!("{:.0}", percentile(samples, percent)));
        let count = samples.len().to_string();
        rows.push(vec![(*figure).into(), (*engine).into(), part(50), part(90), part(99), count.into()]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_three_percentiles_of_its_samples() {
        let samples = (1..=100).map(f64::from).collect();
        let text = lines(&[Line { figure: "policy sent", engine: "podgate", samples }]);
        let last = text.lines().last().expect("a row").split_whitespace().collect::<Vec<_>>();
        assert_eq!(last, ["policy", "sent", "podgate", "50", "90", "99", "100"]);
    }

    #[test]
    fn the_policy_allows_clients_to_reach_targets() {
        let policy = policy("to-targets-0").expect("well-formed");
        let spec = policy.spec.expect("it has a specification");
        assert_eq!(spec.policy_types, Some(vec!["Egress".to_owned()]));
        assert_eq!(spec.egress.map(|rules| rules.len()), Some(1));
    }
}
