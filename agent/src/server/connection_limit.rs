//! Places for connections: a newcomer always finds one, at the cost of the connection that has waited
//! longest.
//!
//! Without that, clients that connect and say nothing would keep others out for as long as each of them is
//! waited for.

use std::collections::VecDeque;

use tokio::task::{AbortHandle, JoinSet};

/// Connections that are served at once.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    /// How many there are at most.
    most: usize,
    /// The oldest first. Some may have ended.
    running: VecDeque<AbortHandle>,
    connections: JoinSet<()>,
}

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Self {
        Self { most, running: VecDeque::new(), connections: JoinSet::new() }
    }

    /// Serves a connection. If all places are taken the oldest connection is closed.
    pub(super) fn serve(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.connections.try_join_next().is_some() {}
        self.running.retain(|running| !running.is_finished());
        if self.running.len() >= self.most
            && let Some(oldest) = self.running.pop_front()
        {
            oldest.abort();
        }
        self.running.push_back(self.connections.spawn(connection));
    }
}
