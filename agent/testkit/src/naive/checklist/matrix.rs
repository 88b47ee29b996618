//! The JSON of `podgate matrix`.

use super::*;
use crate::naive::matrix;

#[test]
fn the_matrix_has_a_row_for_each_source_and_a_character_for_each_destination() {
    let mut objects = world();
    objects.retain(|object| object["kind"] != "Pod" || object["metadata"]["namespace"] == "x");
    objects.push(policy(0, "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}"));
    let seen = matrix(&objects, &["TCP/80", "TCP/http", "UDP/http"]);
    let expected = json!({
        "pods": ["x/a", "x/b", "x/c"],
        "ports": {
            "TCP/80": {"x/a": "...", "x/b": "...", "x/c": "X.."},
            "TCP/http": {"x/a": "..-", "x/b": "..-", "x/c": "X.-"},
            "UDP/http": {"x/a": "---", "x/b": "---", "x/c": "---"},
        },
    });
    assert_eq!(seen, expected);
}

#[test]
fn finished_and_host_network_pods_and_those_without_address_are_left_out() {
    let mut objects = vec![
        pod("x", "live", "n1", json!({}), &["10.0.0.1"], json!([])),
        pod("x", "done", "n1", json!({}), &["10.0.0.2"], json!([])),
        pod("x", "host", "n1", json!({}), &["10.0.0.3"], json!([])),
        pod("x", "starting", "n1", json!({}), &["10.0.0.4"], json!([])),
        pod("x-1", "live", "n1", json!({}), &["10.0.0.5"], json!([])),
    ];
    objects[1]["status"]["phase"] = "Succeeded".into();
    objects[2]["spec"]["hostNetwork"] = true.into();
    objects[3]["status"] = json!({"phase": "Pending", "podIPs": []});
    objects[4]["metadata"].as_object_mut().unwrap().remove("namespace");
    assert_eq!(matrix(&objects, &[])["pods"], json!(["default/live", "x/live"]));
}

#[test]
fn pods_without_a_family_in_common_do_not_reach_each_other() {
    let objects = [
        pod("x", "v4", "n1", json!({}), &["10.0.0.1"], json!([])),
        pod("x", "v6", "n1", json!({}), &["fd00::1"], json!([])),
    ];
    let seen = matrix(&objects, &["TCP/80"]);
    assert_eq!(seen["ports"]["TCP/80"], json!({"x/v4": ".X", "x/v6": "X."}));
}

#[test]
fn a_name_with_several_numbers_must_be_open_on_all_of_them() {
    let ports = json!([{"name": "web", "containerPort": 1}, {"name": "web", "containerPort": 2}]);
    let mut objects = vec![
        pod("x", "a", "n1", json!({}), &["10.0.0.1"], ports),
        pod("x", "b", "n1", json!({}), &["10.0.0.2"], json!([])),
        policy(0, "x: {ingress: [{ports: [{port: 1}]}]}"),
    ];
    assert_eq!(matrix(&objects, &["TCP/web"])["ports"]["TCP/web"]["x/b"], "X-");
    objects[2]["spec"]["ingress"][0]["ports"] = json!([{"port": "web"}]);
    assert_eq!(matrix(&objects, &["TCP/web"])["ports"]["TCP/web"]["x/b"], ".-");
}
