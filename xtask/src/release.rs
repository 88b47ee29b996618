//! `cargo xtask release`: everything that a release publishes, in one directory.
//!
//! In: a clean tree, whose version the changelog has a section of. Out, in `target/release-VERSION`: the
//! image for both processors, static programs, the kubectl plugin, the Helm chart, the manifest in one file,
//! the bill of materials, release notes, and the checksums of all of them. The same commit gives the same
//! bytes, on every machine of one kind with the same compilers. Left out: publishing them, signatures, tags.

mod bill;
mod chart;
mod notes;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    flags::ReleaseFlags,
    image::{self, archive::digest},
    manifest,
    platform::Platform,
    plugin::{Plugin, PluginArchive},
    setup, workspace,
};

/// Checks licences and origins of dependencies by `.cargo/deny.toml`.
const DENY: (&str, &str) = ("cargo-deny", "0.20.2");

pub(crate) fn run(flags: &ReleaseFlags) -> Result<ExitCode> {
    let number = env!("CARGO_PKG_VERSION");
    let changes = changes()?;
    let version = version(number, &changes, flags.dirty)?;
    let changelog = read(".github/CHANGELOG.md")?;
    let notes = notes::of(&changelog, number, flags.dirty)?;
    ensure!(
        manifest::single_file()? == read("deploy/podgate.yaml")?,
        "deploy/podgate.yaml is not deploy/base: run `cargo xtask manifest`"
    );
    setup::run()?;
    check_dependencies()?;

    let directory = workspace::target()?.join(format!("release-{version}"));
    if directory.is_dir() {
        fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
    }
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let release = Release { directory, version };
    release.images_and_programs()?;
    release.put(&format!("podgate-chart-{}.tgz", release.version), &chart::archive()?)?;
    release.put("podgate-install.yaml", read("deploy/podgate.yaml")?.as_bytes())?;
    release.put(&format!("podgate-{}.cdx.json", release.version), &bill::of_agent()?)?;
    release.put("RELEASE_NOTES.md", notes.as_bytes())?;
    let sums = release.sums()?;
    print!("{sums}");
    println!("{}", release.directory.display());
    Ok(ExitCode::SUCCESS)
}

/// Files that are not as they were committed.
fn changes() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["status", "--porcelain"]).current_dir(workspace::root());
    let output = git.output().context("starting git")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git status: {}", complaint.trim());
    let text = String::from_utf8(output.stdout).context("what git prints")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What the files are named by.
fn version(number: &str, changes: &[String], dirty: bool) -> Result<String> {
    match changes {
        [] if !dirty => Ok(number.to_owned()),
        [first, ..] if !dirty => anyhow::bail!(
            "the tree has {} changes that are not committed ({}): commit them, or give --dirty",
            changes.len(),
            first.trim()
        ),
        _ => Ok(format!("{number}-dirty")),
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(workspace::root().join(path)).with_context(|| path.to_owned())
}

/// If cargo-deny cannot be installed, say so.
fn check_dependencies() -> Result<()> {
    if let Err(error) = setup::cargo_tool(DENY) {
        println!("release: licences and origins of dependencies are not checked: {error:#}");
        return Ok(());
    }
    let config = workspace::root().join(".cargo/deny.toml");
    let mut deny = cargo::command();
    deny.args(["deny", "--config"]).arg(config).args(["check", "licenses", "bans", "sources"]);
    let output = deny.output().context("starting cargo deny")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cargo deny check licenses bans sources: {}\n{complaint}",
        output.status
    );
    println!("release: licences, bans and origins of dependencies are as .cargo/deny.toml has them");
    Ok(())
}

#[derive(Debug)]
struct Release {
    directory: PathBuf,
    version: String,
}

impl Release {
    fn images_and_programs(&self) -> Result<()> {
        let image = image::build_for(&self.version, &Platform::ALL)?;
        let name = format!("podgate-image-{}.tar", self.version);
        fs::copy(&image.path, self.directory.join(&name)).with_context(|| name.clone())?;
        println!("release: {name} is {}", image.digest);
        let mut archives = Vec::new();
        for platform in Platform::ALL {
            let path = image::program(platform)?;
            let program = fs::read(&path).with_context(|| path.display().to_string())?;
            self.put(&format!("podgate-linux-{platform}"), &program)?;
            archives.push(PluginArchive::of(platform, &program)?);
        }
        Plugin::of(archives)?.write(&self.directory)?;
        // The manifest of the cluster's objects is YAML, too.
        let [manifest, named] = ["podgate.yaml", "podgate-krew.yaml"].map(|name| self.directory.join(name));
        fs::rename(manifest, named).context("naming krew's manifest")
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.directory.join(name), bytes).with_context(|| name.to_owned())
    }

    /// Writes the checksums of all files.
    fn sums(&self) -> Result<String> {
        let sums = sums(&self.directory)?;
        self.put("SHA256SUMS", sums.as_bytes())?;
        Ok(sums)
    }
}

/// As `sha256sum --check` reads them, by name.
fn sums(directory: &Path) -> Result<String> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let lines = entries.map(|entry| {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = fs::read(entry.path()).with_context(|| name.clone())?;
        Ok((name, digest(&bytes).trim_start_matches("sha256:").to_owned()))
    });
    let lines: BTreeMap<String, String> = lines.collect::<Result<_>>()?;
    Ok(lines.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_changes_is_refused_or_named_in_the_version() {
        let changed = [" M agent/src/lib.rs".to_owned(), "?? notes".to_owned()];
        assert_eq!(version("1.2.3", &[], false).unwrap(), "1.2.3");
        let refusal = version("1.2.3", &changed, false).unwrap_err().to_string();
        assert!(refusal.contains("2 changes") && refusal.contains("M agent/src/lib.rs"), "{refusal}");
        // Also of a clean tree: what was asked for is what is named.
        for changes in [&changed[..], &[]] {
            assert_eq!(version("1.2.3", changes, true).unwrap(), "1.2.3-dirty");
        }
    }

    #[test]
    fn checksums_are_those_of_the_files_and_sorted_by_name() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("b", "two"), ("a", "one")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let expected: String = [("one", "a"), ("two", "b")]
            .map(|(text, name)| format!("{}  {name}\n", &digest(text.as_bytes())["sha256:".len()..]))
            .concat();
        assert_eq!(sums(directory.path()).unwrap(), expected);
    }
}
