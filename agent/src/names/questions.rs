//! Questions that wait, in fair turns.
//!
//! A namespace is a tenant, and may have as many names in its policies as it likes. So each has a queue of
//! its own with an end, and its turn when its questions wait; and of those that are asked at a time each has
//! a few, for a tenant may own the servers that never answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use podgate_core::{compiler::NamePlace, model::Name};

use super::message::AddressKind;

/// A name that a namespace's policies have, and which addresses are asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameQuestion {
    pub(super) namespace: Name,
    pub(super) name: NamePlace,
    pub(super) kind: AddressKind,
}

/// A pod that wants the answer: its veth, and the number of its table.
pub(super) type Asker = (u32, u32);

/// Those that wait, and those that are asked now.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Of namespaces that have any.
    waiting: BTreeMap<Name, VecDeque<NameQuestion>>,
    /// The same namespaces, in the order of their turns.
    turns: VecDeque<Name>,
    /// Who wants to know; of all questions that wait or are asked.
    askers: BTreeMap<NameQuestion, BTreeSet<Asker>>,
    /// How many are asked now, by namespace.
    asked: BTreeMap<Name, usize>,
}

/// Questions of one namespace that wait.
const MOST_WAITING: usize = 2_000;

/// Questions that are asked at a time: of one namespace, and of all.
const MOST_OF_NAMESPACE: usize = 4;
const MOST_ASKED: usize = 64;

impl Questions {
    /// Notes who wants to know the addresses of a name. False: its namespace has too many questions.
    #[must_use]
    pub(super) fn add(&mut self, namespace: &Name, name: &NamePlace, asker: Asker) -> bool {
        AddressKind::ALL.into_iter().all(|kind| {
            let question = NameQuestion { namespace: namespace.clone(), name: name.clone(), kind };
            if let Some(askers) = self.askers.get_mut(&question) {
                askers.insert(asker);
                return true;
            }
            let queue = self.waiting.entry(namespace.clone()).or_insert_with(|| {
                self.turns.push_back(namespace.clone());
                VecDeque::new()
            });
            if queue.len() >= MOST_WAITING {
                return false;
            }
            queue.push_back(question.clone());
            self.askers.insert(question, [asker].into());
            true
        })
    }

    /// Whether [`Self::next`] has one.
    pub(super) fn has_next(&self) -> bool {
        self.turns.iter().any(|namespace| self.may_ask(namespace))
    }

    /// The next question to ask, of the namespace whose turn it is.
    pub(super) fn next(&mut self) -> Option<NameQuestion> {
        let turn = self.turns.iter().position(|namespace| self.may_ask(namespace))?;
        let namespace = self.turns.remove(turn)?;
        let queue = self.waiting.get_mut(&namespace)?;
        let question = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace.clone());
        }
        *self.asked.entry(namespace).or_default() += 1;
        Some(question)
    }

    /// A question has its answer, or will have none: who wanted to know.
    pub(super) fn end(&mut self, question: &NameQuestion) -> BTreeSet<Asker> {
        if let Some(asked) = self.asked.get_mut(&question.namespace) {
            *asked -= 1;
            if *asked == 0 {
                self.asked.remove(&question.namespace);
            }
        }
        self.askers.remove(question).unwrap_or_default()
    }

    fn may_ask(&self, namespace: &Name) -> bool {
        self.asked.get(namespace).copied().unwrap_or(0) < MOST_OF_NAMESPACE
            && self.asked.values().sum::<usize>() < MOST_ASKED
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message::tests::place, *};

    const A: Asker = (3, 1);
    const B: Asker = (4, 2);

    fn questions(of: &[(&str, u32)]) -> Questions {
        let mut questions = Questions::default();
        for (namespace, count) in of {
            for at in 0..*count {
                let _ = questions.add(&(*namespace).into(), &place(&format!("n{at}.{namespace}.test")), A);
            }
        }
        questions
    }

    #[test]
    fn a_tenant_with_many_names_neither_delays_nor_stops_another_one() {
        let mut all = questions(&[("flood", 100_000)]);
        assert_eq!(all.waiting[&Name::from("flood")].len(), MOST_WAITING);
        assert_eq!(all.askers.len(), MOST_WAITING);
        assert!(!all.add(&"flood".into(), &place("one.more.test"), A));
        // Its servers never answer.
        while all.next().is_some() {}
        assert_eq!(all.asked[&Name::from("flood")], MOST_OF_NAMESPACE);
        assert!(!all.has_next());
        assert!(all.add(&"other".into(), &place("api.example.com"), B));
        let kinds: Vec<_> = std::iter::from_fn(|| all.next()).map(|it| (it.namespace, it.kind)).collect();
        assert_eq!(kinds, AddressKind::ALL.map(|kind| ("other".into(), kind)));
    }

    #[test]
    fn namespaces_take_turns() {
        let mut all = questions(&[("a", 3), ("b", 1), ("c", 2)]);
        let mut order = Vec::new();
        while let Some(question) = all.next() {
            order.push(question.namespace.to_string());
            assert_eq!(all.end(&question), [A].into());
        }
        assert_eq!(order.concat(), "abcabcacacaa");
        assert!(all.askers.is_empty() && all.asked.is_empty() && all.turns.is_empty());
    }

    #[test]
    fn many_namespaces_whose_servers_are_silent_are_bounded_together() {
        let names: Vec<String> = (0..100).map(|at| format!("ns{at}")).collect();
        let mut all = questions(&names.iter().map(|name| (&**name, 5)).collect::<Vec<_>>());
        assert_eq!(std::iter::from_fn(|| all.next()).count(), MOST_ASKED);
    }

    #[test]
    fn a_name_that_several_pods_want_is_asked_once() {
        let mut all = questions(&[]);
        let name = place("api.example.com");
        for asker in [A, B, A] {
            assert!(all.add(&"x".into(), &name, asker));
        }
        let first = all.next().unwrap();
        // Also while it is asked.
        assert!(all.add(&"x".into(), &name, (9, 9)));
        assert_eq!(all.end(&first), [A, B, (9, 9)].into());
        let second = all.next().unwrap();
        assert_eq!((first.kind, second.kind), (AddressKind::V4, AddressKind::V6));
        assert_eq!(all.next(), None);
    }
}
