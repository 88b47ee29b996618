//! Files, documents and lists, and whatever else lies in a directory.

use std::{fs, os::unix::fs::symlink, path::Path};

use podgate_core::model::{ObjectName, Selector};
use tempfile::TempDir;

use super::*;

mod text;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn read_directory(directory: &TempDir) -> ClusterSnapshot {
    read(&[directory.path().to_owned()])
}

/// What is read of these files, and the problems as they are printed.
fn read_files(files: &[(&str, &str)]) -> (ClusterSnapshot, Vec<String>) {
    let directory = directory(files);
    let picture = read_directory(&directory);
    let problems = lines(&picture, directory.path());
    (picture, problems)
}

const MEANT_EMPTY: ReadOptions = ReadOptions { namespace: None, allow_empty: true };

/// The problems as they are printed, with paths relative to the directory.
fn lines(picture: &ClusterSnapshot, directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    picture.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

fn policies(picture: &ClusterSnapshot) -> Vec<String> {
    picture.cluster.policies.keys().map(ToString::to_string).collect()
}

#[test]
fn a_problem_names_file_object_and_field() {
    let spec = "{ingress: [{ports: [{port: 80}, {port: 80, endPort: 79}]}]}";
    let expected =
        "policies.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[1].endPort: 79 is less than port 80";
    assert_eq!(read_files(&[("policies.yaml", &policy("web", spec))]).1, [expected]);
}

#[test]
fn a_problem_is_one_line_whatever_its_text_holds() {
    let problem = ValidationError {
        file: "a\nb".into(),
        object: "Pod x/\u{1b}[31m".into(),
        field: "metadata.labels[\r]".into(),
        message: "is\0bad".into(),
    };
    assert_eq!(problem.to_string(), r"a\nb: Pod x/\u{1b}[31m: metadata.labels[\r]: is\u{0}bad");
}

#[test]
fn the_file_of_kustomize_needs_no_kind() {
    let resources = "resources: [a.yaml]\n";
    let directory = directory(&[("a.yaml", &policy("web", "{}")), ("kustomization.yaml", resources)]);
    assert_eq!(read_directory(&directory).problems, []);
    fs::write(directory.path().join("other.yaml"), resources).unwrap();
    let picture = read_directory(&directory);
    assert_eq!(lines(&picture, directory.path()), ["other.yaml: document 1 (line 1): kind: is missing"]);
}

#[test]
fn objects_that_name_no_namespace_are_of_the_one_that_was_given() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}}\n";
    let directory = directory(&[("a.yaml", policy)]);
    let options = ReadOptions { namespace: Some("shop".into()), ..ReadOptions::default() };
    assert_eq!(policies(&read_with(&[directory.path().to_owned()], options)), ["shop/a"]);
}

#[test]
fn a_path_without_any_object_is_missing_unless_that_is_meant() {
    let directory = directory(&[("a.yaml", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\n")]);
    let paths = [directory.path().to_owned()];
    let missing: Vec<String> = read(&paths).missing.iter().map(ToString::to_string).collect();
    assert_eq!(
        missing,
        [format!("{}: holds no object (--allow-empty if that is meant)", paths[0].display())]
    );
    assert_eq!(read_with(&paths, MEANT_EMPTY).missing, []);
    let absent = [directory.path().join("absent")];
    assert_eq!(read_with(&absent, MEANT_EMPTY).missing.len(), 1, "what is not there is not empty");
}

#[test]
fn a_directory_gives_its_manifests_and_a_named_file_needs_no_ending() {
    let names = ["a.yaml", "b.yml", "c.json", "d.txt", ".e.yaml", "f.YAML", "g"];
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        let policy = policy(&format!("p-{}", name.replace('.', "").to_lowercase()), "{}");
        fs::write(directory.path().join(name), policy).unwrap();
    }
    fs::create_dir(directory.path().join("h.yaml")).unwrap();
    assert_eq!(policies(&read_directory(&directory)), ["shop/p-ayaml", "shop/p-byml", "shop/p-cjson"]);
    let paths = ["d.txt", ".e.yaml", "d.txt"].map(|name| directory.path().join(name));
    let picture = read(&paths);
    assert_eq!(policies(&picture), ["shop/p-dtxt", "shop/p-eyaml"]);
    assert_eq!(picture.problems, []);
}

#[test]
fn paths_that_cannot_be_read_are_problems_beside_the_rest() {
    let directory = directory(&[("b.yaml", &policy("web", "{}"))]);
    symlink("nowhere", directory.path().join("a.yaml")).unwrap();
    let picture = read(&[directory.path().join("absent"), directory.path().to_owned()]);
    let missing = "cannot be read: No such file or directory (os error 2)";
    let expected = [format!("absent: {missing}"), format!("a.yaml: {missing}")];
    assert_eq!(lines(&picture, directory.path()), expected);
    assert_eq!(policies(&picture), ["shop/web"]);
}

#[test]
fn of_objects_that_appear_twice_the_later_counts() {
    let pod = |phase: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, status: {{phase: {phase}}}}}\n")
    };
    let (picture, problems) = read_files(&[
        ("a.yaml", &(policy("web", "{}") + "---\n" + &pod("Running"))),
        ("b.yaml", &(policy("web", "{podSelector: 1}") + "---\n" + &policy("web", "{egress: [{}]}"))),
        ("c.yaml", &pod("Failed")),
    ]);
    let expected = [
        "b.yaml: NetworkPolicy shop/web: spec.podSelector: is a number, not an object",
        "b.yaml: NetworkPolicy shop/web: stands also in a.yaml; this one counts",
        "b.yaml: NetworkPolicy shop/web: stands twice in this file; the later one counts",
        "c.yaml: Pod default/a: stands also in a.yaml; this one counts",
    ];
    assert_eq!(problems, expected);
    let policy = &picture.cluster.policies[&ObjectName::new("shop", "web")];
    assert_eq!((policy.subject.clone(), policy.egress.is_some()), (Selector::EVERYTHING, true));
    assert!(picture.cluster.pods.is_empty());
}

#[test]
fn a_service_that_is_no_longer_served_takes_the_place_of_the_earlier_one() {
    let service = |spec: &str| {
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{{spec}}}}}\n")
    };
    let slice = |kind: &str| {
        let labels = "{kubernetes.io/service-name: web}";
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {kind}, metadata: {{name: s, labels: {labels}}}}}\n"
        )
    };
    let first = service("clusterIP: 10.96.0.1") + "---\n" + &slice("IPv4");
    let both = directory(&[
        ("a.yaml", &first),
        ("b.yaml", &(service("type: ExternalName") + "---\n" + &slice("FQDN"))),
    ]);
    let only_first = directory(&[("a.yaml", &first)]);
    for (directory, count) in [(&only_first, 1), (&both, 0)] {
        let cluster = read_directory(directory).cluster;
        assert_eq!((cluster.services.len(), cluster.slices.len()), (count, count));
    }
    let expected = [
        "b.yaml: Service default/web: stands also in a.yaml; this one counts",
        "b.yaml: EndpointSlice default/s: stands also in a.yaml; this one counts",
    ];
    assert_eq!(lines(&read_directory(&both), both.path()), expected);
}

#[test]
fn policies_without_names_do_not_replace_each_other() {
    let unnamed = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop}}\n";
    let twice = format!("{unnamed}---\n{unnamed}");
    let (picture, problems) = read_files(&[("a.yaml", &twice), ("b.yaml", unnamed)]);
    assert_eq!(picture.cluster.policies.len(), 3);
    let object = |file: &str, place: &str| {
        format!("{file}: NetworkPolicy shop/(unnamed, {file} {place}): metadata.name: is missing")
    };
    let expected = [
        object("a.yaml", "document 1 (line 1)"),
        object("a.yaml", "document 2 (line 3)"),
        object("b.yaml", "document 1 (line 1)"),
    ];
    assert_eq!(problems, expected);
}

#[test]
fn each_object_is_known_by_file_and_line_also_in_lists_and_json() {
    let yaml = format!(
        "# A comment.\n{}---\n\napiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Pod, metadata: {{name: a}}}}\n\
         - apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: v1\n    kind: Pod\n    metadata: {{name: b}}\n---\nkind: [\n",
        policy("web", "{}")
    );
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"PodList\",\n\"items\": [\n {\"metadata\": {\"name\": \"c\"}},\n\
                {\"metadata\":\n {\"name\": \"d\"}}]}\n{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}\n";
    let directory = directory(&[("a.yaml", &yaml), ("b.json", json)]);
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (picture, written) = read_written(&[directory.path().to_owned()], ReadOptions::default());
    for (object, name, line) in [
        ("NetworkPolicy shop/web", "a.yaml", 2),
        ("Pod default/a", "a.yaml", 11),
        ("Pod default/b", "a.yaml", 15),
        ("Pod default/c", "b.json", 3),
        ("Pod default/d", "b.json", 4),
    ] {
        assert_eq!(written.place(object), Some((&*file(name), Some(line))), "{object}");
    }
    let lines: Vec<_> =
        picture.problems.iter().map(|problem| written.line(&problem.file, &problem.object)).collect();
    assert_eq!(lines, [Some(19), Some(6)], "{:?}", picture.problems);
}
