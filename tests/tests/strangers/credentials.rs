//! Authorities, the certificates they sign, and clients that show them.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What a certificate of the tests' cluster has to bear.
pub(crate) const NAME: &str = "demo.udht.internal";

/// One that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(crate) struct Leaf {
    chain: String,
    key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate for `name`, changed as `change` says.
    pub(crate) fn leaf(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf {
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes what `--tls files:FOLDER` needs for a certificate of the tests' cluster.
    pub(crate) fn write(&self, folder: &Path) {
        self.write_with(folder, &self.leaf(NAME, |_| ()));
    }

    /// Writes what it needs for this certificate.
    pub(crate) fn write_with(&self, folder: &Path, leaf: &Leaf) {
        for (file, content) in [
            ("ca.crt", &self.0.pem()),
            ("tls.crt", &leaf.chain),
            ("tls.key", &leaf.key),
        ] {
            std::fs::write(folder.join(file), content).unwrap();
        }
    }

    /// A client that believes this authority, and shows `leaf`.
    pub(crate) fn client(
        &self,
        leaf: Option<&Leaf>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let Some(Leaf { chain, key }) = leaf else {
            return Arc::new(config.with_no_client_auth());
        };
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = config.with_client_auth_cert(chain.map(Result::unwrap).collect(), key);
        Arc::new(config.unwrap())
    }
}
