//! Follows the `EndpointSlice`s of the release's headless service, for as long as the program runs.
//!
//! A complete list first, and then a watch from where it was; only both together make the pods known.
//! Each watch goes on where the one before it ended, so that nothing is listed anew but after the API
//! server has forgotten that place. Whatever goes wrong, the last pods stay.

use std::pin::pin;
use std::sync::Arc;

use futures_util::{TryStream, TryStreamExt};
use hyper::StatusCode;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use peer_exchange::book::next_delay;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use udht_tell::chain;

use super::client::{ApiBounds, ApiError, within};
use super::pods::{Pods, Sight};
use super::slices::{Slices, TooManySlices};
use crate::config::KubernetesArgs;
use crate::metrics::{KubernetesMetrics, PodCounts, WatchEnd};
use crate::wall::{self, Stopwatch};

/// The label by which Kubernetes says which service a slice is of.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Slices in one part of a list.
const PAGE: u32 = 500;
/// Failures in a row, beyond which their number makes no difference.
const FAILURES_MAX: u32 = 16;

/// The pods of the release, as the API tells them.
#[derive(Debug)]
pub struct Follower {
    api: Api<EndpointSlice>,
    selector: String,
    bounds: ApiBounds,
    metrics: KubernetesMetrics,
    pods: Arc<Sender<Arc<Pods>>>,
    slices: Slices,
    /// Where to go on; `None` if there must be a list first.
    version: Option<String>,
    /// Whether nothing was heard since the list.
    is_fresh: bool,
    /// The word for what is wrong, since it was last said.
    trouble: Option<&'static str>,
}

/// Why nothing was heard of the pods any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    TooMany(#[from] TooManySlices),
}

impl Lost {
    fn word(&self) -> &'static str {
        match self {
            Self::Api(error) => error.word(),
            Self::TooMany(_) => "too_many",
        }
    }
}

impl From<kube::Error> for Lost {
    fn from(error: kube::Error) -> Self {
        Self::Api(error.into())
    }
}

impl Follower {
    /// One that has asked nothing yet, and will tell of the pods through `pods`.
    pub fn new(
        client: Client,
        args: &KubernetesArgs,
        bounds: ApiBounds,
        metrics: KubernetesMetrics,
        pods: Arc<Sender<Arc<Pods>>>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, &args.namespace),
            selector: format!("{SERVICE_LABEL}={}", args.service),
            bounds,
            metrics,
            pods,
            slices: Slices::default(),
            version: None,
            is_fresh: false,
            trouble: None,
        }
    }

    /// Follows them until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        self.metrics.up(false);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut failures = 0;
        loop {
            let watched = Stopwatch::start();
            match self.watch().await {
                Ok(end) => {
                    failures = 0;
                    self.metrics.watch_ended(end);
                    tracing::debug!(reason = end.word(), "a watch of the pods ended");
                    // Whatever ends each watch at once is not asked in circles.
                    if watched.elapsed() < self.bounds.pause {
                        self.pause(failures).await;
                    }
                }
                Err(lost) => {
                    self.lose(&lost);
                    self.pause(failures).await;
                    failures = (failures + 1).min(FAILURES_MAX);
                }
            }
        }
    }

    async fn pause(&self, failures: u32) {
        let ApiBounds {
            pause, pause_max, ..
        } = self.bounds;
        let pause = pause.saturating_mul(2_u32.saturating_pow(failures));
        let pause = next_delay(pause.min(pause_max), wall::random());
        tokio::time::sleep(pause).await;
    }

    /// Lists if that is needed, and follows one watch up to its end.
    async fn watch(&mut self) -> Result<WatchEnd, Lost> {
        match self.list_and_watch().await {
            Err(Lost::Api(error)) if error.is_status(StatusCode::GONE) => {
                self.version = None;
                // A server may forget where we were, but not where a list has just put us.
                if self.is_fresh {
                    Err(error.into())
                } else {
                    Ok(WatchEnd::Gone)
                }
            }
            end => end,
        }
    }

    async fn list_and_watch(&mut self) -> Result<WatchEnd, Lost> {
        let version = match self.version.clone() {
            Some(version) => version,
            None => self.list().await?,
        };
        // Pods that began together do not ask together for ever.
        let time = next_delay(self.bounds.watch.mul_f64(2.0 / 3.0), wall::random());
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams::default()
            .labels(&self.selector)
            .timeout(seconds);
        let opened = within(self.bounds.whole, self.api.watch(&params, &version)).await;
        let events = match opened {
            Ok(events) => pin!(events),
            Err(error) => {
                // The list is news all the same.
                self.publish(Sight::Lost);
                return Err(error.into());
            }
        };
        self.metrics.heard();
        self.publish(Sight::Live);
        self.recovered();
        // It ends by itself, unless the server forgets to.
        let read = tokio::time::timeout(time + self.bounds.answer, self.read(events)).await;
        read.unwrap_or(Ok(WatchEnd::Silent))
    }

    /// Takes in all that a watch tells.
    ///
    /// That a connection breaks or falls silent is a part of a watch's life: whether the API is
    /// still there, the next one tells.
    async fn read(
        &mut self,
        mut events: impl TryStream<Ok = WatchEvent<EndpointSlice>, Error = kube::Error> + Unpin,
    ) -> Result<WatchEnd, Lost> {
        loop {
            let event = match events.try_next().await.map_err(ApiError::from) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(WatchEnd::Ended),
                Err(error) => match error.word() {
                    "timed_out" => return Ok(WatchEnd::Silent),
                    "broken" => return Ok(WatchEnd::Broken),
                    _ => {
                        // What cannot be read would be met again from the same place.
                        self.version = None;
                        return Err(error.into());
                    }
                },
            };
            self.metrics.heard();
            if let Err(lost) = self.take(event) {
                self.version = None;
                return Err(lost);
            }
            self.is_fresh = false;
        }
    }

    fn take(&mut self, event: WatchEvent<EndpointSlice>) -> Result<(), Lost> {
        let version = match event {
            WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                self.slices.take(&slice)?;
                slice.metadata.resource_version
            }
            WatchEvent::Deleted(slice) => {
                self.slices.forget(&slice);
                slice.metadata.resource_version
            }
            WatchEvent::Bookmark(bookmark) => {
                self.version = Some(bookmark.metadata.resource_version);
                return Ok(());
            }
            WatchEvent::Error(status) => return Err(ApiError::Refused(status).into()),
        };
        self.version = version.or(self.version.take());
        self.publish(Sight::Live);
        Ok(())
    }

    /// Asks for all slices, and takes them in once they are all there.
    async fn list(&mut self) -> Result<String, Lost> {
        let (slices, version) = within(self.bounds.whole, self.pages()).await??;
        self.slices = slices;
        self.is_fresh = true;
        self.version = Some(version.clone());
        Ok(version)
    }

    async fn pages(&self) -> kube::Result<Result<(Slices, String), TooManySlices>> {
        let mut slices = Slices::default();
        let mut params = ListParams::default().labels(&self.selector).limit(PAGE);
        loop {
            let page = self.api.list(&params).await?;
            for slice in &page.items {
                if let Err(error) = slices.take(slice) {
                    return Ok(Err(error));
                }
            }
            let more = page.metadata.continue_.filter(|token| !token.is_empty());
            let Some(more) = more else {
                let version = page.metadata.resource_version.unwrap_or_default();
                return Ok(Ok((slices, version)));
            };
            params = params.continue_token(&more);
        }
    }

    fn publish(&self, sight: Sight) {
        let listed = self.slices.pods();
        // Of a list that is not whole, nobody can say who is not in it.
        let sight = if listed.left_out > 0 {
            Sight::Lost
        } else {
            sight
        };
        self.metrics.up(sight == Sight::Live);
        let terminating = listed.by_uid.values().filter(|pod| pod.is_terminating);
        let terminating = terminating.count();
        let counts = PodCounts {
            listed: listed.by_uid.len() - terminating,
            terminating,
            left_out: listed.left_out,
        };
        self.metrics.counted(counts, self.slices.len());
        let pods = Pods {
            by_uid: listed.by_uid,
            sight,
        };
        self.pods.send_if_modified(|known| {
            let is_news = **known != pods;
            if is_news {
                *known = Arc::new(pods);
            }
            is_news
        });
    }

    /// Notes that the pods are no longer followed. Those that were known stay.
    fn lose(&mut self, lost: &Lost) {
        self.metrics.up(false);
        self.pods.send_if_modified(|known| {
            let is_news = known.sight == Sight::Live;
            if is_news {
                Arc::make_mut(known).sight = Sight::Lost;
            }
            is_news
        });
        let pods = self.pods.borrow().by_uid.len();
        let word = lost.word();
        self.trouble = Some(word);
        tracing::warn!(
            error = chain(lost),
            reason = word,
            pods,
            "the pods of the service cannot be followed; the last known ones stay in use"
        );
    }

    fn recovered(&mut self) {
        let pods = self.pods.borrow().by_uid.len();
        let slices = self.slices.len();
        if self.trouble.take().is_some() {
            tracing::info!(pods, slices, "the pods of the service are followed again");
        } else {
            tracing::debug!(pods, slices, "following the pods of the service");
        }
    }
}
