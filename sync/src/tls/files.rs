//! The files of `--tls files:DIR`, and what becomes of them when they change.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peer_table::ClusterId;
use tokio_util::sync::CancellationToken;
use udht_tell::chain;

use super::Tls;
use super::credentials::{Credentials, InvalidCredentials, Pem};
use super::name::ClusterName;
use crate::metrics::TlsMetrics;
use crate::wall;

/// The authorities that peers' certificates may be signed by; this sync's own certificate, with
/// what leads from it to one of them; and its key. They are named as in a Secret of cert-manager.
pub const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
/// The largest of them: a Secret holds no more.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no such folder.
    #[error(
        "there is no folder {}: say with --tls files:DIR where {} are",
        .folder.display(), FILES.join(", ")
    )]
    Folder {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A file is not there, or cannot be read.
    #[error("cannot read {}: --tls files:DIR needs {} in its folder", .path.display(), FILES.join(", "))]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is too large to be what it should.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// What is in them does not do.
    #[error("the files in {} cannot be used", .folder.display())]
    Invalid {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        source: InvalidCredentials,
    },
}

/// Reads the files as they are now.
fn read(folder: &Path) -> Result<Pem, FilesError> {
    if !folder.is_dir() {
        let folder = folder.to_owned();
        return Err(FilesError::Folder { folder });
    }
    let [authorities, chain, key] = FILES.map(|name| read_file(folder.join(name)));
    Ok(Pem {
        authorities: authorities?,
        chain: chain?,
        key: key?,
    })
}

fn read_file(path: PathBuf) -> Result<Vec<u8>, FilesError> {
    let mut bytes = Vec::new();
    let read =
        File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => Err(FilesError::TooLarge { path }),
        Ok(_) => Ok(bytes),
        Err(source) => Err(FilesError::Read { path, source }),
    }
}

/// Makes credentials of what was read in `folder`.
fn credentials(folder: &Path, pem: Pem, name: &ClusterName) -> Result<Credentials, FilesError> {
    Credentials::new(pem, name, wall::now()).map_err(|source| FilesError::Invalid {
        folder: folder.to_owned(),
        source,
    })
}

/// Files that cannot be used, as they were last seen: nothing if they could not be read.
#[derive(PartialEq, Eq, Debug)]
struct Broken {
    pem: Option<Pem>,
    said: bool,
}

/// Where the files are, and what they are the credentials of.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    name: ClusterName,
    tls: Arc<Tls>,
    metrics: TlsMetrics,
}

impl Files {
    /// Reads the files in `folder`, whose certificate must bear the name of `cluster`, and has `tls`
    /// take them.
    pub fn new(
        folder: PathBuf,
        cluster: &ClusterId,
        tls: Arc<Tls>,
        metrics: TlsMetrics,
    ) -> Result<Self, FilesError> {
        let name = ClusterName::of(cluster);
        tls.take(read(&folder).and_then(|pem| credentials(&folder, pem, &name))?);
        Ok(Self {
            folder,
            name,
            tls,
            metrics,
        })
    }

    /// Looks at the files every now and then, until `stop`, and takes what is new in them.
    ///
    /// They are compared by what is in them: so a symbolic link that now leads elsewhere, as
    /// Kubernetes does it, is a change, and a new time alone is none.
    pub async fn follow(&self, every: Duration, stop: CancellationToken) {
        tracing::info!(
            folder = %self.folder.display(),
            name = %self.name,
            expires = self.metrics.expiry.get(),
            "connections between pods are secured by certificates that bear the name {}",
            self.name
        );
        let mut broken = None;
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            let folder = self.folder.clone();
            // It fails only if reading panics or the runtime ends.
            if let Ok(seen) = tokio::task::spawn_blocking(move || read(&folder)).await {
                self.look(seen, &mut broken);
            }
        }
    }

    /// Takes what was seen of the files, if it is new and can be used. Else the old credentials
    /// stay, and it is said once it was seen twice: files that are just being written are no news.
    fn look(&self, seen: Result<Pem, FilesError>, broken: &mut Option<Broken>) {
        let current = self.tls.current();
        let is_current = |pem| current.as_ref().is_some_and(|current| current.is_of(pem));
        if seen.as_ref().is_ok_and(is_current) {
            *broken = None;
            return;
        }
        let pem = seen.as_ref().ok().cloned();
        let new = seen.and_then(|pem| credentials(&self.folder, pem, &self.name));
        match (new, broken) {
            (Ok(new), broken) => {
                *broken = None;
                self.tls.take(new);
                tracing::info!(
                    folder = %self.folder.display(),
                    expires = self.metrics.expiry.get(),
                    "new TLS credentials are in use"
                );
            }
            (Err(error), Some(broken)) if broken.pem == pem => {
                if !broken.said {
                    broken.said = true;
                    self.metrics.reload_failed.inc();
                    tracing::warn!(
                        error = chain(&error),
                        "the TLS files have changed and cannot be used: those of before stay in use"
                    );
                }
            }
            (Err(_), broken) => *broken = Some(Broken { pem, said: false }),
        }
    }
}
