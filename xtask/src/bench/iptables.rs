//! The events of `bench control`, as Azure NPM brings them to the kernel: pods by `ipset restore`, policies
//! by `iptables-nft-restore --noflush`, one call each.
//!
//! In: podgate's figures of the same events. Out: those of iptables, and how many times podgate's they are.
//! Left out: what NPM's own program takes, which waits up to half a second before each of these calls.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context, Result};

use super::{
    figure::Figure,
    progress::Progress,
    statistics::{Quartiles, percentile},
};
use crate::{
    lab::{Lab, Place},
    peers::npm::{self, Pod, Policy, Ports, Protocol},
    sandbox::Sandbox,
};

/// (pods, policies): NPM is supported up to 20,000 pods, and its sets hold 65,536.
const SCALES: [(u32, u32); 2] = [(1_000, 100), (20_000, 2_000)];
const NAMESPACE: &str = "bench";
/// How often a policy comes, changes and goes; how often a pod comes and goes.
const ROUNDS: u32 = 30;
const QUICK_ROUNDS: u32 = 5;

/// Measures and compares.
pub(super) fn measure(sandbox: Sandbox, podgate: &[Figure], quick: bool) -> Result<Vec<Figure>> {
    let rounds = if quick { QUICK_ROUNDS } else { ROUNDS };
    let mut progress = Progress::new();
    let mut figures = Vec::new();
    for (pods, policies) in SCALES {
        let variant = format!("{pods} pods, {policies} policies");
        progress.show("iptables", &variant);
        let mut lab = Lab::new(sandbox, &format!("i{pods}"))?;
        let place = lab.node("n1")?.place;
        let scene = Scene::load(&place, pods, policies)?;
        let mut events = Vec::new();
        for round in 0..rounds {
            events.extend(scene.policy_events(policies + round)?);
        }
        for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
            let name = format!("policy event until it is enforced, {name}");
            figures.extend(compared(podgate, &name, &variant, percentile(&events, percent))?);
        }
        let mut events = Vec::new();
        for round in 0..rounds {
            events.extend(scene.pod_events(pods + round)?);
        }
        let took = Quartiles::of(events).context("no event of a pod")?;
        figures.push(Figure::new("pod event, whole call", iptables(&variant), "ms", took));
    }
    Ok(figures)
}

/// A figure of iptables, and the ratio to podgate's of the same name.
fn compared(podgate: &[Figure], name: &str, variant: &str, took: f64) -> Result<[Figure; 2]> {
    let same = podgate.iter().find(|figure| figure.name == name && figure.variant == variant);
    let same = same.with_context(|| format!("podgate has no figure {name:?} of {variant}"))?;
    let one = |value| Quartiles { q1: value, median: value, q3: value };
    let ratio = format!("{name}: times of podgate");
    Ok([
        Figure::new(name, iptables(variant), "ms", one(took)),
        Figure::new(&ratio, iptables(variant), "×", one(took / same.median)),
    ])
}

fn iptables(variant: &str) -> String {
    format!("{variant}, iptables-nft + ipset")
}

/// A node with NPM's rules.
struct Scene<'a> {
    place: &'a Place,
    policies: u32,
}

impl<'a> Scene<'a> {
    /// Policy i isolates the pods of app i, and there are as many apps as policies.
    fn load(place: &'a Place, pods: u32, policies: u32) -> Result<Self> {
        let scene = Self { place, policies };
        let pods: Vec<Pod> = (0..pods).map(|number| scene.pod(number)).collect();
        let policies: Vec<Policy> = (0..policies).map(|number| scene.policy(number)).collect();
        let rules = npm::rules(NAMESPACE, &pods, &policies);
        place.feed(&["ipset", "restore"], &rules.sets)?;
        place.feed(&["iptables-nft-restore"], &rules.filter)?;
        Ok(scene)
    }

    /// Milliseconds that it takes until a policy has come, has changed and has gone. A change is both, as in
    /// NPM.
    fn policy_events(&self, number: u32) -> Result<[f64; 3]> {
        let made = self.policy(number);
        let mut changed = made.clone();
        changed.ports.truncate(1);
        Ok([
            self.restore(&[npm::policy_comes(NAMESPACE, &made)])?,
            self.restore(&[npm::policy_goes(NAMESPACE, &made), npm::policy_comes(NAMESPACE, &changed)])?,
            self.restore(&[npm::policy_goes(NAMESPACE, &changed)])?,
        ])
    }

    fn restore(&self, batches: &[String]) -> Result<f64> {
        timed(|| {
            batches.iter().try_for_each(|rules| {
                self.place.feed(&["iptables-nft-restore", "-w", "60", "-T", "filter", "--noflush"], rules)
            })
        })
    }

    fn pod_events(&self, number: u32) -> Result<[f64; 2]> {
        let pod = self.pod(number);
        let call = |members: String| timed(|| self.place.feed(&["ipset", "restore"], &members));
        Ok([call(npm::pod_comes(NAMESPACE, &pod))?, call(npm::pod_goes(NAMESPACE, &pod))?])
    }

    fn pod(&self, number: u32) -> Pod {
        Pod { app: self.app(number), address: Ipv4Addr::from(0x0a00_0000 + number) }
    }

    fn policy(&self, number: u32) -> Policy {
        let ports = vec![
            Ports { protocol: Protocol::Tcp, first: 8_000, last: 8_001 },
            Ports { protocol: Protocol::Udp, first: 8_000, last: 8_000 },
        ];
        let (app, from, to) = (self.app(number), self.app(number + 1), self.app(number + 2));
        Policy { name: format!("p-{number}"), app, from, to, ports }
    }

    fn app(&self, number: u32) -> String {
        format!("app-{}", number % self.policies)
    }
}

/// Milliseconds.
fn timed(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    act()?;
    Ok(started.elapsed().as_secs_f64() * 1_000.0)
}
