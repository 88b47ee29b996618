//! `cargo xtask miri`: the unit tests of `common`, where all shared memory is, under Miri, which finds what
//! is undefined: reads of what was never written, pointers that lead out of what they point to, data races.
//!
//! In: a nightly toolchain of rustup's with the components `miri` and `rust-src`. Out: the outcome of the
//! tests. Left out: tests that take hours there and show nothing of memory, and those under another checker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Under loom, which switches stacks in a way that Miri does not know; thousands of generated packets,
/// replies and tables; threads that go on for some time.
const LEFT_OUT: [&str; 6] = [
    "in_any_order_",
    "packet::tests::noise",
    "names::tests::agreement",
    "flow_table::tests::crowd",
    "flow_table::tests::shares",
    "threads",
];

pub(crate) fn run() -> Result<ExitCode> {
    let home = Command::new("rustup").args(["show", "home"]).output().context("starting rustup")?;
    let home = PathBuf::from(String::from_utf8_lossy(&home.stdout).trim());
    let toolchain = toolchain(&home.join("toolchains"))?;
    println!("miri: {toolchain}, without {}", LEFT_OUT.join(", "));
    let mut miri = Command::new("cargo");
    miri.arg(format!("+{toolchain}")).args(["miri", "test", "--package", "podgate-common", "--lib", "--"]);
    miri.args(LEFT_OUT.iter().flat_map(|name| ["--skip", *name]));
    miri.current_dir(workspace::root());
    // Of the toolchain that runs this program.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        miri.env_remove(variable);
    }
    miri.env("CARGO_TARGET_DIR", workspace::target()?.join("miri"));
    // Seeds of failed cases are read from files.
    miri.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
    let status = miri.status().context("starting cargo miri")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The newest nightly that has both components.
fn toolchain(directory: &Path) -> Result<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.join("bin/cargo-miri").is_file()
                && path.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
        })
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    match names.pop() {
        Some(name) => Ok(name),
        None => bail!(
            "no toolchain of rustup's has the components miri and rust-src: rustup toolchain install nightly \
             --component miri,rust-src. Set-up then builds the BPF programs by it, unless EBPF_TOOLCHAIN names another"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_without_the_components_is_not_taken_and_the_error_says_what_to_install() {
        let directory = tempfile::tempdir().unwrap();
        let add = |name: &str, file: &str| {
            let path = directory.path().join(name).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let (tool, source) = ("bin/cargo-miri", "lib/rustlib/src/rust/library/core/src/lib.rs");
        add("nightly-2026-03-01", tool);
        add("nightly-2026-02-01", source);
        let error = toolchain(directory.path()).unwrap_err().to_string();
        assert!(error.contains("rustup toolchain install nightly --component miri,rust-src"), "{error}");
        add("nightly-2026-01-01", tool);
        add("nightly-2026-01-01", source);
        assert_eq!(toolchain(directory.path()).unwrap(), "nightly-2026-01-01");
    }
}
