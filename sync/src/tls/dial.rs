//! How a peer is called.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower_service::Service;

use super::Tls;
use super::credentials::Credentials;
use super::refusal::{Refused, Side};
use crate::metrics::TlsMetrics;

/// Makes connections: plain ones, or by mutual TLS with whoever bears the cluster's name.
#[derive(Clone, Debug)]
pub struct Connector {
    tcp: HttpConnector,
    secure: Option<Secure>,
}

/// What a connection is secured by.
#[derive(Clone, Debug)]
struct Secure {
    credentials: Arc<Credentials>,
    name: ServerName<'static>,
    metrics: TlsMetrics,
    within: Duration,
}

impl Connector {
    /// One that secures nothing.
    pub const fn plain(tcp: HttpConnector) -> Self {
        Self { tcp, secure: None }
    }

    /// One that shakes hands with the credentials as they are now, each time within a bound.
    pub fn secure(
        tcp: HttpConnector,
        tls: &Tls,
        credentials: Arc<Credentials>,
        within: Duration,
    ) -> Self {
        let secure = Secure {
            name: credentials.name().as_server_name().clone(),
            credentials,
            metrics: tls.metrics.clone(),
            within,
        };
        Self {
            tcp,
            secure: Some(secure),
        }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.tcp.call(to);
        let secure = self.secure.clone();
        Box::pin(async move {
            let tcp = connecting.await?.into_inner();
            match secure {
                None => Ok(Stream::plain(tcp)),
                Some(secure) => Ok(secure.shake_hands(tcp).await?),
            }
        })
    }
}

impl Secure {
    async fn shake_hands(self, tcp: TcpStream) -> Result<Stream, Refused> {
        let connect = TlsConnector::from(self.credentials.client()).connect(self.name, tcp);
        let refused = match tokio::time::timeout(self.within, connect).await {
            Ok(Ok(stream)) => {
                self.metrics.handshaken(Side::Client);
                return Ok(Stream {
                    io: TokioIo::new(Either::Right(stream)),
                    unheard: Some(self.metrics),
                });
            }
            Ok(Err(error)) => Refused::of(&error),
            Err(_) => Refused::too_slow(),
        };
        self.metrics.refused(Side::Client, refused.reason);
        Err(refused)
    }
}

/// A connection to a peer.
pub struct Stream {
    io: TokioIo<Either<TcpStream, TlsStream<TcpStream>>>,
    /// There until the first byte is read. With TLS 1.3 the handshake is over for a client before
    /// the server has judged its certificate: what it thinks of it is read in place of an answer.
    unheard: Option<TlsMetrics>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    fn plain(tcp: TcpStream) -> Self {
        Self {
            io: TokioIo::new(Either::Left(tcp)),
            unheard: None,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self.io.inner() {
            Either::Left(tcp) => tcp.connected(),
            Either::Right(tls) => tls.get_ref().0.connected(),
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(context, buffer));
        let Some(metrics) = self.unheard.take() else {
            return Poll::Ready(read);
        };
        Poll::Ready(read.map_err(|error| {
            let is_tls = matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>());
            if is_tls {
                let refused = Refused::of(&error);
                metrics.refused(Side::Client, refused.reason);
                io::Error::new(error.kind(), refused)
            } else {
                error
            }
        }))
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }
}
