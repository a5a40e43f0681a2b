//! How a port lets in who calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::Tls;
use super::credentials::Credentials;
use super::refusal::{Refusals, Refused, Side};
use crate::listen::ServerBounds;
use crate::wall;

/// The first byte of a connection that begins with TLS: the content type of a handshake.
const TLS_BEGINS: u8 = 22;
/// What is said to whoever calls while there is nothing to shake hands with: a record with the
/// fatal alert `access_denied` (RFC 8446, sections 5.1 and 6).
const NO_CREDENTIALS: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
/// How long whoever was not let in may take to hear why.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is read of who was not let in, in order that it hears why.
const FAREWELL_BYTES_MAX: u64 = 1 << 20;

/// How a port lets in who calls.
#[derive(Clone, Debug)]
pub enum Door {
    /// Everybody, whatever they speak.
    Open,
    /// Everybody; who speaks TLS is counted, as it must be a peer that is set up otherwise.
    Plain(Arc<Refusals>),
    /// Who has a certificate of the cluster.
    Tls(Arc<Tls>),
}

/// A connection that was let in.
pub type Entered = Either<TcpStream, TlsStream<TcpStream>>;

impl Door {
    /// Lets in who has called, or says why not, within bounds. Whoever goes away without a word is
    /// not counted.
    pub async fn enter(self, stream: TcpStream, bounds: &ServerBounds) -> Option<(Entered, Guest)> {
        let peer = stream.peer_addr().ok();
        match self {
            Self::Open => Some((Either::Left(stream), Guest::anybody())),
            Self::Plain(refusals) => {
                // A peer may have made a connection in order to keep it: it has the time that it has
                // between any two requests.
                if first_byte(&stream, Instant::now() + bounds.head)
                    .await
                    .ok()??
                    == TLS_BEGINS
                {
                    let detail = "it speaks TLS, and this sync was started with --tls off";
                    refusals.note(peer, &Refused::protocol(detail));
                }
                Some((Either::Left(stream), Guest::anybody()))
            }
            Self::Tls(tls) => tls.enter(stream, peer, bounds.handshake).await,
        }
    }
}

/// Waits for it, and leaves it there; `None` if the other end goes away without one.
async fn first_byte(stream: &TcpStream, until: Instant) -> Result<Option<u8>, Elapsed> {
    let mut byte = [0];
    let peeked = tokio::time::timeout_at(until, stream.peek(&mut byte)).await?;
    Ok(matches!(peeked, Ok(1)).then_some(byte[0]))
}

impl Tls {
    async fn enter(
        self: Arc<Self>,
        stream: TcpStream,
        peer: Option<SocketAddr>,
        within: Duration,
    ) -> Option<(Entered, Guest)> {
        let until = Instant::now() + within;
        let Ok(first) = first_byte(&stream, until).await else {
            self.refusals.note(peer, &Refused::too_slow());
            return None;
        };
        if first? != TLS_BEGINS {
            let detail = "it does not speak TLS; was it started with --tls off?";
            self.refusals.note(peer, &Refused::protocol(detail));
            tell_in_plain(stream).await;
            return None;
        }
        let Some(credentials) = self.current() else {
            self.refusals.note(peer, &Refused::no_credentials());
            tell_no_credentials(stream).await;
            return None;
        };
        let accept = TlsAcceptor::from(credentials.server())
            .accept(stream)
            .into_fallible();
        match tokio::time::timeout_at(until, accept).await {
            Ok(Ok(stream)) => {
                self.metrics.handshaken(Side::Server);
                let (_, session) = stream.get_ref();
                let chain = session.peer_certificates().unwrap_or_default().to_vec();
                let guest = Guest(Some(Admitted {
                    changes: self.current.subscribe(),
                    tls: self,
                    credentials,
                    chain,
                    peer,
                }));
                Some((Either::Right(stream), guest))
            }
            Ok(Err((error, stream))) => {
                self.refusals.note(peer, &Refused::of(&error));
                farewell(stream).await;
                None
            }
            Err(_) => {
                self.refusals.note(peer, &Refused::too_slow());
                None
            }
        }
    }
}

/// Tells a sync that speaks no TLS what it should do, in words that it shows.
async fn tell_in_plain(mut stream: TcpStream) {
    let status = StatusCode::BAD_REQUEST;
    let body = serde_json::json!({
        "title": "Bad Request",
        "status": status.as_u16(),
        "detail": "this sync speaks TLS: start the other one with --tls auto or --tls files:DIR, as this one",
    })
    .to_string();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever does not listen is not told.
    let _ = tokio::time::timeout(FAREWELL, stream.write_all(answer.as_bytes())).await;
    farewell(stream).await;
}

/// Tells a sync that this one has no certificate yet.
async fn tell_no_credentials(mut stream: TcpStream) {
    let _ = tokio::time::timeout(FAREWELL, stream.write_all(&NO_CREDENTIALS)).await;
    farewell(stream).await;
}

/// Closes a connection so that what was said last arrives: one that is closed while there is
/// something left to read is reset, and then the other side may lose it.
async fn farewell(mut stream: TcpStream) {
    let heard = async {
        stream.shutdown().await?;
        let mut rest = stream.take(FAREWELL_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(FAREWELL, heard).await;
}

/// Who is at the other end, for as long as the connection lasts.
#[derive(Debug)]
pub struct Guest(Option<Admitted>);

#[derive(Debug)]
struct Admitted {
    tls: Arc<Tls>,
    credentials: Arc<Credentials>,
    changes: watch::Receiver<Option<Arc<Credentials>>>,
    chain: Vec<CertificateDer<'static>>,
    peer: Option<SocketAddr>,
}

impl Guest {
    const fn anybody() -> Self {
        Self(None)
    }

    /// Waits until it was let in by credentials that are no longer in use, and says whether those
    /// that are would let it in too. For whoever needed none it waits for ever.
    pub async fn outlived(&mut self) -> bool {
        let Some(admitted) = &mut self.0 else {
            return std::future::pending().await;
        };
        let Admitted {
            tls,
            credentials,
            changes,
            chain,
            peer,
        } = admitted;
        // Its sender is in `tls`, which is here; and where there were credentials, there are some.
        let others = |current: &Option<Arc<Credentials>>| {
            let current = current.as_ref();
            current.is_some_and(|current| !Arc::ptr_eq(current, credentials))
        };
        let current = changes.wait_for(others).await;
        let current = current.ok().and_then(|current| current.clone());
        let Some(current) = current else {
            return std::future::pending().await;
        };
        *credentials = current;
        match credentials.admit(chain, wall::now()) {
            Ok(()) => true,
            Err(error) => {
                let error = std::io::Error::other(error);
                tls.refusals.note(*peer, &Refused::of(&error));
                false
            }
        }
    }
}
