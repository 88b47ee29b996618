//! The flows of all nodes as they happen, for as long as somebody reads.
//!
//! Each node has a task that reads its agent, and begins again when the agent is replaced or away; nodes that
//! join are found. A flow has a place among all that wait and one among its node's, or is counted as lost.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use kube::Client;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    super::{
        super::{flows::Printer, output::say},
        Session,
    },
    merge::{Merge, Waiting},
    record,
};
use crate::fleet::{self, Agent, Executor, Failure, Fleet, Line, other_versions, version_notes};

/// Flows that wait to be printed: of all nodes together, and of each. A flow takes one or two kilobytes.
const PLACES: usize = 16_384;
const PLACES_OF_NODE: usize = 4_096;

/// Pauses before a node is asked again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A stream that has lasted so long without a line has begun.
const SETTLED: Duration = Duration::from_secs(1);

const PRINT_EVERY: Duration = Duration::from_millis(100);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often new nodes are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What goes from the nodes' tasks to the printer.
enum LiveEvent {
    Flow(Box<Waiting>),
    /// A line for stderr.
    Note(String),
}

/// What the tasks share.
struct FleetReader {
    client: Client,
    executor: Executor,
    namespace: String,
    command: Vec<String>,
    places: Arc<Semaphore>,
    events: mpsc::UnboundedSender<LiveEvent>,
}

/// One node, as its task sees it.
struct Follower {
    reader: Arc<FleetReader>,
    node: String,
    places: Arc<Semaphore>,
    lost: Arc<AtomicU64>,
}

pub(super) async fn follow(
    session: &Session,
    fleet: &Fleet,
    command: &[String],
    mut printer: Printer,
) -> anyhow::Result<ExitCode> {
    let (events, mut received) = mpsc::unbounded_channel();
    let reader = Arc::new(FleetReader {
        client: session.client.clone(),
        executor: session.executor.clone(),
        namespace: session.agents.namespace.clone(),
        command: command.to_vec(),
        places: Arc::new(Semaphore::new(PLACES)),
        events,
    });
    let mut followed: BTreeSet<String> = BTreeSet::new();
    let mut lost: Vec<(String, Arc<AtomicU64>)> = Vec::new();
    let mut start = |fleet: &Fleet, is_first: bool, lost: &mut Vec<(String, Arc<AtomicU64>)>| {
        for (node, agent) in &fleet.nodes {
            if !followed.insert(node.clone()) {
                continue;
            }
            if !is_first {
                say(format_args!("{node}: joined\n"));
            }
            let counter = Arc::new(AtomicU64::new(0));
            lost.push((node.clone(), counter.clone()));
            let places = Arc::new(Semaphore::new(PLACES_OF_NODE));
            let follower = Follower { reader: reader.clone(), node: node.clone(), places, lost: counter };
            tokio::spawn(follower.run(agent.clone()));
        }
    };
    start(fleet, true, &mut lost);
    say(format_args!("following {} nodes\n", fleet.nodes.len()));
    tokio::spawn(note_versions(reader.clone(), fleet.clone(), session.deadline));
    let mut merge = Merge::default();
    let mut stdout = io::stdout();
    let [mut print, mut report, mut look] = [PRINT_EVERY, REPORT_EVERY, LOOK_EVERY].map(|every| {
        let mut interval = interval(every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    look.reset();
    loop {
        tokio::select! {
            event = received.recv() => match event {
                Some(LiveEvent::Flow(waiting)) => merge.push(waiting),
                Some(LiveEvent::Note(note)) => say(format_args!("{note}\n")),
                None => return Ok(ExitCode::SUCCESS),
            },
            _ = print.tick() => {
                let now = Instant::now();
                let mut text = String::new();
                while let Some(flow) = merge.pop(now) {
                    text += &printer.text(&flow)?;
                }
                match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                    // The reader has seen enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                    written => written.context("cannot print")?,
                }
            }
            _ = report.tick() => {
                for (node, lost) in &lost {
                    let lost = lost.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        say(format_args!("{node}: {lost} flows came faster than they were shown\n"));
                    }
                }
            }
            _ = look.tick() => {
                // Without an answer the nodes that are known are followed on.
                if let Ok(fleet) = session.find(&session.agents).await {
                    start(&fleet, false, &mut lost);
                }
            }
        }
    }
}

/// Says which agents are of another version.
async fn note_versions(reader: Arc<FleetReader>, fleet: Fleet, deadline: Option<Duration>) {
    let notes = version_notes(&other_versions(&reader.executor, &fleet, deadline).await);
    if !notes.is_empty() {
        let _ = reader.events.send(LiveEvent::Note(notes.trim_end().to_owned()));
    }
}

impl Follower {
    async fn run(self, mut agent: Result<Agent, Failure>) {
        let mut pause = FIRST_PAUSE;
        let mut away: Option<Instant> = None;
        let mut said: Option<Failure> = None;
        loop {
            let failure = match &agent {
                Ok(agent) => {
                    let (failure, was_up) = self.read(agent, away).await;
                    if was_up {
                        (away, said, pause) = (Some(Instant::now()), None, FIRST_PAUSE);
                    }
                    failure
                }
                Err(failure) => failure.clone(),
            };
            away.get_or_insert_with(Instant::now);
            if said.as_ref() != Some(&failure) {
                self.note(format!("{}: {failure}; trying again", self.node));
                said = Some(failure);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let before = agent.ok().map(|agent| agent.pod);
            agent = fleet::find_on(&self.reader.client, &self.reader.namespace, &self.node).await;
            if let (Some(before), Ok(now)) = (before, &agent)
                && before != now.pod
            {
                self.note(format!("{}: pod {before} was replaced by {}", self.node, now.pod));
            }
        }
    }

    /// Out: why it ended, and whether it had begun. `away`: since when the node has not been seen.
    async fn read(&self, agent: &Agent, away: Option<Instant>) -> (Failure, bool) {
        let is_up = AtomicBool::new(false);
        let up = || {
            if let (false, Some(away)) = (is_up.swap(true, Ordering::Relaxed), away) {
                self.note(format!("{}: back, {} s not seen", self.node, away.elapsed().as_secs()));
            }
        };
        let read = self.reader.executor.lines(agent, &self.reader.command, |line| {
            match line {
                Line::Printed(line) => {
                    up();
                    self.take(line);
                }
                Line::TooLong => self.lose(),
                Line::Said(text) => {
                    // The reason of its end is said at its end.
                    if !text.starts_with("error: ") {
                        self.note(format!("{}: {text}", self.node));
                    }
                }
            }
        });
        tokio::pin!(read);
        // An agent that does not answer its socket ends the command at once.
        let ended = tokio::select! {
            ended = &mut read => ended,
            () = sleep(SETTLED) => {
                up();
                read.await
            }
        };
        let failure = ended.err().unwrap_or_else(|| Failure::Connection("the stream ended".into()));
        (failure, is_up.load(Ordering::Relaxed))
    }

    fn take(&self, line: &[u8]) {
        let places = [&self.places, &self.reader.places].map(|places| places.clone().try_acquire_owned());
        let [Ok(own), Ok(common)] = places else { return self.lose() };
        let Some(flow) = record(&self.node, line) else { return self.lose() };
        let waiting = Waiting { flow, arrived: Instant::now(), _places: [own, common] };
        // Only who prints ends before the tasks.
        let _ = self.reader.events.send(LiveEvent::Flow(Box::new(waiting)));
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, note: String) {
        let _ = self.reader.events.send(LiveEvent::Note(note));
    }
}
