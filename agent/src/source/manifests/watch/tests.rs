//! Files that change while they are watched, in all the ways in which editors and tools change them.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
};

use tempfile::TempDir;

use super::*;

/// Far longer than any of this takes; a test that waits for it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct Watched {
    updates: mpsc::Receiver<Update>,
    /// The names of the policies in the pictures seen so far, without repetitions.
    seen: Vec<Vec<String>>,
    last: ClusterSnapshot,
}

impl Watched {
    /// Starts to watch, and waits for the first picture.
    async fn start(paths: &[&Path]) -> Self {
        Self::start_with(paths, true).await
    }

    async fn start_with(paths: &[&Path], allow_empty: bool) -> Self {
        let updates = watch(paths.iter().map(|path| path.to_path_buf()).collect(), allow_empty).unwrap();
        let mut watched = Self { updates, seen: Vec::new(), last: ClusterSnapshot::default() };
        watched.next().await;
        watched
    }

    async fn next(&mut self) {
        let update = timeout(DEADLINE, self.updates.recv()).await.expect("a picture in time").unwrap();
        let picture = update.picture;
        assert_ne!(picture, self.last, "a picture that says nothing new");
        if self.seen.last() != Some(&names(&picture)) {
            self.seen.push(names(&picture));
        }
        self.last = picture;
    }

    /// Waits for a picture with exactly these policies.
    async fn until(&mut self, policies: &[&str]) {
        while names(&self.last) != policies {
            self.next().await;
        }
    }

    /// Waits for a picture with so many problems, and no file that is only being written.
    async fn until_problems(&mut self, count: usize) {
        let is_passing = |problem: &ValidationError| problem.message.starts_with("is being written");
        while self.last.problems.len() != count || self.last.problems.iter().any(is_passing) {
            self.next().await;
        }
    }
}

fn names(picture: &ClusterSnapshot) -> Vec<String> {
    picture.cluster.policies.keys().map(|id| id.name.to_string()).collect()
}

fn policy(name: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}}}, spec: {{}}}}\n"
    )
}

fn directory(policies: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in policies {
        fs::write(directory.path().join(format!("{name}.yaml")), policy(name)).unwrap();
    }
    directory
}

#[tokio::test]
async fn files_of_a_directory_are_written_added_and_removed() {
    let directory = directory(&["a", "b"]);
    let file = |name: &str| directory.path().join(name);
    let mut watched = Watched::start(&[directory.path()]).await;
    assert_eq!(watched.seen, [["a", "b"]]);
    fs::write(file("a.yaml"), policy("a2")).unwrap();
    watched.until(&["a2", "b"]).await;
    fs::write(
        file("c.json"),
        r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"c"}}"#,
    )
    .unwrap();
    watched.until(&["a2", "b", "c"]).await;
    fs::remove_file(file("b.yaml")).unwrap();
    watched.until(&["a2", "c"]).await;
    fs::rename(file("a.yaml"), file("a.txt")).unwrap();
    watched.until(&["c"]).await;
}

#[tokio::test]
async fn a_picture_that_says_nothing_new_is_not_sent() {
    let directory = directory(&["a"]);
    let file = directory.path().join("a.yaml");
    let mut watched = Watched::start(&[directory.path()]).await;
    fs::write(&file, policy("a")).unwrap();
    fs::write(directory.path().join("notes.txt"), "x").unwrap();
    fs::write(&file, policy("a") + "# comment\n").unwrap();
    fs::write(&file, policy("z")).unwrap();
    watched.until(&["z"]).await;
    assert_eq!(watched.seen, [["a"], ["z"]]);
}

#[tokio::test]
async fn a_single_file_survives_being_replaced_by_a_rename() {
    let directory = directory(&["a"]);
    let file = directory.path().join("a.yaml");
    let mut watched = Watched::start(&[&file]).await;
    for name in ["b", "c", "d"] {
        let temporary = directory.path().join("new");
        fs::write(&temporary, policy(name)).unwrap();
        fs::rename(&temporary, &file).unwrap();
        watched.until(&[name]).await;
    }
    fs::write(&file, policy("e")).unwrap();
    watched.until(&["e"]).await;
    assert!(watched.seen.iter().all(|policies| policies.len() == 1), "{:?}", watched.seen);
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_through_its_links() {
    let mount = tempfile::tempdir().unwrap();
    let path = |name: &str| mount.path().join(name);
    let publish = |version: &str, name: &str| {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("np.yaml"), policy(name)).unwrap();
        symlink(version, path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
    };
    publish("..1", "a");
    symlink("..data/np.yaml", path("np.yaml")).unwrap();
    for watched in [path(""), path("np.yaml"), path("..data")] {
        let version = fs::read_link(path("..data")).unwrap();
        let name = names(&super::super::read(&[path("")])).remove(0);
        let mut watched = Watched::start(&[&watched]).await;
        for step in ["x", "y"] {
            let next = format!("{}{step}", version.display());
            publish(&next, &format!("{name}{step}"));
            fs::remove_dir_all(fs::canonicalize(path("..1")).unwrap_or_else(|_| path("..1"))).ok();
            watched.until(&[&format!("{name}{step}")]).await;
        }
        assert!(watched.seen.iter().all(|policies| policies.len() == 1), "{:?}", watched.seen);
    }
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_still_watched() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name);
    for (name, content) in [("first", "a"), ("second", "b"), ("third", "c")] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("np.yaml"), policy(content)).unwrap();
    }
    fs::rename(path("first"), path("current")).unwrap();
    let file = path("current").join("np.yaml");
    let mut watched = Watched::start(&[&path("current"), &file]).await;
    for (next, old, name) in [("second", "old1", "b"), ("third", "old2", "c")] {
        fs::rename(path("current"), path(old)).unwrap();
        fs::rename(path(next), path("current")).unwrap();
        watched.until(&[name]).await;
        fs::write(&file, policy("written")).unwrap();
        watched.until(&["written"]).await;
    }
    let moved = base.path().with_extension("moved");
    fs::rename(base.path(), &moved).unwrap();
    fs::create_dir_all(path("current")).unwrap();
    fs::write(&file, policy("new")).unwrap();
    watched.until(&["new"]).await;
    fs::remove_dir_all(moved).unwrap();
}

#[tokio::test]
async fn a_link_to_a_directory_can_be_switched() {
    let base = tempfile::tempdir().unwrap();
    let (a, b) = (directory(&["a"]), directory(&["b"]));
    let (link, new) = (base.path().join("link"), base.path().join("new"));
    symlink(a.path(), &link).unwrap();
    let mut watched = Watched::start(&[&link]).await;
    symlink(b.path(), &new).unwrap();
    fs::rename(&new, &link).unwrap();
    watched.until(&["b"]).await;
    fs::write(b.path().join("c.yaml"), policy("c")).unwrap();
    watched.until(&["b", "c"]).await;
}

#[tokio::test]
async fn a_path_that_appears_later_is_read_then() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("x/y/np.yaml");
    let mut watched = Watched::start(&[&file]).await;
    assert_eq!(watched.last.problems.len(), 1);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, policy("a")).unwrap();
    watched.until(&["a"]).await;
    assert_eq!(watched.last.problems, []);
}

#[tokio::test]
async fn what_cannot_be_read_keeps_its_last_good_objects() {
    let directory = directory(&["a", "b"]);
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    let single = tempfile::tempdir().unwrap();
    let c = single.path().join("c");
    fs::write(&c, policy("c")).unwrap();
    let mut watched = Watched::start(&[directory.path(), &c]).await;
    let broken = [
        "a: [1,",
        "just text",
        "kind: NetworkPolicy",
        "{apiVersion: networking.k8s.io/v9, kind: NetworkPolicy, metadata: {name: a}}",
        "apiVersion: v1\nkind: List\nitems: 3",
    ];
    for text in broken {
        fs::write(&a, text).unwrap();
        watched.until_problems(1).await;
        fs::write(&a, policy("a")).unwrap();
        watched.until_problems(0).await;
    }
    fs::write(&a, b"\xff").unwrap();
    watched.until_problems(1).await;
    fs::remove_file(&c).unwrap();
    watched.until_problems(2).await;
    assert!(watched.seen.iter().all(|policies| policies == &["a", "b", "c"]), "{:?}", watched.seen);
    fs::remove_file(&a).unwrap();
    watched.until(&["b", "c"]).await;
    fs::write(&b, policy("b2")).unwrap();
    fs::write(&c, policy("c2")).unwrap();
    watched.until(&["b2", "c2"]).await;
    assert_eq!(watched.last.problems, []);
}

#[tokio::test]
async fn a_file_is_not_read_while_it_is_being_written() {
    let directory = directory(&["a", "b"]);
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    let mut watched = Watched::start(&[directory.path()]).await;
    let mut writer = File::create(&a).unwrap();
    fs::write(&b, policy("b2")).unwrap();
    watched.until(&["a", "b2"]).await;
    // What is there now is a whole document, of a policy that allows everyone.
    let half = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: half}\nspec:\n  ingress:\n  - from:\n";
    writer.write_all(half.as_bytes()).unwrap();
    fs::write(&b, policy("b3")).unwrap();
    watched.until(&["a", "b3"]).await;
    writer.write_all(b"    - podSelector: {}\n").unwrap();
    drop(writer);
    watched.until(&["b3", "half"]).await;
    assert_eq!(watched.seen, [["a", "b"], ["a", "b2"], ["a", "b3"], ["b3", "half"]]);
}

#[tokio::test]
async fn no_picture_lacks_a_policy_that_is_only_rewritten() {
    let directory = directory(&["a"]);
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    let mut watched = Watched::start(&[directory.path()]).await;
    let rounds = 200;
    let writer = thread::spawn(move || {
        for round in 1..=rounds {
            let mut file = File::create(&a).unwrap();
            for piece in policy(&format!("a{round}")).as_bytes().chunks(20) {
                file.write_all(piece).unwrap();
            }
            drop(file);
            fs::write(&b, format!("# {round}")).unwrap();
        }
    });
    watched.until(&[&format!("a{rounds}")]).await;
    writer.join().unwrap();
    assert!(watched.seen.iter().all(|policies| policies.len() == 1), "{:?}", watched.seen);
}

#[tokio::test]
async fn a_path_that_holds_no_object_any_more_keeps_what_it_held_beside_changes_of_others() {
    let (one, other) = (directory(&["a"]), directory(&["b"]));
    let mut watched = Watched::start_with(&[one.path(), other.path()], false).await;
    fs::remove_file(one.path().join("a.yaml")).unwrap();
    watched.until_problems(1).await;
    let problem = watched.last.problems[0].to_string();
    assert!(problem.contains("holds no object any more"), "{problem}");
    fs::write(other.path().join("c.yaml"), policy("c")).unwrap();
    watched.until(&["a", "b", "c"]).await;
    fs::write(one.path().join("d.yaml"), policy("d")).unwrap();
    watched.until(&["b", "c", "d"]).await;
    assert!(watched.last.problems.is_empty() && watched.last.missing.is_empty(), "{:?}", watched.last);
}

#[tokio::test]
async fn a_path_without_any_object_is_missing_until_it_has_one() {
    let directory = directory(&[]);
    let path = directory.path().join("later");
    let mut watched = Watched::start_with(&[&path], false).await;
    assert!(watched.last.missing[0].to_string().contains("No such file"), "{:?}", watched.last.missing);
    fs::create_dir(&path).unwrap();
    while !watched.last.missing[0].to_string().contains("holds no object") {
        watched.next().await;
    }
    fs::write(path.join("a.yaml"), policy("a")).unwrap();
    watched.until(&["a"]).await;
    assert_eq!((watched.last.missing.len(), watched.last.lacking.len()), (0, 0));
}

#[tokio::test]
async fn a_file_that_could_never_be_read_is_lacking_and_one_that_turned_bad_is_not() {
    let directory = directory(&["a"]);
    fs::write(directory.path().join("b.yaml"), "kind: [").unwrap();
    let mut watched = Watched::start_with(&[directory.path()], false).await;
    assert_eq!(watched.last.lacking, watched.last.problems);
    assert_eq!(watched.last.lacking.len(), 1);
    fs::write(directory.path().join("b.yaml"), policy("b")).unwrap();
    watched.until(&["a", "b"]).await;
    fs::write(directory.path().join("a.yaml"), "kind: [").unwrap();
    watched.until_problems(1).await;
    assert_eq!(watched.last.lacking, []);
}

#[tokio::test]
async fn the_watch_ends_with_its_receiver() {
    let directory = directory(&["a"]);
    let (updates, receiver) = mpsc::channel(1);
    let (runtime, inotify) = thread::spawn(|| set_up().unwrap()).join().unwrap();
    let store = ManifestStore::new(&[directory.path().to_owned()], ReadOptions::default());
    let work = thread::spawn(move || runtime.block_on(Watcher::new(inotify, store).run(updates)));
    drop(receiver);
    let joined = tokio::task::spawn_blocking(move || work.join().is_ok());
    assert!(timeout(DEADLINE, joined).await.expect("the end in time").unwrap());
}

#[test]
fn a_pipe_says_for_whom_it_waits_and_a_file_waits_for_no_writer() {
    let directory = tempfile::tempdir().unwrap();
    let [pipe, file] = ["pipe", "objects.yaml"].map(|name| directory.path().join(name));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::write(&file, "").unwrap();
    let waits = |paths: &[&Path]| {
        super::super::waits_for_writer(&paths.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>())
    };
    let absent = directory.path().join("absent");
    assert_eq!(waits(&[directory.path(), &file, &absent]), None);
    let said = waits(&[&file, &pipe]).unwrap();
    assert_eq!(said, format!("{}: waiting for a writer to write it and to close it", pipe.display()));
    assert!(waits(&[Path::new("-")]).is_some_and(|said| said.starts_with("standard input: ")));
}

#[tokio::test]
async fn a_pipe_is_read_when_its_writer_has_closed_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let to = pipe.clone();
    let writing = thread::spawn(move || fs::write(to, policy("a")).unwrap());
    let watched = Watched::start(&[&pipe]).await;
    assert_eq!(watched.seen, [["a"]]);
    writing.join().unwrap();
}
