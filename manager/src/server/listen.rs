//! The accept loop: connections within a bound, each within bounds of time, and a graceful end.

use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use udht_tell::chain;

use super::places::{Place, Places};
use crate::metrics::Metrics;

/// Connections at the most. One more waits until one of the oldest has ended, which are asked to.
pub(super) const CONNECTIONS_MAX: u32 = 1_024;
/// How long requests that are under way may take at the end.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a client may take for the head of a request, and so how long an idle connection stays.
const HEAD_PATIENCE: Duration = Duration::from_mins(1);
/// How long a client may leave an answer unread.
const READ_PATIENCE: Duration = Duration::from_mins(1);
/// The most bytes of a request's head, and what a connection buffers.
const BUFFER_BYTES: usize = 64 << 10;
/// What to wait after a connection could not be accepted, as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the router that `app` holds, until `stopping` is cancelled; then answers what is under
/// way, for [`GRACE`] at the most. `metrics` hear of it where there are too many connections.
pub async fn run(
    listener: TcpListener,
    app: watch::Receiver<Router>,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) {
    run_with(listener, app, metrics, stopping, CONNECTIONS_MAX).await;
}

async fn run_with(
    listener: TcpListener,
    app: watch::Receiver<Router>,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
    connections_max: u32,
) {
    let places = Places::new(connections_max, metrics);
    // What is still open when this is over is cut off with it.
    let mut served = JoinSet::new();
    loop {
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((places.take().await, stream))
        };
        let (place, stream) = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Answers are small and awaited: they do not wait for one another.
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        // Which router answers is looked up for each request: the one of the time of loading is
        // replaced while connections are open.
        let service =
            service_fn(move |request| TowerToHyperService::new(app.borrow().clone()).call(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(Impatient::new(stream)), service);
        while served.try_join_next().is_some() {}
        served.spawn(serve(connection, place));
    }
    drop(listener);
    if timeout(GRACE, places.end()).await.is_err() {
        tracing::warn!("some requests were not done in time and are cut off");
    }
}

/// Serves a connection until it ends, or was asked to: then it does at once if it is idle, else with the
/// answer that is under way.
async fn serve<S>(connection: http1::Connection<TokioIo<Impatient>, S>, mut place: Place)
where
    S: HttpService<Incoming, ResBody = axum::body::Body>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = place.asked_to_end() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that goes away or is too slow is no news.
    if let Err(error) = ended {
        tracing::debug!(error = chain(&error), "a connection broke");
    }
}

/// A connection that is cut when the other side does not read for [`READ_PATIENCE`].
struct Impatient {
    stream: TcpStream,
    /// Runs while something waits to be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            stalled: None,
        }
    }

    /// Lets a write through, or ends it when nothing was written for too long.
    fn or_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = Instant::now() + READ_PATIENCE;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        stalled
            .as_mut()
            .poll(context)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.or_stalled(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.or_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use axum::routing::{MethodRouter, get};
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Semaphore, mpsc};
    use tokio::task::JoinHandle;

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";

    struct Server {
        address: std::net::SocketAddr,
        stopping: CancellationToken,
        router: watch::Sender<Router>,
        metrics: Arc<Metrics>,
        task: JoinHandle<()>,
    }

    impl Server {
        async fn start(router: Router, connections_max: u32) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let stopping = CancellationToken::new();
            let (router, app) = watch::channel(router);
            let metrics = Arc::new(Metrics::new().unwrap());
            let task = tokio::spawn(run_with(
                listener,
                app,
                Arc::clone(&metrics),
                stopping.clone(),
                connections_max,
            ));
            Self {
                address,
                stopping,
                router,
                metrics,
                task,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }
    }

    fn saying(text: &'static str) -> Router {
        Router::new().route("/", get(async move || text))
    }

    /// A call that says when it begins, and is done when it gets a permit.
    fn slow() -> (MethodRouter, mpsc::Receiver<()>, Arc<Semaphore>) {
        let (begun, begins) = mpsc::channel(1);
        let release = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&release);
        let call = get(async move || {
            begun.send(()).await.unwrap();
            held.acquire().await.unwrap().forget();
            "done"
        });
        (call, begins, release)
    }

    /// Reads one answer with this body.
    async fn expect(stream: &mut TcpStream, body: &str) {
        let mut read = Vec::new();
        while !read.ends_with(body.as_bytes()) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "cut off");
        }
    }

    async fn expect_end(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut rest).await;
    }

    #[tokio::test]
    async fn an_open_connection_gets_the_router_that_came_in_later() {
        let server = Server::start(saying("loading"), 9).await;
        let mut stream = server.connect().await;
        stream.write_all(HEAD).await.unwrap();
        expect(&mut stream, "loading").await;
        drop(server.router.send_replace(saying("loaded")));
        stream.write_all(HEAD).await.unwrap();
        expect(&mut stream, "loaded").await;
    }

    #[tokio::test]
    async fn at_the_end_what_is_under_way_is_answered_and_what_is_idle_is_closed() {
        let (slow, mut begins, release) = slow();
        let server = Server::start(saying("idle").route("/slow", slow), 9).await;
        let (mut idle, mut busy) = (server.connect().await, server.connect().await);
        idle.write_all(HEAD).await.unwrap();
        expect(&mut idle, "idle").await;
        busy.write_all(SLOW).await.unwrap();
        begins.recv().await.unwrap();
        server.stopping.cancel();
        expect_end(&mut idle).await;
        release.add_permits(1);
        expect(&mut busy, "done").await;
        expect_end(&mut busy).await;
        server.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_cut_off_after_the_grace() {
        let never = get(async || std::future::pending::<&str>().await);
        let server = Server::start(saying("").route("/never", never), 9).await;
        let mut stream = server.connect().await;
        let request = b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        tokio::task::yield_now().await;
        server.stopping.cancel();
        server.task.await.unwrap();
        expect_end(&mut stream).await;
    }

    #[tokio::test]
    async fn one_connection_too_many_has_the_place_of_one_that_is_idle() {
        let server = Server::start(saying("served"), 2).await;
        let mut used = server.connect().await;
        used.write_all(HEAD).await.unwrap();
        expect(&mut used, "served").await;
        let mut unused = server.connect().await;
        assert_eq!(server.metrics.crowded(), None);
        let mut third = server.connect().await;
        third.write_all(HEAD).await.unwrap();
        expect(&mut third, "served").await;
        expect_end(&mut used).await;
        expect_end(&mut unused).await;
        assert_ne!(server.metrics.crowded(), None);
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_for_what_is_under_way() {
        let (slow, mut begins, release) = slow();
        let server = Server::start(saying("served").route("/slow", slow), 1).await;
        let mut busy = server.connect().await;
        busy.write_all(SLOW).await.unwrap();
        begins.recv().await.unwrap();
        let mut second = server.connect().await;
        second.write_all(HEAD).await.unwrap();
        while server.metrics.crowded().is_none() {
            tokio::task::yield_now().await;
        }
        let mut nothing = [0];
        let unanswered = second.try_read(&mut nothing).unwrap_err();
        assert_eq!(unanswered.kind(), io::ErrorKind::WouldBlock);
        release.add_permits(1);
        expect(&mut busy, "done").await;
        expect(&mut second, "served").await;
        expect_end(&mut busy).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_is_not_waited_for() {
        let server = Server::start(saying(""), 9).await;
        let mut stream = server.connect().await;
        stream.write_all(&HEAD[..20]).await.unwrap();
        expect_end(&mut stream).await;
    }

    /// Says that it was dropped.
    struct Dropped(mpsc::Sender<()>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.try_send(()).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut_off() {
        let (sender, mut ends) = mpsc::channel(1);
        let endless = get(async move || {
            let dropped = Dropped(sender.clone());
            Body::from_stream(stream::repeat_with(move || {
                let _with_the_stream = &dropped;
                Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 << 10]))
            }))
        });
        let server = Server::start(Router::new().route("/", endless), 9).await;
        let mut stream = server.connect().await;
        stream.write_all(HEAD).await.unwrap();
        ends.recv().await.unwrap();
        expect_end(&mut stream).await;
    }
}
