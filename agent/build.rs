//! Builds the eBPF programs into the binary, with the toolchain that `cargo xtask setup` found.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

/// Names the rustup toolchain for the eBPF target, before what set-up has written.
const TOOLCHAIN_VARIABLE: &str = "EBPF_TOOLCHAIN";

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").context("cargo names the package's directory")?)
        .join("..")
        .canonicalize()
        .context("the workspace's directory")?;
    // Written by `cargo xtask setup`: one line, the name of a rustup toolchain.
    let chosen = root.join("target/ebpf-toolchain");
    println!("cargo:rerun-if-env-changed={TOOLCHAIN_VARIABLE}");
    println!("cargo:rerun-if-changed={}", chosen.display());
    println!("cargo:rerun-if-changed={}", root.join("common/src").display());

    let toolchain = match env::var(TOOLCHAIN_VARIABLE) {
        Ok(name) => name,
        Err(_) => fs::read_to_string(&chosen)
            .context("no toolchain for the eBPF programs is known yet: run `cargo xtask setup` once")?,
    };
    // The target bpfel needs unstable features of these crates alone. Prebuilt `core` (Debian) then does without
    // build-std; a nightly builds its own.
    // The programs' stack fits only when everything is inlined across crates, whatever the workspace's profile says.
    let settings = [
        ("RUSTC_BOOTSTRAP", "aya_ebpf,podgate_ebpf"),
        ("CARGO_PROFILE_RELEASE_LTO", "fat"),
        // Which excludes this, though the rest may be built so.
        ("CARGO_INCREMENTAL", "0"),
        // That target cannot unwind.
        ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ];
    for (name, value) in settings {
        // SAFETY: a build script has one thread at this point.
        unsafe { env::set_var(name, value) };
    }
    let ebpf = root.join("ebpf");
    let root_dir = ebpf.to_str().context("the path of the eBPF crate is not UTF-8")?;
    aya_build::build_ebpf(
        [Package { name: "podgate-ebpf", root_dir, ..Default::default() }],
        Toolchain::Custom(toolchain.trim()),
    )
}
