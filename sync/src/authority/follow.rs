//! Keeps up with the Secret of the authority: fills it once, and hands on what it says.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use peer_exchange::book::next_delay;
use tokio::sync::watch;

use super::secret::{AuthoritySecret, Heard, Replaced, content};
use super::state::{Authority, Stage, until};
use super::trouble::{Trouble, Troubles};
use super::{Rules, SIGNER_LEFT, SIGNER_LIFETIME, issue};
use crate::node::Node;
use crate::wall::{self, Stopwatch};

/// What was read of the Secret, or the wish to read it anew.
type Seen = Option<Box<Secret>>;

/// Follows the Secret.
#[derive(Debug)]
pub(super) struct Following<'a> {
    secret: &'a AuthoritySecret,
    rules: &'a Rules,
    /// What this sync goes by; once there is one, only the same authority follows it.
    held: watch::Sender<Option<Arc<Authority>>>,
    troubles: Troubles,
}

impl<'a> Following<'a> {
    pub(super) fn new(
        node: &Node,
        secret: &'a AuthoritySecret,
        rules: &'a Rules,
        held: watch::Sender<Option<Arc<Authority>>>,
    ) -> Self {
        Self {
            secret,
            rules,
            held,
            troubles: Troubles::new(node.metrics.authority.clone()),
        }
    }

    /// Reads the Secret and waits for its changes, through whatever becomes of the Kubernetes API.
    ///
    /// A watch is asked for three quarters of the bound, to the whole of it, by chance: with the
    /// read before it that makes some 28 requests an hour.
    pub(super) async fn follow(&self) {
        let mut failures = 0;
        loop {
            let watched = Stopwatch::start();
            match self.look_and_watch().await {
                Ok(()) => {
                    failures = 0;
                    // Whatever ends each watch at once is not asked in circles.
                    if watched.elapsed() < self.secret.bounds().pause {
                        tokio::time::sleep(self.pause(failures)).await;
                    }
                }
                Err(trouble) => {
                    self.troubles.note(&trouble);
                    failures += 1;
                    tokio::time::sleep(self.pause(failures)).await;
                }
            }
        }
    }

    /// Longer after each failure in a row, up to a bound.
    fn pause(&self, failures: u32) -> Duration {
        let bounds = self.secret.bounds();
        let longer = 2_u32.saturating_pow(failures.saturating_sub(1));
        let pause = bounds.pause.saturating_mul(longer).min(bounds.pause_max);
        next_delay(pause, wall::random())
    }

    async fn look_and_watch(&self) -> Result<(), Trouble> {
        let read = self.secret.get().await?;
        let Some(current) = self.take_all(read).await? else {
            return Ok(());
        };
        let bound = self.secret.bounds().watch;
        let [chance, ..] = wall::random().to_le_bytes();
        let time = bound.saturating_sub(bound * u32::from(chance) / 1_024);
        let events = self.secret.watch(&current, time).await?;
        let mut events = pin!(events);
        while let Some(heard) = events.next().await {
            match heard? {
                Heard::Deleted => {
                    let secret = self.secret.to_string();
                    return Err(Trouble::Missing { secret });
                }
                Heard::Changed(read) => {
                    if self.take_all(read).await?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what is in the Secret, and says what is in the way of that: the Secret is watched all
    /// the same, as it may be mended. `None` if it is to be read anew.
    async fn take_all(&self, read: Box<Secret>) -> Result<Seen, Trouble> {
        let version = read.clone();
        match self.take(read).await {
            Ok(seen) => {
                if seen.is_some() {
                    self.troubles.over();
                }
                Ok(seen)
            }
            Err(
                trouble
                @ (Trouble::Foreign { .. } | Trouble::Invalid(_) | Trouble::Replaced { .. }),
            ) => {
                self.troubles.note(&trouble);
                Ok(Some(version))
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn take(&self, read: Box<Secret>) -> Result<Seen, Trouble> {
        let held = self.held.borrow().clone();
        let found = content(&read)?;
        let wanted = match (found, held) {
            // The first to be there makes it. Or somebody has emptied the Secret, and then it is
            // brought back by any of those who still have what was in it.
            (None, None) => {
                let made = issue::authority(SIGNER_LIFETIME).map_err(issue::IssueError::from)?;
                tracing::info!(authority = %made.id(), "the Secret is empty: making an authority");
                made
            }
            (None, Some(held)) => {
                tracing::warn!(authority = %held.id(), "the Secret was emptied: bringing back the authority");
                Authority::clone(&held)
            }
            (Some(found), held) => {
                if let Some(held) = held
                    && found.binding != held.binding
                    && !found.adopted.contains(&held.id())
                {
                    let [found, held] = [found.id(), held.id()];
                    return Err(Trouble::Replaced { found, held });
                }
                let kept_up = self.kept_up(&found)?;
                self.hold(found);
                match kept_up {
                    None => return Ok(Some(read)),
                    Some(kept_up) => kept_up,
                }
            }
        };
        match self.secret.replace(&read, &wanted).await? {
            Replaced::Done(now) => {
                self.hold(wanted);
                Ok(Some(now))
            }
            Replaced::Conflict => Ok(None),
        }
    }

    fn hold(&self, new: Authority) {
        let new = Some(Arc::new(new));
        self.held.send_if_modified(|held| {
            let changes = *held != new;
            *held = new;
            changes
        });
    }

    /// The same without a rotation that is over, or with one that had to be begun; `None` if neither
    /// is to be done.
    fn kept_up(&self, found: &Authority) -> Result<Option<Authority>, Trouble> {
        let now = wall::now();
        let mut new = found.settled(now);
        if new.stage(now) == Stage::Single
            && let Some(ends) = issue::expires(&new.signer)
            && until(ends, now) < SIGNER_LEFT
        {
            let next = issue::signer(new.id(), now, SIGNER_LIFETIME);
            let next = next.map_err(issue::IssueError::from)?;
            tracing::info!(authority = %new.id(), "the authority comes to its end: beginning a rotation");
            // None is under way.
            if let Ok(rotated) = new.rotated(next, now, self.rules.overlap()) {
                new = rotated;
            }
        }
        Ok((new != *found).then_some(new))
    }
}
