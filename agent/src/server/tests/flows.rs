//! Flows, to clients that read them and to those that do not.

use std::{
    io::{Read, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    time::Instant,
};

use jiff::Timestamp;

use super::{super::flows, *};
use crate::{
    api::{FlowFilter, FlowLine, FlowRecord},
    observe::DecisionEvent,
};

/// Flows as a client gets them, until there are so many.
fn follow(running: &Running, last: Option<usize>, follow: bool, flows: usize) -> Vec<FlowRecord> {
    let mut seen = Vec::new();
    let ask = Ask::Flows {
        filter: FlowFilter::default(),
        since_seconds: None,
        until_seconds: None,
        last,
        follow,
        pod_must_exist: false,
    };
    let take = |line: FlowLine| {
        if let FlowLine::FlowRecord(flow) = line {
            seen.push(*flow);
        }
        Ok(if seen.len() == flows { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    api::follow(&running.socket(), &ask, take).unwrap();
    seen
}

#[test]
fn flows_of_a_pod_that_neither_the_cluster_nor_the_history_has_are_an_error() {
    let running = start();
    let ask = |pod: &str, pod_must_exist| {
        let ask = Ask::Flows {
            filter: FlowFilter { pod: Some(pod.into()), ..FlowFilter::default() },
            since_seconds: None,
            until_seconds: None,
            last: None,
            follow: false,
            pod_must_exist,
        };
        let take = |_: FlowLine| Ok(ControlFlow::Continue(()));
        api::follow(&running.socket(), &ask, take).map_err(|error| error.to_string())
    };
    assert_eq!(ask("x/a", true), Ok(()));
    assert_eq!(ask("x/absent", false), Ok(()), "who asks many nodes is not stopped by one");
    let error = "no pod x/absent: the cluster does not have it, and no flow here is of it";
    assert_eq!(ask("x/absent", true).unwrap_err(), error);
}

#[test]
fn flows_are_given_as_they_come_and_who_does_not_read_harms_no_other_client() {
    let running = start();
    let tell = |flows: u64| {
        for packets in 0..flows {
            // Each of its own kind, and one second after the other.
            let time = Timestamp::from_second(i64::try_from(packets).unwrap()).unwrap();
            let protocol = u16::try_from(packets).unwrap();
            running.flows.add(DecisionEvent { packets, protocol, time, ..DecisionEvent::example() });
        }
    };
    tell(3);
    assert_eq!(follow(&running, None, false, usize::MAX).len(), 3);
    assert_eq!(follow(&running, Some(1), false, usize::MAX)[0].packets, 2);
    let request = b"{\"version\":3,\"verb\":\"flows\",\"follow\":true}\n";
    let deaf: Vec<UnixStream> = (0..flows::FOLLOWERS)
        .map(|_| {
            let mut stream = running.connect();
            stream.write_all(request).unwrap();
            // It has its place; of what comes now it reads nothing.
            stream.read_exact(&mut [0; 10]).unwrap();
            stream
        })
        .collect();
    assert!(running.exchange(request).contains("too many follow flows already"));
    for _ in 0..20 {
        tell(1_000);
        api::ask::<Status>(&running.socket(), &Ask::Status).unwrap();
    }
    drop(deaf);
    // The places come back.
    let began = Instant::now();
    while running.followers.available_permits() < flows::FOLLOWERS {
        assert!(began.elapsed() < PATIENCE, "the places of those who went are not free");
        std::thread::yield_now();
    }
    assert_eq!(follow(&running, Some(2), true, 2).len(), 2);
}
