//! The node's network namespace, watched by rtnetlink.
//!
//! In: the kernel's multicast events, of this namespace and of those at the far ends of its veths. Out: a
//! [`Network`] whenever something in it changed. An event only says *that* something changed: what is true is
//! read again, so a lost, late or reordered event does no harm. No other namespace is entered. Who is who is
//! left to `resolve`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use netlink_packet_route::{AddressFamily, link::LinkHeader, route::RouteHeader};
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::time::Instant;

use super::{
    Network,
    read::Reader,
    socket::{DrainResult, NetlinkEvents, WatchedNamespaces},
};
use crate::netlink::Requests;

/// The pause between two reads: twice as long as the last one took, within these bounds. An event after a
/// quiet time is answered at once; a burst (a CNI plug-in makes about ten events a pod) costs a second read
/// when it is over; a pod that changes its own addresses in a loop costs the node a third of a core at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Events of the node's own namespace. Routes: a link that gets the default route is no pod's.
const OWN_GROUPS: [u32; 3] = [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE];

/// Events of every namespace that a veth leads to. Links too: a peer that moves on to a third namespace may
/// say so nowhere else. New namespace ids need no group: the read that meets a veth is what makes them.
const ALL_GROUPS: [u32; 3] = [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR];

/// The node's network namespace: the one of the thread that opened it.
#[derive(Debug)]
pub struct NetworkWatch {
    reader: Reader,
    own: NetlinkEvents,
    all: NetlinkEvents,
    /// How many links with this ifindex have been deleted while it was watched.
    generations: BTreeMap<u32, u32>,
    last: Option<Arc<Network>>,
    /// Something happened after the last read.
    stale: bool,
    next_read: Instant,
}

impl NetworkWatch {
    /// Subscribes first and reads later, so that nothing happens unseen in between. Must be called within a
    /// tokio runtime; needs CAP_NET_ADMIN and CAP_NET_BROADCAST.
    pub fn open() -> anyhow::Result<Self> {
        let own = NetlinkEvents::open(&OWN_GROUPS, WatchedNamespaces::Own)
            .context("cannot listen to link events (rtnetlink)")?;
        let all = NetlinkEvents::open(&ALL_GROUPS, WatchedNamespaces::All).context(
            "cannot listen to the events of pod namespaces (NETLINK_LISTEN_ALL_NSID, needs CAP_NET_BROADCAST)",
        )?;
        let requests = Requests::open(NETLINK_ROUTE)
            .context("cannot open an rtnetlink socket with strict checking (Linux 4.20)")?;
        Ok(Self {
            reader: Reader::new(requests),
            own,
            all,
            generations: BTreeMap::new(),
            last: None,
            stale: true,
            next_read: Instant::now(),
        })
    }

    /// The first call gives what is there, each later one waits until it is different. Safe to cancel. After
    /// an error the next call reads again.
    pub async fn next(&mut self) -> anyhow::Result<Arc<Network>> {
        loop {
            if !self.stale {
                tokio::select! {
                    ready = self.own.ready() => ready,
                    ready = self.all.ready() => ready,
                }
                .context("cannot wait for rtnetlink events")?;
                self.take_events()?;
                continue;
            }
            tokio::time::sleep_until(self.next_read).await;
            // Also what has arrived during the pause: the read below covers it.
            self.take_events()?;
            let begin = Instant::now();
            let network = self.reader.network(&self.generations);
            self.next_read = Instant::now() + (begin.elapsed() * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            let network = network?;
            self.stale = false;
            self.generations.retain(|ifindex, _| network.links.contains_key(ifindex));
            if self.last.as_deref() != Some(&network) {
                let network = Arc::new(network);
                self.last = Some(network.clone());
                return Ok(network);
            }
        }
    }

    fn take_events(&mut self) -> anyhow::Result<()> {
        let Self { own, all, generations, reader, stale, .. } = self;
        let taken_of_own = own
            .take(|event| match event.kind {
                libc::RTM_NEWROUTE | libc::RTM_DELROUTE => *stale |= is_default_route(event.payload),
                libc::RTM_DELLINK => {
                    *stale = true;
                    if let Some(ifindex) = deleted_link(event.payload) {
                        *generations.entry(ifindex).or_default() += 1;
                    }
                }
                _ => *stale = true,
            })
            .context("cannot read link events")?;
        let taken_of_all = all
            .take(|event| {
                *stale = true;
                if let Some(namespace) = event.namespace {
                    reader.forget(namespace);
                }
            })
            .context("cannot read events of pod namespaces")?;
        if taken_of_own == DrainResult::Overflow {
            // A deletion may be among what was lost. The kernel gives an ifindex a second time only to who
            // asks for that very number, so two devices are not mixed up for that.
            tracing::warn!("link events were lost; reading the links again");
            *stale = true;
        }
        if taken_of_all == DrainResult::Overflow {
            // Not a warning: a pod can bring it about.
            tracing::debug!("events of pod namespaces were lost; reading all their addresses again");
            *stale = true;
            reader.forget_all();
        }
        Ok(())
    }
}

fn is_default_route(payload: &[u8]) -> bool {
    RouteHeader::parse(payload).is_ok_and(|header| header.destination_prefix_length == 0)
}

/// The ifindex of a link that is gone. A bridge says RTM_DELLINK too, in its own family, of a port that only
/// leaves it (`br_del_if` in net/bridge/br_if.c).
fn deleted_link(payload: &[u8]) -> Option<u32> {
    let header = LinkHeader::parse(payload).ok()?;
    (header.interface_family == AddressFamily::Unspec).then_some(header.index)
}
