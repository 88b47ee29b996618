//! `deploy/helm/podgate`: the chart makes what the kustomizations make.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::{kubernetes::ControlPlane, manifest, workspace};

use crate::deploy::prometheus_operator;

/// Directories of `deploy`, each with the values that stand for it.
pub(crate) const PARTS: [(&str, &[&str]); 5] = [
    ("base", &[]),
    ("overlays/azure-npm", &["options.masqueraded-ingress=allow"]),
    ("overlays/calico", &["options.masqueraded-ingress=evaluate"]),
    ("overlays/cni", &["cni.enabled=true"]),
    ("overlays/monitoring", &["monitoring.enabled=true"]),
];

/// Lists whose elements have names, and no order.
const UNORDERED: [&str; 3] = ["containers", "env", "volumes"];

/// With these values, the chart makes the objects of a directory.
pub(crate) fn makes(helm: &Path, part: &str, values: &[&str]) -> Result<()> {
    let set = values.iter().flat_map(|value| ["--set", value]);
    let made = objects(&render(helm, &set.collect::<Vec<_>>())?)?;
    let wanted = objects(&manifest::kustomized(part)?)?;
    ensure!(
        made.len() == wanted.len(),
        "{} objects, of which deploy/{part} has {}",
        made.len(),
        wanted.len()
    );
    for (made, wanted) in made.iter().zip(&wanted) {
        ensure!(made == wanted, "the chart makes {made:#}\ndeploy/{part} has {wanted:#}");
    }
    Ok(())
}

/// Helm finds no fault with it, and a server takes what it makes when every value is given.
pub(crate) fn is_accepted(helm: &Path, control_plane: &ControlPlane) -> Result<()> {
    run(helm, &["lint", "--strict", &chart()?])?;
    let directory = workspace::target()?;
    let every = directory.join("values-of-a-test.yaml");
    let every_value = json!({
        "image": {"repository": "registry.test/podgate", "tag": "1", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "secret"}],
        "options": {"flows": 1_000_000, "resolvers": ["10.0.0.53", "10.0.0.54:5353"], "allow-empty": true,
            "otlp": "https://collector.test:4318", "otlp-ca": "/etc/podgate/otlp/ca.crt"},
        "otlp": {"secret": "for-the-collector"},
        "cni": {"enabled": true},
        "monitoring": {"enabled": true},
        "resources": {"limits": {"memory": "1Gi"}},
        "updateStrategy": {"type": "OnDelete"},
        "tolerations": [{"key": "only", "operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "a"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]}}},
        "podAnnotations": {"note": "x"},
        "podLabels": {"team": "network"},
    });
    let known: Value = serde_json::from_str(&fs::read_to_string(chart()? + "/values.schema.json")?)?;
    let known = known["properties"].as_object().context("the schema")?.keys();
    let given = every_value.as_object().context("values")?;
    ensure!(
        known.filter(|value| *value != "global").all(|value| given.contains_key(value)),
        "a value is missing"
    );
    fs::write(&every, every_value.to_string()).with_context(|| every.display().to_string())?;
    let text = render(helm, &["--values", &every.to_string_lossy()])?;

    let found = objects(&text)?;
    let set = found.iter().find(|object| object["kind"] == "DaemonSet").context("no DaemonSet")?;
    let pod = &set["spec"]["template"]["spec"];
    let agent = &pod["containers"].as_array().context("containers")?[0];
    for (name, value) in
        [("FLOWS", "1000000"), ("RESOLVERS", "10.0.0.53,10.0.0.54:5353"), ("ALLOW_EMPTY", "true")]
    {
        let variable = json!({"name": format!("PODGATE_{name}"), "value": value});
        ensure!(agent["env"].as_array().is_some_and(|env| env.contains(&variable)), "{variable}: {agent:#}");
    }
    let mount = json!({"name": "otlp", "mountPath": "/etc/podgate/otlp", "readOnly": true});
    ensure!(agent["volumeMounts"].as_array().is_some_and(|all| all.contains(&mount)), "{agent:#}");
    let volume = json!({"name": "otlp", "secret": {"secretName": "for-the-collector"}});
    ensure!(pod["volumes"].as_array().is_some_and(|all| all.contains(&volume)), "{pod:#}");
    let all = ["initContainers", "containers"].iter().filter_map(|list| pod[*list].as_array()).flatten();
    let images = all.map(|container| container["image"].as_str()).collect::<Vec<_>>();
    ensure!(images == [Some("registry.test/podgate:1"); 3], "{images:?}");
    ensure!(pod["nodeSelector"] == json!({"kubernetes.io/os": "linux", "pool": "a"}), "{pod:#}");

    prometheus_operator(control_plane)?;
    let file = directory.join("objects-of-a-test.yaml");
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    let file = file.to_str().context("the path of the workspace is not UTF-8")?;
    control_plane.ask(&["apply", "--dry-run=server", "--filename", file]).map(|_| ())
}

/// What is misspelt, or of another type, is named.
pub(crate) fn refuses(helm: &Path) -> Result<()> {
    for (value, complaint) in [
        ("options.flow=1", "additional properties 'flow' not allowed"),
        ("options.hook=xdp", "value must be one of 'auto', 'tcx', 'clsact'"),
        ("options.otlp=collector:4318", "'collector:4318' does not match pattern"),
        ("options.metrics=0.0.0.0:80", "'0.0.0.0:80' does not match pattern"),
        ("tolerations=all", "got string, want array"),
        ("resource=1", "additional properties 'resource' not allowed"),
    ] {
        let refusal = render(helm, &["--set", value]).err().with_context(|| format!("{value} is taken"))?;
        ensure!(format!("{refusal:#}").contains(complaint), "{value}: {refusal:#}");
    }
    Ok(())
}

fn chart() -> Result<String> {
    let path = workspace::root().join("deploy/helm/podgate");
    Ok(path.to_str().context("the path of the workspace is not UTF-8")?.to_owned())
}

fn render(helm: &Path, arguments: &[&str]) -> Result<String> {
    let chart = chart()?;
    let fixed = ["template", "podgate", &chart, "--namespace", "kube-system"];
    run(helm, &[&fixed[..], arguments].concat())
}

fn run(helm: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(helm).args(arguments).output().context("starting helm")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8(output.stdout).context("the output of helm")?;
    ensure!(output.status.success(), "helm {}: {complaint}{said}", arguments.join(" "));
    Ok(said)
}

/// In one order, whatever order they were written in.
fn objects(text: &str) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(text).context("YAML")?;
    objects.iter_mut().for_each(sort);
    let of = |object: &Value| (object["kind"].to_string(), object["metadata"]["name"].to_string());
    objects.sort_by_key(of);
    Ok(objects)
}

fn sort(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                sort(field);
                if let (true, Value::Array(list)) = (UNORDERED.contains(&name.as_str()), field) {
                    list.sort_by_key(|element| element["name"].to_string());
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(sort),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
