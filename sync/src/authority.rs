//! `--tls auto`: the release's own authority, which lies in a Secret, and the certificates that each
//! sync issues itself from it.
//!
//! The [`state`] is what the Secret says, and how that may change; [`issue`] makes keys and
//! certificates; [`secret`] is the way to the Kubernetes API. Beside a running sync [`follow`] keeps
//! up with the Secret, and [`hold`] binds the manager's table to the authority and keeps this sync's
//! certificate fresh. [`verbs`] is what people do about it.

pub mod follow;
pub mod hold;
pub mod issue;
pub mod secret;
pub mod state;
pub mod trouble;
pub mod verbs;

use std::sync::Arc;
use std::time::Duration;

use peer_table::ClusterId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::follow::Following;
use self::hold::Holding;
use self::secret::AuthoritySecret;
use self::state::{Authority, Overlap};
use self::trouble::{Trouble, Troubles};
use crate::config::{AuthorityArgs, EndsArgs};
use crate::node::Node;

/// How long the certificate of a signer lasts. Its end is no means of security: whoever should be
/// believed no more is rotated away. So it is long enough that a cluster which was switched off for
/// years still finds its authority.
pub const SIGNER_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// What is left of it when a sync begins a rotation by itself: a third.
pub const SIGNER_LEFT: Duration = Duration::from_hours(10 * 365 * 24 / 3);

/// What is decided by flags.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The cluster's id, without the authority's UUID.
    pub cluster: ClusterId,
    /// How long a certificate of a sync lasts.
    pub leaf_lifetime: Duration,
    /// For how long a new signer is believed before it signs.
    pub rotation_overlap: Duration,
}

impl Rules {
    /// Those that the flags say.
    pub fn new(ends: &EndsArgs) -> Self {
        let AuthorityArgs {
            leaf_lifetime,
            rotation_overlap,
        } = ends.authority;
        Self {
            cluster: ends.cluster.clone(),
            leaf_lifetime,
            rotation_overlap,
        }
    }

    /// How long the parts of a rotation take.
    pub const fn overlap(&self) -> Overlap {
        Overlap {
            notice: self.rotation_overlap,
            leaf_lifetime: self.leaf_lifetime,
        }
    }
}

/// Follows the Secret, and keeps this sync in certificates, until `stop`.
pub async fn run(node: Arc<Node>, secret: AuthoritySecret, rules: Rules, stop: CancellationToken) {
    let held = watch::Sender::new(None);
    let known = held.subscribe();
    let following = Following::new(&node, &secret, &rules, held);
    let holding = Holding::new(&node, &rules, known);
    stop.run_until_cancelled(async {
        tokio::join!(Box::pin(following.follow()), Box::pin(holding.hold()));
    })
    .await;
}

/// Takes the authority as it is in the Secret now, for one exchange by hand. Nothing is written, and
/// the manager's table must be bound to it already.
pub async fn take_once(
    node: &Node,
    secret: &AuthoritySecret,
    rules: &Rules,
) -> Result<Arc<Authority>, Trouble> {
    let kept = secret.get().await?;
    let authority = secret::content(&kept)?.ok_or_else(|| Trouble::Empty {
        secret: secret.to_string(),
    })?;
    let authority = Arc::new(authority);
    let troubles = Troubles::new(node.metrics.authority.clone());
    let holding = Holding::with(node, rules, troubles);
    holding.take_without_binding(&authority)?;
    Ok(authority)
}
