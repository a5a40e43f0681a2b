//! This pod's own record, as it is made at each start and kept while the pod runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peer_table::peers::{Draft, InvalidField, Peer};
use peer_table::table::{Match, Precondition};
use peer_table::{Contact, Entry, Version};

use crate::config::IdentityArgs;
use tokio::time::{Instant, sleep};
use udht_tell::chain;

use crate::owner::{Operation, Owner, OwnerError, Write, WriteError};

/// How often an own record that the table did not take is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long the peers have to bring the own record back after the store was opened anew.
const RETURNS_WITHIN: Duration = Duration::from_secs(15);
/// How long an own record that somebody else has changed or deleted is left so, at first and at the
/// most: two pods that both take it for theirs must not fight without a pause.
const RESTORE_PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];
/// After so long without such a change the pause is the first again.
const CALM: Duration = Duration::from_mins(5);

/// What became of the own record at a start.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Settled {
    /// There is none, and without an address none can be made.
    Missing,
    /// It says what it should already.
    Kept,
    /// It was written.
    Written,
}

/// The own record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// What it would say is no record: the flags are wrong.
    #[error(
        "this pod's own record cannot be made of --peer-name, --peer-ip, --peer-port and --peer-label"
    )]
    Invalid(#[source] InvalidField),
    /// The table does not take it now.
    #[error("this pod's own record could not be written")]
    Refused(#[source] WriteError),
    /// The owner cannot do anything now.
    #[error("this pod's own record could not be written")]
    Owner(#[from] OwnerError),
}

/// Keeps the own record as it should be, until nothing can be kept any more: the owner ends, or the
/// pod leaves. `is_settled` is whether the table has it.
///
/// It is written again when it was not taken, when the store was opened anew and the peers did not
/// bring it back, and when somebody else has deleted or replaced it: peers that took this pod for
/// gone, or an earlier opening of this store. What the application beside this manager writes or
/// deletes is its own affair; a deletion holds until the next start.
pub async fn keep(owner: Owner, args: IdentityArgs, mut is_settled: bool) {
    let mut revisions = owner.subscribe();
    let mut origin = owner.origin();
    let mut seen = owner.own_version().map(|(version, ..)| version);
    let mut latest = own_draft(&owner).await;
    let mut pauses = Pauses::default();
    loop {
        if !is_settled {
            sleep(RETRY_PAUSE).await;
            is_settled = is_done(settle(&owner, &args, latest.as_ref()).await).unwrap_or(true);
            continue;
        }
        if revisions.changed().await.is_err() || owner.is_leaving() {
            return;
        }
        if owner.origin() != origin {
            origin = owner.origin();
            sleep(RETURNS_WITHIN).await;
            is_settled = false;
            continue;
        }
        match news(&owner, &mut seen) {
            News::None => {}
            News::Own => latest = own_draft(&owner).await,
            // What was never said here is not said again.
            News::Foreign if latest.is_none() => {}
            News::Foreign => {
                tracing::warn!(
                    "somebody else has changed this pod's own record: it is written again"
                );
                sleep(pauses.next(Instant::now())).await;
                is_settled = owner.is_leaving()
                    || is_done(settle(&owner, &args, latest.as_ref()).await).unwrap_or(true);
            }
        }
    }
}

/// Who wrote the own record last.
enum News {
    /// It is as it was.
    None,
    /// This opening of the store did.
    Own,
    /// Somebody else did.
    Foreign,
}

fn news(owner: &Owner, seen: &mut Option<Version>) -> News {
    match owner.own_version() {
        Some((version, ..)) if *seen == Some(version) => News::None,
        Some((version, _, is_own)) => {
            *seen = Some(version);
            if is_own { News::Own } else { News::Foreign }
        }
        None => News::None,
    }
}

/// Pauses that double from one to the next, and begin anew after a calm.
#[derive(Default)]
struct Pauses(Option<(Instant, Duration)>);

impl Pauses {
    fn next(&mut self, now: Instant) -> Duration {
        let [first, longest] = RESTORE_PAUSE;
        let pause = match self.0 {
            Some((last, pause)) if now.duration_since(last) < CALM => (pause * 2).min(longest),
            _ => first,
        };
        self.0 = Some((now, pause));
        pause
    }
}

/// What the own record says, if there is one.
async fn own_draft(owner: &Owner) -> Option<Draft> {
    let key = owner.own_key();
    let entry = owner.get(&key).await.ok().flatten()?;
    let peer = Peer::from_entry(&key, &entry).ok().flatten()?;
    Some(draft_of(&peer))
}

/// Whether nothing is left to do about the own record, which is said in the log.
pub fn is_done(result: Result<Settled, IdentityError>) -> Result<bool, IdentityError> {
    match result {
        Ok(Settled::Kept) => {}
        Ok(Settled::Written) => tracing::info!("wrote this pod's own record"),
        Ok(Settled::Missing) => {
            tracing::info!(
                "this pod has no record of its own: give --peer-ip, or PUT /v1/identity"
            );
        }
        Err(invalid @ IdentityError::Invalid(_)) => return Err(invalid),
        Err(IdentityError::Refused(error)) => {
            tracing::warn!(
                error = chain(&error),
                "this pod's own record was not written; it is tried again"
            );
            return Ok(false);
        }
        Err(IdentityError::Owner(error)) => {
            tracing::warn!(
                error = chain(&error),
                "this pod's own record was not written; it is tried again"
            );
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the own record, if there is none or if it says otherwise than it should. What `args` does
/// not name is as this opening of the store wrote it last; as in `latest`, if that is given and
/// somebody else has written or deleted it since; else as it is.
pub async fn settle(
    owner: &Owner,
    args: &IdentityArgs,
    latest: Option<&Draft>,
) -> Result<Settled, IdentityError> {
    let key = &owner.own_key();
    let held = owner.get(key).await?;
    let peer = held
        .as_ref()
        .and_then(|entry| Peer::from_entry(key, entry).ok().flatten());
    let is_own = |entry: &Entry| entry.version.origin == owner.origin();
    let latest = latest.filter(|_| !held.as_ref().is_some_and(is_own));
    let before = latest.cloned().or_else(|| peer.as_ref().map(draft_of));
    given_once(args).map_err(IdentityError::Invalid)?;
    let Some(wanted) = wanted(args, before, owner.own_labels()) else {
        return Ok(Settled::Missing);
    };
    wanted.check().map_err(IdentityError::Invalid)?;
    if peer.is_some_and(|peer| draft_of(&peer) == wanted) {
        return Ok(Settled::Kept);
    }
    let precondition = held.map_or_else(Precondition::absent, |held| Precondition {
        if_match: Some(Match::Versions(vec![held.version])),
        if_none_match: None,
    });
    let write = Write {
        key: key.clone(),
        precondition,
        operation: Operation::Put(wanted),
    };
    match owner.write(write).await? {
        Ok(_) => Ok(Settled::Written),
        Err(WriteError::Invalid(invalid)) => Err(IdentityError::Invalid(invalid)),
        Err(refused) => Err(IdentityError::Refused(refused)),
    }
}

/// Whether each purpose and each label is given once at the most.
fn given_once(args: &IdentityArgs) -> Result<(), InvalidField> {
    let twice = |field: &str, given: &str| InvalidField {
        field: field.to_owned(),
        detail: format!("{given} is given twice"),
    };
    let mut purposes = BTreeSet::new();
    let mut ports = args.peer_port.iter().map(|it| &it.purpose);
    if let Some(purpose) = ports.find(|it| !purposes.insert(*it)) {
        return Err(twice("--peer-port", purpose));
    }
    let mut keys = BTreeSet::new();
    let mut labels = args.peer_label.iter().map(|it| &it.key);
    match labels.find(|it| !keys.insert(*it)) {
        Some(key) => Err(twice("--peer-label", key)),
        None => Ok(()),
    }
}

/// What the record should say that said `before`; `None` if there was none and there is no address
/// to make one of. `of_pod` are the labels that say which pod it is.
fn wanted(
    args: &IdentityArgs,
    before: Option<Draft>,
    of_pod: &BTreeMap<String, String>,
) -> Option<Draft> {
    let IdentityArgs {
        peer_name,
        peer_ip,
        peer_port,
        peer_label,
    } = args;
    let mut draft = match (before, peer_ip) {
        (Some(before), _) => before,
        (None, Some(ip)) => Draft {
            name: host_name(),
            ip: *ip,
            ports: [].into(),
            labels: [].into(),
            contact: Contact::NEVER,
        },
        (None, None) => return None,
    };
    if let Some(name) = peer_name {
        draft.name.clone_from(name);
    }
    if let Some(ip) = peer_ip {
        draft.ip = *ip;
    }
    let ports = peer_port.iter().map(|it| (it.purpose.clone(), it.port));
    draft.ports.extend(ports);
    let labels = peer_label
        .iter()
        .map(|it| (it.key.clone(), it.value.clone()));
    draft.labels.extend(labels);
    draft.labels.extend(of_pod.clone());
    Some(draft)
}

fn draft_of(peer: &Peer) -> Draft {
    Draft {
        name: peer.name.clone(),
        ip: peer.ip,
        ports: peer.ports.clone(),
        labels: peer.labels.clone(),
        contact: Contact::NEVER,
    }
}

/// The name of this machine, which in a pod is the pod's.
pub(crate) fn host_name() -> String {
    let of_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = of_kernel.or_else(|_| std::env::var("HOSTNAME"));
    match name.as_deref().map(str::trim) {
        Ok(name) if !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}
