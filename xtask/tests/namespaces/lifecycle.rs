//! The agent's own life: killed, started again, ended, taken away, started twice.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use xtask::lab::{Agent, BRIEF, Lab, Node, PATIENT, Place, Pod, Seen, Traffic, until};

use super::{
    Test,
    hooks::filters,
    kernel::{Object, exists, pinned},
    live::{connect, say},
    scene::{CLOSE, EVERY_KIND, apply, becomes, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("kill_9_of_the_agent_changes_no_verdict", kill_changes_nothing),
    ("a_new_agent_takes_over_without_a_gap", restart_without_a_gap),
    ("an_agent_with_other_maps_takes_the_place_of_the_one_before", other_maps),
    ("sigterm_leaves_enforcement_in_force", terminate_leaves_enforcement),
    ("detach_leaves_no_program_link_map_or_file", detach),
    ("a_second_agent_on_one_bpffs_names_the_first_and_refuses", second_agent),
];

/// One closed server, a friend that it lets in, and a stranger.
pub(crate) struct AllowDenyFixture {
    pub(crate) node: Node,
    pub(crate) server: Pod,
    pub(crate) client_allowed: Pod,
    pub(crate) client_denied: Pod,
    _servers: Vec<xtask::lab::Server>,
}

impl AllowDenyFixture {
    pub(crate) fn new(lab: &mut Lab) -> Result<Self> {
        let node = lab.node("n1")?;
        let server = node.pod("x/server").labels(&[("app", "closed")]).start()?;
        let client_allowed = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
        let client_denied = node.pod("x/stranger").start()?;
        let servers = serve_all(&server.place)?;
        apply(lab.manifests(), "close", CLOSE)?;
        Ok(Self { node, server, client_allowed, client_denied, _servers: servers })
    }

    pub(crate) fn pods(&self) -> [&Pod; 3] {
        [&self.server, &self.client_allowed, &self.client_denied]
    }

    pub(crate) fn verdicts_hold(&self) -> Result<()> {
        expect(&self.client_allowed.place, self.server.addresses, &EVERY_KIND, Seen::Reached)?;
        expect(&self.client_denied.place, self.server.addresses, &EVERY_KIND, Seen::Blocked)
    }

    /// Waits until the client that the policy denies gets this answer of the server's port.
    pub(crate) fn denied_client_becomes(&self, expected: Seen) -> Result<()> {
        becomes(&self.client_denied.place, self.server.addresses.v4.into(), Traffic::Tcp(80), expected)
    }
}

fn kill_changes_nothing(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let agent = Agent::start(&fixture.node, &[])?;
    fixture.verdicts_hold()?;
    agent.kill()?;
    fixture.verdicts_hold()
}

fn restart_without_a_gap(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let first = Agent::start(&fixture.node, &[])?;
    let pins = files(&fixture.node.bpffs())?;
    ensure!(!pins.is_empty(), "the agent pins what it made");

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&fixture.client_denied.place, &fixture, Seen::Blocked, &over));
        let serving = scope.spawn(|| watch(&fixture.client_allowed.place, &fixture, Seen::Reached, &over));
        let restarted = first.kill().and_then(|()| Agent::start(&fixture.node, &[]));
        over.store(true, Ordering::Relaxed);
        for watcher in [watching, serving] {
            watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        let second = restarted?;
        let now = files(&fixture.node.bpffs())?;
        ensure!(now == pins, "the new agent uses the old pins; before {pins:?}, now {now:?}");
        fixture.verdicts_hold()?;

        // And it is in charge: what is written now is enforced.
        lab.manifests().remove("policy-close.yaml")?;
        fixture.denied_client_becomes(Seen::Reached)?;
        second.terminate()
    })
}

/// The pins of the agent before are in the directory of another layout.
fn other_maps(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let first = Agent::start(&fixture.node, &[])?;
    let mut live = connect(&fixture.client_allowed.place, (fixture.server.addresses.v4, 7).into())?;
    say(&fixture.client_allowed.place, &mut live, b"before")?;
    first.kill()?;
    let pins = fixture.node.bpffs().join("podgate");
    let layouts = || -> Result<Vec<PathBuf>> {
        fs::read_dir(&pins)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()
    };
    let [current] = &layouts()?[..] else { bail!("one layout") };
    fs::rename(current, pins.join("v1")).context("renaming the pins")?;

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&fixture.client_denied.place, &fixture, Seen::Blocked, &over));
        let second = Agent::start(&fixture.node, &[]);
        over.store(true, Ordering::Relaxed);
        watching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let second = second?;
        ensure!(layouts()? == [current.clone()], "the old pins are gone: {:?}", layouts()?);
        say(&fixture.client_allowed.place, &mut live, b"after").context("a connection of before")?;
        fixture.verdicts_hold()?;

        // The programs of before have no say any more.
        lab.manifests().remove("policy-close.yaml")?;
        fixture.denied_client_becomes(Seen::Reached)?;
        second.terminate()?;
        let answer = fixture.node.podgate(&["detach"])?;
        ensure!(answer.status.success() && !pins.exists(), "detach: {}", answer.text());
        Ok(())
    })
}

/// Probes until it is over, at least a few times; every probe must end as expected.
pub(crate) fn watch(
    from: &Place,
    fixture: &AllowDenyFixture,
    expected: Seen,
    over: &AtomicBool,
) -> Result<()> {
    let count = AtomicUsize::new(0);
    while !over.load(Ordering::Relaxed) || count.load(Ordering::Relaxed) < 5 {
        let patience = if expected == Seen::Blocked { BRIEF / 10 } else { PATIENT };
        let seen = from.probe(fixture.server.addresses.v4.into(), Traffic::Tcp(80), patience)?;
        count.fetch_add(1, Ordering::Relaxed);
        ensure!(seen == expected, "{}: {seen}, not {expected}", from.name());
    }
    Ok(())
}

fn terminate_leaves_enforcement(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    Agent::start(&fixture.node, &[])?.terminate()?;
    fixture.verdicts_hold()
}

fn detach(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    // Kernels may put files of their own into a bpffs.
    let empty = files(&fixture.node.bpffs())?;
    let agent = Agent::start(&fixture.node, &[])?;
    fixture.verdicts_hold()?;
    let mut objects = pinned(&fixture.node.bpffs().join("podgate"))?;
    for pod in fixture.pods() {
        let filters = filters(&fixture.node.place, &pod.host_interface)?;
        objects.extend(filters.into_iter().filter_map(|filter| filter.program));
    }
    for kind in [Object::is_map, Object::is_program] as [fn(&Object) -> bool; 2] {
        ensure!(objects.iter().any(kind), "maps are pinned, programs at the hooks: {objects:?}");
    }
    let refused = fixture.node.podgate(&["detach"])?;
    ensure!(refused.status.code() == Some(1), "detach under a running agent: {}", refused.text());
    fixture.verdicts_hold()?;
    agent.terminate()?;

    let answer = fixture.node.podgate(&["detach"])?;
    ensure!(answer.status.success(), "detach: {}", answer.text());
    let left = files(&fixture.node.bpffs())?;
    ensure!(left == empty, "left over: {left:?}");
    // The kernel frees them after a grace period.
    until("programs, links and maps are gone", PATIENT, || {
        let left = objects.iter().map(exists).collect::<Result<Vec<_>>>()?;
        Ok(left.iter().all(|exists| !exists).then_some(()))
    })?;
    for pod in fixture.pods() {
        let queues =
            fixture.node.place.command("tc").args(["qdisc", "show", "dev", &pod.host_interface]).output()?;
        let queues = String::from_utf8_lossy(&queues.stdout).into_owned();
        ensure!(!queues.contains("clsact"), "{}: {queues}", pod.host_interface);
    }
    expect(&fixture.client_denied.place, fixture.server.addresses, &EVERY_KIND, Seen::Reached)?;

    let again = fixture.node.podgate(&["detach"])?;
    ensure!(again.status.success(), "detach of nothing: {}", again.text());
    Ok(())
}

fn second_agent(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let first = Agent::start(&fixture.node, &[])?;
    let manifests = lab.manifests().directory().display().to_string();
    let socket = fixture.node.directory().join("second.sock").display().to_string();
    let options =
        ["agent", "--node", "n1", "--manifests", &manifests, "--socket", &socket, "--metrics", "off"];
    let second = fixture.node.podgate(&options)?;
    ensure!(second.status.code() == Some(1), "the second agent ended with {}", second.status);
    let first_id = first.process_id().to_string();
    let line = second.stderr.lines().find(|line| line.starts_with("error: ")).context("an error line")?;
    ensure!(line.contains(&first_id), "{line:?} names process {first_id}");
    fixture.verdicts_hold()
}

/// All files and directories below `directory`, relative to it.
fn files(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
            let entry = entry?;
            found.insert(entry.path().strip_prefix(directory)?.to_owned());
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(found)
}
