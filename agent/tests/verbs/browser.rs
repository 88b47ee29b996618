//! A headless Chromium, which npm brings into a private directory that all tests of pages share.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// What is installed.
const PACKAGES: [&str; 2] = ["package.json", "package-lock.json"];

/// Runs a script beside pages, in a directory of this name.
///
/// # Panics
///
/// With what the script says, when it fails.
pub(crate) fn run(script: &Path, directory: &Path) {
    let name = script.file_name().expect("a script");
    write(&directory.join(name), &read(script));
    let output = Command::new("node")
        .arg(name)
        .current_dir(directory)
        // The browser unpacks itself there.
        .env("TMPDIR", directory)
        .output()
        .expect("node");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

/// An own directory in the one with the browser, where scripts find it.
pub(crate) fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    let own = place.join(name);
    fs::create_dir_all(&own).expect("cargo's directory for tests");
    // Two test programs may run at once.
    let lock = File::create(place.join("lock")).expect("cargo's directory for tests");
    lock.lock().expect("a file of this file system");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verbs/page");
    let texts = PACKAGES.map(|name| read(&sources.join(name)));
    // Written after an installation: which one it was.
    let installed = place.join("installed");
    if !fs::read_to_string(&installed).is_ok_and(|of| of == texts[1]) {
        for (name, text) in PACKAGES.iter().zip(&texts) {
            write(&place.join(name), text);
        }
        let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        let npm = Command::new("npm").args(install).current_dir(&place).output();
        let npm = npm.expect("npm, of Node: `cargo xtask test` installs both");
        let complaint = String::from_utf8_lossy(&npm.stderr);
        assert!(npm.status.success(), "npm brings no browser: {complaint}");
        write(&installed, &texts[1]);
    }
    own
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
