//! What concerns the pod itself: the authority it is under, its leaving, and the records of all pods.

use std::collections::BTreeMap;

use hyper::header::{HeaderValue, IF_MATCH};
use hyper::{Method, StatusCode};
use peer_table::Key;
use peer_table::contract::{Bind, InvalidMessage, Leave, LeaveAnswer, State};
use peer_table::peers::LABEL_POD_UID;
use prost::Message;
use serde::Deserialize;

use super::{Manager, ManagerError};

/// The most records of pods that are looked at; a cluster with more has to be told otherwise.
pub const POD_RECORDS_MAX: usize = 20_000;
/// Records in one answer. With the largest there are, all of whose characters are escaped, these
/// keep within [`MESSAGE_BYTES_MAX`](peer_table::contract::MESSAGE_BYTES_MAX).
const PAGE_RECORDS: usize = 64;

/// The own record of a pod, whichever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodRecord {
    /// Its `peer_id`.
    pub key: Key,
    /// The UID of the pod, as its label says.
    pub pod_uid: String,
    /// Its version as an entity tag, so that only what was seen is deleted.
    pub etag: String,
}

#[derive(Deserialize)]
struct Page {
    peers: Vec<Listed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    peer_id: String,
    labels: BTreeMap<String, String>,
    version: String,
}

impl Listed {
    fn into_record(mut self) -> Result<PodRecord, InvalidMessage> {
        let key = self.peer_id.parse().map_err(|_| invalid("peer_id"))?;
        let pod_uid = self.labels.remove(LABEL_POD_UID);
        Ok(PodRecord {
            key,
            pod_uid: pod_uid.ok_or_else(|| invalid("labels"))?,
            etag: format!("\"{}\"", self.version),
        })
    }
}

fn invalid(field: &'static str) -> InvalidMessage {
    InvalidMessage::field(field, "is none of a pod's record")
}

impl Manager {
    /// Binds its store to the authority of the cluster; the answer is its state after that. Status
    /// 409 says that it is bound to another one, and that nothing was changed.
    pub async fn bind(&self, bind: &Bind) -> Result<State, ManagerError> {
        let body = bind.encode_to_vec();
        self.ask(Method::POST, "/v1/sync/authority", body).await
    }

    /// Tells it that the pod is going, `for_good` if the pod itself is being deleted. From now on it
    /// takes no write of the application; the answer is whether the pod's own record is deleted.
    pub async fn leave(&self, for_good: bool) -> Result<bool, ManagerError> {
        let body = Leave { for_good }.encode_to_vec();
        let answer: LeaveAnswer = self.ask(Method::POST, "/v1/sync/leave", body).await?;
        Ok(answer.record_deleted)
    }

    /// The records of all pods: those that name one. More than [`POD_RECORDS_MAX`] are an error.
    pub async fn pod_records(&self) -> Result<Vec<PodRecord>, ManagerError> {
        let mut records = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let after_it = after.iter().map(|after| format!("&after={after}"));
            let after_it: String = after_it.collect();
            let path = format!("/v1/peers?label={LABEL_POD_UID}&limit={PAGE_RECORDS}{after_it}");
            let answer = self.call(Method::GET, &path, Vec::new()).await?;
            let page: Page = serde_json::from_slice(&answer)
                .map_err(|error| InvalidMessage::Encoding(error.to_string()))?;
            let found = page.peers.into_iter().map(Listed::into_record);
            records.extend(found.collect::<Result<Vec<_>, _>>()?);
            if records.len() > POD_RECORDS_MAX {
                let problem = format!("are those of more than {POD_RECORDS_MAX} pods");
                return Err(InvalidMessage::field("peers", problem).into());
            }
            let Some(next) = page.next else {
                return Ok(records);
            };
            let next: Key = next.parse().map_err(|_| invalid("next"))?;
            after = Some(next.to_string());
        }
    }

    /// Deletes the record of `key` if it is still the one that `etag` names; `false` if it is not.
    pub async fn delete_record(&self, key: &Key, etag: &str) -> Result<bool, ManagerError> {
        let path = format!("/v1/peers/{key}");
        let mut request = self.url.request(Method::DELETE, &path, Vec::new())?;
        let etag = HeaderValue::from_str(etag).map_err(hyper::http::Error::from)?;
        request.headers_mut().insert(IF_MATCH, etag);
        match self.send(request).await {
            Ok(_) => Ok(true),
            Err(error)
                if error.is_status(StatusCode::PRECONDITION_FAILED)
                    || error.is_status(StatusCode::NOT_FOUND) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
