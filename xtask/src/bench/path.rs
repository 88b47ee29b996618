//! `cargo xtask bench path`: packets between two pods of a node, through podgate and through what others do.
//!
//! In: numbers of policies. Out: figures next to their goals. All variants are alive at once, each in
//! namespaces of its own, and are visited in turn; what counts is the difference to the path without a filter
//! in the same round. Before that each filter is checked: what it must let through, what it must stop. When
//! two equal variants differ, the figures are refused and the exit code is 3. Left out: what two busy CPUs do
//! to each other.

mod cluster;
mod compare;
mod datagram;
mod empty;
mod measure;
mod plots;
mod rounds;
mod scene;
mod traffic;
mod variant;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{
    command,
    figure::{Figure, readable},
    machine::{self, Machine},
    progress::Progress,
    report::{Findings, Report},
};
use crate::{
    cargo,
    flags::PathFlags,
    peers, root,
    sandbox::{self, Sandbox},
    screen::{Cell, Tone, mark, table},
    setup,
};
use compare::compare;
use measure::Measure;
use rounds::Samples;
use scene::{PATIENCE, Scene};
use variant::{Extent, Variant};

/// The exit code when a control was off.
const REFUSED: u8 = 3;
const POLICIES: [u32; 4] = [10, 100, 1_000, 10_000];
const QUICK_POLICIES: [u32; 2] = [10, 1_000];
/// A quick run takes this part of a full one's time.
const QUICK_PART: u32 = 7;
/// Loading that took this long is reported.
const NOTED: Duration = Duration::from_secs(1);

pub(crate) fn run(flags: &PathFlags) -> Result<ExitCode> {
    if let Some(file) = &flags.report.from {
        // Refused or not was the answer of the run that measured.
        report(flags, Findings::read(file)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    root::require("measuring between network namespaces")?;
    setup::run()?;
    setup::install(&peers::PROGRAMS)?;
    cargo::build_podgate()?;
    // Some of it cannot be seen from inside the sandbox.
    let machine = Machine::probe()?;
    let run = Run::new(flags, machine);
    let code = sandbox::enter(|sandbox| {
        run.measure(sandbox).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            1
        })
    })?;
    Ok(code.into())
}

struct Run<'a> {
    flags: &'a PathFlags,
    machine: Machine,
    extent: Extent,
    policies: Vec<u32>,
    reference: u32,
}

impl<'a> Run<'a> {
    fn new(flags: &'a PathFlags, machine: Machine) -> Self {
        let (extent, by_default) = match flags.quick {
            true => (Extent::Quick, &QUICK_POLICIES[..]),
            false => (Extent::Full, &POLICIES[..]),
        };
        let mut policies =
            if flags.policies.is_empty() { by_default.to_vec() } else { flags.policies.clone() };
        policies.sort_unstable();
        policies.dedup();
        let reference = Variant::reference(&policies);
        Self { flags, machine, extent, policies, reference }
    }

    /// Out: the exit code.
    fn measure(self, sandbox: Sandbox) -> Result<u8> {
        let started = Instant::now();
        println!("{}", Cell::new(self.machine.kernel.clone(), Tone::Quiet));
        let (mut scenes, too_slow) = self.scenes(sandbox)?;
        let line = format!("{} variants alive in {:.0} s", scenes.len(), started.elapsed().as_secs_f64());
        println!("{}", Cell::new(line, Tone::Quiet));

        let cpu = machine::claim()?;
        let (mut figures, mut refused) = (Vec::new(), Vec::new());
        let mut progress = Progress::new();
        for measure in Measure::ALL {
            let time = measure.duration() / if self.flags.quick { QUICK_PART } else { 1 };
            let samples = Samples::take(measure, &mut scenes, self.reference, time, &mut progress)?;
            match compare(&samples, self.reference) {
                Ok(found) => figures.extend(found),
                Err(refusal) => refused.push(refusal),
            }
        }
        drop(progress);

        let findings = Findings {
            command: command(),
            machine: self.machine.clone(),
            variants: scenes.iter().map(|scene| scene.variant.describe()).collect(),
            refused,
            notes: self.notes(&scenes, &too_slow, cpu),
            limits: LIMITS.map(str::to_owned).to_vec(),
            figures,
        };
        drop(scenes);
        let code = report(self.flags, findings)?;
        println!("{}", Cell::new(format!("{:.0} s in all", started.elapsed().as_secs_f64()), Tone::Quiet));
        Ok(code)
    }

    /// All variants, alive and checked, and those that took too long to load.
    fn scenes(&self, sandbox: Sandbox) -> Result<(Vec<Scene>, Vec<Variant>)> {
        // Each of a thousand connections has two ends here, in several variants.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit of open files")?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")?;
        let mut progress = Progress::new();
        let variants = Variant::all(&self.policies, self.extent);
        let (mut scenes, mut too_slow) = (Vec::new(), Vec::new());
        for (number, variant) in variants.iter().enumerate() {
            let detail = format!("{} of {}: {}", number + 1, variants.len(), variant.describe());
            progress.show("loading each filter, checking what it lets through and stops", &detail);
            // What was too slow once will be so with the same policies in another order.
            let is_alike =
                |slow: &Variant| (slow.system, slow.policies) == (variant.system, variant.policies);
            let scene = match too_slow.iter().any(is_alike) {
                true => None,
                false => Scene::open(sandbox, number, *variant)?,
            };
            match scene {
                Some(scene) => scenes.push(scene),
                None => too_slow.push(*variant),
            }
        }
        Ok((scenes, too_slow))
    }

    fn notes(&self, scenes: &[Scene], too_slow: &[Variant], cpu: usize) -> Vec<String> {
        let mut notes = METHOD.map(str::to_owned).to_vec();
        notes.push(format!(
            "The thread is held to CPU {cpu}, with the highest priority of its class; a sample during which another one ran \
             is taken again. What does not change with the number of policies is measured at {} of them, the matching ones last.",
            self.reference
        ));
        if self.extent == Extent::Quick {
            notes.push(
                "A quick run: fewer rounds, no clsact, no Calico, and the matching policies last only."
                    .to_owned(),
            );
        }
        let slow = too_slow.iter().map(|variant| {
            let limit = PATIENCE.as_secs();
            format!("{} is left out: its policies were not loaded within {limit} s.", variant.describe())
        });
        notes.extend(slow);
        let loadings = scenes.iter().filter(|scene| scene.loading >= NOTED).map(|scene| {
            format!("{} was loaded in {:.1} s.", scene.variant.describe(), scene.loading.as_secs_f64())
        });
        notes.extend(loadings);
        notes
    }
}

const TITLE: &str = "podgate on the path between two pods";
const LEAD: &str = "One thread sends and receives, through no filter, podgate, connection tracking alone, and the rules \
                    that Azure NPM and Calico write for the same policies.";

const METHOD: [&str; 5] = [
    "All variants are alive at once, each in network namespaces of its own (client, node, server, veths between them), \
     and are visited in turn for a few milliseconds each. A figure is the median over rounds of the difference within \
     a round; its quartiles stand next to it.",
    "The control is a second variant without a filter. Where it differs from the first by more than 1.5 % (connects: \
     2 %) the measure has no figures.",
    "Policy i isolates pod i in both directions: pod i - 1 may come in and pod i + 1 be reached, on TCP 8000-8001 and UDP \
     8000. Client and server are two of these pods; their policies come last or first among all. Every filter is checked \
     before it is measured.",
    "An exchange on an established connection is two packets; added ns are for one packet through both directions' \
     rules. A denied packet is compared with one that the node drops at its door because it is for another link address.",
    "The rules of Azure NPM and Calico are written by this program in the shape of their sources; loading them is not \
     what is measured.",
];

const LIMITS: [&str; 6] = [
    "Other machines: prices of a virtual machine, of this CPU with these mitigations. Ratios hold better than numbers.",
    "What a user feels: no wake-up of a second process, no second CPU and no network card is on the path.",
    "IPv6, SCTP, services, overlays and traffic between nodes.",
    "The agents of Azure NPM and Calico, and how fast they apply a change.",
    "kube-proxy's rules, which on a real node stand beside each of these filters and make conntrack's price common to all.",
    "A conntrack table that is full: the flood has as many flows as there are source ports, and that limit is the machine's.",
];

/// Out: the exit code.
fn report(flags: &PathFlags, findings: Findings) -> Result<u8> {
    show(&findings);
    let code = if findings.refused.is_empty() { 0 } else { REFUSED };
    let plots = plots::plots(&findings.figures);
    Report { findings, title: TITLE, lead: LEAD, plots }.write(&flags.report)?;
    Ok(code)
}

/// On the terminal: what was measured of each variant, then all goals, then refusals.
fn show(findings: &Findings) {
    let Findings { figures, refused, .. } = findings;
    let measures: Vec<Measure> = Measure::ALL
        .into_iter()
        .filter(|measure| figures.iter().any(|figure| figure.name == measure.name()))
        .collect();
    let title = |text: &str| Cell::new(text, Tone::Title);
    for measure in measures {
        println!("\n{}", title(&format!("{} ({})", measure.name(), measure.unit())));
        let of = |name: String| figures.iter().filter(move |figure| figure.name == name);
        let rows = of(measure.name().to_owned()).map(|figure| {
            let added = of(format!("{}, added", measure.name())).find(|other| is_same_variant(figure, other));
            let added =
                added.map(|added| format!("{} {}", signed(added.median), added.unit)).unwrap_or_default();
            let mut row = variant_cells(figure);
            row.extend([
                Cell::from(readable(figure.median)),
                Cell::new(figure.between(), Tone::Quiet),
                added.into(),
            ]);
            row
        });
        print!("{}", table(&rows.collect::<Vec<_>>()));
    }
    println!("\n{}", title("Goals"));
    let header =
        ["FIGURE", "VARIANT", "POLICIES", "MATCHING", "MEASURED", "QUARTILES", "CONTROL", "GOAL", ""];
    let mut rows = vec![header.map(Cell::from).to_vec()];
    for figure in figures.iter().filter(|figure| figure.goal.is_some()) {
        let mut row = vec![Cell::from(figure.name.as_str())];
        row.extend(variant_cells(figure));
        row.push(format!("{} {}", readable(figure.median), figure.unit).into());
        row.push(Cell::new(figure.between(), Tone::Quiet));
        row.push(figure.control.map(|control| format!("{control:+.2} %")).unwrap_or_default().into());
        row.push(figure.goal.map(|goal| goal.to_string()).unwrap_or_default().into());
        row.push(mark(figure.met == Some(true)));
        rows.push(row);
    }
    print!("{}", table(&rows));
    for note in findings.notes.iter().filter(|note| !METHOD.contains(&note.as_str())) {
        println!("{}", Cell::new(note, Tone::Quiet));
    }
    for refusal in refused {
        println!("{}", Cell::new(format!("refused: {refusal}"), Tone::Bad));
    }
    if !refused.is_empty() {
        println!(
            "The machine is not quiet enough for these measures. Run it again with nothing else running."
        );
    }
}

fn variant_cells(figure: &Figure) -> Vec<Cell> {
    let policies = figure.policies.map(|count| count.to_string()).unwrap_or_default();
    let place = figure.place.map(|place| place.to_string()).unwrap_or_default();
    vec![figure.variant.as_str().into(), policies.into(), place.into()]
}

fn is_same_variant(one: &Figure, other: &Figure) -> bool {
    (&one.variant, one.policies, one.place) == (&other.variant, other.policies, other.place)
}

fn signed(value: f64) -> String {
    let text = readable(value);
    if value < 0.0 { text } else { format!("+{text}") }
}
