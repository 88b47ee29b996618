//! Configurations of a container runtime, before and after.

use super::*;

struct Runtime(tempfile::TempDir);

impl Runtime {
    fn new(files: &[(&str, &str)]) -> Self {
        let runtime = Self(tempfile::tempdir().unwrap());
        fs::create_dir(runtime.directory()).unwrap();
        for (name, text) in files {
            fs::write(runtime.directory().join(name), text).unwrap();
        }
        runtime
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("net.d")
    }

    fn installation(&self) -> Installation {
        Installation {
            configurations: self.directory(),
            binaries: self.0.path().join("bin"),
            socket: "/run/podgate/podgate.sock".into(),
            bpffs: "/sys/fs/bpf".into(),
            timeout: Duration::from_secs(5),
            when_unknown: WhenUnknown::Closed,
        }
    }

    fn install(&self) -> Installed {
        self.installation().install().unwrap()
    }

    /// Every file with its text.
    fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(self.directory())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let text = fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect();
        files.sort();
        files
    }

    fn with_entry(&self) -> Vec<String> {
        let files = self.files().into_iter().filter(|(_, text)| text.contains(TYPE));
        files.map(|(name, _)| name).collect()
    }
}

const LIST: &str =
    "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"n\",\n  \"plugins\": [{\"type\": \"ptp\"}]\n}\n";
const SINGLE: &str = r#"{"cniVersion": "0.4.0", "name": "n", "type": "bridge"}"#;

#[test]
fn the_first_configuration_gets_the_entry_and_gives_it_back() {
    for (files, with_entry) in [
        (&[("10-a.conflist", LIST), ("20-b.conflist", LIST)][..], "10-a.conflist"),
        (&[("05-x.conflist", "{garbage"), ("06-y.conf", "{}"), ("10-a.conflist", LIST)], "10-a.conflist"),
        (&[("05-x.bak", LIST), (".hidden", LIST), ("10-a.conflist", LIST)], "10-a.conflist"),
        (&[("10-a.conf", SINGLE), ("20-b.conflist", LIST)], "10-a.conflist"),
        (&[("10-a.json", SINGLE)], "10-a.conflist"),
    ] {
        let runtime = Runtime::new(files);
        let before = runtime.files();
        let installed = runtime.install();
        assert_eq!(installed.configuration, Some(runtime.directory().join(with_entry)));
        assert_eq!(installed.written.len(), 2, "{:?}", installed.written);
        assert_eq!(runtime.with_entry(), [with_entry]);
        let after = runtime.files();
        assert!(runtime.install().written.is_empty(), "twice is once");
        assert_eq!(runtime.files(), after);
        assert_eq!(Installation::uninstall(&runtime.directory()).unwrap().len(), 1);
        assert_eq!(runtime.files(), before);
        assert_eq!(Installation::uninstall(&runtime.directory()).unwrap().len(), 0);
    }
}

#[test]
fn a_configuration_that_its_owner_has_written_again_gets_the_entry_again() {
    let runtime = Runtime::new(&[("10-a.conf", SINGLE)]);
    runtime.install();
    let again = SINGLE.replace("bridge", "ptp");
    fs::write(runtime.directory().join("10-a.conf"), &again).unwrap();
    runtime.install();
    let list = fs::read_to_string(runtime.directory().join("10-a.conflist")).unwrap();
    assert!(list.contains("ptp") && !list.contains("bridge"), "{list}");
    Installation::uninstall(&runtime.directory()).unwrap();
    assert_eq!(runtime.files(), [("10-a.conf".to_owned(), again)]);

    let runtime = Runtime::new(&[("10-a.conflist", LIST)]);
    runtime.install();
    fs::write(runtime.directory().join("10-a.conflist"), LIST).unwrap();
    assert_eq!(
        runtime.installation().install_again().unwrap().written,
        [runtime.directory().join("10-a.conflist")]
    );
    fs::write(runtime.directory().join("00-new.conflist"), LIST).unwrap();
    assert_eq!(runtime.install().configuration, Some(runtime.directory().join("00-new.conflist")));
}

#[test]
fn nothing_is_lost_where_the_entry_cannot_be_added() {
    for files in [
        &[("10-a.conf", SINGLE), ("10-a.conflist", LIST)][..],
        &[("10-a.conf", r#"{"cniVersion": "0.2.0", "name": "n", "type": "bridge"}"#)],
    ] {
        let runtime = Runtime::new(files);
        let before = runtime.files();
        assert!(runtime.installation().install().is_err());
        assert_eq!(runtime.files(), before);
    }
    let empty = Runtime::new(&[]);
    assert_eq!(empty.install().configuration, None);
}

#[test]
fn what_its_owner_writes_during_an_installation_is_not_lost() {
    let runtime = Runtime::new(&[("10-a.conflist", "written meanwhile")]);
    let file = runtime.directory().join("10-a.conflist");
    assert!(!exchange(&file, LIST, "with the entry").unwrap());
    assert_eq!(runtime.files(), [("10-a.conflist".to_owned(), "written meanwhile".to_owned())]);
    assert!(exchange(&file, "written meanwhile", "with the entry").unwrap());
    assert_eq!(runtime.files(), [("10-a.conflist".to_owned(), "with the entry".to_owned())]);
    // Its owner, and two installers.
    let runtime = Runtime::new(&[("10-a.conflist", LIST)]);
    let file = runtime.directory().join("10-a.conflist");
    let versions = |number: usize| LIST.replace("\"n\"", &format!("\"n{number}\""));
    std::thread::scope(|scope| {
        let installers = [0, 1]
            .map(|_| scope.spawn(|| (0..100).for_each(|_| drop(runtime.installation().install_entry()))));
        for number in 0..100 {
            let draft = runtime.directory().join("draft");
            fs::write(&draft, versions(number)).unwrap();
            fs::rename(&draft, &file).unwrap();
        }
        for installer in installers {
            installer.join().unwrap();
        }
    });
    runtime.installation().install_entry().unwrap();
    Installation::uninstall(&runtime.directory()).unwrap();
    assert_eq!(runtime.files(), [("10-a.conflist".to_owned(), versions(99))], "the last version counts");
}

#[test]
fn rights_stay_and_the_binary_can_be_run() {
    let runtime = Runtime::new(&[("10-a.conflist", LIST)]);
    let list = runtime.directory().join("10-a.conflist");
    fs::set_permissions(&list, Permissions::from_mode(0o600)).unwrap();
    runtime.install();
    let binary = runtime.0.path().join("bin").join(TYPE);
    assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&binary).unwrap().permissions().mode() & 0o777, 0o755);
    let own = fs::metadata("/proc/self/exe").unwrap().len();
    assert_eq!(fs::metadata(&binary).unwrap().len(), own);
}
