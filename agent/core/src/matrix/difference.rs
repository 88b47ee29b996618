//! What differs between two matrices of the same ports: the pairs of pods that a change opens and closes.
//!
//! Pairs are compared that are in both. Pods that are in one alone are named, their pairs are not: nothing
//! was open or closed for a pod that did not exist.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Matrix, PairVerdict::Allowed};
use crate::{model::Name, port_spec::PortSpec};

/// Its JSON form is a contract: fields are added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Not allowed before, allowed after. By port, source and destination.
    pub opened: Vec<Pair>,
    /// Allowed before, not after.
    pub closed: Vec<Pair>,
    /// Pods that are only there after, and only before.
    pub added_pods: Vec<Name>,
    /// Pods that are in the first matrix only.
    pub removed_pods: Vec<Name>,
}

/// One port from one pod to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// The server's port.
    pub port: PortSpec,
    /// The client: `namespace/name`.
    pub from: Name,
    /// The server: `namespace/name`.
    pub to: Name,
}

impl Difference {
    /// What is different in `after`.
    pub fn between(before: &Matrix, after: &Matrix) -> Self {
        let places: BTreeMap<&Name, usize> = before.pods.iter().zip(0..).collect();
        let mut difference = Self {
            added_pods: only_in(after, before),
            removed_pods: only_in(before, after),
            ..Self::default()
        };
        for (port, rows) in &after.ports {
            let Some(rows_before) = before.ports.get(port) else { continue };
            for (from, row) in rows {
                let Some(row_before) = rows_before.get(from) else { continue };
                for (to, is) in after.pods.iter().zip(&row.0) {
                    let Some(was) = places.get(to).and_then(|place| row_before.0.get(*place)) else {
                        continue;
                    };
                    let pair = || Pair { port: port.clone(), from: from.clone(), to: to.clone() };
                    match (*was == Allowed, *is == Allowed) {
                        (false, true) => difference.opened.push(pair()),
                        (true, false) => difference.closed.push(pair()),
                        (true, true) | (false, false) => {}
                    }
                }
            }
        }
        difference
    }

    /// No pair is opened or closed.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty()
    }
}

fn only_in(one: &Matrix, other: &Matrix) -> Vec<Name> {
    one.pods.iter().filter(|pod| other.pods.binary_search(pod).is_err()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows`: a pod and its row, sorted.
    fn matrix(rows: &[(&str, &str)]) -> Matrix {
        let of_port = rows.iter().map(|(pod, row)| (Name::from(*pod), row.parse().unwrap())).collect();
        Matrix {
            pods: rows.iter().map(|(pod, _)| Name::from(*pod)).collect(),
            ports: BTreeMap::from([("TCP/80".parse().unwrap(), of_port)]),
        }
    }

    #[test]
    fn pairs_that_are_in_both_are_compared_and_other_pods_named() {
        let before = matrix(&[("x/a", "..X-"), ("x/b", "X..."), ("x/c", "...."), ("x/d", "-X..")]);
        let after = matrix(&[("x/a", "..X"), ("x/b", "..X"), ("x/d", ".-.")]);
        let difference = Difference::between(&before, &after);
        let words = |pairs: &[Pair]| -> Vec<String> {
            pairs.iter().map(|pair| format!("{} {} {}", pair.port, pair.from, pair.to)).collect()
        };
        assert_eq!(words(&difference.opened), ["TCP/80 x/b x/a", "TCP/80 x/d x/a"]);
        assert_eq!(words(&difference.closed), ["TCP/80 x/b x/d"]);
        assert_eq!((difference.added_pods.len(), &*difference.removed_pods), (0, &["x/c".into()][..]));
        assert!(!difference.is_empty());
        assert_eq!(Difference::between(&after, &before).added_pods, ["x/c"]);
        assert_eq!(Difference::between(&after, &after), Difference::default());
    }
}
