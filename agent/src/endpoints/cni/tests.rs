//! The result formats by table, and the watch on real directories.

use std::{fs, os::unix::fs::symlink, time::Duration};

use podgate_core::model::ObjectName;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// A record as libcni writes it, around a result.
fn record(interface: &str, result: &str) -> String {
    format!(
        r#"{{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"{interface}","networkName":"net",
            "cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","web-0"],
            ["K8S_POD_UID","6a"]],"capabilityArgs":{{}},"result":{result}}}"#
    )
}

fn parse(interface: &str, result: &str) -> CniResult {
    CniResult::parse(record(interface, result).as_bytes()).unwrap().expect("a pod's record")
}

/// What is read of a record but for the namespaces.
fn expected(host_interfaces: &[&str], addresses: &[&str]) -> CniResult {
    CniResult {
        namespaces: BTreeSet::new(),
        pod: ObjectName::new("shop", "web-0"),
        primary: true,
        host_interfaces: host_interfaces.iter().map(|name| (*name).into()).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        link_address: None,
    }
}

#[test]
fn every_result_format_gives_pod_interfaces_and_addresses() {
    let table = [
        (
            "ptp, 1.0",
            r#"{"cniVersion":"1.0.0","interfaces":[{"name":"veth1","mac":"aa:bb"},{"name":"eth0","sandbox":"/run/netns/x"}],
                "ips":[{"interface":1,"address":"10.244.1.5/24","gateway":"10.244.1.1"}],"dns":{}}"#,
            expected(&["veth1"], &["10.244.1.5"]),
        ),
        (
            "bridge, 0.4, dual stack",
            r#"{"cniVersion":"0.4.0","interfaces":[{"name":"cni0"},{"name":"veth1","sandbox":""},
                {"name":"eth0","sandbox":"/run/netns/x"}],
                "ips":[{"version":"4","interface":2,"address":"10.244.1.5/24"},
                       {"version":"6","interface":2,"address":"fd00:10::5/64"}]}"#,
            expected(&["cni0", "veth1"], &["10.244.1.5", "fd00:10::5"]),
        ),
        (
            "0.3 without interfaces",
            r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.244.1.5/32"}]}"#,
            expected(&[], &["10.244.1.5"]),
        ),
        (
            "0.2",
            r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.244.1.5/24","gateway":"10.244.1.1"},"ip6":{"ip":"fd00:10::5/64"}}"#,
            expected(&[], &["10.244.1.5", "fd00:10::5"]),
        ),
        (
            "a plug-in that names the node's end alone, and gives it as the holder",
            r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cali12"}],"ips":[{"interface":0,"address":"10.244.1.5/32"}]}"#,
            expected(&["cali12"], &["10.244.1.5"]),
        ),
        (
            "a plug-in that lists the pod's end without a sandbox",
            r#"{"cniVersion":"0.3.0","interfaces":[{"name":"eth0"}],"ips":[{"interface":0,"address":"10.244.1.5/16"}]}"#,
            expected(&[], &["10.244.1.5"]),
        ),
        (
            "an address on the node's end is not the pod's",
            r#"{"cniVersion":"1.0.0","interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/x"}],
                "ips":[{"interface":0,"address":"10.244.1.1/24"},{"interface":1,"address":"10.244.1.5/24"}]}"#,
            expected(&["veth1"], &["10.244.1.5"]),
        ),
        (
            "an index that leads nowhere says nothing",
            r#"{"cniVersion":"1.0.0","interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/x"}],
                "ips":[{"interface":7,"address":"10.244.1.5/24"},{"interface":-1,"address":"10.244.1.6/24"}]}"#,
            expected(&["veth1"], &["10.244.1.5", "10.244.1.6"]),
        ),
        (
            "nulls, and addresses that are no host's",
            r#"{"interfaces":null,"ips":[{"address":"127.0.0.1/8","interface":null},{"address":"0.0.0.0/0"}],"ip4":null}"#,
            expected(&[], &[]),
        ),
        ("no result", "null", expected(&[], &[])),
    ];
    for (name, result, expected) in table {
        let found = CniResult { namespaces: BTreeSet::new(), ..parse("eth0", result) };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn the_pods_namespace_is_named_by_the_record_and_by_the_plug_in() {
    let sandbox =
        |path: &str| format!(r#""interfaces":[{{"name":"veth1"}},{{"name":"eth0","sandbox":"{path}"}}]"#);
    let table = [
        (r#""result":{}"#.to_owned(), vec![]),
        (format!(r#""netns":"/run/netns/x","result":{{{}}}"#, sandbox("")), vec!["/run/netns/x"]),
        (format!(r#""result":{{{}}}"#, sandbox("/proc/4711/ns/net")), vec!["/proc/4711/ns/net"]),
        (
            format!(r#""netns":"/run/netns/x","result":{{{}}}"#, sandbox("/var/run/netns/x")),
            vec!["/run/netns/x", "/var/run/netns/x"],
        ),
        (format!(r#""netns":"none","result":{{{}}}"#, sandbox("sandbox-of-a-machine")), vec![]),
    ];
    for (rest, expected) in table {
        let record =
            format!(r#"{{"cniArgs":[["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","web-0"]],{rest}}}"#);
        let found = CniResult::parse(record.as_bytes()).unwrap().expect("a pod's record").namespaces;
        assert!(found.iter().eq(expected.iter().map(Path::new)), "{record}: {found:?}");
    }
}

#[test]
fn the_link_layer_address_of_the_pods_end_is_read_and_no_other() {
    let of = |interfaces: &str| parse("eth0", &format!(r#"{{"interfaces":[{interfaces}]}}"#)).link_address;
    let own = r#"{"name":"eth0","mac":"0a:58:0A:f4:01:05","sandbox":"/run/netns/x"}"#;
    let host = r#"{"name":"veth1","mac":"02:00:00:00:00:01"}"#;
    assert_eq!(of(&format!("{host},{own}")), Some([0x0a, 0x58, 0x0a, 0xf4, 1, 5]));
    for mac in ["", "0a:58", "0a:58:0a:f4:01:05:06", "0a:58:0a:f4:01:g5", "0a-58-0a-f4-01-05"]
        .into_iter()
        .chain(["01:58:0a:f4:01:05", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
    {
        let interface = format!(r#"{{"name":"eth0","mac":"{mac}","sandbox":"/x"}}"#);
        assert_eq!(of(&interface), None, "{mac}");
    }
    for other in [
        host,
        r#"{"name":"eth0","mac":"02:00:00:00:00:01"}"#,
        r#"{"name":"net1","mac":"02:00:00:00:00:01","sandbox":"/x"}"#,
        r#"{"name":"eth0","sandbox":"/x"}"#,
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn another_interface_than_the_first_is_a_further_network() {
    assert!(parse("eth0", "{}").primary);
    assert!(!parse("net1", "{}").primary);
}

#[test]
fn what_is_no_pods_is_passed_over_in_silence() {
    let table = [
        ("loopback", record("lo", r#"{"ips":[{"address":"127.0.0.1/8"}]}"#)),
        ("no arguments", r#"{"kind":"cniCacheV1","ifName":"eth0","result":{}}"#.to_owned()),
        ("a container without a pod", r#"{"cniArgs":[["IgnoreUnknown","1"]],"result":{}}"#.to_owned()),
        ("a bare result, as libcni once wrote it", r#"{"cniVersion":"0.3.1","ips":[]}"#.to_owned()),
    ];
    for (name, record) in table {
        assert!(matches!(CniResult::parse(record.as_bytes()), Ok(None)), "{name}");
    }
}

#[test]
fn hostile_content_is_refused_and_said_so() {
    let with = |namespace: &str, pod: &str| {
        serde_json::json!({"cniArgs": [["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", pod]]}).to_string()
    };
    let deep = "[".repeat(100_000);
    let table = [
        ("empty", String::new(), "not a record"),
        ("cut short", record("eth0", "{}")[..80].to_owned(), "not a record"),
        ("no object", "[1,2]".to_owned(), "not a record"),
        ("deeply nested", deep, "not a record"),
        ("arguments of three parts", r#"{"cniArgs":[["a","b","c"]]}"#.to_owned(), "not a record"),
        ("a path for a name", with("shop", "../../etc"), "K8S_POD_NAME: \"../../etc\" is not a name"),
        ("an escape sequence", with("\u{1b}[2J", "web"), "K8S_POD_NAMESPACE"),
        ("an empty name", with("shop", ""), "K8S_POD_NAME"),
        ("a long name", with("shop", &"x".repeat(300)), "K8S_POD_NAME"),
        (
            "a long interface",
            record("eth0", r#"{"interfaces":[{"name":"sixteen-letters-"}]}"#),
            "result.interfaces",
        ),
        (
            "an interface with a slash",
            record("eth0", r#"{"interfaces":[{"name":"a/b"}]}"#),
            "result.interfaces",
        ),
        (
            "no address",
            record("eth0", r#"{"ips":[{"address":"10.0.0.256/24"}]}"#),
            "\"10.0.0.256/24\" is not an address",
        ),
        ("a prefix too long", record("eth0", r#"{"ip4":{"ip":"10.0.0.5/33"}}"#), "is not an address"),
    ];
    for (name, record, message) in table {
        let error = CniResult::parse(record.as_bytes()).expect_err(name).to_string();
        assert!(error.contains(message), "{name}: {error}");
        assert!(error.len() < 300, "{name}: {error}");
    }
}

#[test]
fn files_that_are_no_results_are_refused_once_for_each_time_they_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("good"), record("eth0", "{}")).unwrap();
    fs::write(path("garbage"), "garbage").unwrap();
    fs::write(path("large"), vec![b' '; (1 << 20) + 1]).unwrap();
    fs::create_dir(path("directory")).unwrap();
    symlink(path("good"), path("link")).unwrap();
    let mut files = Files::new(directory.path());
    let refused = |refused: Vec<RejectedFile>| {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut all: Vec<_> =
            refused.iter().map(|it| format!("{}: {:#}", name(&it.file), it.error)).collect();
        all.sort();
        all
    };
    let first = refused(files.scan().unwrap());
    let beginnings =
        ["directory: not a regular file", "garbage: not a record", "large: larger", "link: cannot open"];
    assert_eq!(first.len(), beginnings.len(), "{first:?}");
    for (message, beginning) in first.iter().zip(beginnings) {
        assert!(message.starts_with(beginning), "{message}");
    }
    assert_eq!(files.results().0.len(), 1);
    assert_eq!(refused(files.scan().unwrap()), Vec::<String>::new(), "nothing was written since");
    fs::write(path("garbage"), "more garbage").unwrap();
    assert_eq!(refused(files.scan().unwrap()).len(), 1);
    fs::write(path("garbage"), record("net1", "{}")).unwrap();
    assert_eq!(refused(files.scan().unwrap()), Vec::<String>::new());
    assert_eq!(files.results().0.len(), 2);
}

#[tokio::test]
async fn results_appear_and_go_with_their_files_also_before_the_directory_exists() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("cni/results");
    let mut watch = CniWatch::new(&directory).unwrap();
    assert_eq!(addresses(&mut watch).await, [""; 0]);
    let write = |name: &str, address: &str| {
        let result = format!(r#"{{"ips":[{{"address":"{address}/24"}}]}}"#);
        fs::write(directory.join(name), record("eth0", &result)).unwrap();
    };
    fs::create_dir(root.path().join("cni")).unwrap();
    fs::create_dir(&directory).unwrap();
    write("one", "10.0.0.1");
    assert_eq!(addresses(&mut watch).await, ["10.0.0.1"]);
    fs::write(directory.join("garbage"), "garbage").unwrap();
    write("two", "10.0.0.2");
    assert_eq!(addresses(&mut watch).await, ["10.0.0.1", "10.0.0.2"]);
    write("two", "10.0.0.3");
    assert_eq!(addresses(&mut watch).await, ["10.0.0.1", "10.0.0.3"]);
    fs::rename(directory.join("two"), root.path().join("elsewhere")).unwrap();
    assert_eq!(addresses(&mut watch).await, ["10.0.0.1"]);
    fs::rename(root.path().join("elsewhere"), directory.join("back")).unwrap();
    assert_eq!(addresses(&mut watch).await, ["10.0.0.1", "10.0.0.3"]);
    fs::remove_file(directory.join("one")).unwrap();
    assert_eq!(addresses(&mut watch).await, ["10.0.0.3"]);
    fs::remove_dir_all(root.path().join("cni")).unwrap();
    assert_eq!(addresses(&mut watch).await, [""; 0]);
    fs::create_dir_all(&directory).unwrap();
    write("again", "10.0.0.4");
    assert_eq!(addresses(&mut watch).await, ["10.0.0.4"]);
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_read_again() {
    let root = tempfile::tempdir().unwrap();
    let (directory, other) = (root.path().join("results"), root.path().join("other"));
    for (place, address) in [(&directory, "10.0.0.1"), (&other, "10.0.0.2")] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("pod"), record("eth0", &format!(r#"{{"ips":[{{"address":"{address}/24"}}]}}"#)))
            .unwrap();
    }
    let mut watch = CniWatch::new(&directory).unwrap();
    assert_eq!(addresses(&mut watch).await, ["10.0.0.1"]);
    fs::rename(&directory, root.path().join("old")).unwrap();
    fs::rename(&other, &directory).unwrap();
    assert_eq!(addresses(&mut watch).await, ["10.0.0.2"]);
}

#[tokio::test]
async fn a_file_in_the_place_of_the_directory_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("results");
    fs::write(&directory, "").unwrap();
    let error = CniWatch::new(&directory).unwrap().next().await.unwrap_err();
    assert!(format!("{error:#}").contains(directory.to_str().unwrap()), "{error:#}");
}

/// All addresses, after the next change.
async fn addresses(watch: &mut CniWatch) -> Vec<String> {
    let results = tokio::time::timeout(DEADLINE, watch.next()).await.expect("a change").unwrap();
    let addresses: BTreeSet<_> = results.0.iter().flat_map(|result| &result.addresses).collect();
    addresses.into_iter().map(ToString::to_string).collect()
}
