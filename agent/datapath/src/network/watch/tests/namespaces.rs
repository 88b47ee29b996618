//! Network namespaces of a node and of pods, which a test changes by `ip` and sees through a watch.

use std::{
    collections::BTreeSet,
    future::Future,
    process::Command,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use super::super::*;
use crate::network::{Link, VethPeer};

/// What the kernel does at once must be seen by then, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(20);

/// The test's own thread, in a network namespace of its own, with a watch.
pub(super) struct Node {
    pub(super) watch: NetworkWatch,
    current: Arc<Network>,
}

impl Node {
    /// Waits for the first look that shows something.
    pub(super) async fn until<T>(&mut self, what: &str, found: impl Fn(&Network) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = found(&self.current) {
                return found;
            }
            self.current = match tokio::time::timeout_at(deadline, self.watch.next()).await {
                Ok(next) => next.unwrap(),
                Err(_) => panic!("not seen: {what}; last: {:#?}", self.current),
            };
        }
    }

    /// More events than the least buffer holds, which is some 2 KiB.
    pub(super) fn flood(&self) {
        self.watch.all.shrink_buffer();
        for number in 0..50 {
            ip(&format!("address add 10.9.0.{number}/32 dev lo"));
        }
    }
}

/// Runs a test on a thread of its own in a fresh network namespace.
pub(super) fn in_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + Send + 'static) {
    if !is_root() {
        let why = "needs root: makes network namespaces";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped, {why}");
        return;
    }
    let run = move || {
        enter_new_namespace();
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = NetworkWatch::open().unwrap();
            let current = watch.next().await.unwrap();
            test(Node { watch, current }).await;
        });
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Another network namespace, held by a thread that runs commands in it. Ends when dropped.
pub(super) struct Namespace {
    pub(super) thread_id: i32,
    commands: Option<mpsc::Sender<(String, mpsc::Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub(super) fn new() -> Self {
        let (commands, inbox) = mpsc::channel::<(String, mpsc::Sender<()>)>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            enter_new_namespace();
            // SAFETY: gettid takes nothing and cannot fail.
            ready.send(unsafe { libc::gettid() }).unwrap();
            for (command, done) in inbox {
                ip(&command);
                done.send(()).unwrap();
            }
        });
        Self { thread_id: is_ready.recv().unwrap(), commands: Some(commands), thread: Some(thread) }
    }

    /// Runs `ip` in this namespace and waits for it.
    pub(super) fn ip(&self, command: &str) {
        let (done, is_done) = mpsc::channel();
        self.commands.as_ref().unwrap().send((command.to_owned(), done)).unwrap();
        is_done.recv().unwrap_or_else(|_| panic!("ip {command} failed in the other namespace"));
    }

    /// A veth from the node to `eth0` in here.
    pub(super) fn veth(&self, name: &str) {
        ip(&format!("link add {name} type veth peer name eth0 netns {}", self.thread_id));
    }

    /// Moves a link of the node in here.
    pub(super) fn take(&self, name: &str) {
        ip(&format!("link set {name} netns {}", self.thread_id));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It has failed only if a command has, which has been reported already.
            drop(thread.join());
        }
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

pub(super) fn enter_new_namespace() {
    // SAFETY: unshare takes a flag; it changes the network namespace of this thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
}

/// Runs `ip` in the network namespace of this thread.
pub(super) fn ip(command: &str) {
    let output = Command::new("ip").args(command.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn entry(network: &Network, name: &str) -> Option<(u32, u32)> {
    let (ifindex, link) = network.links.iter().find(|(_, link)| &*link.name == name)?;
    Some((*ifindex, link.generation))
}

pub(super) fn link<'a>(network: &'a Network, name: &str) -> Option<&'a Link> {
    network.links.values().find(|link| &*link.name == name)
}

pub(super) fn peer<'a>(network: &'a Network, name: &str) -> Option<&'a VethPeer> {
    link(network, name)?.peer.as_ref()
}

/// Without the link-local address that the kernel makes up.
pub(super) fn peer_addresses(network: &Network, name: &str) -> Option<Vec<String>> {
    let addresses: BTreeSet<_> = peer(network, name)?.addresses.iter().map(ToString::to_string).collect();
    Some(addresses.into_iter().filter(|address| !address.starts_with("fe80")).collect())
}
