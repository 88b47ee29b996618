//! The control plane itself: it knows who asks, keeps its data, and can be taken away.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xtask::{
    kubernetes::ControlPlane,
    lab::{Lab, PATIENT, until},
};

use super::Test;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("objects_outlive_an_api_server_that_ends_or_is_killed", outlive),
    ("a_frozen_api_server_answers_nothing_until_it_is_thawed", frozen),
    ("a_token_is_good_for_what_its_roles_allow", tokens),
    ("thousands_of_objects_are_written_at_once", thousands),
];

fn outlive(_lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    control_plane.create(&[namespace("kept")])?;
    control_plane.stop_api_server()?;
    ensure!(!control_plane.kubectl(&BRIEFLY).output()?.status.success(), "an ended server answers");
    control_plane.start_api_server()?;
    control_plane.ask(&["get", "namespace", "kept"])?;
    control_plane.kill_api_server()?;
    ensure!(!control_plane.kubectl(&BRIEFLY).output()?.status.success(), "a killed server answers");
    control_plane.start_api_server()?;
    control_plane.ask(&["get", "namespace", "kept"]).map(|_| ())
}

fn frozen(_lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    control_plane.freeze_api_server()?;
    ensure!(!control_plane.kubectl(&BRIEFLY).output()?.status.success(), "a frozen server answers");
    control_plane.thaw_api_server()?;
    until("the server answers again", PATIENT, || {
        Ok(control_plane.kubectl(&BRIEFLY).output()?.status.success().then_some(()))
    })
}

fn tokens(_lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    control_plane.ask(&["create", "serviceaccount", "reader"])?;
    control_plane.ask(&["create", "role", "reader", "--verb=list", "--resource=pods"])?;
    control_plane.ask(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--serviceaccount=default:reader",
    ])?;
    let token = control_plane.ask(&["create", "token", "reader"])?;
    let file = control_plane.kubeconfig().with_file_name("reader");
    control_plane.write_kubeconfig(&file, token.trim())?;
    let can = |arguments: &[&str]| -> Result<bool> {
        Ok(control_plane.kubectl(arguments).env("KUBECONFIG", &file).output()?.status.success())
    };
    ensure!(can(&["get", "pods"])?, "the reader may list pods");
    ensure!(!can(&["get", "pods", "--namespace", "kube-system"])?, "the reader may list other pods");
    ensure!(!can(&["create", "namespace", "more"])?, "the reader may create namespaces");
    Ok(())
}

fn thousands(_lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    const NAMESPACES: usize = 20;
    const PODS: usize = 100;
    let names: Vec<_> = (0..NAMESPACES).map(|number| format!("x{number}")).collect();
    control_plane.create(&names.iter().map(|name| namespace(name)).collect::<Vec<_>>())?;
    let pods: Vec<_> = names
        .iter()
        .enumerate()
        .flat_map(|(number, name)| (0..PODS).map(move |pod| self::pod(name, number, pod)))
        .collect();
    control_plane.create(&pods)?;
    let addresses = "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}";
    let listed = control_plane.ask(&["get", "pods", "--all-namespaces", "--output", addresses])?;
    let mut addresses: Vec<_> = listed.lines().filter(|line| !line.is_empty()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    ensure!(addresses.len() == NAMESPACES * PODS, "{} pods have an address", addresses.len());
    Ok(())
}

/// A question that is not waited for.
const BRIEFLY: [&str; 5] = ["get", "namespace", "default", "--request-timeout", BRIEF];
const BRIEF: &str = "2s";

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn pod(namespace: &str, network: usize, number: usize) -> Value {
    let address = format!("10.244.{network}.{number}");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{number}"), "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}
