//! What is known of each kind.

use podgate_core::model::{ClusterPolicyKind, NetworkPolicyKind};

use super::{Kind, KindInfo, syntax};

impl Kind {
    pub(crate) const fn info(self) -> KindInfo {
        match self {
            Self::Namespace => KindInfo {
                name: "Namespace",
                plural: "namespaces",
                api_versions: &["v1"],
                is_namespaced: false,
                name_syntax: syntax::dns_label,
                is_policy: true,
                is_custom: false,
            },
            Self::Node => KindInfo {
                name: "Node",
                plural: "nodes",
                api_versions: &["v1"],
                is_namespaced: false,
                name_syntax: syntax::dns_subdomain,
                is_policy: false,
                is_custom: false,
            },
            Self::Pod => KindInfo {
                name: "Pod",
                plural: "pods",
                api_versions: &["v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: false,
                is_custom: false,
            },
            Self::NetworkPolicy => KindInfo {
                name: "NetworkPolicy",
                plural: "networkpolicies",
                api_versions: &["networking.k8s.io/v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: true,
                is_custom: false,
            },
            Self::ApplicationNetworkPolicy => KindInfo {
                name: NetworkPolicyKind::ApplicationNetworkPolicy.kind(),
                plural: "applicationnetworkpolicies",
                api_versions: &["networking.k8s.aws/v1alpha1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: true,
                is_custom: true,
            },
            Self::FqdnNetworkPolicy => KindInfo {
                name: NetworkPolicyKind::FqdnNetworkPolicy.kind(),
                plural: "fqdnnetworkpolicies",
                api_versions: &["networking.gke.io/v1alpha1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: true,
                is_custom: true,
            },
            Self::ClusterPolicy(kind) => cluster_policy(kind),
            Self::Calico(api, kind) => kind.info(api),
            Self::ServiceAccount => KindInfo {
                name: "ServiceAccount",
                plural: "serviceaccounts",
                api_versions: &["v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: false,
                is_custom: false,
            },
            Self::Service => KindInfo {
                name: "Service",
                plural: "services",
                api_versions: &["v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_label,
                is_policy: false,
                is_custom: false,
            },
            Self::EndpointSlice => KindInfo {
                name: "EndpointSlice",
                plural: "endpointslices",
                api_versions: &["discovery.k8s.io/v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: false,
                is_custom: false,
            },
        }
    }
}

const fn cluster_policy(kind: ClusterPolicyKind) -> KindInfo {
    let (name, plural, api_versions): (_, _, &[_]) = match kind {
        ClusterPolicyKind::ClusterNetworkPolicy => (
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            &["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"],
        ),
        ClusterPolicyKind::AdminNetworkPolicy => {
            ("AdminNetworkPolicy", "adminnetworkpolicies", &["policy.networking.k8s.io/v1alpha1"])
        }
        ClusterPolicyKind::BaselineAdminNetworkPolicy => (
            "BaselineAdminNetworkPolicy",
            "baselineadminnetworkpolicies",
            &["policy.networking.k8s.io/v1alpha1"],
        ),
        ClusterPolicyKind::AwsClusterNetworkPolicy => {
            ("ClusterNetworkPolicy", "clusternetworkpolicies", &["networking.k8s.aws/v1alpha1"])
        }
    };
    KindInfo {
        name,
        plural,
        api_versions,
        is_namespaced: false,
        name_syntax: syntax::dns_subdomain,
        is_policy: true,
        is_custom: true,
    }
}
