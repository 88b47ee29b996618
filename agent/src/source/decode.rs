//! One Kubernetes object, as JSON, into the structs of the model.
//!
//! In: a JSON value, whether an object, a `List` or a typed list such as `PodList`. Out: objects of the model
//! with the API server's defaults, and a [`FieldError`] for each thing that its validation would refuse. A
//! fault costs the smallest entry that holds it; that entry arrives in the model as one that matches nothing.
//! `null` counts as absent everywhere, as it does for the API server. An unknown field is reported in a
//! policy's spec, where it is most likely misspelt, and ignored as the API server ignores it. Left out:
//! files, streams, and objects that appear twice.

mod address;
mod calico;
mod cluster;
mod cluster_policy;
mod cluster_port;
mod endpoint_slice;
mod field;
mod fqdn_policy;
mod intern;
mod kind;
mod location;
mod metadata;
mod node;
mod peer;
mod pod;
mod policy;
mod port;
mod removal;
mod selector;
mod service;
mod syntax;
mod written;

use serde_json::Value;

pub(crate) use field::FieldError;
pub(crate) use kind::{CalicoKind, Kind, KindInfo, ObjectId, group};
pub(crate) use location::{ObjectLines, ObjectLocation};
pub(crate) use pod::MIRROR;
pub(crate) use written::{WrittenObject, WrittenPart};

use calico::CalicoHeader;
use field::{Field, FieldErrors, JsonObject as Fields};
use intern::NameInterner;
use kind::Recognised;
use metadata::Metadata;
use podgate_core::model::{
    CalicoApi, CalicoPolicy, CalicoPolicyName, CalicoTier, ClusterNetworkPolicy, ClusterPolicyName,
    EndpointSlice, HostEndpoint, LabelExpression, Labels, Name, Namespace, NetworkPolicy, NetworkPolicyKind,
    NetworkSet, Node, ObjectName, Pod, Selector, Service,
};

/// One decoded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    Namespace(Name, Namespace),
    Node(Name, Node),
    Pod(Pod),
    /// Succeeded or Failed: not in the cluster, and it takes the place of an earlier pod of its name.
    FinishedPod(ObjectName),
    Policy(NetworkPolicy),
    ClusterPolicy(ClusterNetworkPolicy),
    Service(Service),
    /// kube-proxy leads no one there: not in the cluster, and it takes the place of an earlier service of its
    /// name.
    UnservedService(ObjectName),
    Slice(EndpointSlice),
    /// kube-proxy does not read it: as above.
    UnservedSlice(ObjectName),
    Tier(CalicoApi, Name, CalicoTier),
    /// With what the object is called.
    CalicoPolicy(CalicoApi, CalicoPolicyName, CalicoPolicy),
    /// Its namespace says of which kind it is.
    NetworkSet(CalicoApi, Name, NetworkSet),
    HostEndpoint(CalicoApi, HostEndpoint),
    ServiceAccount(ObjectName, Labels),
    /// Of a change: it takes the object of this name away.
    Removed(ObjectId),
}

/// What one JSON value held.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: Vec<Decoded>,
    pub(crate) faults: Vec<FieldError>,
    /// Something in it could not be recognised as any object, so `objects` may lack one that was meant.
    pub(crate) incomplete: bool,
    /// Policies of which it is not known whom they are for, or what they are meant to do.
    pub(crate) unread: Vec<UnreadObject>,
    /// How objects are written, those that could not be read too, if that is kept.
    pub(crate) written: Vec<WrittenObject>,
}

/// The annotation with the metadata that Calico keeps of an object in its store.
pub(crate) const STORED_METADATA: &str = "projectcalico.org/metadata";

/// A policy that could not be read, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadObject {
    pub(crate) fault: FieldError,
    /// Whose pods it may be for; `None`: any.
    pub(crate) namespace: Option<Name>,
}

/// Decodes objects; equal names and label sets of all that it decoded share their memory.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    names: NameInterner,
    /// Objects may stand for their removal.
    of_changes: bool,
    /// How objects are written is kept, too.
    keeps_written: bool,
}

impl Decoded {
    pub(crate) fn id(&self) -> ObjectId {
        match self {
            Self::Namespace(name, _) => ObjectId::of_cluster(Kind::Namespace, name.clone()),
            Self::Node(name, _) => ObjectId::of_cluster(Kind::Node, name.clone()),
            Self::Pod(pod) => ObjectId::of_namespace(Kind::Pod, pod.name.clone()),
            Self::FinishedPod(name) => ObjectId::of_namespace(Kind::Pod, name.clone()),
            Self::Policy(policy) => {
                let (kind, name) = NetworkPolicyKind::of(&policy.name);
                ObjectId::of_namespace(Kind::of_policy(kind), name)
            }
            Self::ClusterPolicy(policy) => {
                let ClusterPolicyName { name, kind } = &policy.name;
                ObjectId::of_cluster(Kind::ClusterPolicy(*kind), name.clone())
            }
            Self::Service(Service { name, .. }) | Self::UnservedService(name) => {
                ObjectId::of_namespace(Kind::Service, name.clone())
            }
            Self::Slice(EndpointSlice { name, .. }) | Self::UnservedSlice(name) => {
                ObjectId::of_namespace(Kind::EndpointSlice, name.clone())
            }
            Self::Tier(api, name, _) => {
                ObjectId::of_cluster(Kind::Calico(*api, CalicoKind::Tier), name.clone())
            }
            Self::CalicoPolicy(api, CalicoPolicyName { namespace, name, kind }, _) => ObjectId {
                kind: Kind::Calico(*api, CalicoKind::Policy(*kind)),
                namespace: namespace.clone(),
                name: name.clone(),
            },
            Self::NetworkSet(api, name, set) => {
                let kind = match set.namespace {
                    Some(_) => CalicoKind::NetworkSet,
                    None => CalicoKind::GlobalNetworkSet,
                };
                let namespace = set.namespace.clone();
                ObjectId { kind: Kind::Calico(*api, kind), namespace, name: name.clone() }
            }
            Self::HostEndpoint(api, host) => {
                ObjectId::of_cluster(Kind::Calico(*api, CalicoKind::HostEndpoint), host.name.clone())
            }
            Self::ServiceAccount(name, _) => ObjectId::of_namespace(Kind::ServiceAccount, name.clone()),
            Self::Removed(id) => id.clone(),
        }
    }
}

impl Decoded {
    /// Whose pods it may be for, though it does not say so, when it is a policy that could not be read.
    /// `is_unread`: its spec is no object, or its mode is not known. A selector that was not understood
    /// selects nothing.
    fn unread(&self, is_unread: bool) -> Option<Option<Name>> {
        let nothing = |selector: &Selector| *selector == Selector::Nothing;
        match self {
            Self::Policy(policy) => {
                (is_unread || nothing(&policy.subject)).then(|| Some(policy.name.namespace.clone()))
            }
            Self::ClusterPolicy(policy) => {
                let subject = &policy.subject;
                (is_unread || nothing(&subject.namespaces) || nothing(&subject.pods)).then_some(None)
            }
            Self::CalicoPolicy(_, name, policy) => {
                (is_unread || policy.subject == LabelExpression::NOTHING).then(|| name.namespace.clone())
            }
            Self::Namespace(name, _) => is_unread.then(|| Some(name.clone())),
            Self::Node(..)
            | Self::Pod(_)
            | Self::FinishedPod(_)
            | Self::Service(_)
            | Self::UnservedService(_)
            | Self::Slice(_)
            | Self::UnservedSlice(_)
            | Self::Tier(..)
            | Self::NetworkSet(..)
            | Self::HostEndpoint(..)
            | Self::ServiceAccount(..)
            | Self::Removed(_) => None,
        }
    }
}

/// Whose pods something is for that is no object of ours though it may be meant as a policy; `None`:
/// no one's.
fn scope(value: &Value, listed: Option<Kind>) -> Option<Option<Name>> {
    match Kind::claimed(value).or(listed) {
        Some(kind) if kind.info().is_namespaced && kind.info().is_policy => {
            let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
            Some(Some(
                namespace.filter(|text| !text.is_empty()).unwrap_or(metadata::DEFAULT_NAMESPACE).into(),
            ))
        }
        Some(Kind::Namespace) => None,
        Some(kind) if kind.info().is_policy => Some(None),
        Some(_) => None,
        // It does not say what it is.
        None => Some(None),
    }
}

impl Decoder {
    /// Of objects that change a cluster and may say that they are to be removed.
    pub(crate) fn of_changes() -> Self {
        Self { of_changes: true, ..Self::default() }
    }

    /// Keeps how objects are written, too.
    pub(crate) fn keeping_written(self) -> Self {
        Self { keeps_written: true, ..self }
    }

    pub(crate) fn decode(&mut self, value: &Value, place: &ObjectLocation) -> Contents {
        self.decode_at(value, place, &ObjectLines::default())
    }

    pub(crate) fn decode_at(
        &mut self,
        value: &Value,
        place: &ObjectLocation,
        lines: &ObjectLines,
    ) -> Contents {
        let mut contents = Contents::default();
        self.recognise(value, None, place, lines, &mut contents);
        contents
    }

    /// Decodes one object of a kind that is known; it need not say it itself, and is no list.
    pub(crate) fn decode_as(&mut self, kind: Kind, value: &Value) -> (Option<Decoded>, Vec<FieldError>) {
        let place = ObjectLocation { origin: String::new(), position: String::new() };
        let mut contents = Contents::default();
        self.object(value, kind, &place, &ObjectLines::default(), &mut contents);
        (contents.objects.pop(), contents.faults)
    }

    /// Forgets what no decoded object holds any more.
    pub(crate) fn sweep(&mut self) {
        self.names.sweep();
    }

    /// `listed`: what the items of a typed list are, when they do not say it themselves.
    fn recognise(
        &mut self,
        value: &Value,
        listed: Option<Kind>,
        place: &ObjectLocation,
        lines: &ObjectLines,
        contents: &mut Contents,
    ) {
        let faults = FieldErrors::new(match Kind::claimed(value).or(listed) {
            Some(kind) => metadata::label(value, kind, place),
            None => place.position.clone(),
        });
        let root = Field::root(value, &faults);
        match kind::recognise(&root, listed) {
            Ok(Recognised::Object(kind)) => self.object(value, kind, place, lines, contents),
            Ok(Recognised::List(items)) => match root.object().and_then(|list| list.get("items").values()) {
                Ok(values) => {
                    for (index, item) in values.iter().enumerate() {
                        let position = format!("{} items[{index}]", place.position);
                        let place = ObjectLocation { position, ..place.clone() };
                        // Where its own line is not known, that of the list is near.
                        let of_list = ObjectLines::at(lines.own);
                        let lines = lines.items.get(index).unwrap_or(&of_list);
                        self.recognise(item, items, &place, lines, contents);
                    }
                }
                Err(_reported) => contents.incomplete = true,
            },
            Ok(Recognised::Foreign) => {}
            Err(_reported) => contents.incomplete = true,
        }
        let faults = faults.into_list();
        // It is not in `objects`, unless it is a list, which has no faults but this one.
        if let (Some(fault), Some(namespace)) = (faults.first(), scope(value, listed)) {
            contents.unread.push(UnreadObject { fault: fault.clone(), namespace });
        }
        if let (Some(fault), true) = (faults.first(), self.keeps_written) {
            contents.written.push(WrittenObject::unknown(fault.object.clone(), lines.own));
        }
        contents.faults.extend(faults);
    }

    fn object(
        &mut self,
        value: &Value,
        kind: Kind,
        place: &ObjectLocation,
        lines: &ObjectLines,
        contents: &mut Contents,
    ) {
        let faults = FieldErrors::new(metadata::label(value, kind, place));
        let root = Field::root(value, &faults);
        let mut unread = None;
        if let Ok(fields) = root.object() {
            let metadata = metadata::read(&fields.get("metadata"), kind, &mut self.names);
            let is_removed = if self.of_changes { removal::is_asked(&fields) } else { Ok(false) };
            match is_removed {
                Ok(false) => {
                    let is_unread = metadata.has_unknown_mode || !fields.get("spec").may_be_object();
                    let decoded = self.body(kind, metadata, &fields, place);
                    unread = decoded.as_ref().and_then(|object| object.unread(is_unread));
                    if self.keeps_written {
                        let label = metadata::label(value, kind, place);
                        contents.written.push(WrittenObject::of(value, decoded.as_ref(), label, lines.own));
                    }
                    contents.objects.extend(decoded);
                }
                Ok(true) => match metadata.id(kind) {
                    Some(id) => contents.objects.push(Decoded::Removed(id)),
                    None => contents.incomplete = true,
                },
                Err(_reported) => contents.incomplete = true,
            }
        }
        let faults = faults.into_list();
        if let (Some(fault), Some(namespace)) = (faults.first(), unread) {
            contents.unread.push(UnreadObject { fault: fault.clone(), namespace });
        }
        contents.faults.extend(faults);
    }

    /// Without a name only a policy is kept: it holds, whatever it is called.
    fn body(
        &mut self,
        kind: Kind,
        metadata: Metadata,
        fields: &Fields<'_>,
        place: &ObjectLocation,
    ) -> Option<Decoded> {
        let Metadata { name, namespace, labels, audit, has_unknown_mode: _ } = metadata;
        let is_namespaced = kind.info().is_namespaced;
        let in_namespace = |name| ObjectName { namespace: namespace.clone(), name };
        Some(match kind {
            Kind::Namespace => Decoded::Namespace(name?, Namespace { labels, audit }),
            Kind::Node => Decoded::Node(name?, node::read(fields, labels)),
            Kind::Pod => pod::read(fields, in_namespace(name?), labels, &mut self.names),
            Kind::NetworkPolicy => {
                let name = name.unwrap_or_else(|| metadata::unnamed(place));
                Decoded::Policy(policy::read(fields, in_namespace(name), audit, &mut self.names))
            }
            Kind::ApplicationNetworkPolicy => {
                let name = in_namespace(name.unwrap_or_else(|| metadata::unnamed(place)));
                let name = NetworkPolicyKind::ApplicationNetworkPolicy.policy_name(name);
                Decoded::Policy(policy::read_with_names(fields, name, audit, &mut self.names))
            }
            Kind::FqdnNetworkPolicy => {
                let name = in_namespace(name.unwrap_or_else(|| metadata::unnamed(place)));
                let name = NetworkPolicyKind::FqdnNetworkPolicy.policy_name(name);
                Decoded::Policy(fqdn_policy::read(fields, name, audit, &mut self.names))
            }
            Kind::ClusterPolicy(kind) => {
                let name = ClusterPolicyName { name: name.unwrap_or_else(|| metadata::unnamed(place)), kind };
                Decoded::ClusterPolicy(cluster_policy::read(fields, name, audit, &mut self.names))
            }
            Kind::Service => service::read(fields, in_namespace(name?), &labels, &mut self.names),
            Kind::EndpointSlice => {
                endpoint_slice::read(fields, in_namespace(name?), &labels, &mut self.names)
            }
            Kind::ServiceAccount => Decoded::ServiceAccount(in_namespace(name?), labels),
            Kind::Calico(api, kind) => {
                let namespace = is_namespaced.then_some(namespace);
                match kind {
                    CalicoKind::Tier => Decoded::Tier(api, name?, calico::read_tier(fields)),
                    CalicoKind::Policy(kind) => {
                        let name = name.unwrap_or_else(|| metadata::unnamed(place));
                        let header = CalicoHeader { api, namespace, name, labels, audit };
                        let object = header.policy_name(kind);
                        let policy = calico::read_policy(fields, header, kind, &mut self.names);
                        Decoded::CalicoPolicy(api, object, policy)
                    }
                    CalicoKind::NetworkSet | CalicoKind::GlobalNetworkSet => {
                        let header = CalicoHeader { api, namespace, name: name?, labels, audit };
                        let name = header.name.clone();
                        let set = calico::read_network_set(fields, header, &mut self.names);
                        Decoded::NetworkSet(api, name, set)
                    }
                    CalicoKind::HostEndpoint => {
                        let header = CalicoHeader { api, namespace, name: name?, labels, audit };
                        let host = calico::read_host_endpoint(fields, header, &mut self.names)?;
                        Decoded::HostEndpoint(api, host)
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
