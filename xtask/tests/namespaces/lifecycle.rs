//! The agent's own life: killed, started again, ended, taken away, started twice.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use xtask::lab::{Agent, BRIEF, Lab, PATIENT, Pod, Seen, Traffic, join};

use super::{
    Test,
    fixture::AllowDenyFixture,
    hooks::{has_clsact, objects},
    kernel::{Object, are_gone},
    live::Live,
    scene::{EVERY_KIND, expect},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("kill_9_of_the_agent_changes_no_verdict", kill_changes_nothing),
    ("a_new_agent_takes_over_without_a_gap", restart_without_a_gap),
    ("an_agent_with_other_maps_takes_the_place_of_the_one_before", other_maps),
    ("sigterm_leaves_enforcement_in_force", terminate_leaves_enforcement),
    ("detach_leaves_no_program_link_map_or_file", detach),
    ("a_second_agent_on_one_bpffs_names_the_first_and_refuses", second_agent),
];

impl AllowDenyFixture {
    pub(crate) fn pods(&self) -> [&Pod; 3] {
        [&self.server, &self.client_allowed, &self.client_denied]
    }

    /// Runs `task` while both clients probe the server; every probe must end as the policy says.
    pub(crate) fn while_verdicts_hold<T>(&self, task: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = |client, expected| {
                let over = &over;
                scope.spawn(move || self.watch(client, expected, over))
            };
            let watching =
                [watch(&self.client_denied, Seen::Blocked), watch(&self.client_allowed, Seen::Reached)];
            let done = task();
            over.store(true, Ordering::Relaxed);
            watching.into_iter().try_for_each(join)?;
            done
        })
    }

    /// Probes until it is over, at least a few times.
    fn watch(&self, from: &Pod, expected: Seen, over: &AtomicBool) -> Result<()> {
        let patience = if expected == Seen::Blocked { BRIEF / 10 } else { PATIENT };
        let mut count = 0;
        while !over.load(Ordering::Relaxed) || count < 5 {
            let seen = from.place.probe(self.server.addresses.v4.into(), Traffic::Tcp(80), patience)?;
            count += 1;
            ensure!(seen == expected, "{}: {seen}, not {expected}", from.name());
        }
        Ok(())
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

    let second = fixture.while_verdicts_hold(|| {
        first.kill()?;
        Agent::start(&fixture.node, &[])
    })?;
    let now = files(&fixture.node.bpffs())?;
    ensure!(now == pins, "the new agent uses the old pins; before {pins:?}, now {now:?}");
    fixture.verdicts_hold()?;

    // And it is in charge: what is written now is enforced.
    lab.manifests().remove("policy-close.yaml")?;
    fixture.denied_client_becomes(Seen::Reached)?;
    second.terminate()
}

/// The pins of the agent before are in the directory of another layout.
fn other_maps(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let first = Agent::start(&fixture.node, &[])?;
    let mut live = Live::open(&fixture.client_allowed.place, fixture.server.addresses.v4.into())?;
    first.kill()?;
    let pins = fixture.node.bpffs().join("podgate");
    let layouts = || -> Result<Vec<PathBuf>> {
        fs::read_dir(&pins)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()
    };
    let [current] = &layouts()?[..] else { bail!("one layout") };
    fs::rename(current, pins.join("v1")).context("renaming the pins")?;

    let second = fixture.while_verdicts_hold(|| Agent::start(&fixture.node, &[]))?;
    ensure!(layouts()? == [current.clone()], "the old pins are gone: {:?}", layouts()?);
    live.goes_on().context("a connection of before")?;
    fixture.verdicts_hold()?;

    // The programs of before have no say any more.
    lab.manifests().remove("policy-close.yaml")?;
    fixture.denied_client_becomes(Seen::Reached)?;
    second.terminate()?;
    let answer = fixture.node.podgate(&["detach"])?;
    ensure!(answer.status.success() && !pins.exists(), "detach: {}", answer.text());
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
    let objects = objects(&fixture)?;
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
    are_gone(&objects)?;
    for pod in fixture.pods() {
        let left = has_clsact(&fixture.node.place, &pod.host_interface)?;
        ensure!(!left, "there is a clsact at {}", pod.name());
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
