//! The bytes of an OCI archive: a layer, a configuration and a manifest for each processor, an index of them
//! (image-spec 1.1, image-layout).
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

use crate::platform::Platform;

/// What goes into an image.
pub(super) struct Contents<const N: usize> {
    /// With its tag, as container run-times write it.
    pub(super) name: String,
    /// The only file, for each processor.
    pub(super) programs: Vec<(Platform, Vec<u8>)>,
    pub(super) labels: [(&'static str, &'static str); N],
}

/// An image on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub path: PathBuf,
    /// As run-times name it.
    pub name: String,
    /// Of its manifest, or of the index of several: `sha256:…`.
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
        let mut blobs = Vec::new();
        let mut manifests = Vec::new();
        for (platform, program) in &self.programs {
            let of_platform = self.of_platform(*platform, program)?;
            let mut descriptor = of_platform[2].descriptor();
            descriptor["platform"] = json!({"architecture": platform.name(), "os": "linux"});
            manifests.push(descriptor);
            blobs.extend(of_platform);
        }
        // One name leads to one blob: several manifests need an index of their own.
        let mut named = match manifests.as_slice() {
            [only] => only.clone(),
            several => {
                let index =
                    Blob::json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": several}));
                let descriptor = index.descriptor();
                blobs.push(index);
                descriptor
            }
        };
        let digest = named["digest"].as_str().unwrap_or_default().to_owned();
        named["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
        });
        let index = json!({"schemaVersion": 2, "manifests": [named]}).to_string();
        let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string();

        let blobs: Vec<(String, &Vec<u8>)> = blobs.iter().map(|blob| (blob.path(), &blob.bytes)).collect();
        let mut files: Vec<(&str, u32, &[u8])> =
            blobs.iter().map(|(path, bytes)| (path.as_str(), 0o644, bytes.as_slice())).collect();
        files.push(("index.json", 0o644, index.as_bytes()));
        files.push(("oci-layout", 0o644, layout.as_bytes()));
        let bytes = archive(&files)?;
        fs::write(path, &bytes).with_context(|| path.display().to_string())?;
        Ok(Image { path: path.to_owned(), name: self.name.clone(), digest, bytes: bytes.len() as u64 })
    }

    /// The manifest of one processor comes last.
    fn of_platform(&self, platform: Platform, program: &[u8]) -> Result<[Blob; 3]> {
        let layer = archive(&[(PROGRAM, 0o755, program)])?;
        let difference = digest(&layer);
        let layer =
            Blob { media_type: "application/vnd.oci.image.layer.v1.tar+gzip", bytes: compress(&layer)? };
        let labels: Value =
            self.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": platform.name(),
                "os": "linux",
                "config": {"Entrypoint": [format!("/{PROGRAM}")], "Labels": labels},
                "rootfs": {"type": "layers", "diff_ids": [difference]},
            }),
        );
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }),
        );
        Ok([layer, config, manifest])
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    fn program(platform: Platform) -> Vec<u8> {
        platform.name().repeat(99).into_bytes()
    }

    fn contents(platforms: &[Platform]) -> Contents<1> {
        let programs = platforms.iter().map(|platform| (*platform, program(*platform))).collect();
        Contents { name: "a.example/podgate:7".into(), programs, labels: [("a", "b")] }
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
        let images = paths.each_ref().map(|path| contents(&Platform::ALL).write(path).unwrap());
        assert_eq!(images[0].digest, images[1].digest);
        let [one, two] = paths.each_ref().map(|path| fs::read(path).unwrap());
        assert!(one == two && one.len() as u64 == images[0].bytes);
    }

    /// The blob of a descriptor, which is as it says.
    fn blob(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
        let named = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&format!("blobs/{}", named.replace(':', "/"))];
        assert_eq!(digest(bytes), named);
        assert_eq!(descriptor["size"], bytes.len());
        bytes.clone()
    }

    fn json_blob(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Value {
        let value: Value = serde_json::from_slice(&blob(files, descriptor)).unwrap();
        if value.get("mediaType").is_some() {
            assert_eq!(value["mediaType"], descriptor["mediaType"]);
        }
        value
    }

    /// That a manifest leads to the program of its processor, and says which that is.
    fn leads_to(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value, platform: Platform) {
        let name = platform.name();
        assert_eq!(descriptor["mediaType"], MANIFEST);
        assert_eq!(descriptor["platform"], json!({"architecture": name, "os": "linux"}));
        let manifest = json_blob(files, descriptor);
        let config = json_blob(files, &manifest["config"]);
        assert_eq!((&config["architecture"], &config["os"]), (&json!(name), &json!("linux")));
        assert_eq!(config["config"], json!({"Entrypoint": ["/podgate"], "Labels": {"a": "b"}}));
        let mut layer = Vec::new();
        let compressed = blob(files, &manifest["layers"][0]);
        flate2::read::GzDecoder::new(&*compressed).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(unpacked(&layer), BTreeMap::from([("podgate".to_owned(), program(platform))]));
    }

    #[test]
    fn every_blob_is_named_by_what_it_holds_and_leads_to_the_program_of_its_processor() {
        let directory = tempfile::tempdir().unwrap();
        for platforms in [&Platform::ALL[..], &[Platform::Amd64], &[Platform::Arm64]] {
            let path = directory.path().join("image.tar");
            let image = contents(platforms).write(&path).unwrap();
            let files = unpacked(&fs::read(&path).unwrap());
            let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
            let [named] = index["manifests"].as_array().unwrap().as_slice() else {
                panic!("one name, one image: {index}");
            };
            assert_eq!(named["digest"], image.digest);
            assert_eq!(named["annotations"]["io.containerd.image.name"], image.name);
            assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], "7");
            let manifests = if platforms.len() == 1 {
                json!([named])
            } else {
                assert_eq!(named["mediaType"], INDEX);
                json_blob(&files, named)["manifests"].clone()
            };
            let manifests = manifests.as_array().unwrap();
            assert_eq!(manifests.len(), platforms.len());
            for (descriptor, platform) in manifests.iter().zip(platforms) {
                leads_to(&files, descriptor, *platform);
            }
        }
    }
}
