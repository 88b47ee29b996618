//! The walkthrough: a small cluster and four steps of policy with what each must do. The demo plays it for
//! people, a namespace test asserts it, `cargo xtask lab` opens a shell in it.
//!
//! In: an empty lab and the files of `deploy/walkthrough`. Out: nodes, pods and the expectations of each
//! step.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    lab::{Lab, Node, Place, Pod, Seen, Server, Service},
    workspace,
};

/// The cluster of the walkthrough: a backend that serves HTTP on port 80, and those who ask for it.
#[derive(Debug)]
pub struct Walkthrough {
    pub nodes: [Node; 2],
    pub backend: Pod,
    /// In the order of `Step::reached`.
    pub askers: [Asker; ASKERS],
    _http: Server,
}

/// Somebody who asks the backend.
#[derive(Debug)]
pub struct Asker {
    pub place: Place,
    /// The node it runs on; nothing for a host outside the cluster.
    pub node: Option<String>,
    pub role: &'static str,
}

/// One step: the policy that is applied, and who reaches the backend under it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub letter: char,
    pub title: &'static str,
    /// A file of `deploy/walkthrough`; nothing before the first policy.
    pub policy: Option<&'static str>,
    /// For each asker.
    pub reached: [bool; ASKERS],
}

/// How many ask.
pub const ASKERS: usize = 5;

pub const STEPS: [Step; 4] = [
    Step {
        letter: 'a',
        title: "no policy: everybody reaches the backend",
        policy: None,
        reached: [true; ASKERS],
    },
    Step {
        letter: 'b',
        title: "deny all: nobody reaches the backend",
        policy: Some("b-deny-all.yaml"),
        reached: [false; ASKERS],
    },
    Step {
        letter: 'c',
        title: "allow frontends of any namespace",
        policy: Some("c-allow-frontend.yaml"),
        reached: [true, true, true, false, false],
    },
    Step {
        letter: 'd',
        title: "allow frontends of development only",
        policy: Some("d-allow-development.yaml"),
        reached: [true, true, false, false, false],
    },
];

/// The file of the manifests directory that each step's policy replaces, as `kubectl apply` would.
pub const POLICY: &str = "backend-policy.yaml";

const FRONTEND: [(&str, &str); 2] = [("app", "webapp"), ("role", "frontend")];
const BACKEND: [(&str, &str); 2] = [("app", "webapp"), ("role", "backend")];

impl Walkthrough {
    /// Builds the cluster in `lab`; there is no policy yet.
    pub fn new(lab: &mut Lab) -> Result<Self> {
        lab.manifests().write("namespaces.yaml", &file("namespaces.yaml")?)?;
        let nodes = [lab.node("n1")?, lab.node("n2")?];
        let [n1, n2] = &nodes;
        let backend = n1.pod("development/backend").labels(&BACKEND).port("http", "TCP", 80).start()?;
        let http = backend.place.serve(Service::Http(80))?;
        let pod = |node: &Node, name, labels: &[_], role| -> Result<Asker> {
            let pod = node.pod(name).labels(labels).start()?;
            Ok(Asker { place: pod.place, node: Some(node.name().to_owned()), role })
        };
        let askers = [
            pod(n1, "development/frontend", &FRONTEND, "frontend, same node")?,
            pod(n2, "development/frontend-2", &FRONTEND, "frontend, other node")?,
            pod(n2, "production/frontend", &FRONTEND, "frontend, other namespace")?,
            pod(n1, "development/client", &[], "pod without labels")?,
            Asker { place: lab.outside("outside")?.place, node: None, role: "host outside the cluster" },
        ];
        Ok(Self { nodes, backend, askers, _http: http })
    }
}

impl Step {
    /// The YAML of the step's policy.
    pub fn yaml(&self) -> Result<Option<String>> {
        self.policy.map(file).transpose()
    }

    /// What the askers must see, in their order.
    pub fn expected(&self) -> [Seen; ASKERS] {
        self.reached.map(|reached| if reached { Seen::Reached } else { Seen::Blocked })
    }
}

/// Where the files are, from the root of the workspace.
pub const DIRECTORY: &str = "deploy/walkthrough";

fn file(name: &str) -> Result<String> {
    let path = workspace::root().join(DIRECTORY).join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}
