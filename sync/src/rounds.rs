//! Rounds: every now and then an exchange with a random peer, which finds whatever was missed.

use std::pin::pin;
use std::sync::Arc;

use peer_exchange::Outcomes;
use peer_exchange::book::next_delay;
use peer_table::contract::merged_word;
use peer_table::table::Merged;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::wall;

/// Exchanges with one random peer after the other, one at a time, until `stop`; the exchange that
/// is under way then is finished, within the bounds.
///
/// Where there is something to find (at the start, and whenever pushes were [`Missed`]) they follow
/// one another briskly until one brings no news to either side: so that pods that start together, or
/// were parted, soon have it all.
///
/// [`Missed`]: crate::missed::Missed
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    // Whoever starts wants the table now.
    let mut brisk = true;
    loop {
        if !pause(&node, &mut brisk, &stop).await {
            return;
        }
        let partner = node.book().choose(node.uptime(), wall::random()).cloned();
        let Some(partner) = partner else {
            continue;
        };
        tokio::select! {
            result = node.exchange(&partner) => {
                if let Ok((report, _)) = result {
                    let moved = report.moved;
                    brisk &= is_news(&moved.merged_here) || is_news(&moved.merged_there);
                }
            }
            () = stopped_for(&stop, node.bounds.drain) => {
                tracing::warn!(peer = %partner, "gave up on an exchange in order to stop");
                return;
            }
        }
    }
}

/// Whether records were taken for what they say; a contact alone is no news.
fn is_news(merged: &Outcomes) -> bool {
    merged.of(merged_word(Merged::Applied)) > 0
}

/// Waits for the next round; `false` if there is none any more.
async fn pause(node: &Node, brisk: &mut bool, stop: &CancellationToken) -> bool {
    let sleep = |brisk: bool| {
        let most = if brisk {
            node.bounds.brisk_interval
        } else {
            node.interval
        };
        tokio::time::sleep(next_delay(node.interval.min(most), wall::random()))
    };
    let mut pause = pin!(sleep(*brisk));
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = pause.as_mut() => return true,
            () = node.missed.hurry.notified(), if !*brisk => {
                *brisk = true;
                pause.set(sleep(true));
            }
        }
    }
}

async fn stopped_for(stop: &CancellationToken, drain: std::time::Duration) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
}
