//! Rounds: every now and then an exchange with a random peer, which finds whatever was missed.

use std::sync::Arc;
use std::time::Duration;

use peer_exchange::book::next_delay;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::wall;

/// Exchanges with one random peer after the other, one at a time, until `stop`; the exchange that
/// is under way then is finished, within the bounds.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut met_anybody = false;
    loop {
        let interval = if met_anybody {
            node.interval
        } else {
            node.interval.min(node.bounds.first_interval)
        };
        let pause = tokio::time::sleep(next_delay(interval, wall::random()));
        tokio::select! {
            () = stop.cancelled() => return,
            () = pause => {}
            () = node.hurry.notified() => {}
        }
        let partner = node.book().choose(node.uptime(), wall::random()).cloned();
        let Some(partner) = partner else {
            continue;
        };
        tokio::select! {
            result = node.exchange(&partner) => met_anybody |= result.is_ok(),
            () = stopped_for(&stop, node.bounds.drain) => {
                tracing::warn!(peer = %partner, "gave up on an exchange in order to stop");
                return;
            }
        }
    }
}

async fn stopped_for(stop: &CancellationToken, drain: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
}
