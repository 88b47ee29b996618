//! `cargo xtask image`: the container image, as an OCI archive, without a container engine.
//!
//! In: the workspace. Out: `target/image/podgate-TAG.tar`, which `ctr images import`, `podman load` and
//! `skopeo copy` take, and the digest of its manifest or index. One manifest for each processor, each with
//! one layer with one file: the agent, statically linked. The same tree gives the same digest on every
//! machine of one kind with the same compilers. Left out: pushing it anywhere.

pub(crate) mod archive;
mod check;

use std::{
    env,
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

use crate::{cargo, flags::ImageFlags, platform::Platform, setup, workspace};
use archive::Contents;

pub use archive::Image;

/// The image for one processor, in bytes.
const LARGEST: u64 = 25 << 20;

pub(crate) fn run(flags: &ImageFlags) -> Result<ExitCode> {
    setup::run()?;
    let image = build_for(&flags.tag, &flags.platforms.chosen())?;
    println!("{}\n{} bytes, {}", image.path.display(), image.bytes, image.digest);
    Ok(ExitCode::SUCCESS)
}

/// Builds `podgate:TAG` for this machine's processor alone.
///
/// # Errors
///
/// When the agent does not build, is not static, or the image is larger than it may be.
pub fn build(tag: &str) -> Result<Image> {
    build_for(tag, &[Platform::HOST])
}

/// The same for several processors.
pub(crate) fn build_for(tag: &str, platforms: &[Platform]) -> Result<Image> {
    let directory = workspace::target()?.join("image");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let programs = platforms.iter().map(|platform| {
        let program = static_podgate(&directory, *platform)?;
        Ok((*platform, fs::read(&program).with_context(|| program.display().to_string())?))
    });
    let contents = Contents {
        // Published nowhere: whoever pushes it gives it a name of theirs.
        name: format!("localhost/podgate:{tag}"),
        programs: programs.collect::<Result<_>>()?,
        labels: [
            ("org.opencontainers.image.title", "podgate"),
            (
                "org.opencontainers.image.description",
                "NetworkPolicy enforcement for Kubernetes nodes, in eBPF",
            ),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
            ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
        ],
    };
    let image = contents.write(&directory.join(format!("podgate-{tag}.tar")))?;
    let largest = LARGEST * platforms.len() as u64;
    ensure!(image.bytes <= largest, "the image has {} bytes, more than {largest}", image.bytes);
    check::check(&image.path, platforms)?;
    Ok(image)
}

/// The agent without any need for a library or a loader, in a part of the target directory of its own: the
/// flags differ from those of all other builds.
pub(crate) fn static_podgate(directory: &Path, platform: Platform) -> Result<PathBuf> {
    platform.set_up()?;
    let triple = platform.triple()?;
    let compiler = nameless_compiler(directory)?;
    let settings = platform.settings()?;
    let mut settings: Vec<(&str, &OsStr)> =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
    settings.push(("CARGO_PROFILE_RELEASE_STRIP", "symbols".as_ref()));
    settings.push(("RUSTC_WRAPPER", compiler.as_ref()));
    let arguments = ["build", "--release", "--package", "podgate", "--target", &triple];
    cargo::build_with(&format!("podgate, static, for {platform}"), &arguments, &settings)?;
    let program = program(platform)?;
    platform.ensure_runs(&program)?;
    Ok(program)
}

/// The agent in the image, which is the plugin of kubectl as well. It must be built.
pub(crate) fn program(platform: Platform) -> Result<PathBuf> {
    Ok(workspace::target()?.join(platform.triple()?).join("release/podgate"))
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
