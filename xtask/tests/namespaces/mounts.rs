//! Whether enforcement outlives the agent: the mount namespace in which the BPF file system was mounted.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use serde_json::Value;
use xtask::{
    lab::{Lab, Node, PATIENT, until},
    workspace,
};

use super::Test;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_agent_whose_pins_end_with_its_mount_namespace_says_so_at_once", private_mount),
    ("a_bpffs_that_mount_hands_on_to_the_host_outlives_its_container", handed_on),
];

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn private_mount(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    // As a host that does not mount it: the agent mounts it for itself.
    umount2(&node.bpffs(), MntFlags::MNT_DETACH).context("unmounting the node's bpffs")?;
    let _agent = start(&node, "private", &node.bpffs())?;
    let status = status(&node)?;
    let reason = status["pins_lost"].as_str().context("status says nothing of the pins")?;
    ensure!(reason.contains("in this mount namespace alone"), "{reason}");
    let text = node.podgate(&["status"])?;
    ensure!(text.stdout.contains("in this mount namespace alone"), "{}", text.text());
    Ok(())
}

fn handed_on(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let host = node.directory().join("host");
    fs::create_dir(&host)?;
    let none = None::<&str>;
    mount(Some(&host), &host, none, MsFlags::MS_BIND, none).context("a mount of its own")?;
    mount(none, &host, none, MsFlags::MS_SHARED, none).context("sharing it")?;
    let bpffs = host.join("bpf");

    let refused = mount_in_container(&node, "private", &bpffs)?;
    ensure!(refused.contains("error: ") && refused.contains("in this mount namespace alone"), "{refused}");
    ensure!(!is_bpffs(&bpffs), "a private mount does not come out of its namespace");
    let mounted = mount_in_container(&node, "unchanged", &bpffs)?;
    ensure!(mounted.ends_with("bpf: mounted\n") && is_bpffs(&bpffs), "{mounted}");
    let again = mount_in_container(&node, "private", &bpffs)?;
    ensure!(again.ends_with("bpf: mounted already\n"), "{again}");

    let agent = start(&node, "private", &bpffs)?;
    let status = status(&node)?;
    ensure!(status["pins_lost"].is_null(), "{status}");
    drop(agent);
    ensure!(bpffs.join("podgate").exists(), "the pins outlive the agent and its mount namespace");
    umount2(&bpffs, MntFlags::MNT_DETACH).context("unmounting the bpffs")?;
    Ok(())
}

/// Starts an agent in a mount namespace of its own, as a container has one.
fn start(node: &Node, propagation: &str, bpffs: &Path) -> Result<Running> {
    let mut command = node.place.command("unshare");
    command.args(["--mount", "--propagation", propagation]).arg(workspace::podgate()?).arg("agent");
    command.args(["--node", "n1", "--metrics", "off", "--bpffs"]).arg(bpffs).arg("--socket");
    command.arg(node.directory().join("podgate.sock"));
    command.arg("--manifests").arg(node.directory().join("../manifests"));
    command.arg("--cni-results").arg(node.cni_results());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Running(command.spawn().context("starting podgate agent")?))
}

fn status(node: &Node) -> Result<Value> {
    until("the agent answers", PATIENT, || {
        let asked = node.podgate(&["status", "-o", "json"])?;
        Ok(asked.status.success().then(|| serde_json::from_str(&asked.stdout)))
    })?
    .context("the form of status")
}

fn mount_in_container(node: &Node, propagation: &str, bpffs: &Path) -> Result<String> {
    let mut command = node.place.command("unshare");
    command.args(["--mount", "--propagation", propagation]).arg(workspace::podgate()?);
    let output = command.arg("mount").arg("--bpffs").arg(bpffs).output().context("running podgate mount")?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}
