//! The archive as somebody unpacks it.

use std::{collections::BTreeMap, io::Read, os::unix::fs::PermissionsExt};

use flate2::read::GzDecoder;

use super::*;

fn unpacked(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    });
    files.collect()
}

/// A tree with the settings of a kernel, pins, and no agent.
fn places(directory: &Path) -> DoctorPaths {
    let put = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n");
    put("proc/sys/net/ipv4/ip_forward", "1\n");
    put("proc/cmdline", "password=hunter2 ip=10.9.9.9\n");
    put("bpf/podgate/v1/maps/flows", "");
    put("bpf/others/secret", "");
    DoctorPaths {
        root: directory.to_owned(),
        bpffs: directory.join("bpf"),
        cni_results: directory.join("cni"),
        socket: directory.join("10.0.0.7"),
    }
}

#[test]
fn the_archive_holds_what_is_listed_and_says_what_could_not_be_had() {
    let directory = tempfile::tempdir().unwrap();
    let facts = facts(&places(directory.path()));
    let files = unpacked(&archive::archive(&facts, 1).unwrap());
    let listed = listing(Path::new("a.tar.gz"), false, &facts);
    let names: Vec<String> =
        listed.files.iter().map(|file| format!("podgate-doctor/{}", file.name)).collect();
    assert_eq!(files.keys().cloned().collect::<std::collections::BTreeSet<_>>(), names.into_iter().collect());
    let lines = text(&listed);
    assert!(lines.starts_with("FILE            BYTES  WHAT\nversions.json   "), "{lines}");
    assert!(lines.ends_with("\nwritten to a.tar.gz, addresses replaced\n"), "{lines}");
    let text = |name: &str| &files[&format!("podgate-doctor/{name}")];
    assert!(text("kernel.txt").contains("/proc/sys/kernel/osrelease: 6.1.0-13-amd64\n"));
    assert!(text("kernel.txt").contains("/proc/sys/net/core/bpf_jit_enable: (No such file"));
    assert!(text("pins.txt").contains("bpf/podgate/v1/maps/flows\n"));
    assert!(text("status.json").contains("no agent answers on"));
    assert!(text("check.json").contains("\"item\": \"kernel\""));
    assert!(text("versions.json").contains(env!("CARGO_PKG_VERSION")));
    let everything: String = files.values().map(String::as_str).collect();
    for secret in ["hunter2", "10.9.9.9", "others"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[test]
fn addresses_are_replaced_unless_they_are_asked_for() {
    for (keeps_addresses, part) in [(false, "/v4-1: No such file"), (true, "/10.0.0.7: No such file")] {
        let directory = tempfile::tempdir().unwrap();
        let DoctorPaths { root: _, bpffs, cni_results, socket } = places(directory.path());
        let file = directory.path().join("doctor.tar.gz");
        let options = DoctorOptions {
            file: Some(file.clone()),
            addresses: keeps_addresses,
            bpffs,
            cni_results,
            socket,
        };
        options.run(Format::Json).unwrap();
        let files = unpacked(&fs::read(&file).unwrap());
        assert!(files["podgate-doctor/status.json"].contains(part), "{files:?}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("doctor.tar.gz");
    fs::write(&file, "mine").unwrap();
    let error = write(&file, b"archive").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}
