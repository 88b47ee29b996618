//! Where things are: the workspace, cargo's target directory, the agent's binary.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The root of the workspace that this xtask was built from.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Cargo's target directory: the one that this program was built into.
pub fn target() -> Result<PathBuf> {
    let program = env::current_exe().context("finding this program")?;
    // Cargo tags the directory (https://bford.info/cachedir/), wherever it was told to build.
    let target = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    Ok(target
        .with_context(|| format!("{} is in no target directory of cargo", program.display()))?
        .to_owned())
}

/// The podgate that this program runs: of a test the one that was built with it, else the release build.
///
/// # Errors
///
/// When it was not built.
pub fn podgate() -> Result<PathBuf> {
    let own = env::current_exe().context("finding this program")?;
    let program = match podgate_of_test(&own) {
        Some(program) => program,
        None => target()?.join("release/podgate"),
    };
    ensure!(program.is_file(), "{} is missing: run `cargo build --release`", program.display());
    Ok(program)
}

/// Cargo puts a test into `PROFILE/deps`, and podgate into `PROFILE`.
pub(crate) fn podgate_of_test(test: &Path) -> Option<PathBuf> {
    let deps = test.parent().filter(|directory| directory.ends_with("deps"))?;
    Some(deps.with_file_name("podgate"))
}
