//! Authorities, the certificates they sign, and folders with both.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use udht_sync::tls::FILES;

/// What a certificate of the tests' cluster has to bear.
pub(crate) const NAME: &str = "test-udht.udht.internal";

/// One that signs certificates.
#[derive(Debug)]
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    /// One with a key of its own, whatever it is called.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of the tests' cluster.
    pub(crate) fn leaf(&self) -> Leaf {
        self.leaf_with(NAME, |_| ())
    }

    pub(crate) fn leaf_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf {
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn expired_leaf(&self) -> Leaf {
        self.leaf_with(NAME, |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        })
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Leaf {
    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        (chain.map(Result::unwrap).collect(), key.unwrap())
    }
}

/// A client that is no sync.
pub(crate) fn client(
    believes: &Authority,
    leaf: Option<&Leaf>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(believes.roots());
    Arc::new(match leaf.map(Leaf::der) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    })
}

/// A server that is no sync, and lets in everybody.
pub(crate) fn server(leaf: &Leaf) -> Arc<ServerConfig> {
    let (chain, key) = leaf.der();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let config = config.with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).unwrap())
}

/// A folder as Kubernetes mounts a Secret: its files are links through a folder that is itself a
/// link, and so change all at once.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    versions: usize,
}

impl Folder {
    pub(crate) fn new(authorities: &[&Authority], leaf: &Leaf) -> Self {
        let mut folder = Self {
            folder: tempfile::tempdir().unwrap(),
            versions: 0,
        };
        for file in FILES {
            symlink(format!("..data/{file}"), folder.folder.path().join(file)).unwrap();
        }
        folder.swap(authorities, leaf);
        folder
    }

    /// What `--tls` is told.
    pub(crate) fn flag(&self) -> String {
        format!("files:{}", self.folder.path().display())
    }

    /// Puts other files in place.
    pub(crate) fn swap(&mut self, authorities: &[&Authority], leaf: &Leaf) {
        let authorities: String = authorities
            .iter()
            .map(|authority| authority.pem())
            .collect();
        self.put([&authorities, &leaf.chain, &leaf.key]);
    }

    /// Puts other files in place, whatever is in them.
    pub(crate) fn put(&mut self, contents: [&str; 3]) {
        self.versions += 1;
        let folder = self.folder.path();
        let version = format!("..{}", self.versions);
        fs::create_dir(folder.join(&version)).unwrap();
        for (file, content) in FILES.into_iter().zip(contents) {
            fs::write(folder.join(&version).join(file), content).unwrap();
        }
        symlink(version, folder.join("..new")).unwrap();
        fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    }

    /// Takes a file away.
    pub(crate) fn lose(&self, file: &str) {
        fs::remove_file(self.folder.path().join("..data").join(file)).unwrap();
    }
}
