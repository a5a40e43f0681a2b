//! What a sync shows of itself, and whom it believes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peer_table::WallTime;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, InconsistentKeys,
    RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::expiry::validity;
use super::files::FILES;
use super::name::ClusterName;

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The authorities that are believed.
    pub authorities: Vec<u8>,
    /// The own certificate, and what leads from it to an authority.
    pub chain: Vec<u8>,
    /// The own key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

/// Credentials that would not do.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCredentials {
    /// A file is not PEM.
    #[error("{file} is no PEM file")]
    NotPem {
        /// Which.
        file: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file lacks what it is for.
    #[error("there is no {what} in {file}")]
    Empty {
        /// Which.
        file: &'static str,
        /// What should be in it.
        what: &'static str,
    },
    /// A certificate cannot be read.
    #[error("a certificate in {file} cannot be read")]
    Certificate {
        /// The file it is in.
        file: &'static str,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The key cannot be used.
    #[error("tls.key cannot be used: it may be ECDSA (P-256, P-384), Ed25519, or RSA of 2048 bits")]
    Key {
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Certificate and key do not belong together.
    #[error("tls.key is not the key of the first certificate in tls.crt: issue both anew")]
    Mismatch,
    /// The own certificate would not be believed by who has the same files.
    #[error(
        "tls.crt is not signed by an authority in ca.crt: put the authority's certificate into \
         ca.crt, and those between it and the leaf behind the leaf in tls.crt"
    )]
    UnknownAuthority,
    /// The own certificate is of another cluster.
    #[error(
        "tls.crt does not bear the name of the cluster: issue it with the DNS name {name} \
         (subjectAltName), which follows from --cluster"
    )]
    Name {
        /// What it should bear.
        name: ClusterName,
    },
    /// The own certificate is of another time.
    #[error("tls.crt has expired, or is not valid yet: issue it anew, and look at the clock")]
    Expired {
        /// When it is valid.
        source: rustls::Error,
    },
    /// The own certificate is not for both sides of a connection.
    #[error(
        "tls.crt may not be used at both ends of a connection: its extended key usages must be \
         both server and client authentication, or none"
    )]
    Purpose,
    /// It cannot be used for another reason.
    #[error("tls.crt cannot be used")]
    Other {
        /// Which.
        source: rustls::Error,
    },
}

/// What a sync shows of itself, and whom it believes: known to fit together, and to the cluster.
#[derive(Debug)]
pub struct Credentials {
    pem: Pem,
    name: ClusterName,
    chain: Vec<CertificateDer<'static>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    verifier: Arc<OfCluster>,
    begins: i64,
    expires: i64,
}

impl Credentials {
    /// Reads them, and checks them as a peer that has the same would, at the time `now`.
    pub fn new(pem: Pem, name: &ClusterName, now: WallTime) -> Result<Self, InvalidCredentials> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(&pem.authorities)?);
        let key = certified_key(&pem, &provider)?;
        let servers =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build();
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        // They fail only without authorities, and with broken lists of what was revoked.
        let (servers, clients) = match (servers, clients) {
            (Ok(servers), Ok(clients)) => (servers, clients),
            (Err(error), _) | (_, Err(error)) => {
                let source = rustls::Error::General(error.to_string());
                return Err(InvalidCredentials::Other { source });
            }
        };
        let verifier = Arc::new(OfCluster {
            chain: clients,
            name: name.as_server_name().clone(),
        });
        let now = unix_time(now);
        let (leaf, between) = leaf_and_rest(&key.cert);
        verifier
            .verify_client_cert(leaf, between, now)
            .map(drop)
            .and_then(|()| {
                let name = name.as_server_name();
                servers
                    .verify_server_cert(leaf, between, name, &[], now)
                    .map(drop)
            })
            .map_err(|error| unfit(error, name))?;
        let (begins, expires) = validity(leaf).unwrap_or((0, 0));
        let chain = key.cert.clone();

        let key = Arc::new(SingleCertAndKey::from(key));
        // Versions and provider are both fixed here, and fit.
        let other = |source| InvalidCredentials::Other { source };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(other)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::clone(&key) as _);
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(other)?
            .with_webpki_verifier(servers)
            .with_client_cert_resolver(key);
        client.resumption = Resumption::disabled();
        // There is one certificate to choose from: the name need not be told to who listens.
        client.enable_sni = false;
        Ok(Self {
            pem,
            name: name.clone(),
            chain,
            server: Arc::new(server),
            client: Arc::new(client),
            verifier,
            begins,
            expires,
        })
    }

    /// Whether they were made of this.
    pub(super) fn is_of(&self, pem: &Pem) -> bool {
        self.pem == *pem
    }

    /// The name that the certificates of the cluster bear.
    pub const fn name(&self) -> &ClusterName {
        &self.name
    }

    /// The own certificate, and what leads from it to an authority.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// When the validity of the own certificate begins, in seconds of the Unix epoch.
    pub const fn begins(&self) -> i64 {
        self.begins
    }

    /// When the own certificate ends, in seconds of the Unix epoch.
    pub const fn expires(&self) -> i64 {
        self.expires
    }

    /// How to be called.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// How to call.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Checks the chain of a client that was let in by other credentials.
    pub fn admit(&self, chain: &[CertificateDer<'_>], now: WallTime) -> Result<(), rustls::Error> {
        let [leaf, between @ ..] = chain else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verifier
            .verify_client_cert(leaf, between, unix_time(now))
            .map(drop)
    }
}

fn unix_time(now: WallTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(now.as_millis()))
}

fn certificates(
    pem: &[u8],
    file: &'static str,
) -> Result<Vec<CertificateDer<'static>>, InvalidCredentials> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates =
        certificates.map_err(|source| InvalidCredentials::NotPem { file, source })?;
    if certificates.is_empty() {
        let what = "certificate";
        return Err(InvalidCredentials::Empty { file, what });
    }
    Ok(certificates)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, InvalidCredentials> {
    let [file, ..] = FILES;
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem, file)? {
        roots
            .add(authority)
            .map_err(|source| InvalidCredentials::Certificate { file, source })?;
    }
    Ok(roots)
}

fn certified_key(pem: &Pem, provider: &CryptoProvider) -> Result<CertifiedKey, InvalidCredentials> {
    let [_, chain_file, key_file] = FILES;
    let chain = certificates(&pem.chain, chain_file)?;
    for certificate in &chain {
        ParsedCertificate::try_from(certificate).map_err(|source| {
            InvalidCredentials::Certificate {
                file: chain_file,
                source,
            }
        })?;
    }
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|source| match source {
        pem::Error::NoItemsFound => InvalidCredentials::Empty {
            file: key_file,
            what: "private key",
        },
        source => InvalidCredentials::NotPem {
            file: key_file,
            source,
        },
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            InvalidCredentials::Mismatch
        }
        source => InvalidCredentials::Key { source },
    })
}

fn leaf_and_rest<'a>(
    chain: &'a [CertificateDer<'static>],
) -> (&'a CertificateDer<'static>, &'a [CertificateDer<'static>]) {
    chain
        .split_first()
        .expect("no chain is empty that was read")
}

fn unfit(error: rustls::Error, name: &ClusterName) -> InvalidCredentials {
    let rustls::Error::InvalidCertificate(certificate) = &error else {
        return InvalidCredentials::Other { source: error };
    };
    match certificate {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            InvalidCredentials::UnknownAuthority
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let name = name.clone();
            InvalidCredentials::Name { name }
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            InvalidCredentials::Expired { source: error }
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            InvalidCredentials::Purpose
        }
        _ => InvalidCredentials::Other { source: error },
    }
}

/// Believes clients whose certificate an authority has signed and that bears the cluster's name:
/// the name of a client is checked by nobody else.
#[derive(Debug)]
struct OfCluster {
    chain: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl ClientCertVerifier for OfCluster {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A sync has one certificate to choose from.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, between, now)?;
        verify_server_name(&ParsedCertificate::try_from(leaf)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
