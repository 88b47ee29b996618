//! CNI plugins that wait until a pod's policies are enforced.
//!
//! In: the pod and its interface. Out: an answer as soon as a snapshot says that this interface is known to
//! be that pod's, is not held and has its programs, or, when the time is up, what is missing. These clients
//! have places of their own, so that a node that starts many pods keeps no one else from the agent.

use std::{sync::Arc, time::Duration};

use podgate_core::model::Uid;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, timeout_at},
};

use super::{Server, line};
use crate::{api::Reply, endpoints::InterfaceState, snapshot::Snapshot};

/// Pods that are waited for at once. The kubelet starts them one after the other, or some dozens at a time.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// No one is waited for longer, whatever was asked for.
const LONGEST: Duration = Duration::from_secs(60);

/// Which interface should become which pod's.
#[derive(Debug)]
pub(super) struct AwaitedPod {
    pub(super) pod: String,
    /// `None`: whichever has that name.
    pub(super) uid: Option<Uid>,
    pub(super) interface: String,
    pub(super) ifindex: u32,
}

/// A client that waits.
#[derive(Debug)]
pub(super) struct PodWait {
    wanted: AwaitedPod,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
}

impl Server {
    /// `None`: there is no place.
    pub(super) fn await_pod(&self, wanted: AwaitedPod, patience: Duration) -> Option<PodWait> {
        let place = self.pod_waits.clone().try_acquire_owned().ok()?;
        let deadline = Instant::now() + patience.min(LONGEST);
        Some(PodWait { wanted, snapshots: self.inputs.snapshots.clone(), deadline, _place: place })
    }
}

impl PodWait {
    /// One line of JSON, when it is time for it.
    pub(super) async fn answer(mut self) -> String {
        let is_enforced = |snapshot: &Arc<Snapshot>| self.wanted.missing(snapshot).is_none();
        let waited = timeout_at(self.deadline, self.snapshots.wait_for(is_enforced)).await;
        if waited.is_ok_and(|enforced| enforced.is_ok()) {
            return line(Reply::Ok(()));
        }
        let missing = self.wanted.missing(&self.snapshots.borrow());
        line(Reply::<()>::Error(missing.unwrap_or_else(|| "the agent ends".to_owned())))
    }
}

impl AwaitedPod {
    /// What the agent lacks; `None`: nothing.
    fn missing(&self, snapshot: &Snapshot) -> Option<String> {
        let Self { pod, uid, interface, ifindex } = self;
        let Some(known) = snapshot.interfaces.get(ifindex).filter(|known| *known.veth.name == **interface)
        else {
            let reason = snapshot.last_error().filter(|_| !snapshot.is_ready());
            let reason = reason.map(|error| format!(": {error}")).unwrap_or_default();
            return Some(format!("the agent does not know the interface {interface}{reason}"));
        };
        if known.veth.last.as_ref().map(ToString::to_string).as_ref() != Some(pod) {
            return Some(format!("the agent does not know yet that {pod} is behind {interface}"));
        }
        // The pod of that name that was there before may have had other labels.
        if let (Some(wanted), Some(known)) = (uid, known.uid)
            && *wanted != known
        {
            return Some(format!("the agent knows an earlier pod {pod}, and not this one yet"));
        }
        match known.veth.state {
            InterfaceState::Pending => Some(format!("the agent does not know the pod {pod} yet")),
            _ if !known.attached => Some(format!("the programs are not at {interface}")),
            InterfaceState::Identified { .. } | InterfaceState::Unmanaged => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        api,
        endpoints::PodInterface,
        server::Ask,
        server::tests::{PATIENCE, Running, start},
        snapshot::EnforcedInterface,
    };
    use podgate_core::model::ObjectName;

    const UID: &str = "00000000-0000-4000-8000-000000000001";

    fn ask(milliseconds: u64) -> Ask {
        let (pod, uid, interface) = ("x/a".into(), UID.into(), "veth1".into());
        Ask::AwaitPod { pod, uid, interface, ifindex: 7, milliseconds }
    }

    fn try_ask(running: &Running, milliseconds: u64) -> Result<Option<()>, String> {
        api::try_ask(&running.socket(), &ask(milliseconds), PATIENCE).map_err(|error| error.to_string())
    }

    fn set(running: &Running, interface: EnforcedInterface) {
        running.state.send_modify(|state| {
            Arc::make_mut(state).interfaces = [(7, interface)].into();
        });
    }

    fn known() -> EnforcedInterface {
        let example = Snapshot::example(true).interfaces.remove(&3).unwrap();
        EnforcedInterface { uid: Uid::parse(UID), ..example }
    }

    fn with(change: impl Fn(&mut PodInterface)) -> EnforcedInterface {
        let mut known = known();
        change(&mut known.veth);
        known
    }

    #[test]
    fn a_pod_is_waited_for_until_its_interface_has_all_that_it_needs() {
        let running = start();
        let earlier = Uid::parse("00000000-0000-4000-8000-000000000002");
        let other = Some(ObjectName::new("x", "b"));
        for (interface, missing) in [
            (with(|veth| veth.name = "veth2".into()), Some("does not know the interface veth1")),
            (with(|veth| veth.last = None), Some("x/a is behind veth1")),
            (with(|veth| veth.last.clone_from(&other)), Some("x/a is behind veth1")),
            (with(|veth| veth.state = InterfaceState::Pending), Some("does not know the pod x/a")),
            (EnforcedInterface { uid: earlier, ..known() }, Some("an earlier pod x/a")),
            (EnforcedInterface { uid: None, ..known() }, None),
            (EnforcedInterface { attached: false, ..known() }, Some("the programs are not at veth1")),
            (with(|veth| veth.state = InterfaceState::Unmanaged), None),
            (known(), None),
        ] {
            set(&running, interface.clone());
            let answer = try_ask(&running, 1);
            match missing {
                None => assert_eq!(answer, Ok(Some(())), "{interface:?}"),
                Some(text) => assert!(answer.clone().is_err_and(|it| it.contains(text)), "{answer:?}"),
            }
        }
        set(&running, EnforcedInterface { attached: false, ..known() });
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| try_ask(&running, 60_000));
            while running.pod_waits.available_permits() == MAX_CONNECTIONS {
                std::thread::yield_now();
            }
            set(&running, known());
            assert_eq!(asking.join().unwrap(), Ok(Some(())));
        });
    }

    #[test]
    fn any_number_of_plugins_that_wait_keeps_no_other_client_waiting() {
        let running = start();
        let connections: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| {
                let mut stream = running.connect();
                let request =
                    api::Request { version: api::PROTOCOL, podgate: String::new(), ask: ask(60_000) };
                let line = serde_json::to_string(&request).unwrap() + "\n";
                std::io::Write::write_all(&mut stream, line.as_bytes()).unwrap();
                stream
            })
            .collect();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while running.pod_waits.available_permits() > 0 {
            assert!(std::time::Instant::now() < deadline, "not all of them have a place");
            std::thread::yield_now();
        }
        let status: api::Status = api::ask(&running.socket(), &Ask::Status).unwrap();
        assert_eq!(status.node, api::Status::example().node);
        assert!(running.get("GET /healthz HTTP/1.0\r\n\r\n").contains("200"));
        let refused = try_ask(&running, 60_000);
        assert!(refused.as_ref().is_err_and(|error| error.contains("too many")), "{refused:?}");
        drop(connections);
    }

    #[test]
    fn without_an_agent_there_is_no_answer_and_no_error() {
        let running = start();
        let socket = running.socket();
        assert!(try_ask(&running, 1).is_err());
        drop(running);
        assert_eq!(api::try_ask::<()>(&socket, &ask(1), PATIENCE).unwrap(), None);
    }
}
