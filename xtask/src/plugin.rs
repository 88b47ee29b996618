//! `cargo xtask plugin`: the kubectl plugin as krew installs it.
//!
//! In: the workspace. Out, in `target/plugin`: an archive with the static binary and the licences, its
//! checksum, and krew's manifest with both filled in, for `kubectl krew install --manifest … --archive …`.
//! The same tree gives the same archive on every machine with the same compilers. Left out: publishing them,
//! and platforms other than this machine's.

mod krew;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

use crate::{
    image::{self, archive},
    setup, workspace,
};
use krew::Manifest;

/// The program in the archive; krew links it as `kubectl-podgate`, by which it knows that it is the plugin.
const PROGRAM: &str = "podgate";

/// Krew asks for the licence beside the program.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// The archive, in bytes.
const LARGEST: usize = 25 << 20;

pub(crate) fn run() -> Result<ExitCode> {
    setup::run()?;
    let directory = workspace::target()?.join("plugin");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let program = image::static_podgate(&directory)?;
    let program = fs::read(&program).with_context(|| program.display().to_string())?;
    let built = Plugin::of(&program)?;
    for path in built.write(&directory)? {
        println!("{}", path.display());
    }
    println!("{} bytes, {}", built.archive.len(), built.checksum);
    Ok(ExitCode::SUCCESS)
}

/// What a release publishes for one platform.
struct Plugin {
    archive: Vec<u8>,
    /// SHA-256, in hexadecimal digits.
    checksum: String,
    manifest: String,
}

impl Plugin {
    /// # Errors
    ///
    /// When the archive is larger than it may be, or krew would not install it by the manifest.
    fn of(program: &[u8]) -> Result<Self> {
        let licences = LICENCES.map(|name| {
            let path = workspace::root().join(name);
            fs::read(&path).with_context(|| path.display().to_string()).map(|text| (name, text))
        });
        let licences = licences.into_iter().collect::<Result<Vec<_>>>()?;
        let mut files = vec![(PROGRAM, 0o755, program)];
        files.extend(licences.iter().map(|(name, text)| (*name, 0o644, &**text)));
        let archive = archive::compress(&archive::archive(&files)?)?;
        ensure!(archive.len() <= LARGEST, "the archive has {} bytes, more than {LARGEST}", archive.len());
        let checksum = archive::digest(&archive).trim_start_matches("sha256:").to_owned();
        let (name, version) = (archive_name(), concat!("v", env!("CARGO_PKG_VERSION")));
        let manifest = krew::filled(&krew::template()?, version, &name, &checksum)?;
        Manifest::read(&manifest)?.check(version, &name, &archive)?;
        Ok(Self { archive, checksum, manifest })
    }

    fn write(&self, directory: &Path) -> Result<[PathBuf; 3]> {
        let Self { archive, checksum, manifest } = self;
        let name = archive_name();
        // As `sha256sum --check` reads it.
        let line = format!("{checksum}  {name}\n");
        let files = [
            (name.clone(), archive.as_slice()),
            (format!("{name}.sha256"), line.as_bytes()),
            (format!("{PROGRAM}.yaml"), manifest.as_bytes()),
        ];
        let paths = files.each_ref().map(|(name, _)| directory.join(name));
        for (path, (_, bytes)) in paths.iter().zip(files) {
            fs::write(path, bytes).with_context(|| path.display().to_string())?;
        }
        Ok(paths)
    }
}

/// Of this machine.
fn archive_name() -> String {
    format!("{PROGRAM}-linux-{}.tar.gz", archive::architecture())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_krew_installs() {
        let program = b"a program".repeat(99);
        let built = Plugin::of(&program).unwrap();
        assert_eq!(built.archive, Plugin::of(&program).unwrap().archive, "the same bytes each time");
        let directory = tempfile::tempdir().unwrap();
        let [archive, sums, manifest] = built.write(directory.path()).unwrap();
        let archive = fs::read(archive).unwrap();
        let sum = fs::read_to_string(sums).unwrap();
        assert_eq!(archive::digest(&archive), format!("sha256:{}", &sum[..64]));
        let manifest = Manifest::read(&fs::read_to_string(manifest).unwrap()).unwrap();
        let version = concat!("v", env!("CARGO_PKG_VERSION"));
        manifest.check(version, &archive_name(), &archive).unwrap();
        // Each field that is not as it was built is named.
        for (other_version, other_name, bytes, error) in [
            ("v9.9.9", &*archive_name(), &*archive, "spec.version"),
            (version, "podgate-linux-other.tar.gz", &*archive, "spec.platforms"),
            (version, &*archive_name(), b"another archive", "sha256"),
        ] {
            let text = format!("{:#}", manifest.check(other_version, other_name, bytes).unwrap_err());
            assert!(text.contains(error), "{text}");
        }
    }

    #[test]
    fn the_program_is_the_plugin_under_the_name_that_krew_gives_it() {
        let source = workspace::root().join("agent/src/cli/cluster.rs");
        let text = fs::read_to_string(source).unwrap();
        let name = Manifest::read(&Plugin::of(b"p").unwrap().manifest).unwrap().metadata.name;
        assert!(text.contains(&format!("const PLUGIN: &str = \"kubectl-{name}\";")), "kubectl-{name}");
    }
}
