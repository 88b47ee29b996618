//! Names and labels: cheap to clone, ordered, printed as Kubernetes prints them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arcstr::ArcStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A name of one part: a namespace's, a node's, a port's.
///
/// One word wide, half as much as `Arc<str>`: a cluster of 150,000 pods holds a million of them.
pub type Name = ArcStr;

/// The labels of one object. Shared: the replicas of a Deployment hold one set.
pub type Labels = Arc<BTreeMap<Name, Name>>;

/// The name of a namespaced object, printed as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The object's namespace.
    pub namespace: Name,
    /// The object's name in it.
    pub name: Name,
}

/// What tells an object from another one of the same name, later or earlier: a UUID.
///
/// Bytes, not a number: that would be aligned to 16 bytes, and each pod with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uid([u8; 16]);

impl Uid {
    /// `None` for what is no UUID.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        let is_hexadecimal = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = is_hexadecimal.then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
        number.map(|number| Self(number.to_be_bytes()))
    }
}

impl ObjectName {
    /// Of a namespace and a name.
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// As it is printed.
impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| D::Error::custom("a name is NAMESPACE/NAME"))?;
        Ok(Self::new(namespace, name))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
