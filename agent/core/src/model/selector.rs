//! Label selectors: `matchLabels` and `matchExpressions` as one list of requirements, all of which must hold.

use std::ops::Deref;

use super::{Labels, Name};

/// A label selector. An empty list of requirements (`{}`) selects everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// All requirements must hold.
    All(Vec<Requirement>),
    /// A requirement was not understood: selects nothing, so that it never widens what a policy allows.
    Nothing,
}

/// One requirement on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The key is present with one of these values (`matchLabels` is `In` with one value).
    In(Name, LabelValues),
    /// The key is absent, or present with another value.
    NotIn(Name, LabelValues),
    /// The label is there, with any value.
    Exists(Name),
    /// The label is not there.
    DoesNotExist(Name),
}

/// Values of one label: in their order, each once. Nearly always one, for which a tree would take ten times
/// the memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelValues(Box<[Name]>);

impl LabelValues {
    fn contains(&self, value: &Name) -> bool {
        self.0.binary_search(value).is_ok()
    }
}

impl FromIterator<Name> for LabelValues {
    fn from_iter<T: IntoIterator<Item = Name>>(values: T) -> Self {
        let mut values: Vec<Name> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        Self(values.into())
    }
}

impl<const COUNT: usize> From<[Name; COUNT]> for LabelValues {
    fn from(values: [Name; COUNT]) -> Self {
        values.into_iter().collect()
    }
}

impl Deref for LabelValues {
    type Target = [Name];

    fn deref(&self) -> &[Name] {
        &self.0
    }
}

impl Selector {
    /// The selector `{}`.
    pub const EVERYTHING: Self = Self::All(Vec::new());

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::All(requirements) => requirements.iter().all(|requirement| requirement.holds(labels)),
            Self::Nothing => false,
        }
    }
}

impl Requirement {
    /// The key that it is about.
    pub const fn key(&self) -> &Name {
        match self {
            Self::In(key, _) | Self::NotIn(key, _) | Self::Exists(key) | Self::DoesNotExist(key) => key,
        }
    }

    /// Whether these labels meet the requirement.
    pub fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => !labels.get(key).is_some_and(|value| values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}
