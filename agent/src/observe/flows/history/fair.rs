//! What a full history gives up: it is shared out to the pods whose side was evaluated, and each pod's part
//! to the ends that it talks with. Who takes less than an equal share keeps all of it, and of what is given
//! up the oldest goes first. So a scan drives out what it has written itself, and no other pod's past.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use podgate_core::model::{Name, ObjectName};

use super::{FlowKind, KnownEnd, KnownOwner, Seen};

type Entry = (Arc<FlowKind>, Seen);

/// Who gets a share, whatever labels a pod had in the meantime.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sharer {
    Pod(ObjectName),
    Service(ObjectName),
    Node(Name),
    Address(Option<IpAddr>),
}

/// By which ends shares are given out, one within the other.
const ENDS: [usize; 2] = [0, 1];

/// Leaves entries of so much weight together.
pub(super) fn trim(flows: &mut HashMap<Arc<FlowKind>, Seen>, budget: usize) {
    let mut entries: Vec<Entry> = flows.drain().collect();
    entries.sort_by_key(|(_, seen)| Reverse(seen.last));
    let (kept, _) = share(entries, budget, &ENDS);
    flows.extend(kept);
}

/// Entries of so much weight, and the others. In: the newest first.
fn share(entries: Vec<Entry>, budget: usize, ends: &[usize]) -> (Vec<Entry>, Vec<Entry>) {
    if weight(&entries) <= budget {
        return (entries, Vec::new());
    }
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    match ends {
        [] => others = entries,
        [end, ends @ ..] => {
            let mut groups: BTreeMap<Sharer, Vec<Entry>> = BTreeMap::new();
            for entry in entries {
                groups.entry(Sharer::of(entry.0.ends()[*end])).or_default().push(entry);
            }
            let level = level(groups.values().map(|group| weight(group)).collect(), budget);
            for group in groups.into_values() {
                let (of_share, beyond) = share(group, level, ends);
                kept.extend(of_share);
                others.extend(beyond);
            }
            others.sort_by_key(|(_, seen)| Reverse(seen.last));
        }
    }
    // What no equal share takes, the newest get.
    let mut left = budget.saturating_sub(weight(&kept));
    let (newest, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, seen)| {
        let fits = seen.weight <= left;
        left -= if fits { seen.weight } else { 0 };
        fits
    });
    kept.extend(newest);
    (kept, rest)
}

impl Sharer {
    fn of(KnownEnd { address, owner }: &KnownEnd) -> Self {
        match owner {
            Some(KnownOwner::Pod(name, _)) => Self::Pod(name.clone()),
            Some(KnownOwner::Service(name)) => Self::Service(name.clone()),
            Some(KnownOwner::Node(name)) => Self::Node(name.clone()),
            None => Self::Address(*address),
        }
    }
}

fn weight(entries: &[Entry]) -> usize {
    entries.iter().map(|(_, seen)| seen.weight).sum()
}

/// The largest equal share: those who want less get what they want, and all together get no more than there
/// is.
fn level(mut wanted: Vec<usize>, budget: usize) -> usize {
    wanted.sort_unstable();
    let (mut left, mut others) = (budget, wanted.len());
    for want in wanted {
        if want * others > left {
            return left / others;
        }
        left -= want;
        others -= 1;
    }
    budget
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn who_wants_less_than_an_equal_share_gets_it_and_the_rest_is_shared() {
        for (wanted, budget, expected) in [
            (vec![1, 2, 3], 6, 6),
            (vec![10, 10], 6, 3),
            (vec![1, 10, 10], 7, 3),
            (vec![1, 2, 100], 10, 7),
            (vec![5, 5, 5], 2, 0),
            (vec![], 2, 2),
        ] {
            assert_eq!(level(wanted.clone(), budget), expected, "{wanted:?} of {budget}");
        }
    }
}
