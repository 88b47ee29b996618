//! What is in `deploy/`, as an API server takes it.

use anyhow::{Context, Result};
use xtask::{kubernetes::ControlPlane, workspace};

/// All that a user applies.
pub(crate) const PARTS: [&str; 5] =
    ["base", "overlays/azure-npm", "overlays/calico", "overlays/cni", "uninstall"];

/// Applies a part without effect: the server decodes, defaults and validates every object of it.
pub(crate) fn is_accepted(control_plane: &ControlPlane, part: &str) -> Result<()> {
    let path = workspace::root().join("deploy").join(part);
    let path = path.to_str().context("the path of the workspace is not UTF-8")?;
    control_plane.ask(&["apply", "--dry-run=server", "--kustomize", path]).map(|_| ())
}
