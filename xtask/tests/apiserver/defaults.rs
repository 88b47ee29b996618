//! What the API server makes of an object, and what the manifests source makes of the same text.
//!
//! In: rows, each an object as a user writes it. Each is created on the server, its status by a request of
//! its own, and read back; it is also given to the manifests source as it stands, and so is what the server
//! returned. Out: whether both accept it, and whether both texts decode to the same. Where the two may
//! differ, the row says so, and why.

mod others;
mod pods;
mod policies;
mod services;
mod slices;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use http::{Request, header::CONTENT_TYPE};
use kube::Client;
use podgate::source::{ClusterSnapshot, manifests};
use serde_json::{Value, json};
use xtask::kubernetes::ControlPlane;

use self::Verdict::{Both, Differently, Neither, PodgateCloses, PodgateRefuses, ServerRefuses};

/// An object without `apiVersion`, `kind` and, unless it is what the row is about, `metadata.name`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    kind: &'static Kind,
    expected: Verdict,
    yaml: &'static str,
}

/// Who accepts an object without a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Both,
    Neither,
    /// Refused by the server for something that podgate does not read. The reason.
    ServerRefuses(&'static str),
    /// Both accept it and make different things of it. The reason why that is no matter.
    Differently(&'static str),
    /// podgate complains of what the server lets pass; it makes the same of it all the same. The reason.
    PodgateRefuses(&'static str),
    /// podgate complains of what the server lets pass, and its rule allows nothing. The reason.
    PodgateCloses(&'static str),
}

#[derive(Debug)]
struct Kind {
    api_version: &'static str,
    name: &'static str,
    /// Where the server takes new ones, of the namespace `default`.
    path: &'static str,
}

/// A table of one kind.
#[derive(Clone, Copy, Debug)]
struct Table {
    kind: &'static Kind,
    rows: &'static [(&'static str, Verdict, &'static str)],
}

pub(crate) fn rows() -> impl Iterator<Item = Row> {
    let tables =
        [policies::TABLE, pods::TABLE, services::TABLE, slices::TABLE, others::NAMESPACES, others::NODES];
    tables.into_iter().flat_map(|Table { kind, rows }| {
        rows.iter().map(move |&(name, expected, yaml)| Row { name, kind, expected, yaml })
    })
}

impl Row {
    pub(crate) fn check(self, control_plane: &ControlPlane) -> Result<()> {
        let object = self.object()?;
        let asked = object.clone();
        let answer = control_plane.run(|client| async move { self.store(client, &asked).await })?;
        let ours = self.decode("asked", &object)?;
        let actual = match (&answer, ours.problems.is_empty()) {
            (Ok(_), true) => Both,
            (Err(_), false) => Neither,
            (Err(_), true) => ServerRefuses(""),
            (Ok(_), false) => PodgateRefuses(""),
        };
        let problems: Vec<_> = ours.problems.iter().map(ToString::to_string).collect();
        let server = answer.as_ref().err().map_or("accepted", |refusal| refusal.as_str());
        ensure!(
            actual.kind() == self.expected.kind(),
            "expected {:?}; server: {server}; podgate: {problems:?}",
            self.expected
        );
        if let Ok(mut stored) = answer {
            // The server makes it up; no default of a field.
            let metadata = stored["metadata"].as_object_mut().context("what is stored has metadata")?;
            metadata.remove("uid");
            let theirs = self.decode("stored", &stored)?.cluster;
            ensure!(
                (ours.cluster == theirs) != matches!(self.expected, Differently(_) | PodgateCloses(_)),
                "expected {:?}; podgate makes of the object\n{:#?}\nand of what the server stored\n{theirs:#?}\n{stored:#}",
                self.expected,
                ours.cluster
            );
        }
        Ok(())
    }

    fn object(self) -> Result<Value> {
        let mut object: Value = serde_saphyr::from_str(self.yaml).context("the row's YAML")?;
        let fields = object.as_object_mut().context("a row is an object")?;
        fields.insert("apiVersion".to_owned(), self.kind.api_version.into());
        fields.insert("kind".to_owned(), self.kind.name.into());
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let metadata = metadata.as_object_mut().context("metadata is an object")?;
        // Names of rows are sentences, longer than some names may be.
        let name = format!(
            "row-{:x}",
            self.name.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte))
        );
        metadata.entry("name").or_insert_with(|| name.into());
        Ok(object)
    }

    /// Creates it and its status, and hands back what is stored; the inner error is the server's refusal.
    async fn store(self, client: Client, object: &Value) -> Result<Result<Value, String>> {
        let path = self.kind.path;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let create = Request::post(path).header(CONTENT_TYPE, "application/json");
        let created = send(&client, create.body(object.to_string().into_bytes())?).await?;
        let (Ok(_), Some(status)) = (&created, object.get("status")) else { return Ok(created) };
        let patch = Request::patch(format!("{path}/{name}/status"))
            .header(CONTENT_TYPE, "application/merge-patch+json");
        send(&client, patch.body(json!({"status": status}).to_string().into_bytes())?).await
    }

    /// What the manifests source makes of a file with this object alone.
    fn decode(self, what: &str, object: &Value) -> Result<ClusterSnapshot> {
        let directory = PathBuf::from("/run/rows");
        fs::create_dir_all(&directory).context("creating /run/rows")?;
        let file = directory.join(format!("{}-{what}.json", self.name));
        fs::write(&file, object.to_string()).with_context(|| format!("writing {}", file.display()))?;
        Ok(manifests::read(&[file]))
    }
}

/// Plain requests: what a row gets wrong must reach the server as it is.
async fn send(client: &Client, request: Request<Vec<u8>>) -> Result<Result<Value, String>> {
    match client.request(request).await {
        Ok(stored) => Ok(Ok(stored)),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(Err(status.message)),
        Err(error) => Err(error).context("asking the API server"),
    }
}

impl Verdict {
    /// Without the reason.
    fn kind(self) -> Self {
        match self {
            ServerRefuses(_) => ServerRefuses(""),
            PodgateRefuses(_) | PodgateCloses(_) => PodgateRefuses(""),
            // The difference is looked at on its own.
            Differently(_) => Both,
            plain => plain,
        }
    }
}
