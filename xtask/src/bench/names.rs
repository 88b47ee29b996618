//! The live part of `bench names`: how long a pod waits for an answer of its resolver, and how many answers a
//! second there are, when podgate reads them, when it does not, and behind a DNS proxy in user space.
//!
//! In: a sandbox. Out: figures of the three in turn, over the same resolver on another node. The proxy is
//! dnsmasq, which forwards every question as the DNS proxies of other engines do; it filters nothing.

mod plots;

pub(super) use plots::plots;

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{
    figure::{Figure, Goal},
    progress::Progress,
    statistics::{Quartiles, percentile},
};
use crate::{
    lab::{Agent, BRIEF, Daemon, Lab, PATIENT, Place, Pod, Resolver, join, until},
    sandbox::Sandbox,
};

/// The proxy, and the package that has it.
pub(super) const PROXY: (&str, &str) = ("dnsmasq", "dnsmasq-base");

/// Questions one after another in a round.
const QUESTIONS: u32 = 2_000;
/// Questions on their way at once, when answers are counted.
const AT_ONCE: u32 = 32;
const THREADS: u32 = 2;

/// A question for the address of `api.example.com` (RFC 1035, 4.1).
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03api\x07example\x03com\0\0\x01\0\x01";

/// Who asks whom.
struct Variant {
    name: &'static str,
    client: Place,
    server: Ipv4Addr,
    /// Of each round: µs of the median and of the slowest hundredth, and answers a second.
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
}

/// Measures the three.
pub(super) fn measure(sandbox: Sandbox, _: &[Figure], quick: bool) -> Result<Vec<Figure>> {
    let rounds = if quick { 5 } else { 25 };
    let mut progress = Progress::new();
    progress.show("names", "two nodes, a resolver and a proxy");
    let mut lab = Lab::new(sandbox, "names")?;
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let reads = n1.pod("x/reads").labels(&[("app", "reads")]).start()?;
    let without = n1.pod("x/without").start()?;
    let proxy = n1.pod("x/proxy").start()?;
    let dns = n2.pod("x/dns").start()?;
    let _resolver = Resolver::start(&dns.place, answer)?;
    let at = dns.addresses.v4;
    lab.manifests().write("names.yaml", &policy(at))?;
    let agent = Agent::start(&n1, &["--resolvers", &format!("{at}:53")])?;
    let _proxy = forward(&proxy, at)?;

    let variant = |name, pod: &Pod, server| Variant {
        name,
        client: pod.place.clone(),
        server,
        p50: Vec::new(),
        p99: Vec::new(),
        rate: Vec::new(),
    };
    let mut variants = [
        variant("a pod without names", &without, at),
        variant("a pod whose rules have names", &reads, at),
        variant("behind a DNS proxy (dnsmasq)", &without, proxy.addresses.v4),
    ];
    for round in 0..rounds {
        progress.show("names", &format!("round {} of {rounds}", round + 1));
        for variant in &mut variants {
            variant.round().with_context(|| variant.name)?;
        }
    }
    let learnt = agent.ask(&["status"])?["names"]["learnt"].as_u64().context("what was learnt")?;
    ensure!(learnt > 0, "podgate has read no answer");
    figures(&variants)
}

fn figures([without, others @ ..]: &[Variant; 3]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let of = |name: &str, variant: &Variant, unit: &str, samples: &[f64]| {
        let quartiles = Quartiles::of(samples.to_vec()).context("no samples")?;
        Ok::<_, anyhow::Error>(Figure::new(name, variant.name.to_owned(), unit, quartiles))
    };
    for variant in [without].into_iter().chain(others) {
        figures.push(of("an answer, p50", variant, "µs", &variant.p50)?);
        figures.push(of("an answer, p99", variant, "µs", &variant.p99)?);
        let rate = of("answers a second", variant, "1/s", &variant.rate)?;
        let is_read = variant.name == others[0].name;
        figures.push(if is_read { rate.with_goal(Goal::AtLeast(50_000.0)) } else { rate });
    }
    for (position, variant) in others.iter().enumerate() {
        let paired = Quartiles::paired(&variant.p99, &without.p99, |it, without| it - without);
        let name = "an answer, p99, over a pod without names";
        let figure = Figure::new(name, variant.name.to_owned(), "µs", paired.context("no samples")?);
        figures.push(if position == 0 { figure.with_goal(Goal::AtMost(20.0)) } else { figure });
    }
    Ok(figures)
}

impl Variant {
    fn round(&mut self) -> Result<()> {
        let (client, server) = (self.client.clone(), self.server);
        let took = client.run(|| one_after_another(server))?;
        self.p50.push(percentile(&took, 50));
        self.p99.push(percentile(&took, 99));
        let started = Instant::now();
        let answers = thread::scope(|scope| {
            let ask = || client.run(|| many(server));
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(join).sum::<Result<u32>>()
        })?;
        self.rate.push(f64::from(answers) / started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Microseconds of each answer.
fn one_after_another(server: Ipv4Addr) -> Result<Vec<f64>> {
    let socket = connected(server)?;
    let mut answer = [0; 512];
    (0..QUESTIONS)
        .map(|_| {
            let asked = Instant::now();
            socket.send(QUESTION)?;
            socket.recv(&mut answer).context("no answer")?;
            Ok(asked.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

/// Asks many times before it reads the answers: how many came.
fn many(server: Ipv4Addr) -> Result<u32> {
    let socket = connected(server)?;
    let mut answer = [0; 512];
    let mut question = QUESTION.to_vec();
    let mut answers = 0;
    for batch in 0..QUESTIONS / AT_ONCE * 4 {
        for number in 0..AT_ONCE {
            // Each has an id of its own: proxies take another for the same question, sent again.
            let [.., high, low] = (batch * AT_ONCE + number).to_be_bytes();
            question[..2].copy_from_slice(&[high, low]);
            socket.send(&question)?;
        }
        for _ in 0..AT_ONCE {
            socket.recv(&mut answer).context("an answer is lost")?;
            answers += 1;
        }
    }
    Ok(answers)
}

fn connected(server: Ipv4Addr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(BRIEF))?;
    Ok(socket)
}

/// To every question one address (RFC 1035, 4.1.3), and nothing that is additional.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut reply = query.get(..QUESTION.len())?.to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80]);
    reply[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\xcb\0\x71\x07");
    Some(reply)
}

/// Starts the proxy in a pod, and waits until it answers.
fn forward(pod: &Pod, resolver: Ipv4Addr) -> Result<Daemon> {
    let mut command = pod.place.command(PROXY.0);
    command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--cache-size=0", "--user=root"]);
    command.args(["--dns-forward-max=10000", "--conf-file=/dev/null", "--pid-file="]);
    command.arg(format!("--server={resolver}"));
    let proxy = Daemon::spawn("dnsmasq", &mut command)?;
    until("the proxy answers", PATIENT, || {
        let answer = pod.place.run(|| {
            let socket = connected(pod.addresses.v4)?;
            socket.send(QUESTION)?;
            Ok::<_, anyhow::Error>(socket.recv(&mut [0; 512])?)
        });
        Ok(answer.ok())
    })?;
    Ok(proxy)
}

/// The pod that reads may reach all resolvers, and servers by their names.
fn policy(resolver: Ipv4Addr) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: names}}\n\
         spec:\n  tier: Admin\n  priority: 1\n  subject: {{pods: {{namespaceSelector: {{}}, podSelector: \
         {{matchLabels: {{app: reads}}}}}}}}\n  egress:\n  - {{action: Accept, to: [{{networks: \
         [{resolver}/32]}}]}}\n  - {{action: Accept, to: [{{domainNames: ['*.example.com']}}]}}\n  - {{action: \
         Deny, to: [{{networks: [0.0.0.0/0, '::/0']}}]}}\n"
    )
}
