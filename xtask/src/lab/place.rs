//! A place: one network namespace, and ways to act inside it.
//!
//! In: closures, commands and `ip` batches. Out: their results, obtained inside the namespace. A place lives
//! as long as a clone of it, a socket or a process in it; nothing is mounted or named on disk. Left out: what
//! a place is good for (node, pod, host), and how places are wired together.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{self, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use super::{address::Mac, join};
use crate::sandbox::Sandbox;

/// A handle on a network namespace.
#[derive(Clone, Debug)]
pub struct Place {
    name: Arc<str>,
    netns: Arc<File>,
}

impl Place {
    /// Makes an empty namespace with its loopback up and no IPv6 start-up delays.
    pub fn new(_: Sandbox, name: &str) -> Result<Self> {
        let netns = thread::scope(|scope| {
            let maker = scope.spawn(|| -> Result<File> {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                File::open("/proc/thread-self/ns/net").context("opening the new namespace")
            });
            join(maker)
        })
        .with_context(|| format!("making the namespace {name}"))?;
        let place = Self { name: name.into(), netns: Arc::new(netns) };
        place.sysctls(&QUIET)?;
        place.ip("link set lo up")?;
        Ok(place)
    }

    /// A namespace that somebody else has made.
    pub(crate) fn of(name: &str, netns: File) -> Self {
        Self { name: name.into(), netns: Arc::new(netns) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path that other programs of the lab can open: `ip link set … netns PATH`, `nsenter --net=PATH`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.netns.as_raw_fd())
    }

    /// Gives it a name on disk, as `ip netns` and container run-times do. The mount keeps it alive.
    pub fn keep_as(&self, file: &Path) -> Result<()> {
        File::create(file).with_context(|| format!("creating {}", file.display()))?;
        mount(Some(self.path().as_str()), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("keeping a namespace as {}", file.display()))
    }

    /// Runs `task` on a thread of its own inside the namespace. Sockets that it makes stay in the namespace.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter();
                task()
            });
            join(worker)
        })
    }

    /// Like [`Self::run`], without waiting for the end.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let place = self.clone();
        thread::spawn(move || {
            place.enter();
            task()
        })
    }

    /// A command that will run inside the namespace. It dies with the sandbox at the latest.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let netns = self.netns.clone();
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one plain system call; it neither allocates nor
        // locks.
        unsafe {
            command.pre_exec(move || Ok(setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// Runs the lines of `script` through `ip -batch`, all of which must succeed.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.feed(&["ip", "-batch", "-"], script)
    }

    /// Loads an nftables script.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.feed(&["nft", "-f", "-"], script)
    }

    /// Joins this place to another: `name` here, which is a port of `bridge` if there is one, and `eth0`
    /// there.
    pub(super) fn pair(
        &self,
        name: &str,
        mac: Mac,
        bridge: Option<&str>,
        other: &Self,
        other_mac: Mac,
    ) -> Result<()> {
        let master = bridge.map(|bridge| format!("master {bridge}")).unwrap_or_default();
        self.ip(&format!(
            "link add {name} address {mac} type veth peer name eth0 address {other_mac} netns {}\n\
             link set {name} {master} up\n",
            other.path()
        ))?;
        other.ip("link set eth0 up")
    }

    pub(super) fn add_bridge(&self, name: &str) -> Result<()> {
        // Multicast snooping would drop neighbour discovery while no querier is known.
        self.ip(&format!("link add {name} type bridge mcast_snooping 0\nlink set {name} up\n"))
    }

    /// Makes it a router.
    pub(crate) fn forward(&self) -> Result<()> {
        self.sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])
    }

    /// Runs a command that reads `text`, and must succeed.
    pub fn feed(&self, command: &[&str], text: &str) -> Result<()> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut process = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{program}`"))?;
        // One that ends early says why on stderr, not through this pipe.
        let written = process.stdin.take().expect("stdin is piped").write_all(text.as_bytes());
        let output = process.wait_with_output().with_context(|| format!("waiting for `{program}`"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let shown: String = text.chars().take(SHOWN).collect();
        ensure!(output.status.success(), "{command:?} in {}: {}\n{shown}", self.name, complaint.trim());
        written.with_context(|| format!("writing to `{program}`"))
    }

    /// Sets kernel parameters of the namespace; a key is a path below `/proc/sys/net`.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(format!("/proc/sys/net/{key}"), value)
                    .with_context(|| format!("sysctl net/{key}={value} in {}", self.name))
            })
        })
    }

    fn enter(&self) {
        setns(self.netns.as_fd(), CloneFlags::CLONE_NEWNET)
            .expect("root of the sandbox may enter a namespace that it made");
    }
}

/// How much of a refused input an error repeats, in characters.
const SHOWN: usize = 4_000;

/// No duplicate address detection, no router discovery, no limits on ICMP errors: nothing to wait for, and
/// what a probe sees does not depend on the probes before it. Reverse path checks are off so that only
/// podgate stops spoofing.
const QUIET: [(&str, &str); 11] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];
