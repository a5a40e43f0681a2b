//! `serve`: everything that goes on until the program is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peer_table::contract::Batch;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use udht_tell::trace;

use crate::authority::{self, Rules, secret::AuthoritySecret};
use crate::config::{Bounds, EndsArgs, ServeArgs, Tls};
use crate::discovery::Discovery;
use crate::kubernetes::client::{self, ClientError};
use crate::kubernetes::watch::Follower;
use crate::lifecycle::{Handover, Lifecycle, Place, Tending};
use crate::metrics::Port;
use crate::node::{Node, NodeError};
use crate::push::Pusher;
use crate::server::Responder;
use crate::tls::Door;
use crate::{discovery, feed, listen, ops, report, rounds};

/// Why nothing could be begun.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}; is another program there? Say another one with {flag}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Where it is said.
        flag: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The Secret of the authority cannot be asked for.
    #[error(
        "--tls auto keeps its authority in a Secret of the Kubernetes API; without one say --tls \
         files:DIR (mutual TLS with certificates of your own) or --tls off (connections are then \
         neither encrypted nor authenticated)"
    )]
    Authority(#[source] ClientError),
    /// The Kubernetes API cannot be asked for the other pods.
    #[error("the other pods cannot be found by --discovery kubernetes")]
    Kubernetes(#[from] ClientError),
    /// What all parts share cannot be had.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// A sync that listens and does nothing yet.
#[derive(Debug)]
pub struct Bound {
    exchange: TcpListener,
    ops: TcpListener,
    node: Arc<Node>,
    follower: Option<Follower>,
    authority: Option<(AuthoritySecret, Rules)>,
    news: mpsc::Receiver<Batch>,
    push_delay: Duration,
    push_fanout: usize,
    gone_after: Duration,
    leave_for_good: bool,
    drift_max: Duration,
    place: Option<Place>,
    /// Where peers find it.
    pub listen: SocketAddr,
    /// Where its health and metrics are.
    pub ops_listen: SocketAddr,
}

/// Takes both ports, so that a port 0 has its number.
pub async fn bind(args: ServeArgs, bounds: Bounds) -> Result<Bound, ServeError> {
    let ServeArgs {
        listen,
        ops_listen,
        ends,
        discovery,
        sync_interval,
        push_delay,
        push_fanout,
        gone_after,
        leave_for_good,
        max_clock_drift,
        log: _,
        trace,
    } = args;
    let (node, news) = Node::new(&ends, bounds, sync_interval)?;
    let authority = own_authority(&node, &ends).await;
    let authority = authority.map_err(ServeError::Authority)?;
    let follower = match discovery {
        Discovery::Fixed(addresses) => {
            if addresses.is_empty() {
                tracing::warn!("the list of --discovery is empty: this pod stays alone");
            }
            node.book().replace(addresses);
            None
        }
        Discovery::Kubernetes => Some(node.follower(&ends.kubernetes).await?),
    };
    let place = follower.as_ref().and_then(|_| node.place());
    if follower.is_some() && place.is_none() {
        tracing::warn!(
            "without --pod-uid this pod does not know which one it is: it removes no record of pods \
             that are gone, nor its own as it ends"
        );
    }
    let (exchange, listen) = take(listen, "--listen").await?;
    let (ops, ops_listen) = take(ops_listen, "--ops-listen").await?;
    let pod = ends.kubernetes.pod_uid.clone();
    trace::begin(
        &trace,
        "udht-sync",
        pod.unwrap_or_else(|| listen.to_string()),
    );
    Ok(Bound {
        exchange,
        ops,
        node: Arc::new(node),
        follower,
        authority,
        news,
        push_delay,
        push_fanout,
        gone_after,
        leave_for_good,
        drift_max: max_clock_drift,
        place,
        listen,
        ops_listen,
    })
}

/// Where the authority of `--tls auto` is kept, and how it is gone about; none without that.
pub async fn own_authority(
    node: &Node,
    ends: &EndsArgs,
) -> Result<Option<(AuthoritySecret, Rules)>, ClientError> {
    if ends.tls != Tls::Auto {
        return Ok(None);
    }
    let bounds = node.bounds.kubernetes;
    let client = client::client(&ends.kubernetes, &bounds, &node.metrics.kubernetes).await?;
    let secret = AuthoritySecret::new(client, &ends.kubernetes, bounds);
    Ok(Some((secret, Rules::new(ends))))
}

async fn take(
    address: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let refused = |source| ServeError::Listen {
        address,
        flag,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

impl Bound {
    /// What its parts share.
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Says where among the pods that Kubernetes lists this one is; without it nobody is ever gone.
    #[must_use]
    pub fn placed(self, place: Place) -> Self {
        let place = Some(place);
        Self { place, ..self }
    }

    /// Does everything until `stop`, hands over, and then finishes what is under way, within the
    /// bounds.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            exchange,
            ops,
            node,
            follower,
            authority,
            news,
            push_delay,
            push_fanout,
            gone_after,
            leave_for_good,
            drift_max,
            place,
            listen,
            ops_listen,
        } = self;
        tracing::info!(
            %listen,
            %ops_listen,
            manager = %node.manager.url(),
            peers = node.book().known(),
            "listening on {listen} for peers and on {ops_listen} for health and metrics"
        );
        let bounds = node.bounds;
        let pusher = Arc::new(Pusher::new(Arc::clone(&node), push_fanout));
        let responder = Responder::new(Arc::clone(&node), Arc::clone(&pusher));
        let answer_peer = move |request| responder.clone().answer(request);
        let (is_listed, pushing) = (follower.is_some(), Arc::clone(&pusher));
        let tending = Tending::new(Arc::clone(&node), pushing, is_listed, drift_max);
        let handover = Handover::new(Arc::clone(&node), place.clone(), leave_for_good);
        let lifecycle = Lifecycle::new(Arc::clone(&node), place, gone_after, handover, tending);
        let lifecycle = Arc::new(lifecycle);
        let answer_ops = {
            let (node, lifecycle) = (Arc::clone(&node), Arc::clone(&lifecycle));
            move |request| ops::answer_ops(Arc::clone(&node), Arc::clone(&lifecycle), request)
        };
        // All goes on while this pod hands over.
        let end = CancellationToken::new();
        let leave = async {
            stop.cancelled().await;
            lifecycle.handover.leave().await;
            end.cancel();
        };
        // All that goes on is much to carry about.
        let work = Box::pin(async {
            tokio::join!(
                leave,
                listen::serve(
                    exchange,
                    bounds.server,
                    node.door(),
                    node.metrics.turned_away(Port::Exchange),
                    end.clone(),
                    answer_peer,
                ),
                listen::serve(
                    ops,
                    bounds.ops,
                    Door::Open,
                    node.metrics.turned_away(Port::Ops),
                    end.clone(),
                    answer_ops,
                ),
                rounds::run(Arc::clone(&node), end.clone()),
                feed::run(
                    Arc::clone(&node),
                    Arc::clone(&pusher),
                    news,
                    push_delay,
                    end.clone()
                ),
                lifecycle.follow(end.clone()),
                report::run(
                    Arc::clone(&node),
                    is_listed,
                    drift_max,
                    || lifecycle.brake(),
                    end.clone()
                ),
                discovery::follow(&node, follower, listen.is_ipv6(), end.clone()),
                node.follow_tls(end.clone()),
                async {
                    if let Some((secret, rules)) = authority {
                        authority::run(Arc::clone(&node), secret, rules, end.clone()).await;
                    }
                },
            );
            pusher.drain(bounds.drain).await;
        });
        let too_long = async {
            end.cancelled().await;
            tokio::time::sleep(bounds.stop).await;
        };
        tokio::select! {
            () = work => {}
            () = too_long => tracing::warn!("gave up on what is under way in order to stop"),
        }
        tracing::info!("stopped");
    }
}
