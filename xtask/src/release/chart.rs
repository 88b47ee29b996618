//! The Helm chart as `helm package` names and lays it out: a directory `podgate` in a compressed archive.
//!
//! Links in the chart's directory become what they lead to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{image::archive, workspace};

const CHART: &str = "deploy/helm/podgate";

/// The archive's bytes, the same each time.
pub(super) fn archive() -> Result<Vec<u8>> {
    let root = workspace::root().join(CHART);
    let mut paths = Vec::new();
    collect(&root, &mut paths)?;
    paths.sort();
    let files = paths.iter().map(|path| {
        let place = path.strip_prefix(&root).context("below the chart")?;
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        Ok((format!("podgate/{}", place.display()), bytes))
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    let (_, description) =
        files.iter().find(|(place, _)| place == "podgate/Chart.yaml").context("a chart has Chart.yaml")?;
    let description = String::from_utf8_lossy(description);
    for field in ["version", "appVersion"] {
        let line = format!("{field}: {}", env!("CARGO_PKG_VERSION"));
        ensure!(
            description.lines().any(|found| found == line),
            "{CHART}/Chart.yaml: {field} is not that of the workspace ({line})"
        );
    }
    let files: Vec<(&str, u32, &[u8])> =
        files.iter().map(|(place, bytes)| (place.as_str(), 0o644, bytes.as_slice())).collect();
    archive::compress(&archive::archive(&files)?)
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, paths)? } else { paths.push(path) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;

    #[test]
    fn the_chart_stands_alone_and_is_the_same_each_time() {
        let bytes = archive().unwrap();
        assert_eq!(bytes, archive().unwrap());
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut tar).unwrap();
        let mut tar = tar::Archive::new(&*tar);
        let files: BTreeMap<String, Vec<u8>> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().entry_type(), tar::EntryType::Regular);
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().display().to_string(), bytes)
            })
            .collect();
        let base = fs::read(workspace::root().join("deploy/base/daemon-set.yaml")).unwrap();
        assert_eq!(files["podgate/files/daemon-set.yaml"], base, "a link becomes what it leads to");
        for name in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/daemon-set.yaml"] {
            assert!(files.contains_key(&format!("podgate/{name}")), "{name}");
        }
    }
}
