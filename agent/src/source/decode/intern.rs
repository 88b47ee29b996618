//! One copy of each name, each label set and each list of named ports: the pods of a large cluster repeat a
//! few thousand of them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use podgate_core::{
    model::{Labels, Name, NamedPort},
    printable::printable,
};

#[derive(Debug, Default)]
pub(super) struct NameInterner {
    names: HashSet<Name>,
    labels: HashSet<Labels>,
    ports: HashSet<Arc<[NamedPort]>>,
}

impl NameInterner {
    pub(super) fn name(&mut self, text: &str) -> Name {
        // No valid name or label holds a character that is escaped, nor a backslash.
        let text = &*printable(text);
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        let name = Name::from(text);
        self.names.insert(name.clone());
        name
    }

    pub(super) fn labels(&mut self, labels: BTreeMap<Name, Name>) -> Labels {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        let labels = Arc::new(labels);
        self.labels.insert(labels.clone());
        labels
    }

    pub(super) fn ports(&mut self, ports: Vec<NamedPort>) -> Arc<[NamedPort]> {
        if let Some(known) = self.ports.get(ports.as_slice()) {
            return known.clone();
        }
        let ports: Arc<[NamedPort]> = ports.into();
        self.ports.insert(ports.clone());
        ports
    }

    /// Forgets what no one else holds. Names last: the others hold them.
    pub(super) fn sweep(&mut self) {
        self.ports.retain(|ports| Arc::strong_count(ports) > 1);
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.names.retain(|name| Name::strong_count(name).is_some_and(|holders| holders > 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_label_sets_share_one_copy() {
        let mut interner = NameInterner::default();
        let mut web = |value: &str| {
            let labels = BTreeMap::from([(interner.name("app"), interner.name(value))]);
            interner.labels(labels)
        };
        let (first, second, other) = (web("web"), web("web"), web("db"));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn names_hold_nothing_that_a_terminal_obeys() {
        let mut interner = NameInterner::default();
        for (text, expected) in [
            ("web-1.example_A/b", "web-1.example_A/b"),
            ("ü", "ü"),
            ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("a\nb\r\t\0", "a\\nb\\r\\t\\u{0}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}bew", "\\u{202e}bew"),
        ] {
            assert_eq!(&*interner.name(text), expected);
        }
    }

    #[test]
    fn what_is_no_longer_held_is_forgotten() {
        let mut interner = NameInterner::default();
        let kept = interner.name("kept");
        let labels = BTreeMap::from([(interner.name("app"), interner.name("web"))]);
        drop(interner.labels(labels));
        interner.sweep();
        assert_eq!(interner.names, HashSet::from([kept]));
        assert!(interner.labels.is_empty());
    }
}
