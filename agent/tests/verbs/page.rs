//! The page of a matrix in a real browser.

use serde_json::{Value, json};

use crate::{
    browser::{self, write},
    podgate::{directory, run},
};

#[test]
fn the_page_filters_sorts_and_explains_in_a_browser() {
    let place = browser::place("matrix");
    write(
        &place.join("matrix.html"),
        &stdout("matrix --manifests shop.yaml --ports TCP/8080,TCP/http -o html", 0),
    );
    let diff = "matrix --manifests shop.yaml --ports TCP/8080 --diff change.yaml -o html";
    write(&place.join("diff.html"), &stdout(diff, 3));
    let matrix: Value =
        serde_json::from_str(&stdout("matrix --manifests shop.yaml --ports TCP/8080,TCP/http -o json", 0))
            .expect("the JSON of a matrix");
    let crowd = place.join("crowd.json");
    write(&crowd, &crowd_of(400).to_string());
    let crowd = format!("matrix --manifests {} --ports TCP/80 -o html", crowd.display());
    write(&place.join("crowd.html"), &stdout(&format!("{crowd} --by pods"), 0));
    write(&place.join("workloads.html"), &stdout(&crowd, 0));
    let facts = json!({"matrix": matrix, "explained": explained(&matrix)});
    write(&place.join("facts.json"), &facts.to_string());

    browser::run(&directory().join("page/page.mjs"), &place);
}

/// The text of `podgate explain` for every pair and port, as in `shop/a shop/b TCP/80`.
fn explained(matrix: &Value) -> Value {
    let pods: Vec<&str> = matrix["pods"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let ports = matrix["ports"].as_object().expect("the JSON of a matrix");
    let mut texts = serde_json::Map::new();
    for (port, rows) in ports {
        for from in &pods {
            let row = rows[from].as_str().expect("the JSON of a matrix");
            for (to, _) in pods.iter().zip(row.chars()).filter(|(to, verdict)| *to != from && *verdict != '-')
            {
                let text = stdout(
                    &format!("explain --from {from} --to {to} --port {port} --manifests shop.yaml"),
                    0,
                );
                texts.insert(format!("{from} {to} {port}"), text.into());
            }
        }
    }
    texts.into()
}

/// Pods of which one in two takes no one.
fn crowd_of(pods: usize) -> Value {
    let pod = |number: usize| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p{number:03}"), "labels": {"half": (number % 2).to_string()}},
            "status": {"podIP": format!("10.1.{}.{}", number / 200, number % 200 + 1)},
        })
    };
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "half"},
        "spec": {
            "podSelector": {"matchLabels": {"half": "1"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"half": "none"}}}]}],
        },
    });
    let items: Vec<Value> = (0..pods).map(pod).chain([policy]).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn stdout(line: &str, code: i32) -> String {
    let output = run(line, &[]);
    assert_eq!(output.status.code(), Some(code), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("podgate prints UTF-8")
}
