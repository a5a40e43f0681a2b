//! Alarms of a whole sync that only peers of the tests can bring about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use peer_exchange::handshake::PROTOCOLS;
use peer_exchange::respond::respond;
use peer_exchange::{Address, Own};
use peer_table::contract::{
    Advance, AlarmKind, Batch, FingerprintPage, MergeAnswer, Records, State, StateRequest,
};
use peer_table::feed::Via;
use peer_table::floors::Replicas;
use peer_table::{Fingerprint, StoreId, TableName, WallTime};
use tokio::net::TcpListener;
use udht_sync::manager::{Manager, ManagerError};
use udht_sync::node::Node;
use udht_sync::transport::EXCHANGE_PATH;

use crate::pod::{Pod, soon, start_default};

/// A manager on a machine whose clock is ahead.
#[derive(Clone)]
struct Ahead {
    manager: Manager,
    seconds: Arc<AtomicU64>,
}

impl Own for Ahead {
    type Error = ManagerError;

    async fn state(&self, request: &StateRequest) -> Result<State, ManagerError> {
        self.manager.state(request).await
    }

    async fn replicas(&self, theirs: &Replicas) -> Result<Replicas, ManagerError> {
        self.manager.replicas(theirs).await
    }

    async fn advance(&self, advance: &Advance) -> Result<bool, ManagerError> {
        self.manager.advance(advance).await
    }

    async fn fingerprints(
        &self,
        table: &TableName,
        from: Fingerprint,
        limit: usize,
    ) -> Result<FingerprintPage, ManagerError> {
        self.manager.fingerprints(table, from, limit).await
    }

    async fn records(
        &self,
        table: &TableName,
        fingerprints: &[Fingerprint],
    ) -> Result<Records, ManagerError> {
        self.manager.records(table, fingerprints).await
    }

    async fn merge(
        &self,
        batch: Batch,
        via: Via,
        from: StoreId,
        session: Option<u64>,
    ) -> Result<MergeAnswer, ManagerError> {
        self.manager.merge(batch, via, from, session).await
    }

    fn now(&self) -> WallTime {
        let seconds = self.seconds.load(Ordering::Relaxed);
        self.manager.now().plus(Duration::from_secs(seconds))
    }
}

/// Has a pod answer at another address too, there with a clock that is ahead.
async fn with_clock_ahead(pod: &Pod, seconds: &Arc<AtomicU64>) -> Address {
    let ahead = Ahead {
        manager: pod.sync.node.manager.clone(),
        seconds: Arc::clone(seconds),
    };
    let answer = move |body: Bytes| {
        let ahead = ahead.clone();
        async move { respond(&ahead, &body, PROTOCOLS).await.response }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = Router::new().route(EXCHANGE_PATH, post(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address.parse().unwrap()
}

/// Waits until a sync has this alarm, or has it no more.
pub(crate) async fn alarm(node: &Node, alarm: AlarmKind, stands: bool) {
    let is_so = async {
        while node.telling.alarms().iter().any(|it| it.alarm == alarm) != stands {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(alarm.word(), is_so).await;
}

#[tokio::test]
async fn a_clock_that_most_others_contradict_is_an_alarm_until_it_is_set_right() {
    let [a, b, c] = start_default().await;
    let seconds = Arc::new(AtomicU64::new(0));
    let others = [
        with_clock_ahead(&b, &seconds).await,
        with_clock_ahead(&c, &seconds).await,
    ];
    let node = &a.sync.node;
    node.book().replace(others.clone());
    for (ahead, is_wrong) in [(0, false), (3_600, true), (0, false)] {
        seconds.store(ahead, Ordering::Relaxed);
        for other in &others {
            node.exchange(other).await.unwrap();
        }
        alarm(node, AlarmKind::ClockOutlier, is_wrong).await;
        let figure = a
            .sync
            .metric("udht_sync_alarm{alarm=\"clock_outlier\"}")
            .await;
        assert_eq!(figure, u64::from(is_wrong));
    }
}
