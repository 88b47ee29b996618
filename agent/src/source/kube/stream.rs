//! What comes of one kind for as long as anybody listens: where it is served is found, then it is listed and
//! watched.
//!
//! Out: its events, and what keeps it from being watched. After a failure it goes on by itself, after a pause
//! that grows with each failure in a row.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::ExponentialBuilder;
use futures::{
    FutureExt as _, StreamExt as _,
    stream::{BoxStream, unfold},
};
use kube::{
    Api, Client, Resource,
    api::ApiResource,
    runtime::{
        utils::{Backoff as _, ResetTimerBackoff},
        watcher::{self, Event, ExponentialBackoff},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    calico::CalicoGroups,
    client::READ_TIMEOUT,
    decode::Kind,
    object::{ApiObject, PodObject},
    served::{self, Served, is_not_found},
};

/// Objects of one page of a list. An object may have 1.5 MB, and the text of a page is there twice for a
/// moment.
const PAGE: u32 = 32;

/// How long a list waits for its turn, should the server hang in the one before.
const TURN: Duration = Duration::from_secs(2);

/// How long the server keeps a watch open; bookmarks come once a minute.
const WATCH: Duration = READ_TIMEOUT.saturating_sub(Duration::from_secs(10));

/// Between two attempts at a server that is away: the first and the longest pause. Chance makes each up to
/// twice as long, so that the agents of a large cluster do not come back all at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A watch that expires more often is a failure like any other.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often it is looked whether the server knows a kind by now.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A pod that has finished has no address any more; the server reports it as deleted.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What comes of a kind.
pub(super) type WatchEvent = Result<Event<ApiObject>, Unwatched>;

/// Why it is not watched now.
#[derive(Debug)]
pub(super) enum Unwatched {
    /// The server does not know the kind.
    Absent,
    /// The server knows it only at versions that are not known here.
    Unknown(String),
    /// A kind of Calico's that this agent has not been granted.
    Forbidden,
    /// It goes on by itself.
    Failed(String),
}

/// Never ends. `turn`: kinds are listed one after the other, so that one page is in memory at a time.
pub(super) fn of_kind(
    client: &Client,
    kind: Kind,
    turn: Arc<Semaphore>,
    calico: CalicoGroups,
) -> BoxStream<'static, WatchEvent> {
    let watch = Watch {
        turn,
        calico,
        client: client.clone(),
        kind,
        stage: Stage::Look,
        pauses: pauses(),
        pause: None,
        expired: None,
    };
    unfold(watch, |mut watch| async { Some((watch.next().await, watch)) }).boxed()
}

struct Watch {
    turn: Arc<Semaphore>,
    calico: CalicoGroups,
    client: Client,
    kind: Kind,
    stage: Stage,
    pauses: ResetTimerBackoff<ExponentialBackoff>,
    /// Before the next step.
    pause: Option<Duration>,
    /// When it expired last.
    expired: Option<Instant>,
}

enum Stage {
    Look,
    Watching(ApiResource, BoxStream<'static, watcher::Result<Event<ApiObject>>>),
}

impl Watch {
    async fn next(&mut self) -> WatchEvent {
        loop {
            if let Some(pause) = self.pause.take() {
                sleep(pause).await;
            }
            let (resource, events) = match &mut self.stage {
                Stage::Watching(resource, events) => (resource, events),
                Stage::Look => match served::look(&self.client, self.kind, &self.calico).await {
                    Ok(Served::At(resource)) => {
                        let events = self.watch(&resource);
                        self.stage = Stage::Watching(resource, events);
                        continue;
                    }
                    Ok(Served::Nowhere) => {
                        self.pause = Some(LOOK_AGAIN);
                        return Err(Unwatched::Absent);
                    }
                    Ok(Served::Forbidden(_)) => {
                        self.pause = Some(LOOK_AGAIN);
                        return Err(Unwatched::Forbidden);
                    }
                    Ok(Served::Unknown(versions)) => {
                        self.pause = Some(LOOK_AGAIN);
                        let known = self.kind.info().api_versions.join(" and ");
                        let versions = versions.join(", ");
                        return Err(Unwatched::Unknown(format!(
                            "is served only as {versions}; known here: {known}"
                        )));
                    }
                    Err(error) => {
                        self.pause = self.pauses.next();
                        return Err(Unwatched::Failed(describe(error)));
                    }
                },
            };
            match events.next().await {
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) if is_expired(&error) => {
                    let resource = resource.clone();
                    // Listed again at once: until then what was deleted counts as being there.
                    if self.expired.replace(Instant::now()).is_none_or(|before| before.elapsed() > EXPIRES) {
                        self.pauses.reset();
                    }
                    self.pause = self.pauses.next();
                    let events = self.watch(&resource);
                    self.stage = Stage::Watching(resource, events);
                    return Err(Unwatched::Failed(describe(error)));
                }
                Some(Err(error)) => {
                    if (self.kind.info().is_custom || self.kind.is_of_calico()) && is_not_there(&error) {
                        self.stage = Stage::Look;
                    }
                    self.pause = self.pauses.next();
                    return Err(Unwatched::Failed(describe(error)));
                }
                None => self.stage = Stage::Look,
            }
        }
    }

    fn watch(&self, resource: &ApiResource) -> BoxStream<'static, watcher::Result<Event<ApiObject>>> {
        match self.kind {
            Kind::Pod => self.watch_as::<PodObject>(resource),
            Kind::Namespace
            | Kind::Node
            | Kind::NetworkPolicy
            | Kind::ClusterPolicy(_)
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Calico(..)
            | Kind::ServiceAccount
            | Kind::ApplicationNetworkPolicy
            | Kind::FqdnNetworkPolicy => self.watch_as::<ApiObject>(resource),
        }
    }

    fn watch_as<K>(&self, resource: &ApiResource) -> BoxStream<'static, watcher::Result<Event<ApiObject>>>
    where
        K: Resource<DynamicType = ApiResource> + DeserializeOwned + Clone + fmt::Debug + Send + 'static,
        ApiObject: From<K>,
    {
        let api: Api<K> = Api::all_with(self.client.clone(), resource);
        let seconds = u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX);
        let config = watcher::Config::default().page_size(PAGE).timeout(seconds);
        let config = match self.kind {
            Kind::Pod => config.fields(UNFINISHED),
            // All of them: another proxy than kube-proxy may translate to services, and DNS leads to headless
            // ones.
            Kind::Service | Kind::EndpointSlice => config,
            Kind::Namespace
            | Kind::Node
            | Kind::NetworkPolicy
            | Kind::ClusterPolicy(_)
            | Kind::Calico(..)
            | Kind::ServiceAccount
            | Kind::ApplicationNetworkPolicy
            | Kind::FqdnNetworkPolicy => config,
        };
        let turn = self.turn.clone();
        let watch = async move {
            // It is never closed, so that no turn means that it has taken too long.
            let mut turn = timeout(TURN, turn.acquire_owned()).await.ok().and_then(Result::ok);
            watcher::watcher(api, config).map(move |heard| {
                if matches!(heard, Ok(Event::InitDone) | Err(_)) {
                    drop(turn.take());
                }
                heard.map(of_any_kind)
            })
        };
        watch.flatten_stream().boxed()
    }
}

fn of_any_kind<K>(event: Event<K>) -> Event<ApiObject>
where
    ApiObject: From<K>,
{
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.into()),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(object.into()),
        Event::Delete(object) => Event::Delete(object.into()),
    }
}

/// What the server remembers does not reach back to where the watch was.
fn is_expired(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        WatchError(status) => status.code == 410,
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 410)
        }
        watcher::Error::NoResourceVersion => false,
    }
}

/// The server has no such resource any more.
fn is_not_there(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => is_not_found(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => false,
    }
}

fn describe(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

fn pauses() -> ResetTimerBackoff<ExponentialBackoff> {
    let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
    ResetTimerBackoff::new(pauses.with_jitter().without_max_times().into(), 3 * LONGEST_PAUSE)
}
