//! The bytes of an OCI archive: a layer, a configuration, a manifest, an index (image-spec 1.1,
//! image-layout).
//!
//! Nothing in it depends on when, where or by whom it was made.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What goes into an image.
pub(super) struct Contents<const N: usize> {
    /// With its tag, as container run-times write it.
    pub(super) name: String,
    /// The only file.
    pub(super) program: Vec<u8>,
    pub(super) labels: [(&'static str, &'static str); N],
}

/// An image on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub path: PathBuf,
    /// As run-times name it.
    pub name: String,
    /// Of its manifest: `sha256:…`.
    pub digest: String,
    /// Of the archive.
    pub bytes: u64,
}

/// A file that is named by its digest.
struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl<const N: usize> Contents<N> {
    pub(super) fn write(&self, path: &Path) -> Result<Image> {
        let layer = archive(&[(PROGRAM, 0o755, &self.program)])?;
        let difference = digest(&layer);
        let layer =
            Blob { media_type: "application/vnd.oci.image.layer.v1.tar+gzip", bytes: compress(&layer)? };
        let labels: Value =
            self.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": architecture(),
                "os": "linux",
                "config": {"Entrypoint": [format!("/{PROGRAM}")], "Labels": labels},
                "rootfs": {"type": "layers", "diff_ids": [difference]},
            }),
        );
        let manifest = Blob::json(
            "application/vnd.oci.image.manifest.v1+json",
            &json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }),
        );
        let mut named = manifest.descriptor();
        named["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
        });
        let index = json!({"schemaVersion": 2, "manifests": [named]}).to_string();
        let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string();

        let blobs = [&layer, &config, &manifest].map(|blob| (blob.path(), &blob.bytes));
        let mut files: Vec<(&str, u32, &[u8])> =
            blobs.iter().map(|(path, bytes)| (path.as_str(), 0o644, bytes.as_slice())).collect();
        files.push(("index.json", 0o644, index.as_bytes()));
        files.push(("oci-layout", 0o644, layout.as_bytes()));
        let bytes = archive(&files)?;
        fs::write(path, &bytes).with_context(|| path.display().to_string())?;
        Ok(Image {
            path: path.to_owned(),
            name: self.name.clone(),
            digest: digest(&manifest.bytes),
            bytes: bytes.len() as u64,
        })
    }
}

const PROGRAM: &str = "podgate";

impl Blob {
    fn json(media_type: &'static str, value: &Value) -> Self {
        Self { media_type, bytes: value.to_string().into_bytes() }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": digest(&self.bytes), "size": self.bytes.len()})
    }

    fn path(&self) -> String {
        format!("blobs/{}", digest(&self.bytes).replace(':', "/"))
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

/// (path, mode, bytes) of each file; all of them root's, and of 1970.
pub(crate) fn archive(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, path, *bytes).with_context(|| format!("{path} into the archive"))?;
    }
    archive.into_inner().context("the end of the archive")
}

pub(crate) fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).context("compressing an archive")
}

/// As Go calls it, and so all of the container world.
pub(crate) const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    fn contents() -> Contents<1> {
        Contents { name: "a.example/podgate:7".into(), program: b"program".repeat(99), labels: [("a", "b")] }
    }

    fn unpacked(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn the_same_contents_are_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["one.tar", "two.tar"].map(|name| directory.path().join(name));
        let images = paths.each_ref().map(|path| contents().write(path).unwrap());
        assert_eq!(images[0].digest, images[1].digest);
        let [one, two] = paths.each_ref().map(|path| fs::read(path).unwrap());
        assert!(one == two && one.len() as u64 == images[0].bytes);
    }

    #[test]
    fn every_blob_is_named_by_what_it_holds_and_leads_to_the_program() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let image = contents().write(&path).unwrap();
        let files = unpacked(&fs::read(&path).unwrap());
        let blob = |descriptor: &Value| {
            let named = descriptor["digest"].as_str().unwrap();
            let bytes = &files[&format!("blobs/{}", named.replace(':', "/"))];
            assert_eq!(digest(bytes), named);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["digest"], image.digest);
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "7");
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"], json!({"Entrypoint": ["/podgate"], "Labels": {"a": "b"}}));

        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(&*blob(&manifest["layers"][0])).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(unpacked(&layer), BTreeMap::from([("podgate".to_owned(), contents().program)]));
    }
}
