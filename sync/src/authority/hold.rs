//! Goes by the authority that is known: binds the manager's table to it, and keeps this sync in
//! certificates.

use std::sync::Arc;
use std::time::Duration;

use peer_exchange::book::next_delay;
use peer_table::contract::Bind;
use peer_table::{AuthorityId, WallTime};
use tokio::sync::watch;

use super::Rules;
use super::issue::{self, Leaf};
use super::state::{Authority, Stage, earlier, later, until};
use super::trouble::{Trouble, Troubles};
use crate::node::Node;
use crate::wall;

/// At least so often the clock is looked at: it may be set, or the machine have slept.
const LOOK: Duration = Duration::from_mins(1);

/// What the certificate in use was issued by, and when it is to be followed by another.
#[derive(Debug)]
struct Issued {
    by: Arc<Authority>,
    stage: Stage,
    from: WallTime,
    renew: WallTime,
}

/// Goes by the authority.
#[derive(Debug)]
pub(super) struct Holding<'a> {
    node: &'a Node,
    rules: &'a Rules,
    known: watch::Receiver<Option<Arc<Authority>>>,
    troubles: Troubles,
    bound: Option<AuthorityId>,
    issued: Option<Issued>,
}

impl<'a> Holding<'a> {
    pub(super) fn new(
        node: &'a Node,
        rules: &'a Rules,
        known: watch::Receiver<Option<Arc<Authority>>>,
    ) -> Self {
        Self {
            known,
            ..Self::with(node, rules, Troubles::new(node.metrics.authority.clone()))
        }
    }

    pub(super) fn with(node: &'a Node, rules: &'a Rules, troubles: Troubles) -> Self {
        Self {
            node,
            rules,
            known: watch::Sender::new(None).subscribe(),
            troubles,
            bound: None,
            issued: None,
        }
    }

    /// Does so for as long as it is polled.
    pub(super) async fn hold(mut self) {
        let mut failures = 0;
        loop {
            let known = self.known.borrow_and_update().clone();
            let wait = match known {
                None => LOOK,
                Some(authority) => match self.step(&authority).await {
                    Ok(wait) => {
                        failures = 0;
                        self.troubles.over();
                        wait
                    }
                    Err(trouble) => {
                        self.troubles.note(&trouble);
                        failures += 1;
                        self.pause(failures)
                    }
                },
            };
            tokio::select! {
                changed = self.known.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(wait.min(LOOK)) => {}
                // A store that was emptied or swapped: it is bound anew.
                () = self.node.manager.stranger(), if failures == 0 => self.bound = None,
            }
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let bounds = &self.node.bounds.kubernetes;
        let longer = 2_u32.saturating_pow(failures.saturating_sub(1));
        let pause = bounds.pause.saturating_mul(longer).min(bounds.pause_max);
        next_delay(pause, wall::random())
    }

    /// Does what is to be done now, and says after how long to look again.
    async fn step(&mut self, authority: &Arc<Authority>) -> Result<Duration, Trouble> {
        if self.bound != Some(authority.id()) {
            self.bind(authority).await?;
        }
        let now = wall::now();
        if self.is_due(authority, now) {
            self.issue(authority, now)?;
        }
        let renew = self.issued.as_ref().map_or(now, |issued| issued.renew);
        let next = authority
            .stage_ends(now)
            .map_or(renew, |ends| ends.min(renew));
        Ok(until(next, now))
    }

    async fn bind(&mut self, authority: &Authority) -> Result<(), Trouble> {
        let ours = authority.binding.cluster(&self.rules.cluster);
        let ours = ours.map_err(|_| Trouble::LongName)?;
        let bind = Bind::new(&authority.binding, authority.adopted.iter().copied());
        let state = self.node.manager.bind(&bind).await;
        let state = state.map_err(Trouble::of_binding)?;
        if state.cluster != ours.as_str() {
            let theirs = state.cluster;
            return Err(Trouble::Cluster { ours, theirs });
        }
        self.node
            .manager
            .expect(self.rules.cluster.clone(), Some(ours));
        self.bound = Some(authority.id());
        Ok(())
    }

    /// Takes a certificate of this authority as it is now, whatever the manager thinks of it.
    pub(super) fn take_without_binding(
        mut self,
        authority: &Arc<Authority>,
    ) -> Result<(), Trouble> {
        let ours = authority.binding.cluster(&self.rules.cluster);
        let ours = ours.map_err(|_| Trouble::LongName)?;
        self.node
            .manager
            .expect(self.rules.cluster.clone(), Some(ours));
        self.issue(authority, wall::now())
    }

    fn is_due(&self, authority: &Arc<Authority>, now: WallTime) -> bool {
        self.issued.as_ref().is_none_or(|issued| {
            issued.by != *authority
                || issued.stage != authority.stage(now)
                || now >= issued.renew
                // The clock was set back: who has the right time would not take it yet.
                || now < issued.from
        })
    }

    fn issue(&mut self, authority: &Arc<Authority>, now: WallTime) -> Result<(), Trouble> {
        let Leaf {
            credentials,
            from,
            ends,
        } = issue::leaf(authority, now, self.rules.leaf_lifetime)?;
        let stage = authority.stage(now);
        // At two thirds of its life, and up to a tenth before: not everybody at once.
        let life = until(ends, now);
        let [chance, ..] = wall::random().to_le_bytes();
        let early = life * u32::from(chance) / 2_560;
        let renew = earlier(later(now, life * 2 / 3), early);
        tracing::info!(
            authority = %authority.id(),
            signer = authority.signs(now).name,
            stage = stage.said(),
            expires = credentials.expires(),
            "a new certificate is in use"
        );
        let metrics = &self.node.metrics.authority;
        metrics.stage.set(stage as i64);
        let signer_ends = issue::expires(authority.signs(now));
        let seconds = signer_ends.map_or(0, |ends| ends.as_millis() / 1_000);
        metrics
            .expiry
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.node.take_credentials(credentials);
        self.issued = Some(Issued {
            by: Arc::clone(authority),
            stage,
            from,
            renew,
        });
        Ok(())
    }
}
