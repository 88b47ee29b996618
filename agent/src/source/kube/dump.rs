//! The objects that verdicts depend on, once, for the verbs that work offline.
//!
//! In: an API server. Out: which kinds it has, then each object with its kind. Of pods only what a verdict
//! depends on is handed on: environment variables and arguments of containers stay where they are.

use std::{convert::Infallible, sync::Arc};

use kube::{
    Api, Client, Error,
    api::{ApiResource, ListParams},
};
use podgate_core::model::Cluster;
use serde_json::Value;

use super::{
    calico::CalicoGroups,
    decode::{Contents, Decoder, Kind, ObjectLocation},
    limited::Limits,
    object::{ApiObject, PodObject},
    served::{Served, look},
};
use crate::source::{ValidationError, manifests::WrittenObjects};

/// What problems are said to be in.
const ORIGIN: &str = "API server";

/// Objects in one answer of the API server.
const PAGE: u32 = 500;

/// What there is, in this order.
#[derive(Debug)]
pub(crate) enum DumpPart {
    /// The server has this kind, at this version.
    Kind {
        kind: String,
        api_version: String,
    },
    /// The server does not have this kind: there are no such objects.
    Absent {
        kind: String,
    },
    Object {
        kind: String,
        object: Value,
    },
}

/// Why there is no complete dump.
#[derive(Debug)]
pub(crate) enum DumpError<E> {
    /// Of the server, and the resources that it was asked for.
    Server(Box<Error>, String),
    /// The server has a kind only at versions that are not known here.
    Unknown { kind: String, versions: Vec<String> },
    /// Of the receiver.
    Receiver(E),
}

/// Hands on every object. Nothing is handed on before it is known that all kinds can be listed.
///
/// # Errors
///
/// When a kind cannot be listed, or with what `take` gives.
pub(crate) async fn dump<E>(
    client: &Client,
    take: impl FnMut(DumpPart) -> Result<(), E>,
) -> Result<(), DumpError<E>> {
    dump_of(client, |_| true, take).await
}

/// The same for the kinds that are wanted.
async fn dump_of<E>(
    client: &Client,
    is_wanted: impl Fn(Kind) -> bool,
    mut take: impl FnMut(DumpPart) -> Result<(), E>,
) -> Result<(), DumpError<E>> {
    let (mut kinds, calico) = (Vec::new(), CalicoGroups::default());
    for kind in Kind::ALL.into_iter().filter(|kind| is_wanted(*kind)) {
        let failed = |error| DumpError::Server(Box::new(error), kind.info().plural.to_owned());
        match look(client, kind, &calico).await.map_err(failed)? {
            Served::At(resource) => {
                let one = ListParams::default().limit(1);
                Api::<ApiObject>::all_with(client.clone(), &resource).list(&one).await.map_err(failed)?;
                kinds.push((kind, Some(resource)));
            }
            Served::Nowhere => kinds.push((kind, None)),
            Served::Forbidden(error) => return Err(failed(error)),
            Served::Unknown(versions) => {
                return Err(DumpError::Unknown { kind: kind.to_string(), versions });
            }
        }
    }
    for (kind, resource) in &kinds {
        let kind = kind.to_string();
        let part = match resource {
            Some(resource) => DumpPart::Kind { kind, api_version: resource.api_version.clone() },
            None => DumpPart::Absent { kind },
        };
        take(part).map_err(DumpError::Receiver)?;
    }
    for (kind, resource) in kinds {
        let Some(resource) = resource else { continue };
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = list(client, kind, &resource, &page).await;
            let (objects, next) =
                listed.map_err(|error| DumpError::Server(Box::new(error), resource.plural.clone()))?;
            for object in objects {
                let part = DumpPart::Object { kind: kind.to_string(), object: complete(object, &resource) };
                take(part).map_err(DumpError::Receiver)?;
            }
            match next {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(())
}

/// The cluster that all objects describe, and what in them is not in order.
///
/// # Errors
///
/// As [`dump`].
pub(crate) async fn read_cluster(
    client: &Client,
) -> Result<(Cluster, Vec<ValidationError>), DumpError<Infallible>> {
    let mut read = ReadCluster::default();
    read.add(client, |_| true).await?;
    let ReadCluster { cluster, problems, decoder: _ } = read;
    Ok((cluster, problems))
}

/// The same, with how the objects are written in place of what is not in order.
///
/// # Errors
///
/// As [`dump`].
pub(crate) async fn read_written(
    client: &Client,
) -> Result<(Cluster, WrittenObjects), DumpError<Infallible>> {
    let (mut cluster, mut objects) = (Cluster::default(), WrittenObjects::default());
    let mut decoder = Decoder::default().keeping_written();
    dump(client, |part| {
        if let DumpPart::Object { kind, object } = part {
            let place = ObjectLocation { origin: ORIGIN.to_owned(), position: kind };
            let Contents { objects: decoded, written, .. } = decoder.decode(&object, &place);
            objects.add(ORIGIN, written);
            for object in decoded {
                object.put(&mut cluster);
            }
        }
        Ok(())
    })
    .await?;
    Ok((cluster, objects))
}

/// Calico's objects alone, as far as there are custom resources for them, and what in them does not count as
/// it is written.
///
/// # Errors
///
/// As [`dump`].
pub(crate) async fn read_calico(
    client: &Client,
) -> Result<(Arc<Cluster>, Vec<ValidationError>), DumpError<Infallible>> {
    let mut read = ReadCluster::default();
    read.add(client, |kind| matches!(kind, Kind::Calico(..))).await?;
    // Rules that name Services have room for so many endpoints.
    if read.cluster.calico.policies().any(|policy| policy.services().next().is_some()) {
        read.add(client, |kind| kind == Kind::EndpointSlice).await?;
    }
    let ReadCluster { cluster, mut problems, decoder: _ } = read;
    let (mut cluster, mut limits) = (Arc::new(cluster), Limits::default());
    limits.apply(&mut cluster);
    problems.extend(limits.problems().map(|(_, problem)| problem.clone()));
    Ok((cluster, problems))
}

/// What was read until now.
#[derive(Default)]
struct ReadCluster {
    cluster: Cluster,
    problems: Vec<ValidationError>,
    decoder: Decoder,
}

impl ReadCluster {
    async fn add(
        &mut self,
        client: &Client,
        is_wanted: impl Fn(Kind) -> bool,
    ) -> Result<(), DumpError<Infallible>> {
        let Self { cluster, problems, decoder } = self;
        dump_of(client, is_wanted, |part| take_object(part, cluster, problems, decoder)).await
    }
}

fn take_object(
    part: DumpPart,
    cluster: &mut Cluster,
    problems: &mut Vec<ValidationError>,
    decoder: &mut Decoder,
) -> Result<(), Infallible> {
    if let DumpPart::Object { kind, object } = part {
        let place = ObjectLocation { origin: ORIGIN.to_owned(), position: kind };
        let Contents { objects, faults, .. } = decoder.decode(&object, &place);
        problems.extend(faults.into_iter().map(|fault| ValidationError::of_fault(ORIGIN.to_owned(), fault)));
        for object in objects {
            object.put(cluster);
        }
    }
    Ok(())
}

/// A page, and where the next one begins.
async fn list(
    client: &Client,
    kind: Kind,
    resource: &ApiResource,
    page: &ListParams,
) -> Result<(Vec<Value>, Option<String>), Error> {
    let next = |token: Option<String>| token.filter(|token| !token.is_empty());
    if kind == Kind::Pod {
        let list = Api::<PodObject>::all_with(client.clone(), resource).list(page).await?;
        let objects = list.items.into_iter().map(|PodObject(object)| object.value);
        return Ok((objects.collect(), next(list.metadata.continue_)));
    }
    let list = Api::<ApiObject>::all_with(client.clone(), resource).list(page).await?;
    Ok((list.items.into_iter().map(|object| object.value).collect(), next(list.metadata.continue_)))
}

/// Items of a list do not say what they are.
fn complete(mut object: Value, resource: &ApiResource) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), resource.api_version.clone().into());
        fields.insert("kind".into(), resource.kind.clone().into());
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|_, value| !value.is_null());
        }
    }
    object
}
