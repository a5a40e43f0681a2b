//! The program: opens the store, loads the table, serves it, and ends in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peer_table::floors::Ages;
use peer_table::table::Limits;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use udht_process::memory;
use udht_tell::{chain, log};

use crate::config::{IdentityArgs, ServeArgs};
use crate::identity::{self, IdentityError, host_name};
use crate::metrics::Metrics;
use crate::owner::{self, Owner, OwnerConfig};
use crate::server::{self, App, drawn_id};
use crate::store::{self, StoreError};

/// How long the owner may take at the end for what is in its queue.
const OWNER_GRACE: Duration = Duration::from_secs(5);

/// Why `serve` ended otherwise than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or is none of this machine.
    #[error("cannot listen on {address}: choose another --listen, or stop the program that has it")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be opened or read; its own text says what to do.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The flags do not make a record.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The machine does not give what every program needs.
    #[error("the system refuses what every program needs")]
    System(#[from] io::Error),
    /// Two figures have one name.
    #[error("the figures for Prometheus cannot be made")]
    Metrics(#[from] prometheus::Error),
    /// The task through which all writes go is gone, and with it the service.
    #[error("the owner of the table ended by itself; start the manager again")]
    Owner(#[source] Option<tokio::task::JoinError>),
}

/// Runs a manager until SIGTERM or SIGINT.
///
/// All of it runs on this one thread: a request is little work between two waits, and a second
/// thread would mostly cost wake-ups. On two processors, one thread served requests to Redis faster
/// than two; the owner's task and the store's connection on a thread of their own took as many writes
/// as on this one (0.98 of them), for a sixth more processor time a write. What blocks, as the embedded
/// store does, has threads of its own.
pub fn run(args: ServeArgs) -> Result<(), ServeError> {
    log::begin(&args.log);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let ServeArgs {
        listen,
        store,
        cluster,
        max_records,
        max_record_bytes,
        max_clock_drift,
        tombstone_max_age,
        floor_interval,
        identity,
        pod,
        log: _,
        trace,
    } = args;
    let mut signals = Signals::new()?;
    tokio::spawn(log::log().keep());
    tokio::spawn(memory::keep_giving_back());
    let metrics = Arc::new(Metrics::new()?);
    let stopping = CancellationToken::new();
    let (listener, address) = listen_on(listen.get()).await?;
    let (router, routers) = watch::channel(server::loading(Arc::clone(&metrics)));
    let served = server::run(listener, routers, Arc::clone(&metrics), stopping.clone());
    let served = tokio::spawn(served);
    let config = OwnerConfig {
        cluster,
        limits: Limits {
            records_max: max_records as usize,
            record_bytes_max: max_record_bytes as usize,
        },
        drift_max: max_clock_drift.0,
        ages: Ages::new(tombstone_max_age.0, floor_interval.0),
        pod,
    };
    let host = host_name();
    let opened = async {
        let draw = store::draw(drawn_id(), &config.cluster);
        let store = store::open(&store, &config.cluster, &host, draw).await?;
        owner::open(store, config, Arc::clone(&metrics)).await
    };
    let (owner, task) = tokio::select! {
        opened = opened => opened?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping while the table is being loaded");
            return Ok(());
        }
    };
    let mut task = tokio::spawn(task.run());
    settle(&owner, identity, &stopping).await?;
    let app = App::new(owner.clone(), metrics, stopping.clone());
    let looking = app.clone().keep_looking();
    let looking = stopping.clone().run_until_cancelled_owned(looking);
    tokio::spawn(looking);
    drop(router.send_replace(server::app(app)));
    let (live, tombstones) = owner.counts();
    let opening = owner.opening();
    udht_tell::trace::begin(&trace, "udht-manager", opening.peer_id.to_string());
    tracing::info!(
        store = %opening.store,
        origin = %opening.origin,
        peer_id = %opening.peer_id,
        cluster = %owner.cluster(),
        records = live,
        tombstones,
        listen = %address,
        "listening on {address}"
    );
    tokio::select! {
        name = signals.next() => tracing::info!(signal = name, "stopping"),
        ended = &mut task => return Err(ServeError::Owner(ended.err())),
    }
    stopping.cancel();
    if let Err(error) = served.await {
        tracing::error!(error = chain(&error), "the server broke");
    }
    drop((router, owner));
    end(task).await
}

/// Waits for the owner, which ends once its last handle is gone.
async fn end(task: JoinHandle<()>) -> Result<(), ServeError> {
    match timeout(OWNER_GRACE, task).await {
        Ok(Ok(())) => {
            log::log().tell_left_out();
            tracing::info!("stopped");
        }
        Ok(Err(error)) => return Err(ServeError::Owner(Some(error))),
        Err(_) => tracing::warn!("the store did not end in time"),
    }
    Ok(())
}

async fn listen_on(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Sees to the own record: at once if the table takes it, and from then on.
async fn settle(
    owner: &Owner,
    args: IdentityArgs,
    stopping: &CancellationToken,
) -> Result<(), IdentityError> {
    let is_settled = identity::is_done(identity::settle(owner, &args, None).await)?;
    let keeping = identity::keep(owner.clone(), args, is_settled);
    let stopping = stopping.clone();
    tokio::spawn(async move { stopping.run_until_cancelled(keeping).await });
    Ok(())
}

/// The signals that end the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
