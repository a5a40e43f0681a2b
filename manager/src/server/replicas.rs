//! `/v1/replicas`: which replicas are known, and what keeps tombstones.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use peer_table::floors::{Floors, HeldBack};
use peer_table::peers::rfc3339;
use peer_table::{OriginId, Reading, StoreId};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::problem::{Fails, Kind, Problem};
use super::query::Query;
use crate::owner::ReplicasView;

/// All replicas that are known here, and what tombstones wait for.
#[derive(Debug, Serialize, ToSchema)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a state of its own that one looks for"
)]
pub(super) struct KnownReplicas {
    /// The replica that tells.
    store: String,
    /// Whether it belongs to a cluster: it is the first of one, or has exchanged with one that
    /// belongs. Until then it takes no pushes.
    belongs: bool,
    /// Deleted records that are still remembered here.
    tombstones: usize,
    /// Every write up to then is here, and so everywhere the tombstones of what was deleted; null
    /// while that is not known.
    #[schema(format = DateTime)]
    floor: Option<String>,
    /// What keeps the first tombstone; null if nothing does, or if there is none.
    #[serde(rename = "heldBack")]
    held_back: Option<Holder>,
    /// Nobody is taken for gone, and no tombstone leaves, as what Kubernetes says of it cannot be
    /// relied on now.
    braked: bool,
    /// Nobody is given up, as more than half of the others are silent.
    #[serde(rename = "massSilence")]
    mass_silence: bool,
    /// This replica and another have given each other up: one of them has to start over.
    mutual: bool,
    /// With whom: the stores of these, or the ids of their openings where that is not known.
    #[serde(rename = "mutualWith")]
    mutual_with: Vec<String>,
    /// Those that may still write.
    replicas: Vec<Replica>,
    /// Openings of stores that write no more and are still remembered.
    fenced: Vec<Fenced>,
}

/// What keeps a tombstone.
#[derive(Debug, Serialize, ToSchema)]
struct Holder {
    /// `stranger`: a pod is listed of which nothing is known; `silent`: it has not published yet;
    /// `set`: it knows other replicas; `since`, `covered`: not all that it has is here; `published`: it
    /// has not said yet that all is there.
    reason: &'static str,
    /// The store of that replica, or the id of its opening where that is not known; null if it is
    /// none.
    replica: Option<String>,
}

/// One replica.
#[derive(Debug, Serialize, ToSchema)]
struct Replica {
    /// Its store; null while only writes of it are known.
    store: Option<String>,
    /// The current opening of that.
    origin: String,
    /// The record of its pod.
    peer_id: Option<String>,
    /// Whether its store outlives the pod: `pod` or `volume`.
    storage: Option<&'static str>,
    /// Whether it is the replica that tells.
    own: bool,
    /// What it published as its floor; null if none.
    #[schema(format = DateTime)]
    floor: Option<String>,
    /// When it last published.
    #[serde(rename = "publishedAt")]
    #[schema(format = DateTime)]
    published_at: Option<String>,
    /// All that it wrote up to then is here; null if nothing is known of that.
    #[serde(rename = "coveredUpTo")]
    #[schema(format = DateTime)]
    covered_up_to: Option<String>,
    /// When it was last heard of.
    #[serde(rename = "heardAt")]
    #[schema(format = DateTime)]
    heard_at: Option<String>,
}

/// An opening of a store that writes no more.
#[derive(Debug, Serialize, ToSchema)]
struct Fenced {
    /// The opening.
    origin: String,
    /// `ended`: its store was opened anew, or went with its pod; `given_up`: it was silent for too
    /// long.
    reason: &'static str,
    /// Since when.
    #[schema(format = DateTime)]
    since: Option<String>,
}

/// Which store is meant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplicaStore {
    /// Its id.
    store: String,
}

fn time(reading: Reading) -> Option<String> {
    (reading > Reading::default()).then(|| rfc3339(reading.wall()))
}

impl Replica {
    fn of(floors: &Floors, id: OriginId, own: StoreId) -> Self {
        let publication = floors.publication(id);
        let is_own = id == floors.own();
        let store = publication.map(|it| it.store).or(is_own.then_some(own));
        let covered = floors.vector().of(id).covered;
        Self {
            store: store.map(|store| store.to_string()),
            origin: id.to_string(),
            peer_id: publication
                .and_then(|it| it.peer_id.as_ref())
                .map(ToString::to_string),
            storage: publication.map(|it| it.storage.word()),
            own: is_own,
            floor: publication.and_then(|it| time(it.floor)),
            published_at: publication.and_then(|it| time(it.at)),
            covered_up_to: time(covered).filter(|_| !is_own),
            heard_at: floors.time_of(id).filter(|_| !is_own).map(rfc3339),
        }
    }
}

impl From<ReplicasView> for KnownReplicas {
    fn from(view: ReplicasView) -> Self {
        let ReplicasView {
            floors,
            tending,
            mutual,
            tombstones,
            held_back,
            opening,
        } = view;
        let named = |id: OriginId| match floors.whose(id) {
            Some(whose) => whose.store.to_string(),
            None => id.to_string(),
        };
        let holder = |held_back: HeldBack| Holder {
            reason: held_back.word(),
            replica: held_back.by().map(named),
        };
        let own = floors.publication(floors.own());
        Self {
            store: opening.store.to_string(),
            belongs: floors.has_met(),
            tombstones,
            floor: own.and_then(|own| time(own.floor)),
            held_back: held_back.map(holder),
            braked: tending.is_braked,
            mass_silence: tending.is_mass_silence,
            mutual: !mutual.is_empty(),
            mutual_with: mutual.into_iter().map(named).collect(),
            replicas: floors
                .ids()
                .unfenced()
                .map(|id| Replica::of(&floors, id, opening.store))
                .collect(),
            fenced: floors
                .ids()
                .fenced()
                .map(|(id, fence)| Fenced {
                    origin: id.to_string(),
                    reason: fence.word(),
                    since: floors.time_of(id).map(rfc3339),
                })
                .collect(),
        }
    }
}

/// List the replicas that are known, and what tombstones wait for.
#[utoipa::path(
    get, path = "/v1/replicas", tag = "replicas", operation_id = "listReplicas",
    responses(
        (status = 200, description = "What is known.", body = KnownReplicas),
        Fails<400>,
    ),
)]
pub(super) async fn list(State(app): State<Arc<App>>, Query(()): Query<()>) -> Json<KnownReplicas> {
    Json(app.owner.replicas().into())
}

/// Give up a replica that will not come back.
///
/// Tombstones wait for it no longer. If it does come back, its store starts over: what only it had is
/// lost.
#[utoipa::path(
    post, path = "/v1/replicas/{store}/give-up", tag = "replicas", operation_id = "giveUpReplica",
    params(("store" = String, Path, description = "The id of its store; of one whose store is not known, its `origin`.")),
    responses(
        (status = 200, description = "It is given up.", body = ReplicaStore),
        Fails<400>, Fails<404>, Fails<503>,
    ),
)]
pub(super) async fn give_up(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    Query(()): Query<()>,
) -> Result<Json<ReplicaStore>, Problem> {
    let unknown = || {
        let detail = format!(
            "no other replica {text} may write: GET /v1/replicas lists those that may, and an own store is \
             emptied with start-over"
        );
        Problem::new(Kind::NO_SUCH_REPLICA, detail).about("store")
    };
    let store: StoreId = text.parse().map_err(|_| unknown())?;
    app.owner.give_up(store).await?.ok_or_else(unknown)?;
    let store = store.to_string();
    Ok(Json(ReplicaStore { store }))
}

/// Start over with an empty table, which the peers fill.
///
/// What only this replica has is lost. The answer is the new id of its store.
#[utoipa::path(
    post, path = "/v1/replicas/start-over", tag = "replicas", operation_id = "startOver",
    responses(
        (status = 200, description = "It has started over.", body = ReplicaStore),
        Fails<400>, Fails<503>,
    ),
)]
pub(super) async fn start_over(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
) -> Result<Json<ReplicaStore>, Problem> {
    let store = app.owner.start_over().await?.to_string();
    Ok(Json(ReplicaStore { store }))
}
