//! CNI plugins and their daemons that Go builds.
//!
//! In: what connects a cluster's pods. Out: its programs, built the first time; none where Debian's package
//! has all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{CalicoPrograms, built, go::Executable};
use crate::flags::Cni;

/// It gives veths the names that Calico's agent looks for.
pub(crate) const VETH_NAME: &str = "calico-veth-name";

/// The executables that a choice needs in addition to the plugins of containernetworking.
#[derive(Clone, Debug, Default)]
pub(crate) struct CniPrograms {
    plugin: Option<PathBuf>,
    daemon: Option<PathBuf>,
}

impl CniPrograms {
    pub(crate) fn of(cni: Cni) -> Result<Self> {
        Ok(match cni {
            Cni::Ptp | Cni::Bridge | Cni::Kindnet => Self::default(),
            Cni::PtpCalico => Self { plugin: Some(CalicoPrograms::built()?.path(VETH_NAME)), daemon: None },
            Cni::Flannel | Cni::FlannelVxlan => {
                Self { plugin: None, daemon: Some(built(Executable::FLANNELD, "flanneld")?) }
            }
            Cni::Aws => Self {
                plugin: Some(built(Executable::AWS_CNI, "aws-cni")?),
                daemon: Some(built(Executable::AWS_IPAMD, "ipamd")?),
            },
            Cni::Azure => Self { plugin: Some(built(Executable::AZURE_VNET, "azure-vnet")?), daemon: None },
        })
    }

    /// The executable that the container runtime calls.
    pub(crate) fn plugin(&self) -> Option<&Path> {
        self.plugin.as_deref()
    }

    /// What runs on each node.
    pub(crate) fn daemon(&self) -> Result<&Path> {
        self.daemon.as_deref().context("this network has a daemon")
    }
}
