//! Rounds: every now and then an exchange with a random peer, which finds whatever was missed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use peer_exchange::book::next_delay;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::wall;

/// How far the rounds fall apart at the most while they ship what is refused at the other end.
const BURDENED_INTERVAL_MAX: Duration = Duration::from_mins(1);
/// Rounds in a row that had something refused, beyond which their number makes no difference.
const BURDEN_MAX: u32 = 16;

/// Exchanges with one random peer after the other, one at a time, until `stop`; the exchange that
/// is under way then is finished, within the bounds.
///
/// Where there is something to find (at the start, and whenever an exchange brought what pushes had
/// [`Missed`]) the next one follows briskly: so that pods that start together, or were parted, soon have
/// it all.
///
/// Where records are refused (a table is full, a clock is off), the next exchange would ship them
/// again: the rounds then fall apart, each twice as far as the one before.
///
/// [`Missed`]: crate::missed::Missed
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    // Whoever starts wants the table now.
    let mut brisk = true;
    let mut burden = 0;
    loop {
        let interval = burdened(node.interval, burden);
        if !pause(&node, interval, &mut brisk, &stop).await {
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
                    let is_refused = moved.merged_here.refused() + moved.merged_there.refused() > 0;
                    burden = if is_refused { (burden + 1).min(BURDEN_MAX) } else { 0 };
                    // What was missed until now has said so; the rest is still being pushed.
                    brisk = false;
                }
            }
            () = stopped_for(&stop, node.bounds.drain) => {
                tracing::warn!(peer = %partner, "gave up on an exchange in order to stop");
                return;
            }
        }
    }
}

/// The interval after so many rounds in a row that had something refused.
fn burdened(interval: Duration, burden: u32) -> Duration {
    let longer = interval.saturating_mul(2_u32.saturating_pow(burden));
    longer.min(BURDENED_INTERVAL_MAX).max(interval)
}

/// Waits for the next round; `false` if there is none any more.
async fn pause(
    node: &Node,
    interval: Duration,
    brisk: &mut bool,
    stop: &CancellationToken,
) -> bool {
    let sleep = |brisk: bool| {
        // As long as there are peers to be met, or none was met that belongs, one is asked after the
        // other.
        let is_new = node.met_ids.is_newcomer() || node.book().has_unmet(node.uptime());
        let interval = if brisk || is_new {
            interval.min(node.bounds.brisk_interval)
        } else {
            interval
        };
        tokio::time::sleep(next_delay(interval, wall::random()))
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

async fn stopped_for(stop: &CancellationToken, drain: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_ship_what_is_refused_fall_apart_up_to_a_bound() {
        let seconds = |interval, burden| burdened(Duration::from_secs(interval), burden).as_secs();
        assert_eq!(
            [0, 1, 2, 3].map(|burden| seconds(5, burden)),
            [5, 10, 20, 40]
        );
        assert_eq!(seconds(5, BURDEN_MAX), 60);
        assert_eq!(
            seconds(600, BURDEN_MAX),
            600,
            "a longer interval stays as it is"
        );
    }
}
