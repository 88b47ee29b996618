//! Command lines of the control plane, each option that is not the default with its reason.
//!
//! In: where files are and who is who. Out: arguments. Tests and the whole cluster run the same server.

use std::{net::IpAddr, path::Path};

use super::authority::{Authority, PORT};

/// Networks of services, as the lab has them. The address of the API server is of the first one's family.
const SERVICES: &str = "10.96.0.0/24,fd00:96::/112";
/// Only the API server talks to etcd, and both are in one network namespace.
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// What runs beside the API server, which changes what it may take for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlPlaneMode {
    /// No controllers: no one makes a service account in a new namespace, so pods must do without one.
    ApiServerOnly,
    /// A whole cluster.
    Full,
}

pub(crate) fn etcd(data: &Path) -> Vec<String> {
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
        format!("--initial-cluster=default={ETCD_PEERS}"),
        // The data need not outlive the machine.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

pub(crate) fn api_server(authority: &Authority, address: IpAddr, mode: ControlPlaneMode) -> Vec<String> {
    let file = |option: &str, name: &str| format!("--{option}={}", authority.file(name).display());
    let mut options = vec![
        format!("--etcd-servers={ETCD}"),
        format!("--secure-port={PORT}"),
        format!("--advertise-address={address}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("client-ca-file", "ca.crt"),
        file("token-auth-file", "tokens.csv"),
        file("service-account-key-file", "service-accounts.pub"),
        file("service-account-signing-key-file", "service-accounts.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        // What clusters run with: a client that lacks a right is refused.
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        // No one here resolves names of nodes.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if mode == ControlPlaneMode::ApiServerOnly {
        options.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    options
}
