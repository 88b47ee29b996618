//! The text of files: its forms, its faults, and what is hostile.

use podgate_core::model::{Cluster, Name};
use proptest::prelude::*;

use super::*;

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
        let (picture, problems) = read_files(&[("a.yaml", &format!("{good}---\n{text}\n---\n{third}"))]);
        assert_eq!(problems, [format!("a.yaml: {problem}")], "{text:?}");
        assert_eq!(policies(&picture), ["shop/db", "shop/web"], "{text:?}");
    }
}

#[test]
fn keys_that_appear_twice_make_json_unreadable_too() {
    let text = r#"{"apiVersion": "v1", "kind": "Namespace", "kind": "Pod", "metadata": {"name": "a"}}"#;
    let expected =
        "a.json: document 1 (line 1): duplicate mapping key `kind` is not allowed here at line 1, column 43";
    assert_eq!(read_files(&[("a.json", text)]).1, [expected]);
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
        let policy = policy("web", &format!("{{ingress: [{{ports: [{{port: {port}}}]}}]}}"));
        let expected = format!("a.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[0].port: {message}");
        assert_eq!(read_files(&[("a.yaml", &policy)]).1, [expected]);
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
        let (picture, problems) = read_files(&[("a.yaml", &text)]);
        assert_eq!(problems.len(), 1, "{}", &text[..20]);
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
    let (picture, problems) = read_files(&[("a.yaml", &text)]);
    assert_eq!(problems, [""; 0]);
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
fn bytes_that_are_not_utf8_are_a_problem_of_the_file() {
    let directory = directory(&[("b.yaml", &policy("web", "{}"))]);
    fs::write(directory.path().join("a.yaml"), b"a: 1\nb: \xff\n").unwrap();
    let picture = read_directory(&directory);
    assert_eq!(lines(&picture, directory.path()), ["a.yaml: is not UTF-8 at line 2"]);
    assert_eq!(policies(&picture), ["shop/web"]);
}

/// What `kubectl` prints for a list, pasted together at random.
fn any_text() -> impl Strategy<Value = String> {
    let lines = [
        "apiVersion: v1\n",
        "kind: Pod\n",
        "kind: List\n",
        "items:\n",
        "metadata:\n",
        "name: a\n",
        "%YAML 1.2\n",
        "!!binary ",
    ];
    let marks = [
        "- ", "  ", "---\n", "...\n", "{", "}", "[", "]", ",", ":", "&a ", "*a", "<<: ", "|\n", ">-\n", "\"",
        "'", "#", "? ", "\t", "\r\n", "\0", "\u{feff}", "\u{85}", "1e999", "-", "~",
    ];
    let piece = prop_oneof![
        1 => prop::sample::select(lines.to_vec()).prop_map(str::to_owned),
        3 => prop::sample::select(marks.to_vec()).prop_map(str::to_owned),
        4 => ".{0,6}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_text_makes_the_reader_panic(text in any_text()) {
        let _ = document::read(text.as_bytes(), document::LineDetail::Items);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = document::read(&bytes, document::LineDetail::Items);
    }

    #[test]
    fn text_around_a_policy_does_not_make_it_vanish(before in any_text(), after in any_text()) {
        let policy = policy("web", "{}");
        let documents = document::read(format!("{before}\n---\n{policy}\n---\n{after}").as_bytes(), document::LineDetail::Documents).unwrap();
        let has_it = |document: &document::YamlDocument| {
            document.value.as_ref().is_ok_and(|value| value["metadata"]["name"] == "web")
        };
        prop_assert!(documents.iter().any(has_it));
    }
}
