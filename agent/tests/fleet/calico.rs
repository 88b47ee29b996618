//! `check --calico` without files: what of the cluster's objects of Calico's is not carried whole.

use std::{collections::BTreeSet, process::Command};

use serde_json::{Value, json};

use crate::server::{Behaviour, Server};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// With custom resources of these kinds, and nothing else that may be listed.
fn server(kinds: &[(&str, Vec<Value>)]) -> Server {
    let server = Server::with_nodes(1, |_, _, _| Behaviour::Hangs);
    let mut objects = server.objects();
    for path in ["/api/v1/pods", "/api/v1/namespaces", "/api/v1/services", "/api/v1/nodes", SLICES] {
        objects.refused.insert(path.into(), 403);
    }
    if !kinds.is_empty() {
        let version = json!({"groupVersion": "crd.projectcalico.org/v1", "version": "v1"});
        let group =
            json!({"name": "crd.projectcalico.org", "versions": [version], "preferredVersion": version});
        let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
        objects.raw.insert("/apis".into(), groups);
    }
    for (plural, items) in kinds {
        let name = format!("{plural}.crd.projectcalico.org");
        let definition = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                                "metadata": {"name": name}});
        objects.raw.insert(format!("{CRDS}/{name}"), definition);
        objects.lists.insert(format!("/apis/crd.projectcalico.org/v1/{plural}"), items.clone());
    }
    drop(objects);
    server
}

fn check(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podgate"));
    command.args(["check", "--calico"]).args(arguments).arg("--kubeconfig").arg(server.kubeconfig.path());
    let output = command.env_clear().output().expect("podgate");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("podgate prints UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn policy(name: &str, egress: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": "all()", "types": ["Egress"], "egress": egress}})
}

#[test]
fn what_is_not_carried_is_named_and_only_custom_resources_are_listed() {
    let whole = policy("whole", &json!([{"action": "Deny", "destination": {"nets": ["192.0.2.0/24"]}}]));
    let server = server(&[("globalnetworkpolicies", vec![whole.clone()]), ("tiers", vec![])]);
    let (code, stdout, stderr) = check(&server, &[]);
    assert_eq!((code, &*stdout), (Some(0), "objects of Calico's: 1, carried whole: 1\n"), "{stderr}");
    let http = policy("http", &json!([{"action": "Allow", "http": {"methods": ["GET"]}}]));
    let mut of_tier = policy("of-tier", &json!([]));
    of_tier["spec"]["tier"] = "missing".into();
    let path = "/apis/crd.projectcalico.org/v1/globalnetworkpolicies";
    server.objects().lists.insert(path.into(), vec![whole, http, of_tier]);
    let (code, stdout, stderr) = check(&server, &["-o", "json"]);
    assert_eq!(code, Some(3), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&report["objects"], &report["whole"]), (&json!(3), &json!(1)), "{report}");
    let problems = report["problems"].as_array().expect("a list").iter();
    let fields: BTreeSet<&str> = problems.filter_map(|problem| problem["field"].as_str()).collect();
    assert_eq!(fields, ["spec.egress[0].http", "spec.tier"].into());
}

#[test]
fn slices_are_listed_where_a_rule_names_a_service() {
    let service = json!({"services": {"name": "api", "namespace": "shop"}});
    let naming = policy("naming", &json!([{"action": "Allow", "destination": service}]));
    let server = server(&[("globalnetworkpolicies", vec![naming])]);
    let (code, stdout, stderr) = check(&server, &[]);
    assert_eq!((code, &*stdout), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("you may not list endpointslices (403)"), "{stderr}");
    let endpoints: Vec<Value> = (0..20_000_u32)
        .map(|at| json!({"addresses": [std::net::Ipv4Addr::from(0x0a00_0000 + at).to_string()]}))
        .collect();
    let slice = json!({
        "metadata": {"name": "api-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "api"}},
        "addressType": "IPv4", "ports": [{"port": 443}], "endpoints": endpoints,
    });
    server.objects().refused.remove(SLICES);
    server.objects().lists.insert(SLICES.into(), vec![slice]);
    let (code, stdout, stderr) = check(&server, &[]);
    assert_eq!(code, Some(3), "{stdout}{stderr}");
    assert!(stdout.contains("spec.egress[0]") && stdout.contains("16384 endpoints"), "{stdout}");
}

#[test]
fn a_cluster_without_calico_has_nothing_to_carry() {
    let (code, stdout, stderr) = check(&server(&[]), &[]);
    assert_eq!((code, &*stdout), (Some(0), "objects of Calico's: 0, carried whole: 0\n"), "{stderr}");
}
