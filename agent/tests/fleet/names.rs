//! What pods of all nodes have learnt of names.

use crate::{
    plugin::run,
    server::{Behaviour, Server, version},
};

const NAMES: &str = include_str!("../verbs/names.json");

#[test]
fn what_pods_of_all_nodes_have_learnt_is_one_table() {
    let server = Server::with_nodes(3, |node, _, arguments| {
        Behaviour::Prints(match (&*arguments[0], node) {
            ("version", _) => version(),
            ("names", "node-002") => return Behaviour::Fails("error: unrecognized subcommand 'names'\n"),
            ("names", "node-001") => "[]".into(),
            ("names", _) => NAMES.into(),
            (other, _) => panic!("{other}"),
        })
    });
    let done = run(&server, "names -n shop");
    let expected = "\
NODE      POD            NAME             ADDRESS       LEFT  CONNECTIONS  RULES
node-000  shop/frontend  *.example.com    198.51.100.7  41 s  2            ClusterNetworkPolicy internet[1,3]
node-000  shop/frontend  *.example.com    2001:db8::7   41 s  0            ClusterNetworkPolicy internet[1,3]
node-000  shop/frontend  api.example.org  203.0.113.9   0 s   0            -

shop/backend-1 has learnt nothing that counts now
shop/database has no rules with names that allow anything its policies deny
shop/frontend: 2 of 5 addresses (room for 4096) are left out
";
    assert_eq!((done.code, &*done.stdout), (Some(4), expected), "{}", done.stderr);
    assert!(
        done.stderr.contains("node-002: its agent says: unrecognized subcommand 'names'"),
        "{}",
        done.stderr
    );
    let none = run(&server, "names -n other");
    assert!(none.stderr.starts_with("no pod in namespace other (-A for all) has rules with names\n"));
    let json = run(&server, "names shop/frontend -o json");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["items"].as_array().map(Vec::len), Some(1));
    assert_eq!((&json["items"][0]["node"], &json["items"][0]["live"]), (&"node-000".into(), &5.into()));
}
