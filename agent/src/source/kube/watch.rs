//! One watch for each kind, all of them fed into one store.

use std::{collections::BTreeSet, time::Duration};

use backon::ExponentialBuilder;
use futures::{
    StreamExt as _,
    stream::{BoxStream, select_all},
};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        utils::ResetTimerBackoff,
        watcher::{self, Event, ExponentialBackoff},
    },
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Update,
    client::SILENCE,
    decode::Kind,
    events::Events,
    health::Health,
    object::{self, Object},
    store::Store,
};
use crate::model::Name;

/// Objects of one page of a list: at 5 to 10 KB a pod, a few MB at a time.
const PAGE: u32 = 500;

/// How long the server keeps a watch open; bookmarks come once a minute.
const WATCH: Duration = SILENCE.saturating_sub(Duration::from_secs(10));

/// Between two attempts at a server that is away: the first and the longest pause. Chance makes each up to twice as
/// long, so that the agents of a large cluster do not come back all at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// As kube-proxy selects: what is headless or served by another proxy leads nobody anywhere.
const SERVED: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";

/// A pod that has finished has no address any more; the server tells of it as deleted.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Watches everything that a verdict can depend on, for as long as the receiver lives.
///
/// Updates that nobody has taken yet become one. `node`: where this agent runs.
pub fn watch(client: &Client, node: Name) -> (mpsc::Receiver<Update>, Health) {
    let (updates, receiver) = mpsc::channel(1);
    let health = Health::new();
    let events = Events::new(client.clone(), node);
    let watches = Kind::ALL.map(|kind| watch_kind(client, kind));
    tokio::spawn(run(select_all(watches).boxed(), updates, events, health.clone()));
    (receiver, health)
}

/// What comes of a watch.
type Heard = (Kind, Result<Event<Object>, watcher::Error>);

fn watch_kind(client: &Client, kind: Kind) -> BoxStream<'static, Heard> {
    let api: Api<Object> = Api::all_with(client.clone(), &object::resource(kind));
    let seconds = u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX);
    let config = watcher::Config::default().page_size(PAGE).timeout(seconds);
    let config = match kind {
        Kind::Pod => config.fields(UNFINISHED),
        Kind::Service | Kind::EndpointSlice => config.labels(SERVED),
        Kind::Namespace | Kind::Node | Kind::NetworkPolicy | Kind::ClusterPolicy(_) => config,
    };
    watcher::watcher(api, config).backoff(pauses()).map(move |heard| (kind, heard)).boxed()
}

async fn run(
    mut watches: BoxStream<'static, Heard>,
    updates: mpsc::Sender<Update>,
    mut events: Events,
    health: Health,
) {
    let mut store = Store::default();
    let mut unlisted: BTreeSet<Kind> = Kind::ALL.into_iter().collect();
    // When the first change was learned that is in no update yet.
    let mut learned: Option<Instant> = None;
    loop {
        let due = learned.filter(|_| unlisted.is_empty());
        tokio::select! {
            // Everything that has arrived becomes one update.
            biased;
            heard = watches.next() => {
                let Some((kind, heard)) = heard else { return };
                match heard {
                    Ok(event) => {
                        let done = matches!(event, Event::InitDone);
                        if !matches!(event, Event::Init) {
                            health.up(kind);
                        }
                        if store.take(kind, event) {
                            learned.get_or_insert_with(Instant::now);
                        }
                        if done {
                            tracing::info!(%kind, "listed");
                            health.listed(kind);
                            unlisted.remove(&kind);
                        }
                    }
                    // Without the resource definition there are no such policies; it is looked for now and then.
                    Err(error) if matches!(kind, Kind::ClusterPolicy(_)) && is_not_there(&error) => {
                        if unlisted.remove(&kind) {
                            tracing::info!(%kind, "is not known to the API server");
                            health.listed(kind);
                            learned.get_or_insert_with(Instant::now);
                        }
                    }
                    Err(error) => {
                        let error = format!("{:#}", anyhow::Error::from(error));
                        tracing::warn!(%kind, error, "watch failed, goes on");
                        health.failed(kind, error);
                    }
                }
            }
            place = updates.reserve(), if due.is_some() => {
                let (Ok(place), Some(since)) = (place, due) else { return };
                place.send(Update { picture: store.picture(), learned: since.into_std() });
                learned = None;
                events.tell(&store);
            }
            () = updates.closed() => return,
        }
    }
}

/// The server has no such resource.
fn is_not_there(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
        }
        _ => false,
    }
}

fn pauses() -> ResetTimerBackoff<ExponentialBackoff> {
    let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
    ResetTimerBackoff::new(pauses.with_jitter().without_max_times().into(), 3 * LONGEST_PAUSE)
}
