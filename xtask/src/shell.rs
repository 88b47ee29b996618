//! `cargo xtask lab`: the walkthrough's cluster with a shell in it, to look around and to try policies.
//!
//! In: a terminal, or a program to run. Out: its exit; the lab is gone with it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{
    flags::LabFlags,
    lab::{Agent, Lab, Place},
    root,
    sandbox::{self, Sandbox},
    screen::{Cell, Tone},
    setup,
    walkthrough::{DIRECTORY, Walkthrough},
    workspace,
};

pub(crate) fn run(flags: &LabFlags) -> Result<ExitCode> {
    root::require("the lab (network namespaces, BPF)")?;
    if !flags.bare {
        setup::run()?;
        build_podgate()?;
    }
    let code = sandbox::enter(|sandbox| report(open(sandbox, flags)))?;
    Ok(code.into())
}

/// Builds the release binary that the lab runs; cargo shows the progress.
pub(crate) fn build_podgate() -> Result<()> {
    let build = workspace::cargo().args(["build", "--release", "--package", "podgate"]).status();
    let build = build.context("starting cargo")?;
    ensure!(build.success(), "building podgate failed");
    Ok(())
}

/// The exit code of a sandbox for what was done in it; an error is printed.
pub(crate) fn report(outcome: Result<()>) -> u8 {
    outcome.map_or_else(
        |error| {
            eprintln!("error: {error:#}");
            1
        },
        |()| 0,
    )
}

fn open(sandbox: Sandbox, flags: &LabFlags) -> Result<()> {
    let mut lab = Lab::new(sandbox, "lab")?;
    let cluster = Walkthrough::new(&mut lab)?;
    let agents = match flags.bare {
        true => Vec::new(),
        false => cluster.nodes.iter().map(|node| Agent::start(node, &[])).collect::<Result<_>>()?,
    };
    let places = cluster.nodes.iter().map(|node| &node.place).chain([&cluster.backend.place]);
    let names = places.chain(cluster.askers.iter().map(|asker| &asker.place)).map(name_on_disk);
    let names = names.collect::<Result<Vec<_>>>()?;
    let path = write_commands()?;

    let program = match flags.program.as_slice() {
        [] => {
            welcome(&lab, &cluster, &names);
            vec!["bash".to_owned(), "--norc".to_owned()]
        }
        program => program.to_vec(),
    };
    let status = Command::new(&program[0])
        .args(&program[1..])
        .current_dir(workspace::root())
        .env("PATH", path)
        .env("PS1", "lab# ")
        .status()
        .with_context(|| format!("starting {}", program[0]))?;
    drop(agents);
    // An interactive shell ends with the status of its last command, which says nothing about the lab.
    ensure!(flags.program.is_empty() || status.success(), "{}: {status}", program[0]);
    Ok(())
}

/// Makes a place known to `ip -n NAME` and `nsenter --net=/run/netns/NAME`.
fn name_on_disk(place: &Place) -> Result<String> {
    let name = place.name().replace('/', ".");
    fs::create_dir_all("/run/netns").context("creating /run/netns")?;
    symlink(place.path(), format!("/run/netns/{name}")).with_context(|| format!("naming {name}"))?;
    Ok(name)
}

/// Writes the command `at`, and hands back a PATH that has it and podgate.
fn write_commands() -> Result<String> {
    let at = "#!/bin/sh\nname=$1\nshift\nexec nsenter --net=\"/run/netns/$name\" -- \"$@\"\n";
    fs::create_dir_all("/run/lab/bin").context("creating /run/lab/bin")?;
    fs::write("/run/lab/bin/at", at).context("writing the command `at`")?;
    fs::set_permissions("/run/lab/bin/at", fs::Permissions::from_mode(0o755))
        .context("making `at` executable")?;
    let release = workspace::target()?.join("release");
    Ok(format!("/run/lab/bin:{}:{}", release.display(), std::env::var("PATH").unwrap_or_default()))
}

fn welcome(lab: &Lab, cluster: &Walkthrough, names: &[String]) {
    let title = |text: &str| Cell::new(text, Tone::Title);
    let node = &cluster.nodes[0];
    println!("{} {}", title("Places:   "), names.join(" "));
    println!("{} at PLACE COMMAND, for instance: at development.client ip route", title("Go there: "));
    println!(
        "{} {} serves HTTP on {}",
        title("Backend:  "),
        cluster.backend.name(),
        cluster.backend.addresses
    );
    println!(
        "{} cp {DIRECTORY}/b-deny-all.yaml {}/",
        title("Policies: "),
        lab.manifests().directory().display()
    );
    println!(
        "{} at n1 podgate status --socket {}/podgate.sock",
        title("Ask:      "),
        node.directory().display()
    );
    println!("{} exit", title("Leave:    "));
}
