//! Files, documents and lists, and whatever else lies in a directory.

use std::{fs, os::unix::fs::symlink, path::Path};

use podgate_core::model::{Cluster, Name, ObjectName, Selector};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

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
    let directory = directory(&[("policies.yaml", &policy("web", spec))]);
    let picture = read_directory(&directory);
    let expected =
        "policies.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[1].endPort: 79 is less than port 80";
    assert_eq!(lines(&picture, directory.path()), [expected]);
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
fn documents_of_every_form_are_read() {
    let namespace = |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    let json =
        |name: &str| format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
    let table = [
        ("", vec![]),
        ("# only a comment\n", vec![]),
        ("---\n---\n# nothing\n---\n...\n", vec![]),
        ("null\n---\n~\n", vec![]),
        (&namespace("a"), vec!["a"]),
        (&format!("\u{feff}{}", namespace("a")), vec!["a"]),
        (
            &format!(
                "{}---\n\u{feff}{}\u{feff}---\r\n# c\n\u{feff}{}",
                namespace("a"),
                namespace("b"),
                namespace("c")
            ),
            vec!["a", "b", "c"],
        ),
        (&format!("\u{feff}{}\n\u{feff}{}", json("a"), json("b")), vec!["a", "b"]),
        (
            &format!("apiVersion: v1\nkind: Namespace\nmetadata:\n{}  name: a\n", "  # why\n".repeat(200)),
            vec!["a"],
        ),
        (&namespace("a").replace('\n', "\r\n"), vec!["a"]),
        (
            &format!("{}---\n\n--- # comment\n{}...\n{}", namespace("a"), namespace("b"), namespace("c")),
            vec!["a", "b", "c"],
        ),
        (&format!("%YAML 1.2\n# comment\n---\n{}", namespace("a")), vec!["a"]),
        (&format!("--- {}\n--- {}", json("a"), json("b")), vec!["a", "b"]),
        (&json("a"), vec!["a"]),
        (&format!(" {}\n\n{}{}", json("a"), json("b"), json("c")), vec!["a", "b", "c"]),
        (&format!("{}\n---\n{}", json("a"), json("b")), vec!["a", "b"]),
        (
            &format!(r#"{{"apiVersion":"v1","kind":"List","items":[{},{}]}}"#, json("a"), json("b")),
            vec!["a", "b"],
        ),
        (
            "kind: List\nmetadata: &m {name: a, x: y}\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {<<: *m, name: b}}\n",
            vec!["b"],
        ),
    ];
    for (text, names) in table {
        let directory = directory(&[("a.yaml", text)]);
        let picture = read_with(&[directory.path().to_owned()], MEANT_EMPTY);
        assert_eq!(lines(&picture, directory.path()), [""; 0], "{text:?}");
        let found: Vec<Name> = picture.cluster.namespaces.keys().cloned().collect();
        assert_eq!(found, names.into_iter().map(Name::from).collect::<Vec<_>>(), "{text:?}");
    }
}

#[test]
fn an_unreadable_document_is_named_and_its_neighbours_are_read() {
    let good = policy("web", "{}");
    let table = [
        ("a: [1,", "document 2 (line 6): unclosed bracket '[' at line 6, column 4"),
        (
            "a: b: c",
            "document 2 (line 6): mapping values are not allowed in this context at line 6, column 5",
        ),
        (
            "a: 1\na: 2",
            "document 2 (line 6): duplicate mapping key `a` is not allowed here at line 7, column 1",
        ),
        ("a: 'x", "document 2 (line 6): unclosed quote at line 6, column 4"),
        ("a\0b: 1", "document 2 (line 6): unexpected character: `\\u{0}' at line 6, column 2"),
        ("*x", "document 2 (line 6): reference to unknown value at line 6, column 1"),
        ("# comment\n\nkind: [", "document 2 (line 8): unclosed bracket '[' at line 8, column 7"),
        ("just text", "document 2 (line 6): is text, not an object"),
        ("- a list", "document 2 (line 6): is a list, not an object"),
        ("kind: 1", "document 2 (line 6): kind: is a number, not text"),
        ("name: x", "document 2 (line 6): kind: is missing"),
    ];
    for (text, problem) in table {
        let third = policy("db", "{}");
        let directory = directory(&[("a.yaml", &format!("{good}---\n{text}\n---\n{third}"))]);
        let picture = read_directory(&directory);
        assert_eq!(lines(&picture, directory.path()), [format!("a.yaml: {problem}")], "{text:?}");
        assert_eq!(policies(&picture), ["shop/db", "shop/web"], "{text:?}");
    }
}

#[test]
fn keys_that_appear_twice_make_json_unreadable_too() {
    let text = r#"{"apiVersion": "v1", "kind": "Namespace", "kind": "Pod", "metadata": {"name": "a"}}"#;
    let directory = directory(&[("a.json", text)]);
    let picture = read_directory(&directory);
    let expected =
        "a.json: document 1 (line 1): duplicate mapping key `kind` is not allowed here at line 1, column 43";
    assert_eq!(lines(&picture, directory.path()), [expected]);
}

#[test]
fn numbers_that_json_does_not_have_stay_in_their_field() {
    let table = [
        (".inf", "\".inf\" is not a port name: only a-z, 0-9 and '-' are allowed"),
        ("1e999", "\".inf\" is not a port name: only a-z, 0-9 and '-' are allowed"),
        ("080", "\"080\" is not a port name: it has no letter"),
        ("99999999999999999999", "1e+20 is not a port number (1 to 65535)"),
    ];
    for (port, message) in table {
        let directory = directory(&[(
            "a.yaml",
            &policy("web", &format!("{{ingress: [{{ports: [{{port: {port}}}]}}]}}")),
        )]);
        let picture = read_directory(&directory);
        let expected = format!("a.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[0].port: {message}");
        assert_eq!(lines(&picture, directory.path()), [expected]);
    }
}

#[test]
fn hostile_text_ends_in_a_problem() {
    let mut aliases = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        aliases += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(","));
    }
    let long_scalar = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 90].join(","));
    let texts = [
        aliases,
        long_scalar,
        "[".repeat(1 << 20),
        "- ".repeat(1 << 20),
        "{a: ".repeat(1 << 18),
        r#"{"a":"#.repeat(1 << 18),
        "&a [*a]".to_owned(),
        "? ".repeat(1 << 18),
    ];
    for text in texts {
        let directory = directory(&[("a.yaml", &text)]);
        let picture = read_directory(&directory);
        assert_eq!(picture.problems.len(), 1, "{}", &text[..20]);
        assert_eq!(*picture.cluster, Cluster::default());
    }
}

#[test]
fn lists_with_an_alias_for_each_pod_are_read_however_many_there_are() {
    // As Python's yaml.dump writes equal parts of many objects.
    let mut text = String::from("apiVersion: v1\nkind: List\nitems:\n");
    for number in 0..5_000 {
        let labels = if number == 0 { "&id001 {app: web, tier: front, team: shop}" } else { "*id001" };
        text += &format!(
            "- apiVersion: v1\n  kind: Pod\n  metadata:\n    labels: {labels}\n    name: web-{number}\n    \
             namespace: shop\n"
        );
    }
    let directory = directory(&[("a.yaml", &text)]);
    let picture = read_directory(&directory);
    assert_eq!(lines(&picture, directory.path()), [""; 0]);
    assert_eq!(picture.cluster.pods.len(), 5_000);
    assert!(picture.cluster.pods.values().all(|pod| pod.labels.len() == 3));
}

#[test]
fn text_of_windows_is_read_and_what_is_cut_off_is_not() {
    let text = policy("w\u{fc}b", "{}") + "# \u{1f600}\n";
    let units: Vec<u16> = text.encode_utf16().collect();
    let bytes = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        [mark.to_vec(), units.iter().flat_map(|unit| bytes(*unit)).collect()].concat()
    };
    let little = bytes([0xff, 0xfe], u16::to_le_bytes);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    for bytes in [little.clone(), bytes([0xfe, 0xff], u16::to_be_bytes)] {
        fs::write(&file, bytes).unwrap();
        assert_eq!(policies(&read_directory(&directory)), ["shop/w\u{fc}b"]);
    }
    // In the middle of a character, and of a pair of them.
    for cut in [1, 4] {
        fs::write(&file, &little[..little.len() - cut]).unwrap();
        let picture = read_directory(&directory);
        assert_eq!(lines(&picture, directory.path()), ["a.yaml: is not UTF-16 at line 5"]);
    }
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
fn bytes_that_are_not_utf8_are_a_problem_of_the_file() {
    let directory = directory(&[("b.yaml", &policy("web", "{}"))]);
    fs::write(directory.path().join("a.yaml"), b"a: 1\nb: \xff\n").unwrap();
    let picture = read_directory(&directory);
    assert_eq!(lines(&picture, directory.path()), ["a.yaml: is not UTF-8 at line 2"]);
    assert_eq!(policies(&picture), ["shop/web"]);
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
    let directory = directory(&[
        ("a.yaml", &(policy("web", "{}") + "---\n" + &pod("Running"))),
        ("b.yaml", &(policy("web", "{podSelector: 1}") + "---\n" + &policy("web", "{egress: [{}]}"))),
        ("c.yaml", &pod("Failed")),
    ]);
    let picture = read_directory(&directory);
    let expected = [
        "b.yaml: NetworkPolicy shop/web: spec.podSelector: is a number, not an object",
        "b.yaml: NetworkPolicy shop/web: stands also in a.yaml; this one counts",
        "b.yaml: NetworkPolicy shop/web: stands twice in this file; the later one counts",
        "c.yaml: Pod default/a: stands also in a.yaml; this one counts",
    ];
    assert_eq!(lines(&picture, directory.path()), expected);
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
    let directory = directory(&[("a.yaml", &format!("{unnamed}---\n{unnamed}")), ("b.yaml", unnamed)]);
    let picture = read_directory(&directory);
    assert_eq!(picture.cluster.policies.len(), 3);
    let object = |file: &str, place: &str| {
        format!("{file}: NetworkPolicy shop/(unnamed, {file} {place}): metadata.name: is missing")
    };
    let expected = [
        object("a.yaml", "document 1 (line 1)"),
        object("a.yaml", "document 2 (line 3)"),
        object("b.yaml", "document 1 (line 1)"),
    ];
    assert_eq!(lines(&picture, directory.path()), expected);
}

/// What `kubectl` prints for a list, pasted together at random.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "apiVersion: v1\n",
            "kind: Pod\n",
            "kind: List\n",
            "items:\n",
            "- ",
            "  ",
            "---\n",
            "...\n",
            "metadata:\n",
            "name: a\n",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "&a ",
            "*a",
            "<<: ",
            "|\n",
            ">-\n",
            "\"",
            "'",
            "#",
            "%YAML 1.2\n",
            "!!binary ",
            "? ",
            "\t",
            "\r\n",
            "\0",
            "\u{feff}",
            "\u{85}",
            "1e999",
            "-",
            "~",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_text_makes_the_reader_panic(text in any_text()) {
        let _ = document::read(text.as_bytes());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = document::read(&bytes);
    }

    #[test]
    fn text_around_a_policy_does_not_make_it_vanish(before in any_text(), after in any_text()) {
        let policy = policy("web", "{}");
        let documents = document::read(format!("{before}\n---\n{policy}\n---\n{after}").as_bytes()).unwrap();
        let has_it = |document: &document::YamlDocument| {
            document.value.as_ref().is_ok_and(|value| value["metadata"]["name"] == "web")
        };
        prop_assert!(documents.iter().any(has_it));
    }
}
