//! One watch for each kind, all of them fed into one store.

use std::{collections::BTreeSet, sync::Arc};

use futures::{
    StreamExt as _,
    stream::{BoxStream, select_all},
};
use kube::{Client, runtime::watcher::Event};
use podgate_core::model::Name;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

use super::{
    Update,
    calico::CalicoGroups,
    decode::Kind,
    events::ObjectEvents,
    health::Health,
    store::ObjectStore,
    stream::{self, Unwatched, WatchEvent},
};

/// Watches everything that a verdict can depend on, for as long as the receiver lives.
///
/// Updates that no one has taken yet become one. `node`: where this agent runs. `allow_empty`: a server
/// without any namespace is meant.
pub fn watch(client: &Client, node: Name, allow_empty: bool) -> (mpsc::Receiver<Update>, Health) {
    let (updates, receiver) = mpsc::channel(1);
    let health = Health::new();
    let events = ObjectEvents::new(client.clone(), node);
    let (turn, calico) = (Arc::new(Semaphore::new(1)), CalicoGroups::default());
    let watches = Kind::ALL.map(|kind| {
        let heard = stream::of_kind(client, kind, turn.clone(), calico.clone());
        heard.map(move |heard| (kind, heard)).boxed()
    });
    let store = ObjectStore::new(allow_empty);
    tokio::spawn(run(select_all(watches).boxed(), store, updates, events, health.clone()));
    (receiver, health)
}

/// Why kinds of other engines are not watched.
const NOT_GRANTED: &str = "the ClusterRole does not grant it: apply that of this version";

async fn run(
    mut watches: BoxStream<'static, (Kind, WatchEvent)>,
    mut store: ObjectStore,
    updates: mpsc::Sender<Update>,
    mut events: ObjectEvents,
    health: Health,
) {
    let mut unlisted: BTreeSet<Kind> = Kind::ALL.into_iter().collect();
    // Of other engines: an agent that is newer than its ClusterRole enforces all the rest.
    let mut forbidden: BTreeSet<Kind> = BTreeSet::new();
    // When the first change was learned that is in no update yet.
    let mut learned: Option<Instant> = None;
    loop {
        let due = learned.filter(|_| unlisted.is_subset(&forbidden));
        tokio::select! {
            // Everything that has arrived becomes one update.
            biased;
            heard = watches.next() => {
                let Some((kind, heard)) = heard else { return };
                if !matches!(heard, Err(Unwatched::Forbidden | Unwatched::Failed(_))) {
                    forbidden.remove(&kind);
                }
                let changed = match heard {
                    Ok(event) => {
                        let done = matches!(event, Event::InitDone);
                        if !matches!(event, Event::Init) {
                            health.up(kind);
                        }
                        let changed = store.take(kind, event);
                        if done {
                            tracing::info!(%kind, "listed");
                            health.listed(kind);
                            unlisted.remove(&kind);
                        }
                        changed
                    }
                    Err(Unwatched::Absent) => {
                        let is_new = unlisted.remove(&kind);
                        if is_new && !kind.is_of_another_engine() {
                            tracing::info!(%kind, "is not known to the API server");
                        }
                        health.listed(kind);
                        health.absent(kind);
                        store.clear(kind) || is_new
                    }
                    Err(Unwatched::Unknown(versions)) => {
                        let is_new = unlisted.remove(&kind);
                        let changed = store.lacks(kind, &versions) || is_new;
                        if changed {
                            tracing::error!(%kind, "{versions}: changes of these policies are not enforced");
                        }
                        health.failed(kind, versions);
                        changed
                    }
                    Err(Unwatched::Forbidden) => {
                        let is_new = forbidden.insert(kind);
                        if is_new && kind.info().is_policy {
                            tracing::error!(%kind, "{NOT_GRANTED}; until then such policies are not enforced");
                        }
                        health.failed(kind, NOT_GRANTED.to_owned());
                        store.is_forbidden(kind) || is_new
                    }
                    Err(Unwatched::Failed(error)) => {
                        tracing::warn!(%kind, error, "watch failed, goes on");
                        health.failed(kind, error);
                        false
                    }
                };
                if changed {
                    learned.get_or_insert_with(Instant::now);
                }
            }
            place = updates.reserve(), if due.is_some() => {
                let (Ok(place), Some(since)) = (place, due) else { return };
                place.send(Update { picture: store.picture(), learned: since.into_std() });
                learned = None;
                events.report(&store);
            }
            () = updates.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests;
