//! Krew's manifest of the plugin: `deploy/krew/podgate.yaml` with the marks of krew-release-bot filled in,
//! and whether it is of what was built (krew's manifest format, v1alpha2).

use std::{collections::BTreeMap, fs, io::Read as _};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{LICENCES, PROGRAM, PluginArchive};
use crate::{image::archive::digest, workspace};

/// In the template, where the version goes.
const TAG: &str = "{{ .TagName }}";

/// Characters of a `shortDescription`: what krew's index lets in.
const SHORT: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    api_version: String,
    kind: String,
    pub(super) metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    version: String,
    homepage: String,
    short_description: String,
    description: String,
    caveats: String,
    platforms: Vec<Platform>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Platform {
    selector: PlatformSelector,
    uri: String,
    sha256: String,
    bin: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PlatformSelector {
    match_labels: BTreeMap<String, String>,
}

pub(super) fn template() -> Result<String> {
    let path = workspace::root().join("deploy/krew/podgate.yaml");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The manifest of these archives; other processors are left out.
pub(super) fn filled(template: &str, version: &str, archives: &[PluginArchive]) -> Result<String> {
    let (head, platforms) = template
        .split_once("  platforms:\n")
        .context("deploy/krew/podgate.yaml: spec.platforms is missing")?;
    let platforms: Vec<&str> = platforms.split_inclusive("\n      bin: podgate\n").collect();
    let mut text = head.to_owned() + "  platforms:\n";
    for archive in archives {
        let name = archive.name();
        let platform = platforms.iter().find(|platform| platform.contains(&format!("/{name}\"")));
        let platform = platform.with_context(|| {
            format!("deploy/krew/podgate.yaml: spec.platforms has none with the archive {name}")
        })?;
        text.extend(platform.lines().map(|line| match mark(line) {
            Some(uri) => format!("      uri: {uri}\n      sha256: {}\n", archive.checksum),
            None => format!("{line}\n"),
        }));
    }
    let text = text.replace(TAG, version);
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    ensure!(!text.contains("{{"), "deploy/krew/podgate.yaml: a mark is not known: {text}");
    Ok(text)
}

/// Where a line has the address of an archive: `{{addURIAndSha "ADDRESS" .TagName }}`.
fn mark(line: &str) -> Option<&str> {
    line.trim().strip_prefix("{{addURIAndSha \"")?.strip_suffix("\" .TagName }}")
}

impl Manifest {
    pub(super) fn read(text: &str) -> Result<Self> {
        serde_saphyr::from_str(text).context("krew's manifest")
    }

    #[cfg(test)]
    pub(super) fn count_platforms(&self) -> usize {
        self.spec.platforms.len()
    }

    /// Whether krew would install the archive by this manifest.
    ///
    /// # Errors
    ///
    /// With the first field that is not as it was built.
    pub(super) fn check(&self, version: &str, built: &PluginArchive) -> Result<()> {
        let (archive, bytes) = (built.name(), built.bytes.as_slice());
        let Self { api_version, kind, metadata, spec } = self;
        let Spec { version: named, homepage, short_description, description, caveats, platforms } = spec;
        ensure!(api_version == "krew.googlecontainertools.github.com/v1alpha2", "apiVersion: {api_version}");
        ensure!(kind == "Plugin", "kind: {kind}");
        ensure!(metadata.name == PROGRAM, "metadata.name: {}", metadata.name);
        ensure!(named == version, "spec.version: {named}, built was {version}");
        ensure!(homepage.starts_with("https://"), "spec.homepage: {homepage}");
        ensure!(short_description.len() <= SHORT, "spec.shortDescription: longer than {SHORT} characters");
        ensure!(!description.is_empty() && !caveats.is_empty(), "spec.description, spec.caveats: empty");
        let end = format!("/{version}/{archive}");
        let platform = platforms.iter().find(|platform| platform.uri.ends_with(&end));
        let platform = platform.with_context(|| format!("spec.platforms: no uri ends with {end}"))?;
        let labels =
            ["os", "arch"].map(|label| platform.selector.match_labels.get(label).map(String::as_str));
        ensure!(
            labels == [Some("linux"), Some(built.platform.name())],
            "spec.platforms: {archive} is selected by {labels:?}"
        );
        let checksum = digest(bytes);
        ensure!(
            checksum == format!("sha256:{}", platform.sha256),
            "spec.platforms: sha256 is {}, that of the archive {checksum}",
            platform.sha256
        );
        let files = files(bytes)?;
        ensure!(
            files.get(&platform.bin) == Some(&0o755),
            "spec.platforms: bin {} is no program of the archive",
            platform.bin
        );
        for licence in LICENCES {
            ensure!(files.contains_key(licence), "{archive}: {licence} is missing");
        }
        Ok(())
    }
}

/// The mode of each file.
fn files(archive: &[u8]) -> Result<BTreeMap<String, u32>> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(archive).read_to_end(&mut tar).context("the archive")?;
    let mut archive = tar::Archive::new(&*tar);
    let entries = archive.entries().context("the archive")?.map(|entry| {
        let entry = entry?;
        Ok((entry.path()?.display().to_string(), entry.header().mode()?))
    });
    entries.collect::<std::io::Result<_>>().context("the archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_of_the_template_names_its_own_archive() {
        let checksum = "0".repeat(64);
        let filled = template().unwrap().replace(TAG, "v1.0.0");
        let filled = filled.lines().map(|line| {
            let line = line.replace("\" v1.0.0 }}", "\" .TagName }}");
            match mark(&line) {
                Some(uri) => format!("      uri: {uri}\n      sha256: {checksum}\n"),
                None => format!("{line}\n"),
            }
        });
        let Manifest { spec, .. } = Manifest::read(&filled.collect::<String>()).unwrap();
        let archives = spec.platforms.iter().map(|platform| {
            let arch = platform.selector.match_labels["arch"].clone();
            assert_eq!(platform.bin, PROGRAM);
            assert!(
                platform.uri.ends_with(&format!("/v1.0.0/{PROGRAM}-linux-{arch}.tar.gz")),
                "{}",
                platform.uri
            );
            arch
        });
        assert_eq!(archives.collect::<Vec<_>>(), ["amd64", "arm64"]);
    }
}
