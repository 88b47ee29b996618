//! Calico's Kubernetes datastore: a real API server that holds one cluster after the other.
//!
//! In: objects as users write them. Out: the same in the server, and those that it or Calico refused, with
//! the reason. Objects for Calico go through its client library; objects that somebody has written into its
//! store by hand are written there. Left out: Services, which Felix reads only for another data path.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::kubernetes::{CalicoPrograms, ControlPlane};

#[derive(Debug)]
pub(crate) struct Datastore {
    control_plane: ControlPlane,
    store: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// All that any cluster had: they stay.
    namespaces: BTreeSet<String>,
}

/// An object that is not in the server, and why.
pub(crate) type Refused = (Value, String);

/// Everything that changes from cluster to cluster, but for namespaces.
const KINDS: &str = "pods,serviceaccounts,networkpolicies.networking.k8s.io,endpointslices.discovery.k8s.io,\
                     networkpolicies.crd.projectcalico.org,globalnetworkpolicies.crd.projectcalico.org,\
                     networksets.crd.projectcalico.org,globalnetworksets.crd.projectcalico.org";
/// Tiers of the generator, in addition to those that every cluster has.
const TIERS: [&str; 2] = ["security", "platform"];
const STORE: &str = "crd.projectcalico.org/v1";

impl Datastore {
    pub(crate) fn new(control_plane: ControlPlane, calico: &CalicoPrograms) -> Result<Self> {
        let definitions = calico.definitions().to_str().context("a path as text")?;
        control_plane.ask(&["apply", "--server-side", "-f", definitions])?;
        control_plane.ask(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        let mut command = control_plane.command(calico.path("calico-store"));
        command.env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", control_plane.kubeconfig());
        let mut store =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("calico-store")?;
        let requests = store.stdin.take().context("stdin is piped")?;
        let answers = BufReader::new(store.stdout.take().context("stdout is piped")?);
        Ok(Self { control_plane, store, requests, answers, namespaces: BTreeSet::new() })
    }

    pub(crate) fn kubeconfig(&self) -> std::path::PathBuf {
        self.control_plane.kubeconfig()
    }

    /// Takes the last cluster away, and writes this one.
    pub(crate) fn replace(&mut self, objects: &[Value]) -> Result<Vec<Refused>> {
        let all = ["delete", KINDS, "--all", "-A", "--force", "--grace-period=0", "--wait=false"];
        self.control_plane.ask(&all)?;
        let tiers = ["delete", "--ignore-not-found", "tiers.crd.projectcalico.org"];
        self.control_plane.ask(&[&tiers[..], &TIERS].concat())?;
        self.write_namespaces(objects)?;

        let (mut refused, mut plain, mut of_calico) = (Vec::new(), Vec::new(), Vec::new());
        for object in objects {
            match (object["apiVersion"].as_str(), object["kind"].as_str()) {
                (Some("projectcalico.org/v3"), _) => of_calico.push((object, with_true_name(object.clone()))),
                (Some(STORE), _) => match as_user_wrote(object) {
                    Some(written) => of_calico.push((object, with_true_name(written))),
                    None => plain.push((object, with_namespace(object.clone()))),
                },
                (_, Some("Node" | "Pod" | "ServiceAccount" | "EndpointSlice")) => {
                    plain.push((object, as_created(object)));
                }
                (Some("networking.k8s.io/v1"), Some("NetworkPolicy")) => {
                    plain.push((object, as_created(object)));
                }
                _ => {}
            }
        }
        for (object, written) in &plain {
            let is_applied = object["kind"] == "Node";
            let written = std::slice::from_ref(written);
            let outcome = if is_applied {
                self.control_plane.apply(written)
            } else {
                self.control_plane.create(written)
            };
            if let Err(error) = outcome {
                let is_policy = object["kind"].as_str().is_some_and(|kind| kind.contains("Network"));
                ensure!(is_policy, "{object}: {error:#}");
                refused.push(((*object).clone(), format!("{error:#}")));
            }
        }
        let written: Vec<&Value> = of_calico.iter().map(|(_, written)| written).collect();
        for ((object, _), answer) in of_calico.iter().zip(self.store(&written)?) {
            if !answer.is_empty() {
                refused.push(((*object).clone(), answer));
            }
        }
        Ok(refused)
    }

    fn store(&mut self, objects: &[&Value]) -> Result<Vec<String>> {
        writeln!(self.requests, "{}", json!(objects)).context("writing to calico-store")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("reading from calico-store")?;
        serde_json::from_str(&line).with_context(|| format!("an answer of calico-store: {line:?}"))
    }

    /// Nothing deletes namespaces here: those that this cluster lacks, or does not declare, lose their
    /// labels.
    fn write_namespaces(&mut self, objects: &[Value]) -> Result<()> {
        let is_declared = |object: &&Value| object["kind"] == "Namespace";
        let of = |object: &Value| object["metadata"]["namespace"].as_str().map(str::to_owned);
        self.namespaces.extend(objects.iter().filter_map(of));
        let declared = objects.iter().filter(is_declared).filter_map(|it| it["metadata"]["name"].as_str());
        self.namespaces.extend(declared.map(str::to_owned));
        let namespaces: Vec<Value> = self
            .namespaces
            .iter()
            .map(|name| {
                let found = objects.iter().filter(is_declared).find(|it| it["metadata"]["name"] == **name);
                found.cloned().unwrap_or_else(
                    || json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
                )
            })
            .collect();
        self.control_plane.apply(&namespaces)
    }
}

impl Drop for Datastore {
    fn drop(&mut self) {
        // It ends with the sandbox at the latest.
        let _ = self.store.kill();
        let _ = self.store.wait();
    }
}

/// What a user wrote that Calico has stored so. `None`: somebody has written it into the store.
fn as_user_wrote(object: &Value) -> Option<Value> {
    let kept = object["metadata"]["annotations"]["projectcalico.org/metadata"].as_str()?;
    let mut metadata: Value = serde_json::from_str(kept).expect("the generator writes JSON");
    if let Some(namespace) = object["metadata"].get("namespace") {
        metadata["namespace"] = namespace.clone();
    }
    let (kind, spec) = (&object["kind"], &object["spec"]);
    Some(json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}))
}

/// Calico wants the tier in the name of each policy of a tier but `default`. All of a tier have it, and so
/// their order stays.
fn with_true_name(object: Value) -> Value {
    let mut object = with_namespace(object);
    let tier = object["spec"]["tier"].as_str().filter(|tier| *tier != "default");
    if let (Some(tier), Some(name)) = (tier, object["metadata"]["name"].as_str()) {
        object["metadata"]["name"] = json!(format!("{tier}.{name}"));
    }
    object
}

/// An object that says in which namespace it is.
fn with_namespace(mut object: Value) -> Value {
    let is_namespaced = !matches!(
        object["kind"].as_str(),
        Some("Node" | "Namespace" | "GlobalNetworkPolicy" | "GlobalNetworkSet" | "Tier")
    );
    if is_namespaced && object["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
        object["metadata"]["namespace"] = json!("default");
    }
    object
}

/// The object without the fields that an API server sets, and with those that it additionally requires.
fn as_created(object: &Value) -> Value {
    let mut object = with_namespace(object.clone());
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        metadata.remove("deletionTimestamp");
    }
    if object["kind"] == "EndpointSlice" {
        let endpoints = object["endpoints"].as_array_mut().into_iter().flatten();
        let addresses = endpoints.filter_map(|endpoint| endpoint["addresses"].as_array_mut()).flatten();
        for address in addresses {
            // In the form that a controller writes.
            if let Some(parsed) = address.as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
                *address = json!(parsed);
            }
        }
    }
    if object["kind"] == "Pod" {
        let is_of_host = object["spec"]["hostNetwork"] == true;
        for list in ["containers", "initContainers"] {
            let containers = object["spec"].get_mut(list).and_then(Value::as_array_mut);
            for (place, container) in containers.into_iter().flatten().enumerate() {
                let name = container["name"].as_str().unwrap_or_default();
                container["name"] = json!(format!("{name}-{place}"));
                // The ports of a host may not be taken twice; no policy asks for these.
                if let (true, Some(fields)) = (is_of_host, container.as_object_mut()) {
                    fields.remove("ports");
                }
            }
        }
    }
    object
}
