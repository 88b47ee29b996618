//! Addresses that connections are open to count on: a client that keeps an answer for longer than the
//! resolver said, as a JVM does, may open another connection beside the one that it has.
//!
//! What is renewed was learnt, counts still, is for a name that the pod's rules have, and has a connection
//! that nothing but a name opens now. It counts for one keep time after that connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;
use podgate_common::{Direction, KernelVerdict, NameAnswer, RuleProtocol, VerdictQuery};
use podgate_core::compiler::NamePlace;
use podgate_datapath::{OpenedServer, names::LearntAddress};

use super::{
    NameHandles,
    pods::{NamedPod, NamedPods},
};

/// How long addresses are kept, and how often that is looked after.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leases {
    keep: Duration,
}

/// The longest time between two passes, and how many there are in a keep time.
const LONGEST: Duration = Duration::from_secs(20);
const PASSES: u32 = 3;

/// Addresses that are renewed in one pass: of all pods in equal shares, and of each pod at least so many.
const MOST: usize = 8_192;
const LEAST_OF_POD: usize = 16;

/// Servers of one address that are looked at: one that only a name opens is enough.
const MOST_SERVERS: usize = 8;

/// To which ports of an address a pod has connections.
type ServersByAddress = BTreeMap<IpAddr, Vec<(RuleProtocol, u16)>>;

impl Leases {
    /// `keep`: in seconds.
    pub(super) const fn new(keep: u32) -> Self {
        Self { keep: Duration::from_secs(keep as u64) }
    }

    pub(super) fn period(self) -> Duration {
        (self.keep / PASSES).clamp(Duration::from_secs(1), LONGEST)
    }

    /// For how long an address counts from a pass on.
    fn lease(self) -> Duration {
        self.keep + self.period()
    }

    /// Renews what is due; returns how many addresses.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub(super) fn renew(
        self,
        pods: &NamedPods,
        handles: &NameHandles,
        servers: &BTreeSet<OpenedServer>,
    ) -> Result<usize> {
        let by_pod = by_pod(servers);
        let share = (MOST / by_pod.len().max(1)).max(LEAST_OF_POD);
        let seconds = u32::try_from(self.lease().as_secs()).unwrap_or(u32::MAX);
        let mut renewed = 0;
        for (ifindex, pod) in pods.iter() {
            let Some(servers) = by_pod.get(&ifindex) else { continue };
            let Some(learnt) = handles.reader.read(pod.table)? else { continue };
            let needs_name = |address: IpAddr, (protocol, port): (RuleProtocol, u16)| -> Result<bool> {
                let query = VerdictQuery::new(ifindex, Direction::Egress, address.into(), protocol, port);
                Ok(handles.verdicts.ask(&query)? != KernelVerdict::Allowed)
            };
            for (address, name) in self.due(pod, learnt, servers, share, needs_name)? {
                let answer = handles.writer.enter((ifindex, pod.table), &name, address, seconds)?;
                renewed += usize::from(answer == Some(NameAnswer::Entered));
            }
        }
        Ok(renewed)
    }

    /// What to renew of one pod, the first to end first. `needs_name`: whether no other rule opens a
    /// destination.
    fn due(
        self,
        pod: &NamedPod,
        learnt: Vec<LearntAddress>,
        servers: &ServersByAddress,
        most: usize,
        needs_name: impl Fn(IpAddr, (RuleProtocol, u16)) -> Result<bool>,
    ) -> Result<Vec<(IpAddr, NamePlace)>> {
        let due = |learnt: LearntAddress| {
            let left = learnt.left.filter(|left| *left < self.lease())?;
            let ports = servers.get(&learnt.address)?;
            pod.matches(&learnt.name).then_some((left, learnt.address, learnt.name, ports))
        };
        let mut due: Vec<_> = learnt.into_iter().filter_map(due).collect();
        due.sort_unstable_by_key(|(left, address, ..)| (*left, *address));
        due.truncate(most);
        let mut chosen = Vec::new();
        for (_, address, name, ports) in due {
            for server in ports {
                if needs_name(address, *server)? {
                    chosen.push((address, name));
                    break;
                }
            }
        }
        Ok(chosen)
    }
}

fn by_pod(servers: &BTreeSet<OpenedServer>) -> BTreeMap<u32, ServersByAddress> {
    let mut by_pod: BTreeMap<u32, ServersByAddress> = BTreeMap::new();
    for OpenedServer { ifindex, address, protocol, port } in servers {
        let (protocol, place) = RuleProtocol::of_packet(*protocol, 0, *port);
        // What has no ports has no connections.
        if protocol.with_ports().is_some() {
            let ports = by_pod.entry(*ifindex).or_default().entry(*address).or_default();
            if ports.len() < MOST_SERVERS {
                ports.push((protocol, place));
            }
        }
    }
    by_pod
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            message::tests::place,
            pods::tests::{policy, with},
        },
        *,
    };

    const LEASES: Leases = Leases::new(60);

    fn learnt(address: &str, name: &str, left: Option<u64>) -> LearntAddress {
        LearntAddress {
            address: address.parse().unwrap(),
            name: place(name),
            left: left.map(Duration::from_secs),
        }
    }

    fn servers(of: &[(&str, u32, u16)]) -> BTreeMap<u32, ServersByAddress> {
        let server = |(address, protocol, port): &(&str, u32, u16)| OpenedServer {
            ifindex: 3,
            address: address.parse().unwrap(),
            protocol: *protocol,
            port: *port,
        };
        by_pod(&of.iter().map(server).collect())
    }

    /// The addresses that are renewed of pod `x/a`, which has rules for `a.test` and `*.b.test`. Port 80 is
    /// open by another rule.
    fn due(learnt: Vec<LearntAddress>, of: &[(&str, u32, u16)], most: usize) -> Vec<String> {
        let mut pods = NamedPods::default();
        let _ = pods.follow(&with(5, Some(policy(&["a.test", "*.b.test"]))), |_| BTreeSet::new());
        let (_, pod) = pods.iter().next().unwrap();
        let servers = servers(of).remove(&3).unwrap_or_default();
        let needs_name = |_, (_, port)| Ok(port != 80);
        let due = LEASES.due(pod, learnt, &servers, most, needs_name).unwrap();
        due.into_iter().map(|(address, _)| address.to_string()).collect()
    }

    #[test]
    fn an_address_with_a_live_connection_is_renewed_and_no_other_one() {
        let table = vec![
            learnt("192.0.2.1", "a.test", Some(30)),
            learnt("192.0.2.2", "x.b.test", Some(5)),
            learnt("192.0.2.3", "a.test", Some(30)),
            learnt("192.0.2.4", "a.test", None),
            learnt("192.0.2.5", "no.rule.test", Some(30)),
            learnt("192.0.2.6", "a.test", Some(300)),
            learnt("192.0.2.7", "a.test", Some(30)),
            learnt("192.0.2.8", "a.test", Some(30)),
        ];
        let connections = [
            ("192.0.2.1", 6, 443),
            ("192.0.2.2", 17, 443),
            ("192.0.2.4", 6, 443),
            ("192.0.2.5", 6, 443),
            ("192.0.2.6", 6, 443),
            ("192.0.2.7", 6, 80),
            ("192.0.2.8", 1, 2_048),
        ];
        assert_eq!(due(table, &connections, 99), ["192.0.2.2", "192.0.2.1"]);
    }

    #[test]
    fn one_of_several_servers_of_an_address_is_enough() {
        let table = vec![learnt("192.0.2.1", "a.test", Some(30))];
        let connections = [("192.0.2.1", 6, 80), ("192.0.2.1", 6, 443)];
        assert_eq!(due(table, &connections, 99), ["192.0.2.1"]);
    }

    #[test]
    fn a_pass_is_bounded_and_begins_with_what_ends_first() {
        let table = (1..100).map(|last| learnt(&format!("192.0.2.{last}"), "a.test", Some(100 - last)));
        let table: Vec<_> = table.filter(|it| it.left.is_some_and(|left| left.as_secs() < 80)).collect();
        let names: Vec<String> = (1..100).map(|last| format!("192.0.2.{last}")).collect();
        let connections: Vec<_> = names.iter().map(|at| (&**at, 6, 443)).collect();
        assert_eq!(due(table, &connections, 3), ["192.0.2.99", "192.0.2.98", "192.0.2.97"]);
    }

    #[test]
    fn passes_come_before_what_they_renew_ends() {
        for keep in [1, 3, 10, 60, 86_400] {
            let leases = Leases::new(keep);
            assert!(leases.period() <= leases.keep && leases.lease() > leases.keep, "{keep}");
        }
    }
}
