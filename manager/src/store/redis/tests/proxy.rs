//! A way to a server on which a test can hold up and cut what passes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A way to a server; it ends with this handle.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    upstream: Arc<Mutex<SocketAddr>>,
    pipes: watch::Receiver<Vec<Pipe>>,
    task: tokio::task::AbortHandle,
}

/// One connection on the way.
#[derive(Clone)]
pub(crate) struct Pipe {
    requests: Arc<watch::Sender<bool>>,
    replies: Arc<watch::Sender<bool>>,
    requests_left: Left,
    replies_left: Left,
    cut: CancellationToken,
    /// Ends when the server has answered all that came this way, and closed it.
    ended: CancellationToken,
}

/// Bytes that may pass until the connection is cut.
#[derive(Clone)]
struct Left(Arc<AtomicUsize>);

impl Left {
    fn endless() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    /// How many of so many may pass.
    fn take(&self, bytes: usize) -> usize {
        let less = |left| (left != usize::MAX).then(|| left - bytes.min(left));
        let left = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        bytes.min(left.unwrap_or(usize::MAX))
    }
}

impl Proxy {
    pub(crate) async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(super::server::free_address())
            .await
            .expect("binds");
        let address = listener.local_addr().expect("an address");
        let upstream = Arc::new(Mutex::new(upstream));
        let (known, pipes) = watch::channel(Vec::new());
        let target = Arc::clone(&upstream);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = *target.lock().unwrap_or_else(PoisonError::into_inner);
                // A server that is away closes the connection.
                let Ok(server) = TcpStream::connect(target).await else {
                    continue;
                };
                let pipe = Pipe::between(client, server);
                known.send_modify(|pipes: &mut Vec<Pipe>| pipes.push(pipe));
            }
        });
        Self {
            address,
            upstream,
            pipes,
            task: task.abort_handle(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Leads later connections to another server.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// Cuts all connections so far.
    pub(crate) fn cut(&self) {
        self.pipes.borrow().iter().for_each(Pipe::cut);
    }

    /// The last connection so far.
    pub(crate) fn pipe(&self) -> Pipe {
        self.pipes.borrow().last().expect("a connection").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pipe {
    fn between(client: TcpStream, server: TcpStream) -> Self {
        let pipe = Self {
            requests: Arc::new(watch::Sender::new(true)),
            replies: Arc::new(watch::Sender::new(true)),
            requests_left: Left::endless(),
            replies_left: Left::endless(),
            cut: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let cut = pipe.cut.clone();
        let (requests, replies) = (pipe.requests.subscribe(), pipe.replies.subscribe());
        tokio::spawn(pass_requests(
            client_read,
            server_write,
            requests,
            pipe.requests_left.clone(),
            cut.clone(),
        ));
        let (ended, left) = (pipe.ended.clone(), pipe.replies_left.clone());
        tokio::spawn(async move {
            pass_replies(server_read, client_write, replies, left, cut).await;
            ended.cancel();
        });
        pipe
    }

    /// Lets requests pass, or holds them.
    pub(crate) fn requests(&self, pass: bool) {
        self.requests.send_replace(pass);
    }

    /// Lets replies pass, or holds them.
    pub(crate) fn replies(&self, pass: bool) {
        self.replies.send_replace(pass);
    }

    /// Cuts it after so many more bytes of requests, of which no more reach the server.
    pub(crate) fn cut_after_requests(&self, bytes: usize) {
        self.requests_left.set(bytes);
    }

    /// Cuts it after so many more bytes of replies.
    pub(crate) fn cut_after_replies(&self, bytes: usize) {
        self.replies_left.set(bytes);
    }

    /// Cuts the client off. What it sent before still reaches the server, when it may.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until the server has done all that came this way.
    pub(crate) async fn drained(&self) {
        self.ended.cancelled().await;
    }
}

async fn pass_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    mut pass: watch::Receiver<bool>,
    left: Left,
    cut: CancellationToken,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            biased;
            read = client.read(&mut buffer) => read.unwrap_or(0),
            () = cut.cancelled() => 0,
        };
        // What was sent before the client was cut off still arrives.
        let passed = pass.wait_for(|pass| *pass).await.is_ok();
        let bytes = left.take(read);
        let passed = passed && server.write_all(&buffer[..bytes]).await.is_ok();
        if bytes < read {
            cut.cancel();
        }
        if !passed || bytes < read || read == 0 {
            // The server may have ended.
            let _ = server.shutdown().await;
            return;
        }
    }
}

async fn pass_replies(
    mut server: OwnedReadHalf,
    client: OwnedWriteHalf,
    mut pass: watch::Receiver<bool>,
    left: Left,
    cut: CancellationToken,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut client = Some(client);
    loop {
        let read = tokio::select! {
            read = server.read(&mut buffer) => read.unwrap_or(0),
            () = cut.cancelled(), if client.is_some() => {
                client = None;
                continue;
            }
        };
        if read == 0 {
            return;
        }
        let may_pass = tokio::select! {
            biased;
            () = cut.cancelled() => false,
            passed = pass.wait_for(|pass| *pass) => passed.is_ok(),
        };
        let bytes = left.take(read);
        match &mut client {
            Some(client) if may_pass => {
                // The client may have closed it.
                let _ = client.write_all(&buffer[..bytes]).await;
            }
            _ => client = None,
        }
        if bytes < read {
            cut.cancel();
        }
    }
}
