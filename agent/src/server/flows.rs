//! Flows, line by line, for who follows them. A follower that does not read is left behind, then left.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{OwnedSemaphorePermit, broadcast, broadcast::error::RecvError},
    time,
};

use crate::{
    api::{FlowFilter, FlowLine, FlowRecord},
    observe::{DecisionEvent, PastFlow},
};

/// Those who follow at once: others still find a place at the socket.
pub(super) const FOLLOWERS: usize = 8;
/// For a line. A pager that is not scrolled takes none.
const TIME_FOR_LINE: Duration = Duration::from_secs(10);

/// What one client gets.
#[derive(Debug)]
pub(super) struct FlowReplies {
    pub(super) past: Vec<PastFlow>,
    /// `None`: only the past was asked for.
    pub(super) live: Option<broadcast::Receiver<Arc<DecisionEvent>>>,
    pub(super) filter: FlowFilter,
    /// Its place among the followers.
    pub(super) _place: OwnedSemaphorePermit,
}

/// Those of the past that a client wants: the newest `last` of those that match.
pub(super) fn wanted(mut past: Vec<PastFlow>, filter: &FlowFilter, last: Option<usize>) -> Vec<PastFlow> {
    past.retain(|flow| filter.matches(&FlowRecord::from(flow)));
    let newest = last.map_or(0, |last| past.len().saturating_sub(last));
    past.split_off(newest)
}

impl FlowReplies {
    /// Writes until the client goes or is too slow, or the agent ends.
    pub(super) async fn write(self, stream: UnixStream) -> io::Result<()> {
        let (mut from_client, mut to_client) = stream.into_split();
        for flow in self.past {
            write(&mut to_client, &FlowLine::FlowRecord(Box::new((&flow).into()))).await?;
        }
        let Some(mut live) = self.live else { return Ok(()) };
        loop {
            let mut nothing = [0; 64];
            let line = tokio::select! {
                event = live.recv() => match event {
                    Ok(event) => {
                        let flow = FlowRecord::from(&*event);
                        if !self.filter.matches(&flow) {
                            continue;
                        }
                        FlowLine::FlowRecord(Box::new(flow))
                    }
                    Err(RecvError::Lagged(lost)) => FlowLine::Lost(lost),
                    Err(RecvError::Closed) => return Ok(()),
                },
                read = from_client.read(&mut nothing) => match read? {
                    0 => return Ok(()),
                    _ => continue,
                },
            };
            write(&mut to_client, &line).await?;
        }
    }
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), line: &FlowLine) -> io::Result<()> {
    let mut line = serde_json::to_vec(line).expect("a flow has string keys and no failing parts");
    line.push(b'\n');
    time::timeout(TIME_FOR_LINE, to.write_all(&line)).await?
}
