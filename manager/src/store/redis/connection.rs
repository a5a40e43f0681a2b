//! A connection to the server: made, greeted, and shared by all who ask.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, Value, cmd};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::fault::{CLUSTER, Fault, TOO_OLD, odd};
use super::replies::Replies;
use super::tls;
use super::url::RedisUrl;

/// How long the server may take to answer anything small, or to let a connection be made.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How much longer it may take for each record that is asked for or written.
const PATIENCE_PER_RECORD: Duration = Duration::from_millis(4);
/// The longest greeting.
const GREETING_BYTES_MAX: usize = 64 << 10;
/// Requests that may wait to be sent; more wait at their senders.
const QUEUE_REQUESTS_MAX: usize = 1_024;
/// The oldest release that has all that is needed.
const VERSION_MIN: (u32, u32) = (6, 2);

/// How long an answer about so many records may take.
pub(super) fn patience(records: usize) -> Duration {
    PATIENCE + PATIENCE_PER_RECORD * u32::try_from(records).unwrap_or(u32::MAX)
}

/// Commands of which each has a reply, be it an error.
pub(super) fn pipeline() -> Pipeline {
    let mut commands = redis::pipe();
    commands.ignore_errors();
    commands
}

/// A connection: cheap to clone, and closed with the last clone. Requests of many share round trips.
#[derive(Clone)]
pub(super) struct Connection {
    requests: MultiplexedConnection,
    driver: Arc<Driver>,
    /// The id that the server knows it by.
    pub(super) client: u64,
    /// Which of this process's connections it is.
    pub(super) number: u64,
}

static OPENED: AtomicU64 = AtomicU64::new(0);

struct Driver {
    task: AbortHandle,
    closed: CancellationToken,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Connects to the server at `url`, and is known there as `name`.
    pub(super) async fn open(url: &RedisUrl, name: &str) -> Result<Self, Fault> {
        match timeout(PATIENCE, Self::try_open(url, name)).await {
            Ok(opened) => opened,
            Err(_) if url.tls.is_some() => Err(Fault::Silent(format!(
                "did not answer within {PATIENCE:?}; see that it runs, and speaks TLS at that port"
            ))),
            Err(_) => Err(silent(PATIENCE)),
        }
    }

    async fn try_open(url: &RedisUrl, name: &str) -> Result<Self, Fault> {
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
        stream.set_nodelay(true)?;
        match &url.tls {
            Some(files) => {
                let stream = tls::wrap(stream, &url.host, files).await?;
                Self::greet(stream, url, name).await
            }
            None => Self::greet(stream, url, name).await,
        }
    }

    async fn greet<S>(mut stream: S, url: &RedisUrl, name: &str) -> Result<Self, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Not left to the client library: what a server says before it hangs up would be lost there.
        let said = exchange(&mut stream, &greeting(url, name)).await?;
        let client = check_greeting(said)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE_REQUESTS_MAX);
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (requests, driver) =
            MultiplexedConnection::new_with_config(&settings, stream, config).await?;
        let closed = CancellationToken::new();
        let guard = closed.clone().drop_guard();
        let task = tokio::spawn(async move {
            driver.await;
            drop(guard);
        });
        let connection = Self {
            requests,
            driver: Arc::new(Driver {
                task: task.abort_handle(),
                closed,
            }),
            client,
            number: OPENED.fetch_add(1, Ordering::Relaxed),
        };
        if url.database != 0 {
            let mut select = pipeline();
            select.cmd("SELECT").arg(url.database);
            connection.ask(&select, PATIENCE).await?.next()?;
        }
        Ok(connection)
    }

    /// Asks, and waits so long for the replies to all commands. After silence the connection is of
    /// no use any more: what comes next might be the answer to something else.
    pub(super) async fn ask(
        &self,
        commands: &Pipeline,
        patience: Duration,
    ) -> Result<Replies, Fault> {
        let mut requests = self.requests.clone();
        let asked = commands.query_async::<Vec<Value>>(&mut requests);
        match timeout(patience, asked).await {
            Ok(Ok(replies)) => Ok(Replies::new(replies)),
            Ok(Err(error)) => {
                self.close();
                Err(error.into())
            }
            Err(_) => {
                self.close();
                Err(silent(patience))
            }
        }
    }

    /// Closes it for all who share it.
    pub(super) fn close(&self) {
        self.driver.closed.cancel();
        self.driver.task.abort();
    }

    /// Whether it is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.closed.is_cancelled()
    }

    /// Ends when it is closed, by whomever.
    pub(super) async fn closed(&self) {
        self.driver.closed.cancelled().await;
    }

    /// Whether both are one connection.
    pub(super) const fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

fn silent(patience: Duration) -> Fault {
    Fault::Silent(format!(
        "did not answer within {patience:?}; see that it runs"
    ))
}

/// Says who is there, proves it, and asks who the server is.
fn greeting(url: &RedisUrl, name: &str) -> Cmd {
    let mut hello = cmd("HELLO");
    hello.arg(2);
    if let Some(password) = &url.password {
        let user = url.user.as_deref().unwrap_or("default");
        hello.arg("AUTH").arg(user).arg(password.as_str());
    }
    hello.arg("SETNAME").arg(name);
    hello
}

/// Sends one command and reads its reply.
async fn exchange<S>(stream: &mut S, command: &Cmd) -> Result<Value, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut said = Vec::new();
    stream.write_all(&command.get_packed_command()).await?;
    stream.flush().await?;
    loop {
        let is_over = match stream.read_buf(&mut said).await {
            Ok(read) => read == 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => return Err(error.into()),
        };
        if is_over {
            return Err(Fault::Lost(
                "closed the connection at once; see whether it wants TLS (rediss://)".to_owned(),
            ));
        }
        match redis::parse_redis_value(&said) {
            Ok(reply) => return Ok(reply),
            // There is more to come.
            Err(error) if error.is_io_error() && said.len() < GREETING_BYTES_MAX => {}
            Err(error) if error.is_io_error() => return Err(odd("HELLO")),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The id of the client, if the server is one that will do.
fn check_greeting(said: Value) -> Result<u64, Fault> {
    let fields = match said {
        Value::Array(fields) => fields,
        Value::ServerError(error) => return Err((&error).into()),
        _ => return Err(odd("HELLO")),
    };
    let field = |wanted: &str| {
        let pairs = fields.chunks_exact(2);
        let found = pairs.filter(|pair| text(&pair[0]).is_some_and(|name| name == wanted));
        found.map(|pair| &pair[1]).next()
    };
    if field("mode").and_then(text) == Some("cluster") {
        return Err(Fault::Unusable(CLUSTER.to_owned()));
    }
    if field("mode").and_then(text) == Some("sentinel") {
        return Err(Fault::Unusable(
            "is a sentinel and stores nothing: name the server that it watches".to_owned(),
        ));
    }
    let version = field("version").and_then(text).unwrap_or_default();
    let mut parts = version.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return Err(odd("HELLO"));
    };
    if (major, minor) < VERSION_MIN {
        return Err(Fault::Unusable(format!("{TOO_OLD}, and it is {version}")));
    }
    match field("id") {
        Some(Value::Int(client)) => u64::try_from(*client).map_err(|_| odd("HELLO")),
        _ => Err(odd("HELLO")),
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
