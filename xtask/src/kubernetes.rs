//! The programs of Kubernetes, the real ones, and what tests make of them.
//!
//! In: `KUBEBUILDER_ASSETS`, a directory as setup-envtest makes it; or Go, which builds them from the module
//! in `xtask/kubernetes`. Out: a directory that holds each program by its name, kept under
//! `target/kubernetes`, and a control plane that runs them. Without one of the two ways there is an error: a
//! test that needs a real API server is never passed over.

mod authority;
mod client;
mod cni;
mod control_plane;
mod go;
mod mirror;
mod options;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{flags::PolicyApi, workspace};
pub(crate) use client::run;
pub(crate) use cni::{CniPrograms, VETH_NAME};
pub use control_plane::ControlPlane;
use go::Executable;
pub use mirror::Mirror;

use authority::Authority;
pub(crate) use options::ControlPlaneMode;

/// Programs that lie in one directory.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

/// Names the directory that setup-envtest made.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

impl Programs {
    /// API server, its storage and `kubectl`. Building them takes minutes, once.
    pub fn small() -> Result<Self> {
        let given = env::var_os(ASSETS).filter(|directory| !directory.is_empty());
        if let Some(directory) = given {
            return Self::in_directory(directory.into());
        }
        Executable::SMALL.up_to_date(&workspace::target()?).map(|directory| Self { directory }).with_context(
            || {
                format!(
                    "no API server to test with: set {ASSETS} to a directory with {}, or let Go build them",
                    Executable::SMALL.programs().join(", ")
                )
            },
        )
    }

    /// All programs of a cluster, always of the version that the module names.
    pub(crate) fn whole() -> Result<Self> {
        let directory = Executable::WHOLE
            .up_to_date(&workspace::target()?)
            .context("the programs of a cluster are built by Go")?;
        Ok(Self { directory })
    }

    /// The file of a program.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn in_directory(directory: PathBuf) -> Result<Self> {
        for program in Executable::SMALL.programs() {
            let file = directory.join(program);
            ensure!(file.is_file(), "{ASSETS}: there is no {}", file.display());
        }
        let directory =
            directory.canonicalize().with_context(|| format!("{ASSETS}={}", directory.display()))?;
        Ok(Self { directory })
    }
}

/// Helm, which Go builds the first time.
///
/// # Errors
///
/// When Go cannot build it.
pub fn helm() -> Result<PathBuf> {
    built(Executable::HELM, "helm")
}

/// OpenTelemetry's receiver, which Go builds the first time.
///
/// # Errors
///
/// When Go cannot build it.
pub fn collector() -> Result<PathBuf> {
    built(Executable::COLLECTOR, "collector")
}

/// Prometheus' parsers and query engine, which Go builds the first time.
///
/// # Errors
///
/// When Go cannot build them.
pub fn prometheus() -> Result<PathBuf> {
    built(Executable::PROMETHEUS, "prometheus")
}

/// Programs of Calico's, and the definitions of its custom resources, all of one release.
#[derive(Clone, Debug)]
pub struct CalicoPrograms {
    directory: PathBuf,
    definitions: PathBuf,
}

impl CalicoPrograms {
    /// The environment of `calico-felix`, for nodes without Calico's networking. It also needs
    /// `FELIX_FELIXHOSTNAME` and `KUBECONFIG`.
    pub const FELIX: [(&str, &str); 14] = [
        ("FELIX_DATASTORETYPE", "kubernetes"),
        ("FELIX_IPV6SUPPORT", "true"),
        ("FELIX_IPTABLESBACKEND", "nft"),
        // As in Calico's own manifests: the policies of a pod decide what it may send to its node.
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"),
        ("FELIX_HEALTHENABLED", "true"),
        ("FELIX_HEALTHHOST", "127.0.0.1"),
        ("FELIX_IPINIPENABLED", "false"),
        ("FELIX_VXLANENABLED", "false"),
        ("FELIX_XDPENABLED", "false"),
        ("FELIX_USAGEREPORTINGENABLED", "false"),
        // It is built without libbpf, and so cannot clean up BPF programs either.
        ("FELIX_DebugSkipCTLBCleanup", "true"),
        ("FELIX_LOGFILEPATH", "none"),
        ("FELIX_LOGSEVERITYSYS", "none"),
        ("FELIX_LOGSEVERITYSCREEN", "warning"),
    ];

    /// Go builds them the first time, in minutes.
    ///
    /// # Errors
    ///
    /// When Go cannot build them.
    pub fn built() -> Result<Self> {
        let target = workspace::target()?;
        let directory = Executable::CALICO.up_to_date(&target).context("Go builds programs of Calico's")?;
        let sources = Executable::CALICO.required(&target, "github.com/projectcalico/calico")?;
        Ok(Self { directory, definitions: sources.join("libcalico-go/config/crd") })
    }

    /// `calico-felix`, `calico-store`, `calico-veths`, `calico-veth-name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory with the definitions of the custom resources.
    pub fn definitions(&self) -> &Path {
        &self.definitions
    }
}

/// A program for pods of tests: servers and clients of Kubernetes' own suites.
pub(crate) fn agnhost() -> Result<PathBuf> {
    built(Executable::AGNHOST, "agnhost")
}

/// What stands in for its SCTP on kernels that have none.
pub(crate) fn sctp() -> Result<PathBuf> {
    built(Executable::SCTP, "sctp")
}

/// The network policy specs of Kubernetes' end-to-end suite.
pub(crate) fn upstream_specs() -> Result<PathBuf> {
    built(Executable::UPSTREAM, "upstream")
}

/// The conformance suite of one version of ClusterNetworkPolicy, and the sources that it comes from, with the
/// API's definition.
pub(crate) fn conformance_suite(api: PolicyApi) -> Result<(PathBuf, PathBuf)> {
    let executable = match api {
        PolicyApi::V1alpha2 => Executable::CONFORMANCE_V1ALPHA2,
        PolicyApi::V1beta1 => Executable::CONFORMANCE_V1BETA1,
    };
    let program = built(executable, "conformance")?;
    Ok((program, executable.required(&workspace::target()?, "sigs.k8s.io/network-policy-api")?))
}

/// CoreDNS with the few plugins that a resolver needs.
pub(crate) fn core_dns() -> Result<PathBuf> {
    built(Executable::CORE_DNS, "coredns")
}

/// A client that looks names up as Go does.
pub(crate) fn dns_client() -> Result<PathBuf> {
    built(Executable::DNS_CLIENT, "client")
}

/// The engine that runs next to podgate.
pub(crate) fn kube_router() -> Result<PathBuf> {
    built(Executable::KUBE_ROUTER, "kube-router")
}

fn built(executable: Executable, program: &str) -> Result<PathBuf> {
    let directory =
        executable.up_to_date(&workspace::target()?).with_context(|| format!("Go builds {program}"))?;
    Ok(directory.join(program))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn assets_that_lack_a_program_are_refused_by_its_name() {
        let directory = workspace::target().expect("tests run below it").join("assets-of-a-test");
        fs::create_dir_all(&directory).expect("target can be written");
        for program in ["etcd", "kubectl"] {
            fs::write(directory.join(program), "").expect("target can be written");
        }
        let refusal = Programs::in_directory(directory.clone()).expect_err("a program is missing");
        fs::remove_dir_all(&directory).expect("it was just made");
        assert!(refusal.to_string().ends_with("assets-of-a-test/kube-apiserver"), "{refusal}");
    }
}
