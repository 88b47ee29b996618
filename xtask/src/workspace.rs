//! Where things are: the workspace, cargo and its target directory, the agent's binary.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The root of the workspace that this xtask was built from.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs this program, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
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

/// The release build of podgate.
pub fn podgate() -> Result<PathBuf> {
    let program = target()?.join("release/podgate");
    ensure!(program.is_file(), "{} is missing: run `cargo build --release`", program.display());
    Ok(program)
}
