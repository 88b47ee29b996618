//! The kinds of Calico's objects, which have the same names and fields in both of its stores.

use podgate_core::model::{CalicoApi, CalicoPolicyKind};

use super::{KindInfo, syntax};

/// A kind of Calico's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CalicoKind {
    Tier,
    Policy(CalicoPolicyKind),
    NetworkSet,
    GlobalNetworkSet,
    HostEndpoint,
}

impl CalicoKind {
    pub(super) const fn info(self, api: CalicoApi) -> KindInfo {
        let (name, plural, is_namespaced, is_policy) = match self {
            Self::Tier => ("Tier", "tiers", false, false),
            Self::Policy(kind) => match kind {
                CalicoPolicyKind::GlobalNetworkPolicy => (kind.kind(), "globalnetworkpolicies", false, true),
                CalicoPolicyKind::NetworkPolicy => (kind.kind(), "networkpolicies", true, true),
                CalicoPolicyKind::StagedGlobalNetworkPolicy => {
                    (kind.kind(), "stagedglobalnetworkpolicies", false, true)
                }
                CalicoPolicyKind::StagedNetworkPolicy => (kind.kind(), "stagednetworkpolicies", true, true),
                CalicoPolicyKind::StagedKubernetesNetworkPolicy => {
                    (kind.kind(), "stagedkubernetesnetworkpolicies", true, true)
                }
            },
            Self::NetworkSet => ("NetworkSet", "networksets", true, false),
            Self::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets", false, false),
            Self::HostEndpoint => ("HostEndpoint", "hostendpoints", false, false),
        };
        let api_versions: &[_] = match api {
            CalicoApi::V3 => &["projectcalico.org/v3"],
            CalicoApi::V1 => &["crd.projectcalico.org/v1"],
        };
        let name_syntax = syntax::dns_subdomain;
        KindInfo { name, plural, api_versions, is_namespaced, name_syntax, is_policy, is_custom: true }
    }

    pub(crate) const ALL: [Self; 9] = [
        Self::Tier,
        Self::Policy(CalicoPolicyKind::ALL[0]),
        Self::Policy(CalicoPolicyKind::ALL[1]),
        Self::Policy(CalicoPolicyKind::ALL[2]),
        Self::Policy(CalicoPolicyKind::ALL[3]),
        Self::Policy(CalicoPolicyKind::ALL[4]),
        Self::NetworkSet,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
    ];
}
