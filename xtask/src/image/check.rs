//! What is in an archive of an image, read as a container run-time does: by the index, the manifests and the
//! configurations, down to each processor's program.

use std::{collections::BTreeMap, fs, io::Read, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::archive::digest;
use crate::{platform::Platform, setup, workspace};

/// Checks that an archive has these processors and no others, that each program is built for the processor
/// that it is named for, and that it starts: also another processor's, by qemu.
///
/// # Errors
///
/// With the first thing that is not so.
pub(super) fn check(archive: &Path, platforms: &[Platform]) -> Result<()> {
    let programs = programs(&fs::read(archive).with_context(|| archive.display().to_string())?)?;
    let found: Vec<&str> = programs.keys().map(String::as_str).collect();
    let expected: Vec<&str> = platforms.iter().map(|platform| platform.name()).collect();
    ensure!(found == expected, "the image is for {found:?}, not for {expected:?}");
    let directory = workspace::target()?.join("image");
    let mut answers = Vec::new();
    for platform in platforms {
        let path = directory.join(format!("podgate-{platform}"));
        fs::write(&path, &programs[platform.name()]).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .with_context(|| path.display().to_string())?;
        platform.ensure_runs(&path)?;
        answers.push(QUESTIONS.map(|arguments| ask(*platform, &path, arguments)));
    }
    let answers = answers.into_iter().map(|answers| answers.into_iter().collect::<Result<Vec<_>>>());
    let answers = answers.collect::<Result<Vec<_>>>()?;
    ensure!(answers.windows(2).all(|two| two[0] == two[1]), "the programs answer otherwise: {answers:?}");
    Ok(())
}

/// What needs neither a kernel nor a cluster.
const QUESTIONS: [&[&str]; 2] = [
    &["version"],
    &[
        "explain",
        "--manifests",
        "agent/tests/verbs/shop.yaml",
        "--from",
        "shop/frontend",
        "--to",
        "shop/database",
        "--port",
        "TCP/5432",
    ],
];

/// What a program prints, and its exit code.
fn ask(platform: Platform, program: &Path, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = if platform == Platform::HOST {
        Command::new(program)
    } else {
        let emulator = format!("qemu-{}-static", platform.machine());
        setup::install(&[(&emulator, "qemu-user-static")])?;
        let mut command = Command::new(emulator);
        command.arg(program);
        command
    };
    let output = command.args(arguments).current_dir(workspace::root()).output();
    let output = output.with_context(|| format!("starting podgate for {platform}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).context("what podgate prints")?;
    ensure!(
        !text.is_empty(),
        "podgate {} for {platform}: {}\n{complaint}",
        arguments.join(" "),
        output.status
    );
    Ok((output.status.code(), text))
}

/// The program of each processor, by the processor's name.
fn programs(archive: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let files = unpack(archive)?;
    let index = parse(files.get("index.json").context("the archive has no index.json")?)?;
    let mut programs = BTreeMap::new();
    for named in descriptors(&index["manifests"]) {
        let blob = blob(&files, named)?;
        let value = parse(blob)?;
        let manifests = match value["manifests"].as_array() {
            Some(several) => several.clone(),
            None => vec![named.clone()],
        };
        for descriptor in &manifests {
            let manifest = parse(self::blob(&files, descriptor)?)?;
            let config = parse(self::blob(&files, &manifest["config"])?)?;
            let name = config["architecture"].as_str().context("the configuration names no architecture")?;
            ensure!(
                descriptor["platform"]["architecture"] == name,
                "the index says {}, the configuration {name}",
                descriptor["platform"]["architecture"]
            );
            let [layer] = descriptors(&manifest["layers"]) else { bail!("the image has one layer") };
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(self::blob(&files, layer)?.as_slice())
                .read_to_end(&mut tar)
                .context("the layer")?;
            let program = unpack(&tar)?.remove("podgate").context("the layer has no podgate")?;
            ensure!(programs.insert(name.to_owned(), program).is_none(), "two images are for {name}");
        }
    }
    Ok(programs)
}

fn descriptors(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// What a descriptor leads to, which must be as it says.
fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Result<&'a Vec<u8>> {
    let named = descriptor["digest"].as_str().context("a descriptor has no digest")?;
    let bytes = files.get(&format!("blobs/{}", named.replace(':', "/")));
    let bytes = bytes.with_context(|| format!("the archive has no {named}"))?;
    ensure!(digest(bytes) == named, "{named} is {}", digest(bytes));
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).context("JSON of an image")
}

fn unpack(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().context("the archive")?.map(|entry| {
        let mut entry = entry?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        Ok((entry.path()?.display().to_string(), bytes))
    });
    entries.collect::<std::io::Result<_>>().context("the archive")
}

#[cfg(test)]
mod tests {
    use super::{super::archive::Contents, *};

    fn archive(platforms: &[Platform]) -> Vec<u8> {
        let programs = platforms.iter().map(|platform| (*platform, platform.name().into())).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        Contents { name: "podgate:1".into(), programs, labels: [("a", "b")] }.write(&path).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn each_processor_has_its_own_program() {
        for platforms in [&Platform::ALL[..], &[Platform::Arm64]] {
            let expected = platforms.iter().map(|platform| (platform.name().into(), platform.name().into()));
            assert_eq!(programs(&archive(platforms)).unwrap(), expected.collect());
        }
    }

    #[test]
    fn a_blob_that_is_not_what_its_name_says_is_found() {
        let mut bytes = archive(&Platform::ALL);
        let text = br#""architecture":"arm64","config""#;
        let at = bytes.windows(text.len()).position(|window| window == text).expect("a configuration");
        bytes[at + 16] = b'b';
        let error = format!("{:#}", programs(&bytes).unwrap_err());
        assert!(error.starts_with("sha256:"), "{error}");
    }
}
