//! Images for pods of tests, made here: nothing is pulled.
//!
//! In: this machine's static busybox, and maybe programs of a suite. Out: a docker archive with one layer. Of
//! busybox alone it has two names: what every pod's sandbox runs (it sleeps), and a shell with `nc`, `httpd`
//! and the like.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

/// What a pod's sandbox runs.
pub(super) const PAUSE: &str = "localhost/pause:1";
/// For pods of tests: busybox under all its names, in `/bin`.
pub const BUSYBOX: &str = "localhost/busybox:1";

/// Where the program lies in the image.
const PROGRAM: &str = "bin/busybox";
const LAYER: &str = "layer.tar";
const CONFIG: &str = "config.json";

/// Files in an image beside busybox, the first of which it runs when a pod names no command.
#[derive(Clone, Debug)]
pub(crate) struct ImageFiles {
    /// Executables, by their paths without the first slash.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    pub(crate) arguments: &'static [&'static str],
}

/// Writes one image, under all its names, as an archive.
pub(crate) fn write(archive: &Path, names: &[&str], files: Option<&ImageFiles>) -> Result<()> {
    let (entry, arguments) = match files {
        Some(ImageFiles { files, arguments }) => {
            let (first, _) = files.first().context("an image runs a file")?;
            (json!([format!("/{first}")]), json!(arguments))
        }
        // As the first process of its namespace it ends by SIGKILL alone, which is what a sandbox gets.
        None => (json!(["/bin/sleep", "2147483647"]), json!([])),
    };
    let layer = layer(files.map_or(&[], |files| &files.files)).context("the layer of the images")?;
    let digest: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": {"Entrypoint": entry, "Cmd": arguments, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": CONFIG, "RepoTags": names, "Layers": [LAYER]}]);
    let file = File::create(archive).with_context(|| format!("creating {}", archive.display()))?;
    let mut tar = tar::Builder::new(file);
    for (name, bytes) in [
        (CONFIG, config.to_string().into_bytes()),
        (LAYER, layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        append(&mut tar, name, 0o644, &bytes)?;
    }
    tar.finish().with_context(|| format!("writing {}", archive.display()))
}

/// Hands an archive to the containerd that `ctr`, a command on a node, finds.
pub(super) fn import(ctr: &mut Command, archive: &Path) -> Result<()> {
    ctr.args(["--namespace", "k8s.io", "images", "import"]).arg(archive).stdin(Stdio::null());
    let output = ctr.output().context("starting ctr")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "importing {}: {}", archive.display(), complaint.trim());
    Ok(())
}

fn layer(files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|place| place.join("busybox")).find(|file| file.is_file());
    let program = program.context("there is no busybox in PATH (package busybox-static)")?;
    let listed = Command::new(&program).arg("--list").output().context("starting busybox")?;
    let names = String::from_utf8(listed.stdout).context("the names of busybox")?;

    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["bin/", "etc/", "tmp/"] {
        let mut header =
            header(tar::EntryType::Directory, if directory == "tmp/" { 0o1777 } else { 0o755 }, 0);
        tar.append_data(&mut header, directory, std::io::empty()).with_context(|| directory.to_owned())?;
    }
    append(&mut tar, PROGRAM, 0o755, &fs::read(&program).context("reading busybox")?)?;
    append(&mut tar, "etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    for name in names.lines().filter(|name| !["busybox", "bash"].contains(name)) {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").with_context(|| name.to_owned())?;
    }
    for (path, program) in files {
        append(&mut tar, path, 0o755, program)?;
    }
    tar.into_inner().context("the end of the layer")
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
    tar.append_data(&mut header, name, bytes).with_context(|| format!("{name} into an archive"))
}

/// Root's, and of 1970.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
