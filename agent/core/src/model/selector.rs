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

    /// Whether it matches everything that the other one matches, whatever objects there are. `false` also
    /// where that takes more than a look at their requirements one by one.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Nothing) => true,
            (Self::Nothing, Self::All(_)) => false,
            (Self::All(wide), Self::All(narrow)) => {
                wide.iter().all(|wanted| narrow.iter().any(|given| given.implies(wanted)))
            }
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

    /// Whether all labels that meet it meet the other one.
    fn implies(&self, other: &Self) -> bool {
        if self.key() != other.key() {
            return false;
        }
        match (self, other) {
            (Self::In(_, few), Self::In(_, many)) | (Self::NotIn(_, many), Self::NotIn(_, few)) => {
                few.iter().all(|value| many.contains(value))
            }
            (Self::In(_, values), Self::NotIn(_, excluded)) => {
                !values.iter().any(|value| excluded.contains(value))
            }
            (Self::In(..) | Self::Exists(_), Self::Exists(_))
            | (Self::DoesNotExist(_), Self::DoesNotExist(_) | Self::NotIn(..)) => true,
            (Self::In(..), Self::DoesNotExist(_))
            | (Self::NotIn(..), Self::In(..) | Self::Exists(_) | Self::DoesNotExist(_))
            | (Self::Exists(_), Self::In(..) | Self::NotIn(..) | Self::DoesNotExist(_))
            | (Self::DoesNotExist(_), Self::In(..) | Self::Exists(_)) => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all(requirements: &[Requirement]) -> Selector {
        Selector::All(requirements.to_vec())
    }

    #[test]
    fn a_selector_covers_what_its_requirements_imply() {
        let values = |values: &[&str]| values.iter().map(|value| Name::from(*value)).collect();
        let is = |given: &[&str]| Requirement::In("a".into(), values(given));
        let is_not = |given: &[&str]| Requirement::NotIn("a".into(), values(given));
        let (exists, absent) = (|| Requirement::Exists("a".into()), || Requirement::DoesNotExist("a".into()));
        let other = || Requirement::Exists("b".into());
        for (wide, narrow, expected) in [
            (all(&[]), all(&[is(&["1"])]), true),
            (all(&[is(&["1"])]), all(&[]), false),
            (all(&[is(&["1", "2"])]), all(&[is(&["2"])]), true),
            (all(&[is(&["2"])]), all(&[is(&["1", "2"])]), false),
            (all(&[exists()]), all(&[is(&["1"]), other()]), true),
            (all(&[exists(), other()]), all(&[is(&["1"])]), false),
            (all(&[is_not(&["1"])]), all(&[is(&["2"])]), true),
            (all(&[is_not(&["1"])]), all(&[is(&["1", "2"])]), false),
            (all(&[is_not(&["1"])]), all(&[is_not(&["1", "2"])]), true),
            (all(&[is_not(&["1", "2"])]), all(&[is_not(&["1"])]), false),
            (all(&[is_not(&["1"])]), all(&[absent()]), true),
            (all(&[absent()]), all(&[is_not(&["1"])]), false),
            (all(&[exists()]), all(&[is_not(&["1"])]), false),
            (all(&[exists()]), all(&[other()]), false),
            (all(&[absent()]), Selector::Nothing, true),
            (Selector::Nothing, all(&[is(&["1"])]), false),
        ] {
            assert_eq!(wide.covers(&narrow), expected, "{wide:?} {narrow:?}");
        }
    }
}
