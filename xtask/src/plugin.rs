//! `cargo xtask plugin`: the kubectl plugin as krew installs it.
//!
//! In: the workspace. Out, in `target/plugin`: for each processor an archive with the static binary and the
//! licences, and its checksum; and krew's manifest with all of them filled in, for `kubectl krew install
//! --manifest … --archive …`. The same tree gives the same archives on every machine of one kind with the
//! same compilers. Left out: publishing them.

mod krew;

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

use crate::{
    flags::PlatformFlags,
    image::{self, archive},
    platform::Platform,
    setup, workspace,
};
use krew::Manifest;

/// The program in the archive; krew links it as `kubectl-podgate`, by which it knows that it is the plugin.
const PROGRAM: &str = "podgate";

/// Krew asks for the licence beside the program.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// The archive, in bytes.
const LARGEST: usize = 25 << 20;

pub(crate) fn run(flags: &PlatformFlags) -> Result<ExitCode> {
    setup::run()?;
    let directory = workspace::target()?.join("plugin");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let archives = flags.chosen().into_iter().map(|platform| {
        let program = image::static_podgate(&directory, platform)?;
        PluginArchive::of(platform, &fs::read(&program).with_context(|| program.display().to_string())?)
    });
    let built = Plugin::of(archives.collect::<Result<_>>()?)?;
    for path in built.write(&directory)? {
        println!("{}", path.display());
    }
    for archive in &built.archives {
        println!("{}: {} bytes, {}", archive.platform, archive.bytes.len(), archive.checksum);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a release publishes.
pub(crate) struct Plugin {
    archives: Vec<PluginArchive>,
    manifest: String,
}

/// For one processor.
pub(crate) struct PluginArchive {
    platform: Platform,
    bytes: Vec<u8>,
    /// SHA-256, in hexadecimal digits.
    checksum: String,
}

impl PluginArchive {
    /// # Errors
    ///
    /// When the archive is larger than it may be.
    pub(crate) fn of(platform: Platform, program: &[u8]) -> Result<Self> {
        let licences = LICENCES.map(|name| {
            let path = workspace::root().join(name);
            fs::read(&path).with_context(|| path.display().to_string()).map(|text| (name, text))
        });
        let licences = licences.into_iter().collect::<Result<Vec<_>>>()?;
        let mut files = vec![(PROGRAM, 0o755, program)];
        files.extend(licences.iter().map(|(name, text)| (*name, 0o644, &**text)));
        let bytes = archive::compress(&archive::archive(&files)?)?;
        ensure!(bytes.len() <= LARGEST, "the archive has {} bytes, more than {LARGEST}", bytes.len());
        let checksum = archive::digest(&bytes).trim_start_matches("sha256:").to_owned();
        Ok(Self { platform, bytes, checksum })
    }

    fn name(&self) -> String {
        format!("{PROGRAM}-linux-{}.tar.gz", self.platform)
    }
}

impl Plugin {
    /// # Errors
    ///
    /// When krew would not install one of the archives by the manifest.
    pub(crate) fn of(archives: Vec<PluginArchive>) -> Result<Self> {
        let version = concat!("v", env!("CARGO_PKG_VERSION"));
        let manifest = krew::filled(&krew::template()?, version, &archives)?;
        let read = Manifest::read(&manifest)?;
        for archive in &archives {
            read.check(version, archive)?;
        }
        Ok(Self { archives, manifest })
    }

    /// The paths: of each archive and its checksum, then of the manifest.
    pub(crate) fn write(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for archive in &self.archives {
            // As `sha256sum --check` reads it.
            let line = format!("{}  {}\n", archive.checksum, archive.name());
            files.push((archive.name(), archive.bytes.as_slice().into()));
            files.push((format!("{}.sha256", archive.name()), Cow::Owned(line.into_bytes())));
        }
        files.push((format!("{PROGRAM}.yaml"), self.manifest.as_bytes().into()));
        let paths = files.into_iter().map(|(name, bytes)| {
            let path = directory.join(name);
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
            Ok(path)
        });
        paths.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(platform: Platform) -> PluginArchive {
        PluginArchive::of(platform, &platform.name().repeat(99).into_bytes()).unwrap()
    }

    fn plugin(platforms: &[Platform]) -> Plugin {
        Plugin::of(platforms.iter().map(|platform| archive(*platform)).collect()).unwrap()
    }

    #[test]
    fn what_is_written_is_what_krew_installs() {
        let version = concat!("v", env!("CARGO_PKG_VERSION"));
        for platforms in [&Platform::ALL[..], &[Platform::Amd64], &[Platform::Arm64]] {
            let directory = tempfile::tempdir().unwrap();
            let paths = plugin(platforms).write(directory.path()).unwrap();
            let (manifest, archives) = paths.split_last().unwrap();
            let manifest = Manifest::read(&fs::read_to_string(manifest).unwrap()).unwrap();
            let (archives, none_left) = archives.as_chunks::<2>();
            assert!(none_left.is_empty() && archives.len() == platforms.len());
            assert_eq!(manifest.count_platforms(), platforms.len());
            for ([written, sum], platform) in archives.iter().zip(platforms) {
                let bytes = fs::read(written).unwrap();
                assert_eq!(bytes, archive(*platform).bytes, "the same bytes each time");
                let sum = fs::read_to_string(sum).unwrap();
                assert_eq!(archive::digest(&bytes), format!("sha256:{}", &sum[..64]));
                manifest.check(version, &archive(*platform)).unwrap();
            }
        }
    }

    /// Each field that is not as it was built is named.
    #[test]
    fn a_manifest_of_another_archive_is_refused() {
        let of_one = Manifest::read(&plugin(&[Platform::Amd64]).manifest).unwrap();
        let version = concat!("v", env!("CARGO_PKG_VERSION"));
        let other_bytes = PluginArchive::of(Platform::Amd64, b"another program").unwrap();
        for (version, archive, error) in [
            ("v9.9.9", archive(Platform::Amd64), "spec.version"),
            (version, archive(Platform::Arm64), "spec.platforms"),
            (version, other_bytes, "sha256"),
        ] {
            let text = format!("{:#}", of_one.check(version, &archive).unwrap_err());
            assert!(text.contains(error), "{text}");
        }
    }

    #[test]
    fn the_program_is_the_plugin_under_the_name_that_krew_gives_it() {
        let source = workspace::root().join("agent/src/cli/cluster.rs");
        let text = fs::read_to_string(source).unwrap();
        let name = Manifest::read(&plugin(&Platform::ALL).manifest).unwrap().metadata.name;
        assert!(text.contains(&format!("const PLUGIN: &str = \"kubectl-{name}\";")), "kubectl-{name}");
    }
}
