//! Keeps the history of flows across restarts of the agent.
//!
//! In: the history. Out: a file with it, written again and again.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use tokio::time::interval;

use super::supervise::{PAUSES, supervise};
use crate::{observe::FlowHistory, server::TaskRestarts};

/// How often the history of flows is saved: an agent that is killed loses at most this much.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Saves the history of flows, for ever.
pub(super) async fn save_flows(history: FlowHistory, path: PathBuf, restarts: TaskRestarts) -> Result<()> {
    let mut ticks = interval(SAVE_EVERY);
    let save = async || {
        loop {
            ticks.tick().await;
            if let Err(error) = history.save(&path) {
                return error;
            }
        }
    };
    supervise("flow-history", restarts, PAUSES, save).await;
    Ok(())
}
