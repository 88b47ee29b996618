//! `cargo xtask image`: the container image, as an OCI archive, without a container engine.
//!
//! In: the workspace. Out: `target/image/podgate.tar`, which `ctr images import`, `podman load` and `skopeo
//! copy` take, and the digest of its manifest. One layer with one file: the agent, statically linked. The
//! same tree gives the same digest on every machine with the same compilers. Left out: pushing it anywhere.

pub(crate) mod archive;

use std::{
    env,
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{cargo, flags::ImageFlags, setup, workspace};
use archive::Contents;

pub use archive::Image;

/// The whole image, in bytes.
const LARGEST: u64 = 25 << 20;

pub(crate) fn run(flags: &ImageFlags) -> Result<ExitCode> {
    setup::run()?;
    let image = build(&flags.tag)?;
    println!("{}\n{} bytes, {}", image.path.display(), image.bytes, image.digest);
    Ok(ExitCode::SUCCESS)
}

/// Builds `podgate:TAG`.
///
/// # Errors
///
/// When the agent does not build, is not static, or the image is larger than it may be.
pub fn build(tag: &str) -> Result<Image> {
    let directory = workspace::target()?.join("image");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let program = static_podgate(&directory)?;
    let version = env!("CARGO_PKG_VERSION");
    let contents = Contents {
        // Published nowhere: whoever pushes it gives it a name of theirs.
        name: format!("localhost/podgate:{tag}"),
        program: fs::read(&program).with_context(|| program.display().to_string())?,
        labels: [
            ("org.opencontainers.image.title", "podgate"),
            (
                "org.opencontainers.image.description",
                "NetworkPolicy enforcement for Kubernetes nodes, in eBPF",
            ),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
            ("org.opencontainers.image.version", version),
        ],
    };
    let image = contents.write(&directory.join(format!("podgate-{tag}.tar")))?;
    ensure!(image.bytes <= LARGEST, "the image has {} bytes, more than {LARGEST}", image.bytes);
    Ok(image)
}

/// The agent without any need for a library or a loader, in a part of the target directory of its own: the
/// flags differ from those of all other builds.
pub(crate) fn static_podgate(directory: &Path) -> Result<PathBuf> {
    let triple = host()?;
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
    let compiler = nameless_compiler(directory)?;
    let settings: [(&str, &OsStr); 3] = [
        (&flags, "-Ctarget-feature=+crt-static".as_ref()),
        ("CARGO_PROFILE_RELEASE_STRIP", "symbols".as_ref()),
        ("RUSTC_WRAPPER", compiler.as_ref()),
    ];
    let arguments = ["build", "--release", "--package", "podgate", "--target", &triple];
    cargo::build_with("podgate, static", &arguments, &settings)?;
    let program = program()?;
    ensure_static(&program)?;
    Ok(program)
}

/// The agent in the image, which is the plugin of kubectl as well. It must be built.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(workspace::target()?.join(host()?).join("release/podgate"))
}

/// A compiler that leaves paths of this machine out of what it makes, the BPF programs' line numbers too:
/// their build sets flags of its own.
fn nameless_compiler(directory: &Path) -> Result<PathBuf> {
    let home = cargo_home()?;
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let script = format!(
        "#!/bin/sh\nexec \"$@\" --remap-path-prefix={}=/podgate --remap-path-prefix={}=/cargo\n",
        quoted(workspace::root()),
        quoted(&home),
    );
    let file = directory.join("rustc");
    // One that is newer would make cargo build everything again.
    if fs::read_to_string(&file).is_ok_and(|there| there == script) {
        return Ok(file);
    }
    fs::write(&file, script)
        .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o755)))
        .with_context(|| file.display().to_string())?;
    Ok(file)
}

fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("neither CARGO_HOME nor HOME is set")
}

/// What rustc builds for when it is not told otherwise.
fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("starting rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc -vV")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// A program that names a loader does not start in an empty root.
fn ensure_static(program: &Path) -> Result<()> {
    use object::{
        elf,
        read::elf::{ElfFile64, ProgramHeader},
    };
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let file: ElfFile64<'_> = ElfFile64::parse(&*bytes).with_context(|| program.display().to_string())?;
    let endian = file.endian();
    let loader = file.elf_program_headers().iter().any(|header| header.p_type(endian) == elf::PT_INTERP);
    ensure!(!loader, "{} is linked dynamically", program.display());
    Ok(())
}
