//! `cargo xtask demo`: plays the walkthrough and compares what packets say with what the policies mean.
//!
//! In: the walkthrough, a release build of podgate. Out: a report on the terminal; an error when a packet
//! says otherwise.

use std::{
    net::IpAddr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    lab::{Agent, Lab, PATIENT, Seen, Traffic, join, until},
    root,
    sandbox::{self, Sandbox},
    screen::{Cell, Tone, mark, table},
    setup, shell,
    walkthrough::{ASKERS, DIRECTORY, POLICY, STEPS, Step, Walkthrough},
};

const HTTP: Traffic = Traffic::Http(80);

pub(crate) fn run() -> Result<ExitCode> {
    root::require("the demo (network namespaces, BPF)")?;
    setup::run()?;
    cargo::build_podgate()?;
    let code = sandbox::enter(|sandbox| shell::report(play(sandbox)))?;
    Ok(code.into())
}

fn play(sandbox: Sandbox) -> Result<()> {
    let started = Instant::now();
    let mut lab = Lab::new(sandbox, "demo")?;
    let cluster = Walkthrough::new(&mut lab)?;
    let played = play_in(&lab, &cluster).inspect_err(|_| eprint!("{}", lab.logs()));
    println!("{}", Cell::new(format!("{:.1} s in all", started.elapsed().as_secs_f64()), Tone::Quiet));
    played
}

fn play_in(lab: &Lab, cluster: &Walkthrough) -> Result<()> {
    let starting = Instant::now();
    let agents = cluster.nodes.iter().map(|node| Agent::start(node, &[])).collect::<Result<Vec<_>>>()?;
    println!(
        "{} two nodes, a backend that serves HTTP on {} and port 80; agents ready in {}",
        Cell::new("The lab:", Tone::Title),
        cluster.backend.addresses,
        milliseconds(starting.elapsed())
    );

    let mut wrong = 0;
    let mut before = STEPS[0].expected();
    for step in &STEPS {
        println!("\n{}", Cell::new(format!("({}) {}", step.letter, step.title), Tone::Title));
        if let Some(yaml) = step.yaml()? {
            println!(
                "    {}",
                Cell::new(format!("{DIRECTORY}/{}", step.policy.unwrap_or_default()), Tone::Quiet)
            );
            yaml.lines().filter(|line| !line.starts_with('#')).for_each(|line| println!("    {line}"));
            println!("\n  {}", apply(lab, cluster, step, before, &yaml)?);
        }
        wrong += ask_all(cluster, step)?;
        before = step.expected();
    }

    explain(cluster)?;
    for agent in agents {
        agent.terminate()?;
    }
    let asked = STEPS.len() * ASKERS * 2;
    ensure!(wrong == 0, "{wrong} of {asked} answers are not what the policies mean");
    println!("\n{} all {asked} answers are what the policies mean", mark(true));
    Ok(())
}

/// Writes the step's policy and says how long the first asker whose verdict changes has to wait for the
/// change.
fn apply(
    lab: &Lab,
    cluster: &Walkthrough,
    step: &Step,
    before: [Seen; ASKERS],
    yaml: &str,
) -> Result<String> {
    let changed = before.iter().zip(step.expected()).position(|(before, after)| *before != after);
    let index = changed.with_context(|| format!("step {} changes nothing", step.letter))?;
    let (witness, wanted) = (&cluster.askers[index], step.expected()[index]);
    let address = cluster.backend.addresses.v4.into();

    // A connection that fails was evaluated after it was asked for, one that succeeds before its answer. So
    // patience costs no precision where a failure is awaited; where success is, the next attempt must not
    // wait for the last one.
    let patience = Duration::from_millis(if wanted == Seen::Blocked { 100 } else { 2 });
    let written = Instant::now();
    lab.manifests().write(POLICY, yaml)?;
    let enforced = until(&format!("step {} is enforced", step.letter), PATIENT, || {
        let asked = Instant::now();
        let seen = witness.place.probe(address, Traffic::Tcp(80), patience)?;
        let evaluated = if seen == Seen::Blocked { asked } else { Instant::now() };
        Ok((seen == wanted).then(|| evaluated - written))
    })?;
    Ok(format!(
        "enforced {} after the file was written (when fresh connections from {} changed to {wanted})",
        milliseconds(enforced),
        witness.place.name()
    ))
}

/// Everybody asks the backend over both families at once. Prints the table, counts the unexpected.
fn ask_all(cluster: &Walkthrough, step: &Step) -> Result<usize> {
    let to = cluster.backend.addresses.both();
    let answers = thread::scope(|scope| {
        let asking: Vec<_> = cluster
            .askers
            .iter()
            .zip(step.expected())
            .map(|(asker, expected)| {
                let ask = move |address: IpAddr| asker.place.probe_expecting(address, HTTP, expected);
                to.map(|address| scope.spawn(move || ask(address)))
            })
            .collect();
        asking.into_iter().map(|[v4, v6]| Ok([join(v4)?, join(v6)?])).collect::<Result<Vec<_>>>()
    })?;

    let title = |text: &str| Cell::new(text, Tone::Quiet);
    let mut rows = vec![["FROM", "NODE", "WHO", "EXPECTED", "IPv4", "IPv6"].map(title).to_vec()];
    let mut wrong = 0;
    for ((asker, expected), seen) in cluster.askers.iter().zip(step.expected()).zip(answers) {
        let tone = |seen| if seen == expected { Tone::Good } else { Tone::Bad };
        let good = seen.iter().all(|seen| *seen == expected);
        wrong += seen.iter().filter(|seen| **seen != expected).count();
        let mut row: Vec<Cell> = vec![
            asker.place.name().into(),
            asker.node.as_deref().unwrap_or("-").into(),
            asker.role.into(),
            expected.to_string().into(),
        ];
        row.extend(seen.map(|seen| Cell::new(seen.to_string(), tone(seen))));
        row.push(mark(good));
        rows.push(row);
    }
    print!("{}", table(&rows));
    Ok(wrong)
}

/// Why production's frontend is denied, in the agent's own words.
fn explain(cluster: &Walkthrough) -> Result<()> {
    let (from, to) = (cluster.askers[2].place.name(), cluster.backend.name());
    let question = ["explain", "--from", from, "--to", to, "--port", "TCP/80"];
    println!("\n{}", Cell::new(format!("podgate {}", question.join(" ")), Tone::Title));
    let answer = cluster.nodes[0].podgate(&question)?;
    ensure!(answer.status.success(), "podgate explain: {}: {}", answer.status, answer.stderr.trim());
    answer.stdout.lines().for_each(|line| println!("    {line}"));
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
