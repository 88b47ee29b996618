//! What is in `deploy/`, as an API server takes it.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::{kubernetes::ControlPlane, manifest, workspace};

/// All that a user applies.
pub(crate) const PARTS: [&str; 6] =
    ["base", "overlays/azure-npm", "overlays/calico", "overlays/cni", "overlays/monitoring", "uninstall"];

/// Applies a part without effect: the server decodes, defaults and validates every object of it.
pub(crate) fn is_accepted(control_plane: &ControlPlane, part: &str) -> Result<()> {
    if part == "overlays/monitoring" {
        prometheus_operator(control_plane)?;
    }
    let path = workspace::root().join("deploy").join(part);
    let path = path.to_str().context("the path of the workspace is not UTF-8")?;
    control_plane.ask(&["apply", "--dry-run=server", "--kustomize", path])?;
    // A container that a patch adds must not keep the name that the base replaces.
    let objects = control_plane.ask(&["kustomize", path])?;
    let images: BTreeSet<&str> = objects
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image: "))
        .collect();
    let expected = concat!("localhost/podgate:", env!("CARGO_PKG_VERSION"));
    ensure!(images == [expected].into(), "{part} runs {images:?}");
    Ok(())
}

/// Makes the kinds that the Prometheus operator brings.
pub(crate) fn prometheus_operator(control_plane: &ControlPlane) -> Result<()> {
    let kinds = [("PodMonitor", "podmonitors"), ("PrometheusRule", "prometheusrules")];
    control_plane.apply(&kinds.map(|(kind, plural)| of_prometheus_operator(kind, plural)))?;
    let names = kinds.map(|(_, plural)| format!("crd/{plural}.monitoring.coreos.com"));
    let [first, second] = &names;
    control_plane.ask(&["wait", "--for=condition=Established", "--timeout=30s", first, second])?;
    Ok(())
}

/// A kind of the Prometheus operator's, of which the server knows no fields.
fn of_prometheus_operator(kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// `deploy/podgate.yaml` is what `cargo xtask manifest` writes.
pub(crate) fn single_file_is_up_to_date() -> Result<()> {
    let path = manifest::path();
    let written = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(written == manifest::single_file()?, "deploy/podgate.yaml: run `cargo xtask manifest`");
    Ok(())
}
