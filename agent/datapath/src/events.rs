//! Single decisions, as the programs report them by a ring buffer. What no reader fetched in time is lost,
//! and counted.

use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use podgate_common::FlowEvent;
use tokio::io::{Interest, unix::AsyncFd};

use super::maps;

/// The ring of the loaded programs. There is one reader.
#[expect(missing_debug_implementations, reason = "aya's ring buffers have none")]
pub struct EventRing(RingBuf<MapData>);

/// The ring, waited for. Needs a tokio runtime.
#[expect(missing_debug_implementations, reason = "aya's ring buffers have none")]
pub struct EventStream(AsyncFd<EventRing>);

impl EventRing {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        maps::take(ebpf, "EVENTS").map(Self)
    }

    /// The next event, if there is one.
    pub fn take(&mut self) -> Option<FlowEvent> {
        // The programs write nothing else.
        self.0.next().and_then(|bytes| FlowEvent::from_bytes(&bytes))
    }
}

impl AsRawFd for EventRing {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl EventStream {
    /// # Errors
    ///
    /// When the ring cannot be waited for; with the ring, for another try.
    pub fn new(ring: EventRing) -> Result<Self, Box<(EventRing, anyhow::Error)>> {
        // SAFETY: the ring owns its descriptor, never replaces it, and is owned by the AsyncFd until both are
        // dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        ring.map(Self).map_err(|error| {
            let (ring, error) = error.into_parts();
            Box::new((ring, anyhow::Error::from(error).context("cannot wait for events")))
        })
    }

    /// The ring, not waited for any more.
    pub fn into_ring(self) -> EventRing {
        self.0.into_inner()
    }

    /// Waits for events; takes `at_most` so many. None is lost when the wait is given up.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be waited for any more.
    pub async fn next(&mut self, at_most: usize) -> Result<Vec<FlowEvent>> {
        loop {
            let mut ready = self.0.readable_mut().await.context("cannot wait for events")?;
            let ring = ready.get_inner_mut();
            let events: Vec<FlowEvent> = std::iter::from_fn(|| ring.take()).take(at_most).collect();
            if events.len() < at_most {
                ready.clear_ready();
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
