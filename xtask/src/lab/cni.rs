//! The container runtime's part: it runs podgate's CNI plugin for a pod, after the one that has made the
//! pod's veth.

use std::{io::Write as _, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Asked, Pod,
    agent::{socket, without_settings},
};
use crate::workspace;

impl Pod {
    /// Runs a command of the CNI specification; `settings` are members of the plugin's configuration.
    pub fn cni(&self, command: &str, settings: Value) -> Result<Asked> {
        let mut configuration = json!({
            "cniVersion": "0.4.0",
            "name": "lab",
            "type": "podgate-cni",
            "socket": socket(self.node()),
            "bpffs": self.node().bpffs(),
            "timeout": 20,
            "prevResult": self.cni_result(&self.place.path()),
        });
        if let (Some(all), Value::Object(settings)) = (configuration.as_object_mut(), settings) {
            all.extend(settings);
        }
        let arguments = self.cni_arguments().map(|argument| argument.join("=")).join(";");
        let mut plugin = self.node().place.command(workspace::podgate()?);
        without_settings(&mut plugin);
        plugin.env("CNI_COMMAND", command).env("CNI_CONTAINERID", self.container()).env("CNI_IFNAME", "eth0");
        plugin.env("CNI_NETNS", self.place.path()).env("CNI_ARGS", arguments).env("CNI_PATH", "/opt/cni/bin");
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = plugin.spawn().context("starting the CNI plugin")?;
        // One that ends early says why.
        let _ = process.stdin.take().expect("stdin is piped").write_all(configuration.to_string().as_bytes());
        Ok(process.wait_with_output().context("waiting for the CNI plugin")?.into())
    }

    /// A command that must succeed, and answers nothing.
    pub fn cni_silent(&self, command: &str, settings: Value) -> Result<()> {
        let answer = self.cni(command, settings)?;
        let is_silent = answer.status.success() && answer.stdout.is_empty();
        ensure!(is_silent, "CNI {command} of {}: {}", self.name(), answer.text());
        Ok(())
    }

    /// CNI ADD, which must succeed and hand on the result of the plugin before; then libcni keeps it.
    pub fn add(&self) -> Result<()> {
        self.add_with(json!({}))
    }

    /// The same with other settings.
    pub fn add_with(&self, settings: Value) -> Result<()> {
        let added = self.cni("ADD", settings)?;
        ensure!(added.status.success(), "CNI ADD of {}: {}", self.name(), added.text());
        let result: Value = serde_json::from_str(&added.stdout).context("the result of CNI ADD")?;
        ensure!(
            result == self.cni_result(&self.place.path()),
            "CNI ADD of {} changed the result: {result}",
            self.name()
        );
        self.cache_cni_result()
    }
}
