//! Servers that pods with rules about names ask, and whose answers teach nothing, as they are no resolvers
//! that are believed.
//!
//! In: the connections that pods have. Out: servers by pod, for who explains why a name opens nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use podgate_common::{Protocol, Resolver, ServiceKey};
use podgate_core::model::ObjectName;
use podgate_datapath::OpenedServer;

use super::pods::NamedPods;

type ServersByPod = BTreeMap<ObjectName, BTreeSet<SocketAddr>>;

/// What was found. Copies share it.
#[derive(Clone, Debug, Default)]
pub struct UntrustedServers(Arc<Mutex<ServersByPod>>);

/// Servers of one pod that are named.
const MOST_OF_POD: usize = 4;

const DNS: u16 = 53;

impl UntrustedServers {
    /// The servers of a pod.
    pub fn of(&self, pod: &ObjectName) -> BTreeSet<SocketAddr> {
        self.lock().get(pod).cloned().unwrap_or_default()
    }

    /// How many pods have any.
    pub fn pods(&self) -> usize {
        self.lock().len()
    }

    /// Notes the servers that pods have connections to now, and forgets pods that are gone and servers that
    /// are believed since. Returns those that were not known.
    pub(super) fn note(
        &self,
        pods: &NamedPods,
        resolvers: &BTreeMap<ServiceKey, Resolver>,
        servers: &BTreeSet<OpenedServer>,
    ) -> Vec<(ObjectName, SocketAddr)> {
        let is_believed = |server: &SocketAddr| {
            let key = |protocol| ServiceKey::new(server.ip().into(), protocol, server.port());
            [Protocol::Udp, Protocol::Tcp].iter().any(|protocol| resolvers.contains_key(&key(*protocol)))
        };
        let names: BTreeMap<u32, &ObjectName> =
            pods.iter().map(|(ifindex, pod)| (ifindex, &pod.name)).collect();
        let present: BTreeSet<&ObjectName> = names.values().copied().collect();
        let mut known = self.lock();
        known.retain(|pod, servers| {
            servers.retain(|server| !is_believed(server));
            present.contains(pod) && !servers.is_empty()
        });
        let mut new = Vec::new();
        for OpenedServer { ifindex, address, protocol, port } in servers {
            let is_dns =
                *port == DNS && matches!(Protocol::try_from(*protocol), Ok(Protocol::Udp | Protocol::Tcp));
            let server = SocketAddr::new(*address, *port);
            let Some(&pod) = names.get(ifindex).filter(|_| is_dns && !is_believed(&server)) else { continue };
            let of_pod = known.entry(pod.clone()).or_default();
            if of_pod.len() < MOST_OF_POD && of_pod.insert(server) {
                new.push((pod.clone(), server));
            }
        }
        new
    }

    /// A panic while it is locked leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, ServersByPod> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl UntrustedServers {
    pub(crate) fn example(pod: &str, server: &str) -> Self {
        let servers = BTreeSet::from([server.parse().unwrap()]);
        Self(Arc::new(Mutex::new([(ObjectName::new("x", pod), servers)].into())))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{
        super::pods::tests::{policy, with},
        *,
    };

    fn opened(ifindex: u32, address: &str, protocol: u32, port: u16) -> OpenedServer {
        OpenedServer { ifindex, address: address.parse().unwrap(), protocol, port }
    }

    fn pods(table: u32) -> NamedPods {
        let mut pods = NamedPods::default();
        let _ = pods.follow(&with(table, Some(policy(&["a.test"]))), |_| BTreeSet::new());
        pods
    }

    fn believed(address: &str) -> (ServiceKey, Resolver) {
        let address = address.parse::<IpAddr>().unwrap().into();
        (ServiceKey::new(address, Protocol::Udp, DNS), Resolver::BELIEVED)
    }

    #[test]
    fn servers_of_names_that_are_not_believed_are_named_once() {
        let found = UntrustedServers::default();
        let resolvers = [believed("10.96.0.10")].into();
        let servers = [
            opened(3, "10.96.0.10", 17, 53),
            opened(3, "192.0.2.53", 17, 53),
            opened(3, "192.0.2.53", 6, 53),
            opened(3, "192.0.2.54", 6, 853),
            opened(3, "192.0.2.55", 1, 53),
            // A pod without rules about names.
            opened(4, "192.0.2.56", 17, 53),
        ]
        .into();
        let pod = ObjectName::new("x", "a");
        let server: SocketAddr = "192.0.2.53:53".parse().unwrap();
        assert_eq!(found.note(&pods(5), &resolvers, &servers), [(pod.clone(), server)]);
        assert_eq!(found.note(&pods(5), &resolvers, &servers), []);
        // What it asked for a moment is remembered.
        assert_eq!(found.note(&pods(5), &resolvers, &BTreeSet::new()), []);
        assert_eq!((found.of(&pod), found.pods()), ([server].into(), 1));
        let both = [believed("10.96.0.10"), believed("192.0.2.53")].into();
        assert_eq!(found.note(&pods(5), &both, &servers), []);
        assert_eq!(found.pods(), 0);
        let _ = found.note(&pods(5), &resolvers, &servers);
        let _ = found.note(&pods(0), &resolvers, &servers);
        assert_eq!(found.pods(), 0, "it has no such rules any more");
    }

    #[test]
    fn a_pod_that_asks_everyone_is_named_with_a_few() {
        let found = UntrustedServers::default();
        let servers = (0..100).map(|last| opened(3, &format!("192.0.2.{last}"), 17, 53)).collect();
        assert_eq!(found.note(&pods(5), &BTreeMap::new(), &servers).len(), MOST_OF_POD);
        assert_eq!(found.note(&pods(5), &BTreeMap::new(), &servers), []);
    }
}
