//! Whether enforcement outlives the agent: the mount namespace in which the BPF file system was mounted.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use serde_json::Value;
use xtask::{
    lab::{Agent, Lab, Node, PATIENT},
    workspace,
};

use super::Test;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_agent_whose_pins_end_with_its_mount_namespace_says_so_at_once", private_mount),
    ("a_bpffs_that_mount_hands_on_to_the_host_outlives_its_container", handed_on),
];

fn private_mount(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    // As a host that does not mount it: the agent mounts it for itself.
    umount2(&node.bpffs(), MntFlags::MNT_DETACH).context("unmounting the node's bpffs")?;
    let agent = Agent::spawn_unshared(&node, "private", &node.bpffs())?;
    let status = answer(&agent)?;
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

    let agent = Agent::spawn_unshared(&node, "private", &bpffs)?;
    let status = answer(&agent)?;
    ensure!(status["pins_lost"].is_null(), "{status}");
    drop(agent);
    ensure!(bpffs.join("podgate").exists(), "the pins outlive the agent and its mount namespace");
    umount2(&bpffs, MntFlags::MNT_DETACH).context("unmounting the bpffs")?;
    Ok(())
}

fn answer(agent: &Agent) -> Result<Value> {
    agent.until("the agent answers", PATIENT, "status", |_| true)
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
