//! TLS around a connection, for `rediss://`.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::fault::Fault;
use super::url::TlsFiles;

/// Makes sure that the server is `host`. The files are read each time, as they may be renewed.
pub(super) async fn wrap(
    stream: TcpStream,
    host: &str,
    files: &TlsFiles,
) -> Result<TlsStream<TcpStream>, Fault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Fault::Unusable("has a name that no certificate can be for".to_owned()))?;
    let files = files.clone();
    let config = tokio::task::spawn_blocking(move || config(&files));
    let config = config
        .await
        .map_err(|error| Fault::Unusable(format!("cannot be spoken to: {error}")))??;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

fn config(files: &TlsFiles) -> Result<ClientConfig, Fault> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Unusable(format!("cannot be spoken to: {error}")))?
        .with_root_certificates(authorities(files)?);
    match &files.identity {
        Some((chain, key)) => {
            let unfit = |error: &dyn std::fmt::Display| unfit(key, error);
            let chain = certificates(chain)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unfit(&error))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| unfit(&error))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn authorities(files: &TlsFiles) -> Result<RootCertStore, Fault> {
    let mut trusted = RootCertStore::empty();
    if let Some(path) = &files.authorities {
        for certificate in certificates(path)? {
            trusted
                .add(certificate)
                .map_err(|error| unfit(path, &error))?;
        }
    } else {
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if trusted.is_empty() {
            return Err(Fault::Unusable(
                "cannot be trusted, as this system knows no authorities: name one with ?ca=FILE"
                    .to_owned(),
            ));
        }
    }
    Ok(trusted)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read {
        Ok(certificates) if Vec::is_empty(&certificates) => {
            Err(unfit(path, &"no certificate in it"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unfit(path, &error)),
    }
}

fn unfit(path: &Path, problem: &dyn std::fmt::Display) -> Fault {
    let path = path.display();
    Fault::Unusable(format!(
        "needs TLS, and {path} cannot be used for it: {problem}"
    ))
}
