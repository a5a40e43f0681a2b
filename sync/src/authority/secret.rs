//! The Secret of the authority in the Kubernetes API. It is asked for by its name alone: get, update
//! and watch are all that a sync may do, and of this one Secret.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use hyper::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};

use super::state::{Authority, SECRET_KEY};
use super::trouble::Trouble;
use crate::config::KubernetesArgs;
use crate::kubernetes::client::{ApiBounds, ApiError, within};

/// The most names of keys of a foreign Secret that are repeated.
const KEYS_SHOWN_MAX: usize = 5;

/// Where the authority of a release is kept.
#[derive(Clone)]
pub struct AuthoritySecret {
    api: Api<Secret>,
    namespace: String,
    name: String,
    bounds: ApiBounds,
}

impl fmt::Debug for AuthoritySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthoritySecret({self})")
    }
}

impl fmt::Display for AuthoritySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What became of a change.
pub enum Replaced {
    /// The Secret is so now.
    Done(Box<Secret>),
    /// Somebody else has changed it since it was read: nothing was done.
    Conflict,
}

/// What is heard of the Secret.
pub enum Heard {
    /// It has changed, and is this now.
    Changed(Box<Secret>),
    /// It is there no more.
    Deleted,
}

// What is in the Secret is nobody's business.
impl fmt::Debug for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done(_) => "Done",
            Self::Conflict => "Conflict",
        })
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed(_) => "Changed",
            Self::Deleted => "Deleted",
        })
    }
}

impl AuthoritySecret {
    /// The one that the flags name.
    pub fn new(client: Client, args: &KubernetesArgs, bounds: ApiBounds) -> Self {
        Self {
            api: Api::namespaced(client, &args.namespace),
            namespace: args.namespace.clone(),
            name: args.authority_secret.clone(),
            bounds,
        }
    }

    /// What bounds each request.
    pub const fn bounds(&self) -> &ApiBounds {
        &self.bounds
    }

    fn trouble(&self, error: ApiError) -> Trouble {
        let secret = self.to_string();
        if error.is_status(StatusCode::NOT_FOUND) {
            Trouble::Missing { secret }
        } else if error.is_status(StatusCode::FORBIDDEN) {
            Trouble::Forbidden {
                secret,
                source: error,
            }
        } else {
            Trouble::Api(error)
        }
    }

    /// Reads it.
    pub async fn get(&self) -> Result<Box<Secret>, Trouble> {
        within(self.bounds.whole, self.api.get(&self.name))
            .await
            .map(Box::new)
            .map_err(|error| self.trouble(error))
    }

    /// Puts this authority into what was read, if nobody has changed it since.
    pub async fn replace(&self, read: &Secret, with: &Authority) -> Result<Replaced, Trouble> {
        let mut new = read.clone();
        // Without it there would be no precondition.
        if new.metadata.resource_version.is_none() {
            return Ok(Replaced::Conflict);
        }
        let data = new.data.get_or_insert_default();
        data.insert(SECRET_KEY.to_owned(), ByteString(with.to_bytes()));
        let params = PostParams::default();
        let replace = self.api.replace(&self.name, &params, &new);
        match within(self.bounds.whole, replace).await {
            Ok(now) => Ok(Replaced::Done(Box::new(now))),
            Err(error) if error.is_status(StatusCode::CONFLICT) => Ok(Replaced::Conflict),
            Err(error) => Err(self.trouble(error)),
        }
    }

    /// What becomes of it from the version of `read` on, for `time` at the most. The stream ends with
    /// the time, and whenever the API server would rather have it read anew.
    pub async fn watch(
        &self,
        read: &Secret,
        time: Duration,
    ) -> Result<impl Stream<Item = Result<Heard, Trouble>> + use<'_>, Trouble> {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
        // By this the API server knows that it is this one Secret, for its role too.
        let params = WatchParams::default()
            .fields(&format!("metadata.name={}", self.name))
            .timeout(seconds);
        let version = read.metadata.resource_version.as_deref().unwrap_or("0");
        let watch = self.api.watch(&params, version);
        let events = within(self.bounds.whole, watch).await;
        let events = events.map_err(|error| self.trouble(error))?;
        let events = events.take_while(|event| {
            // The version is too old by now. That is no trouble.
            let gone = StatusCode::GONE.as_u16();
            let goes_on = !matches!(event, Ok(WatchEvent::Error(status)) if status.code == gone);
            std::future::ready(goes_on)
        });
        Ok(events.filter_map(|event| {
            std::future::ready(match event {
                Ok(WatchEvent::Added(secret) | WatchEvent::Modified(secret)) => {
                    Some(Ok(Heard::Changed(Box::new(secret))))
                }
                Ok(WatchEvent::Deleted(_)) => Some(Ok(Heard::Deleted)),
                Ok(WatchEvent::Bookmark(_)) => None,
                Ok(WatchEvent::Error(status)) => Some(Err(self.trouble(ApiError::Refused(status)))),
                Err(error) => Some(Err(self.trouble(error.into()))),
            })
        }))
    }
}

/// The authority in a Secret; none if the Secret is empty, and an error if something else is in it.
pub fn content(secret: &Secret) -> Result<Option<Authority>, Trouble> {
    let none = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&none);
    match data.get(SECRET_KEY) {
        // What was emptied by hand has the key still.
        Some(ByteString(bytes)) if !bytes.is_empty() => Ok(Some(Authority::from_bytes(bytes)?)),
        Some(_) if data.len() == 1 => Ok(None),
        None if data.is_empty() => Ok(None),
        _ => {
            let keys: Vec<_> = data
                .keys()
                .take(KEYS_SHOWN_MAX)
                .map(String::as_str)
                .collect();
            let keys = keys.join(", ");
            Err(Trouble::Foreign { keys })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_of_the_secret_is_shown_without_what_is_in_it() {
        let data = [("authority".to_owned(), "planted".to_owned())].into();
        let secret = Box::new(Secret {
            string_data: Some(data),
            ..Secret::default()
        });
        let shown = format!(
            "{:?} {:?}",
            Heard::Changed(secret.clone()),
            Replaced::Done(secret)
        );
        assert_eq!(shown, "Changed Done");
    }
}
