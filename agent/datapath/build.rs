//! Builds the eBPF programs into the binary, with the toolchain that `cargo xtask setup` found.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use aya_build::{Package, Toolchain};

/// Names the rustup toolchain for the eBPF target, before what set-up has written.
const TOOLCHAIN_VARIABLE: &str = "EBPF_TOOLCHAIN";

/// The crate of the programs, and the name of its object.
const PACKAGE: &str = "podgate-ebpf";

/// Makes BPF programs of the compiler's bitcode.
const LINKER: &str = "bpf-linker";

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").context("cargo names the package's directory")?)
        .join("../..")
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
    ensure!(
        Command::new(LINKER).arg("--version").output().is_ok_and(|output| output.status.success()),
        "{LINKER}, which links the eBPF programs, is not installed: run `cargo xtask setup` once"
    );
    compare_with_pin(&root, toolchain.trim())?;
    // The target bpfel needs unstable features of these crates alone. Prebuilt `core` (Debian) then does
    // without build-std; a nightly builds its own. The programs' stack fits only when everything is inlined
    // across crates, whatever the workspace's profile says.
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
    let build = |features| {
        let package = Package { name: PACKAGE, root_dir, features, ..Default::default() };
        aya_build::build_ebpf([package], Toolchain::Custom(toolchain.trim()))
    };
    // The same source twice: what `podgate trace` loads stands beside what is loaded else.
    let built = PathBuf::from(env::var("OUT_DIR").context("cargo names the directory of results")?);
    build(&["trace"])?;
    fs::rename(built.join(PACKAGE), built.join(format!("{PACKAGE}-trace"))).context("the tracing object")?;
    build(&[])
}

/// Warns when the programs are built by another release than the one that they are tested with.
fn compare_with_pin(root: &Path, toolchain: &str) -> Result<()> {
    let file = root.join("ebpf/toolchain.toml");
    println!("cargo:rerun-if-changed={}", file.display());
    let pins = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let pinned = pins.lines().find_map(|line| line.strip_prefix("rustc = \"")?.strip_suffix('"'));
    let pinned = pinned.with_context(|| format!("{} names no rustc", file.display()))?;
    let output = Command::new("rustup").args(["run", toolchain, "rustc", "--version"]).output();
    // Without rustup the build fails a moment later, with its own words.
    let Ok(output) = output else { return Ok(()) };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !version.starts_with(&format!("rustc {pinned}.")) {
        println!("cargo:warning=eBPF programs: {version} ({toolchain}); {pinned} is tested");
    }
    Ok(())
}
