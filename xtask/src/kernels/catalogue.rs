//! The kernels that podgate is tried on, and the features of each that podgate can use.

use std::time::Duration;

use super::packages::Release;
use crate::platform::Platform;

/// A kernel.
#[derive(Debug)]
pub(super) struct TestedKernel {
    /// As on the command line.
    pub(super) name: &'static str,
    pub(super) platform: Platform,
    pub(super) origin: Origin,
    /// The features that it must be found to have: a fallback that is taken in silence is a defect. `None`:
    /// not known; the features that are found are only shown.
    pub(super) expected: Option<KernelFeatures>,
    /// Whether podgate works on it; if not, podgate must refuse to start.
    pub(super) is_supported: bool,
    /// Time limit of the machine.
    pub(super) limit: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// On this machine itself.
    Running,
    /// A package that depends on the newest release of the kernel.
    Package { release: Release, package: &'static str },
}

/// The features of a kernel. podgate has a fallback for each that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KernelFeatures {
    /// TCX; else filters of clsact.
    pub(super) tcx: bool,
    /// Programs read connection tracking, by kernel functions (`bpf_rdonly_cast`); else masqueraded
    /// connections count as the node's.
    pub(super) tracking: bool,
    /// Programs see at which hook they run (`sk_buff.tc_at_ingress`); else each hook has a program of its
    /// own.
    pub(super) hooks: bool,
    /// Programs read names; else rules with names allow nothing.
    pub(super) names: bool,
    /// Pairs of netkit devices; else pods have veths alone.
    pub(super) netkit: bool,
    /// The processor reorders, so that programs run barriers.
    pub(super) barriers: bool,
}

const OLD: KernelFeatures =
    KernelFeatures { tcx: false, tracking: false, hooks: false, names: true, netkit: false, barriers: false };
const NEW: KernelFeatures =
    KernelFeatures { tcx: true, tracking: true, hooks: true, names: true, netkit: true, barriers: false };

const MINUTE: Duration = Duration::from_secs(60);

pub(super) const KERNELS: [TestedKernel; 6] = [
    TestedKernel {
        name: "running",
        platform: Platform::HOST,
        origin: Origin::Running,
        expected: None,
        is_supported: true,
        limit: Duration::MAX,
    },
    // Debian 11.
    TestedKernel {
        name: "5.10-amd64",
        platform: Platform::Amd64,
        origin: Origin::Package { release: Release::Bullseye, package: "linux-image-cloud-amd64" },
        expected: None,
        is_supported: false,
        limit: MINUTE.saturating_mul(10),
    },
    // Ubuntu 22.04: the oldest one that is supported, and the one of many nodes in clouds.
    TestedKernel {
        name: "5.15-amd64",
        platform: Platform::Amd64,
        origin: Origin::Package { release: Release::Jammy, package: "linux-image-virtual" },
        expected: Some(OLD),
        is_supported: true,
        limit: MINUTE.saturating_mul(120),
    },
    // Debian 12.
    TestedKernel {
        name: "6.1-amd64",
        platform: Platform::Amd64,
        origin: Origin::Package { release: Release::Bookworm, package: "linux-image-cloud-amd64" },
        expected: Some(OLD),
        is_supported: true,
        limit: MINUTE.saturating_mul(120),
    },
    // Debian 13.
    TestedKernel {
        name: "6.12-amd64",
        platform: Platform::Amd64,
        origin: Origin::Package { release: Release::Trixie, package: "linux-image-cloud-amd64" },
        expected: Some(NEW),
        is_supported: true,
        limit: MINUTE.saturating_mul(120),
    },
    TestedKernel {
        name: "6.12-arm64",
        platform: Platform::Arm64,
        origin: Origin::Package { release: Release::Trixie, package: "linux-image-cloud-arm64" },
        expected: Some(KernelFeatures { barriers: true, ..NEW }),
        is_supported: true,
        limit: MINUTE.saturating_mul(180),
    },
];
