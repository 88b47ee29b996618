//! What an object is called: its kind, and its name.

use std::fmt;

use podgate_core::model::{Name, ObjectName};

use super::Kind;

/// What distinguishes two objects; printed as in `NetworkPolicy shop/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectId {
    pub(in crate::source::decode) kind: Kind,
    pub(in crate::source::decode) namespace: Option<Name>,
    pub(in crate::source::decode) name: Name,
}

impl ObjectId {
    pub(crate) fn of_cluster(kind: Kind, name: Name) -> Self {
        Self { kind, namespace: None, name }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn namespace(&self) -> Option<&Name> {
        self.namespace.as_ref()
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// `namespace`: `None` for what is in none.
    pub(crate) fn of_any(kind: Kind, namespace: Option<Name>, name: Name) -> Self {
        Self { kind, namespace, name }
    }

    pub(crate) fn of_namespace(kind: Kind, ObjectName { namespace, name }: ObjectName) -> Self {
        Self { kind, namespace: Some(namespace), name }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}
