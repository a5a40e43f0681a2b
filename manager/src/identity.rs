//! This pod's own record, as it is made and kept at each start.

use peer_table::Contact;
use peer_table::peers::{Draft, InvalidField, Peer};
use peer_table::table::{Match, Precondition};

use crate::config::IdentityArgs;
use crate::owner::{Operation, Owner, OwnerError, Write, WriteError};

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

/// Writes the own record, if there is none or if `args` says otherwise than it does. What `args`
/// does not name stays as it was.
pub async fn settle(owner: &Owner, args: &IdentityArgs) -> Result<Settled, IdentityError> {
    let key = &owner.own_key();
    let held = owner.get(key).await?;
    let peer = held
        .as_ref()
        .and_then(|entry| Peer::from_entry(key, entry).ok().flatten());
    let Some(wanted) = wanted(args, peer.as_ref()) else {
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

/// What the record should say; `None` if there is none and no address to make one of.
fn wanted(args: &IdentityArgs, held: Option<&Peer>) -> Option<Draft> {
    let IdentityArgs {
        peer_name,
        peer_ip,
        peer_port,
        peer_label,
    } = args;
    let mut draft = match (held, peer_ip) {
        (Some(held), _) => draft_of(held),
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
