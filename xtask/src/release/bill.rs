//! The bill of materials of the agent, in CycloneDX's JSON, by `cargo-cyclonedx`: every crate that is linked
//! in, with its version, licence and checksum.
//!
//! What the tool writes has a random number, the time, and paths of this machine: these are taken out.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cargo, setup, workspace};

const TOOL: (&str, &str) = ("cargo-cyclonedx", "0.5.9");

/// As the tool names it, below the directory of each package.
const FILE: &str = "podgate-bill";

/// Its bytes, the same each time.
pub(super) fn of_agent() -> Result<Vec<u8>> {
    setup::cargo_tool(TOOL)?;
    let manifest = workspace::root().join("agent/Cargo.toml");
    let mut tool = cargo::command();
    tool.args(["cyclonedx", "--format", "json", "--target", "all", "--override-filename", FILE]);
    tool.arg("--manifest-path").arg(manifest);
    let output = tool.output().context("starting cargo cyclonedx")?;
    let written = collect()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo cyclonedx: {}\n{complaint}", output.status);
    let bill = written.context("cargo cyclonedx has written nothing for the agent")?;
    let bill: Value = serde_json::from_slice(&bill).context("the bill of materials")?;
    let root = workspace::root().display().to_string();
    let bill = reproducible(bill, &root);
    ensure!(
        bill["components"].as_array().is_some_and(|components| !components.is_empty()),
        "the bill of materials names no component"
    );
    let mut text = serde_json::to_string_pretty(&bill).context("the bill of materials")?;
    ensure!(!text.contains(&root), "the bill of materials names a path of this machine");
    text.push('\n');
    Ok(text.into_bytes())
}

/// Takes what the tool has written out of the tree: a file for each package of the workspace. That of the
/// agent is handed back.
fn collect() -> Result<Option<Vec<u8>>> {
    let mut of_agent = None;
    for package in ["agent", "agent/core", "agent/datapath", "agent/testkit", "common", "ebpf", "xtask"] {
        let path = workspace::root().join(package).join(format!("{FILE}.json"));
        if path.is_file() {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
            of_agent = of_agent.or((package == "agent").then_some(bytes));
        }
    }
    Ok(of_agent)
}

/// The same without what differs from run to run and from machine to machine.
fn reproducible(mut bill: Value, root: &str) -> Value {
    if let Some(fields) = bill.as_object_mut() {
        fields.remove("serialNumber");
    }
    if let Some(metadata) = bill["metadata"].as_object_mut() {
        metadata.remove("timestamp");
    }
    without_root(&mut bill, root);
    bill
}

fn without_root(value: &mut Value, root: &str) {
    match value {
        Value::String(text) => *text = text.replace(root, "/podgate"),
        Value::Array(values) => values.iter_mut().for_each(|value| without_root(value, root)),
        Value::Object(fields) => fields.values_mut().for_each(|value| without_root(value, root)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_runs_in_two_places_give_one_bill() {
        let bill = |number: &str, time: &str, root: &str| {
            json!({
                "serialNumber": number,
                "metadata": {"timestamp": time, "component": {"bom-ref": format!("path+file://{root}/agent")}},
                "components": [{"name": "aya", "purl": "pkg:cargo/aya@0.14.0"}],
                "dependencies": [{"ref": "x", "dependsOn": [format!("path+file://{root}/common")]}],
            })
        };
        let one = reproducible(bill("urn:uuid:1", "2026-01-01T00:00:00Z", "/one/place"), "/one/place");
        let other = reproducible(bill("urn:uuid:2", "2026-02-02T00:00:00Z", "/other"), "/other");
        assert_eq!(one, other);
        assert_eq!(one["components"][0]["name"], "aya");
        assert_eq!(one["dependencies"][0]["dependsOn"][0], "path+file:///podgate/common");
    }
}
