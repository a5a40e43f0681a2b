//! `/v1/peers/{id}/explain`: why a record is as it is, and where a write went.

mod reasons;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use peer_table::feed::Via;
use peer_table::floors::{Fence, Whose};
use peer_table::history::{History, Lost, Refused, Stamped, Way};
use peer_table::peers::rfc3339;
use peer_table::{Key, StoreId, Version};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::peers::{Id, IdParams};
use super::problem::{Fails, Problem};
use super::query::Query;
use crate::owner::{Explanation, Since};

/// Why a record is as it is: what is held, how it came, what lost to it, and what was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Explained {
    /// Which peer.
    peer_id: String,
    /// Whether there is a record.
    state: Standing,
    /// The version that is held, of a deletion too; null if nothing is known of the peer.
    version: Option<String>,
    /// When that was written, by the clock of who wrote it.
    #[serde(rename = "writtenAt")]
    #[schema(format = DateTime)]
    written_at: Option<String>,
    /// When the peer was last seen; null if never.
    #[serde(rename = "lastConnectionOn")]
    #[schema(format = DateTime)]
    last_connection_on: Option<String>,
    /// Who wrote that version.
    origin: Option<Origin>,
    /// How that version came here; null if that is no longer remembered.
    arrival: Option<Arrival>,
    /// Versions that lost, the newest first: 8 at the most.
    #[schema(max_items = 8)]
    lost: Vec<Loser>,
    /// What was not let in, and writes that were not done, the newest first: 8 at the most.
    #[schema(max_items = 8)]
    refused: Vec<Refusal>,
    /// What can be told at all.
    remembers: Remembers,
}

/// Whether there is a record.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Standing {
    /// There is.
    Live,
    /// It was deleted, and that is still remembered.
    Deleted,
    /// Nothing is held; something came, and lost or was refused.
    Unknown,
}

/// A replica, as of one opening of its store.
#[derive(Debug, Serialize, ToSchema)]
struct Origin {
    /// The opening: the second half of a version.
    id: String,
    /// Its store; null if that never published here.
    store: Option<String>,
    /// The record of its pod; null if that is not known.
    peer_id: Option<String>,
    /// The name in that record; null if there is none here.
    name: Option<String>,
    /// Whether it is the replica that tells.
    own: bool,
    /// Why it writes no more: `ended`: its store was opened anew, or went with its pod; `given_up`: it
    /// was silent for too long. Null if it may still write.
    #[schema(value_type = Option<FenceWord>)]
    fenced: Option<&'static str>,
}

/// Why an opening of a store writes no more.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(
    dead_code,
    reason = "Fence::word is sent; this says so in the document"
)]
enum FenceWord {
    Ended,
    GivenUp,
}

/// The replica that sent something.
#[derive(Debug, Serialize, ToSchema)]
struct Sender {
    /// Its store.
    store: String,
    /// The record of its pod; null if that is not known.
    peer_id: Option<String>,
    /// The name in that record; null if there is none here.
    name: Option<String>,
}

/// By what something came.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Came {
    /// It was written here.
    Write,
    /// A peer sent it at once.
    Push,
    /// An exchange with a peer found it.
    Exchange,
    /// It was in the store already, or how it came is no longer remembered.
    Store,
}

/// How what is held came here.
#[derive(Debug, Serialize, ToSchema)]
struct Arrival {
    /// When, by this machine's clock; what was in the store, when the table was read from it.
    #[schema(format = DateTime)]
    at: String,
    /// By what.
    via: Came,
    /// Who sent it, which need not be who wrote it: pushes are passed on.
    from: Option<Sender>,
}

/// A version that lost.
#[derive(Debug, Serialize, ToSchema)]
struct Loser {
    /// It.
    version: String,
    /// When it was written, by the clock of who wrote it.
    #[serde(rename = "writtenAt")]
    #[schema(format = DateTime)]
    written_at: String,
    /// Who wrote it.
    origin: Origin,
    /// Whether it was a deletion.
    deletion: bool,
    /// When it lost, by this machine's clock; the last time if it came more often.
    #[schema(format = DateTime)]
    at: String,
    /// By what it had come.
    via: Came,
    /// Who sent it.
    from: Option<Sender>,
    /// Why it lost, in a word.
    #[schema(example = "overwritten")]
    reason: &'static str,
    /// What that means and what to do, in a sentence or two.
    text: String,
    /// How often it lost so.
    times: u32,
}

/// What was not let in, or a write that was not done.
#[derive(Debug, Serialize, ToSchema)]
struct Refusal {
    /// Its version; null for a write of this pod.
    version: Option<String>,
    /// Who wrote it; null for a write of this pod.
    origin: Option<Origin>,
    /// When, by this machine's clock; the last time if it came more often.
    #[schema(format = DateTime)]
    at: String,
    /// By what it came.
    via: Came,
    /// Who sent it.
    from: Option<Sender>,
    /// Why it was refused, in a word.
    #[schema(example = "version_ahead")]
    reason: &'static str,
    /// What that means and what to do, in a sentence or two.
    text: String,
    /// How often it was refused so.
    times: u32,
}

/// What can be told at all.
#[derive(Debug, Serialize, ToSchema)]
struct Remembers {
    /// Since when: this manager's start.
    #[schema(format = DateTime)]
    since: String,
    /// Of how many peers, those for which something came last.
    keys: usize,
}

impl Explained {
    fn of(key: &Key, known: &Explanation) -> Self {
        let held = known.held.map(|(held, _)| held);
        let contact = known.held.and_then(|(_, contact)| contact.time());
        let version = held.map(|it| it.version);
        Self {
            peer_id: key.to_string(),
            state: match held {
                Some(Stamped { is_live: true, .. }) => Standing::Live,
                Some(_) => Standing::Deleted,
                None => Standing::Unknown,
            },
            version: version.map(|it| it.to_string()),
            written_at: version.map(written_at),
            last_connection_on: contact.map(rfc3339),
            origin: version.map(|it| origin(it, known)),
            arrival: known.since.map(|since| arrival(since, known)),
            lost: {
                let lost = known.remembered.lost.iter();
                lost.rev().map(|it| loser(it, known)).collect()
            },
            refused: {
                let refused = known.remembered.refused.iter();
                refused.rev().map(|it| refusal(it, known)).collect()
            },
            remembers: Remembers {
                since: rfc3339(known.remembers_since),
                keys: History::KEYS_MAX,
            },
        }
    }
}

fn written_at(version: Version) -> String {
    rfc3339(version.reading.wall())
}

/// The `peer_id` of a pod, and the name in its record.
fn pod(peer_id: Option<&Key>, known: &Explanation) -> (Option<String>, Option<String>) {
    let name = peer_id.and_then(|it| known.names.get(it)).cloned();
    (peer_id.map(ToString::to_string), name)
}

fn origin(version: Version, known: &Explanation) -> Origin {
    let seen = known.origins.get(&version.origin);
    let whose = seen.and_then(|it| it.whose.as_ref());
    let (peer_id, name) = pod(whose.and_then(|it| it.peer_id.as_ref()), known);
    Origin {
        id: version.origin.to_string(),
        store: whose.map(|Whose { store, .. }| store.to_string()),
        peer_id,
        name,
        own: seen.is_some_and(|it| it.is_own),
        fenced: seen.and_then(|it| it.fence).map(Fence::word),
    }
}

fn sender(store: StoreId, known: &Explanation) -> Sender {
    let (peer_id, name) = pod(known.pods.get(&store), known);
    Sender {
        store: store.to_string(),
        peer_id,
        name,
    }
}

/// By what, and from whom.
fn came(way: Option<Way>, known: &Explanation) -> (Came, Option<Sender>) {
    let Some(Way { via, from }) = way else {
        return (Came::Store, None);
    };
    let came = match via {
        Via::Local => Came::Write,
        Via::Push => Came::Push,
        Via::Exchange => Came::Exchange,
    };
    (came, from.map(|store| sender(store, known)))
}

fn arrival(since: Since, known: &Explanation) -> Arrival {
    let (at, way) = match since {
        Since::Came(way, at) => (at, Some(way)),
        Since::Store(at) => (at, None),
    };
    let (via, from) = came(way, known);
    let at = rfc3339(at);
    Arrival { at, via, from }
}

fn loser(lost: &Lost, known: &Explanation) -> Loser {
    let Lost {
        lost: Stamped { version, is_live },
        at,
        way,
        loss,
        times,
    } = *lost;
    let (via, from) = came(way, known);
    Loser {
        version: version.to_string(),
        written_at: written_at(version),
        origin: origin(version, known),
        deletion: !is_live,
        at: rfc3339(at),
        via,
        from,
        reason: loss.word(),
        text: reasons::of_loss(loss).to_owned(),
        times,
    }
}

fn refusal(refused: &Refused, known: &Explanation) -> Refusal {
    let Refused {
        version,
        at,
        way,
        refusal,
        times,
    } = *refused;
    let (via, from) = came(Some(way), known);
    Refusal {
        version: version.map(|it| it.to_string()),
        origin: version.map(|it| origin(it, known)),
        at: rfc3339(at),
        via,
        from,
        reason: refusal.word(),
        text: reasons::of_refusal(refusal, version, at),
        times,
    }
}

/// Explain why a peer's record is as it is, and where a write of it went.
///
/// Also of a deleted one, as long as that is remembered, and of one that is unknown here if something
/// of it was refused. What came before this manager started is told as far as its version tells it.
#[utoipa::path(
    get, path = "/v1/peers/{peer_id}/explain", tag = "peers", operation_id = "explainPeer",
    params(IdParams),
    responses(
        (status = 200, description = "What is known of it.", body = Explained),
        Fails<400>, Fails<404>,
    ),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Id(key): Id,
    Query(()): Query<()>,
) -> Result<Json<Explained>, Problem> {
    let known = app.owner.explain(&key).await;
    if known.is_empty() {
        return Err(Problem::never_seen(&key));
    }
    Ok(Json(Explained::of(&key, &known)))
}
