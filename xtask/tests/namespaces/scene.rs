//! What most tests need: policies as text, and many probes at once with one expectation.

use std::{net::IpAddr, thread};

use anyhow::{Result, ensure};
use xtask::lab::{Addresses, BRIEF, Manifests, PATIENT, Place, Seen, Server, Service, Traffic, join, until};

/// Every kind of traffic that `serve_all` answers.
pub(crate) const EVERY_KIND: [Traffic; 3] = [Traffic::Tcp(80), Traffic::Udp(7), Traffic::Echo];

pub(crate) fn serve_all(place: &Place) -> Result<Vec<Server>> {
    [Service::Http(80), Service::TcpEcho(7), Service::UdpEcho(7)]
        .map(|service| place.serve(service))
        .into_iter()
        .collect()
}

/// Pods with `app=closed` let in those with `role=client_allowed` alone.
pub(crate) const CLOSE: &str = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress]\n  ingress:\n  \
                                - from: [{podSelector: {matchLabels: {role: friend}}}]\n";

/// Writes a NetworkPolicy in namespace `x`; `spec` is indented YAML.
pub(crate) fn apply(manifests: &Manifests, name: &str, spec: &str) -> Result<()> {
    manifests.write(&format!("policy-{name}.yaml"), &policy(name, spec))
}

pub(crate) fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\n  namespace: x\nspec:\n{spec}"
    )
}

/// Probes over both families and with every kind of traffic at once; all must end as expected.
pub(crate) fn expect(from: &Place, to: Addresses, kinds: &[Traffic], expected: Seen) -> Result<()> {
    let probes: Vec<_> =
        to.both().into_iter().flat_map(|address| kinds.iter().map(move |&kind| (address, kind))).collect();
    let seen = together(&probes, |&(address, kind)| from.probe_expecting(address, kind, expected))?;
    for ((address, kind), seen) in probes.iter().zip(seen) {
        ensure!(seen == expected, "{} to {address}: {kind} {seen}, not {expected}", from.name());
    }
    Ok(())
}

/// Waits until fresh connections end as expected: a change of policy has arrived.
pub(crate) fn becomes(from: &Place, to: IpAddr, kind: Traffic, expected: Seen) -> Result<()> {
    let what = format!("{} to {to}: {kind} {expected}", from.name());
    until(&what, PATIENT, || Ok((from.probe(to, kind, BRIEF / 4)? == expected).then_some(())))
}

/// Runs `task` for each of `inputs` at the same time.
pub(crate) fn together<I: Sync, O: Send>(
    inputs: &[I],
    task: impl Fn(&I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    let task = &task;
    thread::scope(|scope| {
        let threads: Vec<_> = inputs.iter().map(|input| scope.spawn(move || task(input))).collect();
        threads.into_iter().map(join).collect()
    })
}
