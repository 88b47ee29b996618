//! The executables to build: each with its module and the names it can be called by.

use super::{Executable, KUBERNETES, Kind, MONITORING};

impl Executable {
    /// What tests of a client need.
    pub(in super::super) const SMALL: Self = Self {
        name: "small",
        module: KUBERNETES,
        package: "./small",
        kind: Kind::Program,
        sources: &["programs", "small"],
        programs: &["etcd", "kube-apiserver", "kubectl"],
    };
    /// A whole cluster.
    pub(in super::super) const WHOLE: Self = Self {
        name: "whole",
        module: KUBERNETES,
        package: "./whole",
        kind: Kind::Program,
        sources: &["programs", "whole"],
        programs: &[
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ],
    };
    /// Servers and clients for pods of tests, which Kubernetes' own suites use.
    pub(in super::super) const AGNHOST: Self = Self {
        name: "agnhost",
        module: KUBERNETES,
        package: "k8s.io/kubernetes/test/images/agnhost",
        kind: Kind::Program,
        sources: &[],
        programs: &["agnhost"],
    };
    /// What stands in for its SCTP on kernels that have none.
    pub(in super::super) const SCTP: Self = Self {
        name: "sctp",
        module: KUBERNETES,
        package: "./sctp",
        kind: Kind::Program,
        sources: &["sctp"],
        programs: &["sctp"],
    };
    /// Kubernetes' end-to-end suite for network policies.
    pub(in super::super) const UPSTREAM: Self = Self {
        name: "upstream",
        module: KUBERNETES,
        package: "./upstream",
        kind: Kind::Program,
        sources: &["upstream"],
        programs: &["upstream"],
    };
    /// The conformance suite of ClusterNetworkPolicy, v1alpha2.
    pub(in super::super) const CONFORMANCE_V1ALPHA2: Self = Self::conformance("conformance/v1alpha2");
    /// The same of v1beta1.
    pub(in super::super) const CONFORMANCE_V1BETA1: Self = Self::conformance("conformance/v1beta1");
    /// It renders and lints charts.
    pub(in super::super) const HELM: Self = Self::tool("helm", "helm.sh/helm/v4/cmd/helm", &["helm"]);
    /// Leads between nodes. One of its backends is written in C.
    pub(in super::super) const FLANNELD: Self = Self {
        kind: Kind::ProgramWithC,
        ..Self::tool("cni/flannel", "github.com/flannel-io/flannel", &["flanneld"])
    };
    /// The CNI plugin of AWS.
    pub(in super::super) const AWS_CNI: Self =
        Self::tool("cni/aws", "github.com/aws/amazon-vpc-cni-k8s/cmd/routed-eni-cni-plugin", &["aws-cni"]);
    /// A stand-in for the daemon of that plugin.
    pub(in super::super) const AWS_IPAMD: Self =
        Self { name: "cni/ipamd", sources: &["ipamd"], ..Self::tool("cni/aws", "./ipamd", &["ipamd"]) };
    /// The CNI plugin of Azure.
    pub(in super::super) const AZURE_VNET: Self = Self::tool(
        "cni/azure",
        "github.com/Azure/azure-container-networking/cni/network/plugin",
        &["azure-vnet"],
    );

    /// An engine of network policies to run next to podgate.
    pub(in super::super) const KUBE_ROUTER: Self = Self::tool(
        "engines/kube-router",
        "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
        &["kube-router"],
    );

    /// OpenTelemetry's receiver.
    pub(in super::super) const COLLECTOR: Self =
        Self::own(MONITORING, "collector", "./collector", &["collector"]);
    /// It evaluates queries and alerts.
    pub(in super::super) const PROMETHEUS: Self =
        Self::own(MONITORING, "prometheus", "./prometheus", &["prometheus"]);
    /// A resolver.
    pub(in super::super) const CORE_DNS: Self = Self::own("dns", "coredns", "./coredns", &["coredns"]);
    /// A client of resolvers.
    pub(in super::super) const DNS_CLIENT: Self = Self::own("dns", "client", "./client", &["client"]);
    /// Calico's agent, and the programs that write Calico's objects and name its veths.
    pub(in super::super) const CALICO: Self = Self {
        name: "calico",
        module: "calico",
        package: "./programs",
        kind: Kind::Program,
        sources: &["programs", "httpmachinery"],
        programs: &["calico-felix", "calico-store", "calico-veths", "calico-veth-name"],
    };

    /// A program whose source is in a directory of its name.
    const fn own(
        module: &'static str,
        name: &'static str,
        package: &'static str,
        programs: &'static [&'static str],
    ) -> Self {
        Self { name, module, package, kind: Kind::Program, sources: programs, programs }
    }

    /// A program of a module that requires it.
    const fn tool(module: &'static str, package: &'static str, programs: &'static [&'static str]) -> Self {
        Self { name: module, module, package, kind: Kind::Program, sources: &[], programs }
    }

    const fn conformance(module: &'static str) -> Self {
        Self {
            name: module,
            module,
            package: "sigs.k8s.io/network-policy-api/conformance",
            kind: Kind::Tests,
            sources: &[],
            programs: &["conformance"],
        }
    }
}
