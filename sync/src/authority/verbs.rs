//! What people do about the authority: look at it, rotate it, have it adopt another one's stores.

use std::io::{self, Write};

use clap::Subcommand;
use peer_table::{AuthorityId, WallTime};
use serde::Serialize;

use super::secret::{AuthoritySecret, Replaced, content};
use super::state::{Authority, Overlap, Signer, Stage, Unchanged, written_time};
use super::trouble::Trouble;
use super::{SIGNER_LIFETIME, issue};
use crate::config::{AuthorityArgs, KubernetesArgs};
use crate::wall;

/// How often a change is tried anew when somebody else was faster.
const ATTEMPTS: usize = 10;

/// What is done about the authority.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityVerb {
    /// Show which authority it is, when it ends, and how far a rotation is; never a key
    Show {
        #[command(flatten)]
        api: KubernetesArgs,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Replace the certificate that signs all others, without a pause
    ///
    /// Everybody believes the new one from now on, and it signs after --rotation-overlap. When the
    /// last certificate of the old one has ended, nobody believes that any more. The UUID and the
    /// table stay as they are.
    Rotate {
        #[command(flatten)]
        api: KubernetesArgs,
        #[command(flatten)]
        times: AuthorityArgs,
        /// End the rotation that is under way now: the old one is believed no more, whoever has not
        /// heard of the new one
        #[arg(long)]
        finish: bool,
        /// Finish it without being asked
        #[arg(long, requires = "finish")]
        yes: bool,
    },
    /// Have the authority take in stores that are bound to another one
    ///
    /// For volumes that outlive their Secret: their tables and those of this authority become one.
    /// The refusal of such a store names the UUID. It cannot be taken back.
    Adopt {
        /// The UUID of the authority that the stores are bound to
        #[arg(value_name = "UUID")]
        id: AuthorityId,
        /// Do it without being asked
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        api: KubernetesArgs,
    },
}

/// It was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerbError {
    /// The Secret cannot be had or changed.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// The change cannot be made now.
    #[error(transparent)]
    Unchanged(#[from] Unchanged),
    /// Others change the Secret all the time.
    #[error(
        "others have changed the Secret at the same time, {ATTEMPTS} times in a row: try again"
    )]
    Contended,
    /// Nobody can be told.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

impl AuthorityVerb {
    /// Where the Secret is.
    pub(crate) const fn api(&self) -> &KubernetesArgs {
        match self {
            Self::Show { api, .. } | Self::Rotate { api, .. } | Self::Adopt { api, .. } => api,
        }
    }

    /// What has to be confirmed first, as it cannot be undone.
    pub(crate) fn to_confirm(&self) -> Option<String> {
        match self {
            Self::Rotate {
                finish: true,
                yes: false,
                ..
            } => Some(
                "The old certificate is believed no more: pods that have not heard of the new one \
                 are shut out until they have."
                    .to_owned(),
            ),
            Self::Adopt { id, yes: false, .. } => Some(format!(
                "The tables of the stores that are bound to {id} become one with those of this \
                 release, for good."
            )),
            _ => None,
        }
    }

    /// Does it.
    pub(crate) async fn run(
        &self,
        secret: &AuthoritySecret,
        out: &mut impl Write,
    ) -> Result<(), VerbError> {
        let now = wall::now();
        match self {
            Self::Show { json, .. } => {
                let read = secret.get().await?;
                let authority = held(secret, &read)?;
                show(out, &View::new(&authority, now), *json)?;
            }
            Self::Rotate { finish: true, .. } => {
                change(secret, Authority::finished).await?;
                writeln!(
                    out,
                    "the rotation is finished: only the new one is believed"
                )?;
            }
            Self::Rotate { times, .. } => {
                let AuthorityArgs {
                    leaf_lifetime,
                    rotation_overlap,
                } = *times;
                let overlap = Overlap {
                    notice: rotation_overlap,
                    leaf_lifetime,
                };
                let rotated = change(secret, |authority| {
                    let next = issue::signer(authority.id(), now, SIGNER_LIFETIME);
                    let next = next
                        .map_err(issue::IssueError::from)
                        .map_err(Trouble::from)?;
                    Ok::<_, VerbError>(authority.rotated(next, now, overlap)?)
                });
                show_rotation(out, &rotated.await?)?;
            }
            Self::Adopt { id, .. } => {
                let adopted = change(secret, |authority| authority.adopting(*id)).await?;
                let own = adopted.id();
                writeln!(out, "stores of {id} are taken in by {own} from now on")?;
            }
        }
        Ok(())
    }
}

fn held(
    secret: &AuthoritySecret,
    read: &k8s_openapi::api::core::v1::Secret,
) -> Result<Authority, Trouble> {
    content(read)?.ok_or_else(|| Trouble::Empty {
        secret: secret.to_string(),
    })
}

/// Changes what is in the Secret, and tries anew if somebody else does at the same time.
async fn change<E>(
    secret: &AuthoritySecret,
    change: impl Fn(&Authority) -> Result<Authority, E>,
) -> Result<Authority, VerbError>
where
    VerbError: From<E>,
{
    for _ in 0..ATTEMPTS {
        let read = secret.get().await?;
        let held = held(secret, &read)?;
        let new = change(&held)?;
        if new == held {
            return Ok(new);
        }
        if let Replaced::Done(_) = secret.replace(&read, &new).await? {
            return Ok(new);
        }
    }
    Err(VerbError::Contended)
}

fn show_rotation(out: &mut impl Write, rotated: &Authority) -> io::Result<()> {
    if let Some(rotation) = &rotated.rotation {
        let [signs_from, ends] = [rotation.signs_from, rotation.ends].map(written_time);
        writeln!(out, "the new one is believed from now on")?;
        writeln!(out, "it signs from                     {signs_from}")?;
        writeln!(out, "the old one is believed until     {ends}")?;
    }
    Ok(())
}

/// The authority without its secrets.
#[derive(Debug, Serialize)]
struct View {
    uuid: String,
    adopted: Vec<String>,
    stage: u8,
    rotation: &'static str,
    signs_from: Option<String>,
    rotation_ends: Option<String>,
    signers: Vec<SignerView>,
}

#[derive(Debug, Serialize)]
struct SignerView {
    name: String,
    signs: bool,
    expires: Option<String>,
    sha256: Option<String>,
}

impl View {
    fn new(authority: &Authority, now: WallTime) -> Self {
        let stage = authority.stage(now);
        let rotation = authority.rotation.as_ref();
        let rotation = rotation.filter(|_| stage != Stage::Single);
        let signs = &authority.signs(now).name;
        let view = |signer: &Signer| SignerView {
            signs: signer.name == *signs,
            name: signer.name.clone(),
            expires: issue::expires(signer).map(written_time),
            sha256: issue::sha256(signer),
        };
        Self {
            uuid: authority.id().to_string(),
            adopted: authority.adopted.iter().map(ToString::to_string).collect(),
            stage: stage as u8,
            rotation: stage.said(),
            signs_from: rotation.map(|rotation| written_time(rotation.signs_from)),
            rotation_ends: rotation.map(|rotation| written_time(rotation.ends)),
            signers: authority.believed(now).map(view).collect(),
        }
    }
}

fn show(out: &mut impl Write, view: &View, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, view)?;
        return writeln!(out);
    }
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    writeln!(out, "uuid        {}", view.uuid)?;
    for adopted in &view.adopted {
        writeln!(out, "adopted     {adopted}")?;
    }
    writeln!(out, "rotation    {}", view.rotation)?;
    if let (Some(signs_from), Some(ends)) = (&view.signs_from, &view.rotation_ends) {
        writeln!(out, "new signs   {signs_from}")?;
        writeln!(out, "old ends    {ends}")?;
    }
    for signer in &view.signers {
        let role = if signer.signs { "signs" } else { "believed" };
        writeln!(out, "{role:<11} {}", signer.name)?;
        writeln!(out, "  expires   {}", or_unknown(&signer.expires))?;
        writeln!(out, "  sha256    {}", or_unknown(&signer.sha256))?;
    }
    Ok(())
}
