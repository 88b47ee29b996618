//! Veths that stay held for long: each is logged and counted, and so is how it ends.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use podgate_core::model::Name;

use crate::{
    endpoints::{Endpoints, Hold, InterfaceState},
    snapshot::HoldCounts,
};

/// A hold that lasts longer is worth a line in the log: CNI plug-ins are done by then.
const LONG: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct LongHolds {
    /// By ifindex.
    reported: BTreeMap<u32, (Name, Hold)>,
    counts: HoldCounts,
}

impl LongHolds {
    pub(super) const fn counts(&self) -> HoldCounts {
        self.counts
    }

    /// Reports what has become long, and what has ended.
    pub(super) fn follow(&mut self, endpoints: &Endpoints, now: Instant) {
        let is_same = |ifindex: &u32, known: &Hold| {
            endpoints.holds.get(ifindex).is_some_and(|hold| hold.since == known.since)
        };
        let ended: Vec<_> =
            self.reported.extract_if(.., |ifindex, (_, hold)| !is_same(ifindex, hold)).collect();
        for (ifindex, (interface, hold)) in ended {
            self.report_end(endpoints, ifindex, &interface, &hold, now);
        }
        for (ifindex, hold) in &endpoints.holds {
            let Some(veth) = endpoints.veths.get(ifindex) else { continue };
            if self.reported.contains_key(ifindex) || now.saturating_duration_since(hold.since) < LONG {
                continue;
            }
            self.counts.long += 1;
            self.reported.insert(*ifindex, (veth.name.clone(), hold.clone()));
            let longest = hold.until.map(|until| until.saturating_duration_since(hold.since).as_secs());
            tracing::warn!(
                interface = %veth.name, ifindex, pods = names(hold), longest_seconds = longest,
                "held: this interface may belong to an isolated pod, and nothing identifies its pod yet"
            );
        }
    }

    fn report_end(
        &mut self,
        endpoints: &Endpoints,
        ifindex: u32,
        interface: &Name,
        hold: &Hold,
        now: Instant,
    ) {
        let seconds = now.saturating_duration_since(hold.since).as_secs();
        let veth = endpoints.veths.get(&ifindex).filter(|veth| veth.name == *interface);
        match veth.map(|veth| &veth.state) {
            Some(InterfaceState::Identified { pod, .. }) => {
                tracing::info!(%interface, ifindex, seconds, %pod, "no longer held: its pod is known");
            }
            Some(InterfaceState::Unmanaged) => {
                self.counts.expired += 1;
                tracing::warn!(
                    %interface, ifindex, seconds, pods = names(hold),
                    "no longer held, not isolated: nothing identified one of these pods in time"
                );
            }
            // Held again, for another reason.
            Some(InterfaceState::Pending) => {}
            None => tracing::info!(%interface, ifindex, seconds, "no longer held: the interface is gone"),
        }
    }
}

fn names(hold: &Hold) -> String {
    hold.pods.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::PodInterface;
    use podgate_core::model::ObjectName;

    fn endpoints(state: InterfaceState, since: Instant) -> Endpoints {
        let pods = [ObjectName::new("x", "a")].into();
        let hold = (state == InterfaceState::Pending).then_some((7, Hold { since, until: None, pods }));
        let (name, last) = (Name::from("veth1"), None);
        let veth =
            PodInterface { ifindex: 7, generation: 0, name, master: 0, link_address: None, state, last };
        Endpoints { veths: [(7, veth)].into(), holds: hold.into_iter().collect(), ..Endpoints::default() }
    }

    #[test]
    fn a_hold_counts_once_it_is_long_and_as_expired_when_nothing_decides() {
        let start = Instant::now();
        let held = endpoints(InterfaceState::Pending, start);
        let open = endpoints(InterfaceState::Unmanaged, start);
        let mut holds = LongHolds::default();
        for (endpoints, seconds, long, expired) in [
            (&held, 0, 0, 0),
            (&held, 2, 0, 0),
            (&open, 2, 0, 0),
            (&held, 3, 1, 0),
            (&held, 9, 1, 0),
            (&open, 9, 1, 1),
            (&open, 10, 1, 1),
            (&endpoints(InterfaceState::Pending, start + Duration::from_secs(10)), 20, 2, 1),
            (&Endpoints::default(), 21, 2, 1),
        ] {
            holds.follow(endpoints, start + Duration::from_secs(seconds));
            assert_eq!(holds.counts(), HoldCounts { long, expired }, "after {seconds} s");
        }
    }
}
