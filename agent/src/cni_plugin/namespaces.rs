//! In which namespaces policies isolate pods, as the last agent knew: what the plugin goes by while there is
//! no agent.
//!
//! In: the agent's snapshots. Out: a file in its run directory, written in one step whenever the answer has
//! changed, and gone after a reboot. A namespace that the agent did not know is in neither of its lists.

use std::{collections::BTreeSet, fs, io, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use podgate_core::model::{Cluster, LabelExpression, Name, Selector};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{options::run_directory, snapshot::Snapshot};

const FILE: &str = "namespaces.json";

/// Raised when an older plugin would misread the file.
const FORM: u32 = 1;

/// The namespaces of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamespaceIsolation {
    form: u32,
    /// Some policy may isolate a pod in these.
    isolating: BTreeSet<Name>,
    /// None does.
    open: BTreeSet<Name>,
}

impl NamespaceIsolation {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let is_audit = |namespace: &Name| cluster.is_in_audit(namespace);
        let policies = cluster.policies.values().filter(|policy| {
            policy.subject != Selector::Nothing && !policy.audit && !is_audit(&policy.name.namespace)
        });
        let mut isolating: BTreeSet<Name> = policies.map(|policy| policy.name.namespace.clone()).collect();
        let of_cluster = cluster.cluster_policies.values().filter(|policy| {
            let has_rules = !(policy.ingress.is_empty() && policy.egress.is_empty());
            has_rules && !policy.audit && policy.subject.pods != Selector::Nothing
        });
        let of_cluster: Vec<_> = of_cluster.collect();
        for (name, namespace) in &cluster.namespaces {
            if of_cluster.iter().any(|policy| policy.subject.namespaces.matches(&namespace.labels)) {
                isolating.insert(name.clone());
            }
        }
        for policy in cluster.calico.policies() {
            if policy.audit || policy.subject == LabelExpression::NOTHING {
                continue;
            }
            match &policy.name.namespace {
                Some(namespace) => isolating.extend([namespace.clone()]),
                // Which pods will have its labels is not known.
                None => isolating.extend(cluster.namespaces.keys().cloned()),
            }
        }
        let open = cluster.namespaces.keys().filter(|name| !isolating.contains(*name)).cloned().collect();
        Self { form: FORM, isolating, open }
    }

    /// Whether a policy may isolate a pod of this namespace; `None`: unknown.
    pub(super) fn isolates(&self, namespace: &str) -> Option<bool> {
        if self.isolating.contains(namespace) {
            return Some(true);
        }
        self.open.contains(namespace).then_some(false)
    }

    /// What the last agent has left. `socket`: the agent's.
    pub(super) fn read(socket: &Path) -> Result<Self> {
        let path = run_directory(socket).join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let read = || -> Result<Self> {
            let found: Self = serde_json::from_slice(&text)?;
            ensure!(found.form == FORM, "it has form {}, not {FORM}", found.form);
            Ok(found)
        };
        read().with_context(|| path.display().to_string())
    }

    fn write(&self, socket: &Path) -> Result<()> {
        let path = run_directory(socket).join(FILE);
        let temporary = path.with_extension("new");
        let text = serde_json::to_vec(self).context("the namespaces")?;
        let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // A namespace that the old file calls open may be isolated now, so no file is better than the old
            // one. If it cannot be removed either, it stays.
            let _ = fs::remove_file(&path);
        }
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Keeps the file as the snapshots have it; for ever, also when there are no more snapshots: the agent ends
/// then.
pub(crate) async fn keep_namespaces(
    socket: &Path,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
) -> anyhow::Error {
    let mut last: Option<(Arc<Cluster>, NamespaceIsolation)> = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        // Until the first pass it is not known what there is.
        if snapshot.progress.revision > 0
            && last.as_ref().is_none_or(|(cluster, _)| differ(cluster, &snapshot.cluster))
        {
            let now = NamespaceIsolation::of(&snapshot.cluster);
            if last.as_ref().is_none_or(|(_, before)| *before != now)
                && let Err(error) = now.write(socket)
            {
                return error;
            }
            last = Some((snapshot.cluster.clone(), now));
        }
        if snapshots.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Whether the answers may differ. Maps that no one has changed are the same.
fn differ(before: &Cluster, now: &Cluster) -> bool {
    !(before.namespaces.ptr_eq(&now.namespaces)
        && before.policies.ptr_eq(&now.policies)
        && before.cluster_policies.ptr_eq(&now.cluster_policies)
        && before.calico == now.calico)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifests;

    const OBJECTS: &str = r"
{apiVersion: v1, kind: Namespace, metadata: {name: closed}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: open}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: audited, annotations: {podgate.io/mode: audit}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: guarded, labels: {tier: secret}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: closed}, spec: {podSelector: {matchLabels: {a: b}}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: undeclared}, spec: {podSelector: {}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: audited}, spec: {podSelector: {}}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: c}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {tier: secret}}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
";

    #[test]
    fn a_namespace_isolates_if_some_policy_that_is_enforced_can_select_its_pods() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("objects.yaml"), OBJECTS).unwrap();
        let picture = manifests::read(&[directory.path().to_owned()]);
        assert!(picture.problems.is_empty(), "{:?}", picture.problems);
        let found = NamespaceIsolation::of(&picture.cluster);
        let socket = directory.path().join("podgate.sock");
        assert_eq!(NamespaceIsolation::read(&socket).unwrap().isolates("open"), None, "nobody has written");
        found.write(&socket).unwrap();
        let read = NamespaceIsolation::read(&socket).unwrap();
        for (namespace, isolates) in [
            ("closed", Some(true)),
            ("undeclared", Some(true)),
            ("guarded", Some(true)),
            ("open", Some(false)),
            ("audited", Some(false)),
            ("unknown", None),
        ] {
            assert_eq!(read.isolates(namespace), isolates, "{namespace}");
        }
        // A disk that is full.
        fs::create_dir(socket.with_file_name(FILE).with_extension("new")).unwrap();
        assert!(NamespaceIsolation::default().write(&socket).is_err());
        assert_eq!(
            NamespaceIsolation::read(&socket).unwrap().isolates("open"),
            None,
            "what is old is not said"
        );
        for text in ["", "{}", r#"{"form": 2, "isolating": [], "open": []}"#] {
            fs::write(directory.path().join(FILE), text).unwrap();
            assert!(NamespaceIsolation::read(&socket).is_err(), "{text}");
        }
    }

    #[test]
    fn the_end_of_the_agent_is_no_failure_of_this_task() {
        use futures::FutureExt as _;

        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("podgate.sock");
        let (state, snapshots) = watch::channel(Arc::new(Snapshot::example(true)));
        drop(state);
        assert!(keep_namespaces(&socket, snapshots).now_or_never().is_none(), "it waits for its end");
        assert_eq!(NamespaceIsolation::read(&socket).unwrap().isolates("y"), Some(false));
    }
}
