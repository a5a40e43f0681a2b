//! The verbs of the program.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use hyper::Method;
use peer_exchange::{Address, ExchangeError};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use udht_process::memory;
use udht_tell::ask::{Unconfirmed, confirm_on_terminal};
use udht_tell::log::{ChangeFilter, FilterInUse, LogFilter, Moment};
use udht_tell::{about, chain, log};

use crate::authority;
use crate::authority::secret::AuthoritySecret;
use crate::authority::trouble::Trouble;
use crate::authority::verbs::{AuthorityVerb, VerbError};
use crate::config::{Bounds, EndsArgs, ServeArgs};
use crate::http::{BaseUrl, HttpClient, HttpError};
use crate::kubernetes::client::{self, ApiError};
use crate::lifecycle::{GoneView, HandoverView, RemovedView};
use crate::manager::ManagerError;
use crate::manual::Manual;
use crate::metrics::Metrics;
use crate::node::{Node, NodeError};
use crate::ops::{
    GONE_PATH, HANDOVER_PATH, LIVE_PATH, LOG_FILTER_PATH, PEERS_PATH, PeerReport, READY_PATH,
};
use crate::serve::{self, ServeError};
use crate::show::{self, ExchangeView};
use crate::transport::TransportError;

const EXAMPLES: &str = "\
Examples:
  udht-sync serve --tls off --discovery fixed:10.0.0.1:3003,10.0.0.2:3003
  udht-sync authority show             who signs the certificates of --tls auto
  udht-sync peers                      what is known of each peer
  udht-sync exchange 10.0.0.2:3003 --tls off
                                       one round now: what it found and what it cost
  udht-sync healthcheck                for probes: is this pod ready?
  udht-sync gone                       which pods are gone, and whether the brake is on
  udht-sync log-filter debug --for 10m more of the log, without a restart
  udht-sync handover                   before this pod ends: a peer gets everything

Exit codes:
  0 done   1 failed   2 wrong usage   3 refused, by the peer or from here   5 not reachable";

/// The table's traveller: finds the other pods and makes their tables and this pod's equal.
///
/// It stands beside a manager, which keeps the table; `serve` is all that a pod needs.
#[derive(Debug, Parser)]
#[command(name = "udht-sync", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Keep this pod's table equal to those of all peers, until told to stop
    ///
    /// Fresh changes are pushed at once; an exchange with a random peer every now and then finds
    /// what was missed. SIGTERM and SIGINT end it when the exchange under way is done.
    #[command(after_help = "\
Examples:
  udht-sync serve --tls off --discovery fixed:10.0.0.1:3003,10.0.0.2:3003
  udht-sync serve --tls files:/tls --discovery fixed:pod-0.udht:3003 --cluster prod/files
      the certificate in /tls bears the name prod-files.udht.internal")]
    Serve(Box<ServeArgs>),
    /// Show what the running sync knows of each peer
    #[command(after_help = "\
Examples:
  udht-sync peers
  udht-sync peers -o json | jq '.peers[] | select(.reachable | not)'")]
    Peers(AskArgs),
    /// Run one round with a peer now, and show what it found and what it cost
    ///
    /// It makes this pod's table and the peer's equal, through this pod's manager; a running sync
    /// is not needed and not disturbed.
    #[command(after_help = "\
Examples:
  udht-sync exchange 10.0.0.2:3003 --tls files:/tls
  udht-sync exchange pod-2.udht:3003 --tls off -o json | jq .bytes_sent")]
    Exchange {
        /// Where the sync of the peer listens
        #[arg(value_name = "HOST:PORT")]
        peer: Address,
        #[command(flatten)]
        ends: EndsArgs,
        /// How to show it
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Ask the running sync whether this pod is ready: exit code 0 if it is
    #[command(after_help = "\
Examples:
  udht-sync healthcheck           ready: store open, table loaded
  udht-sync healthcheck --live    running")]
    Healthcheck {
        /// Where the running sync tells of itself
        #[command(flatten)]
        ops: OpsArgs,
        /// Ask only whether it runs
        #[arg(long)]
        live: bool,
    },
    /// Show what is logged, or change it while the sync runs
    ///
    /// A start of the sync takes it back to what `serve --log` says.
    #[command(after_help = "\
Examples:
  udht-sync log-filter
  udht-sync log-filter info,udht_sync::push=debug --for 10m
  kubectl exec POD -c sync -- /udht-sync log-filter debug")]
    LogFilter {
        /// A level (off, error, warn, info, debug, trace), or levels by module, with commas
        #[arg(value_name = "FILTER")]
        filter: Option<LogFilter>,
        /// For how long, from 1s to 24h; then it is again what the sync was started with
        #[arg(long = "for", value_name = "TIME", requires = "filter")]
        moment: Option<Moment>,
        /// Where the running sync tells of itself
        #[command(flatten)]
        ops: OpsArgs,
        /// How to show it
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Look at the authority of `--tls auto`, rotate it, or have it adopt another one's stores
    ///
    /// It is in a Secret, which is asked for with this pod's token: run it in the container of a
    /// sync, or with --kubeconfig.
    #[command(after_help = "\
Examples:
  kubectl exec POD -c sync -- /udht-sync authority show
  kubectl exec POD -c sync -- /udht-sync authority rotate
  kubectl exec -it POD -c sync -- /udht-sync authority adopt 0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11")]
    Authority {
        #[command(subcommand)]
        verb: AuthorityVerb,
    },
    /// Show the records whose pods Kubernetes does not list, or remove them
    ///
    /// They are removed by themselves when their pods were not listed for --gone-after. Not so while
    /// the brake is on: the list of pods is not followed, or more than half of the pods are gone at
    /// once. Where those are gone for good, --remove removes all records that have waited for long
    /// enough; one pod is told, and its peers follow.
    #[command(after_help = "\
Examples:
  udht-sync gone
  udht-sync gone --remove         those pods will not come back; --yes is not asked back")]
    Gone {
        /// Where the running sync tells of itself
        #[command(flatten)]
        ops: OpsArgs,
        /// Remove the records that have waited for long enough, also if they are many
        #[arg(long)]
        remove: bool,
        /// Do it without being asked
        #[arg(long, requires = "remove")]
        yes: bool,
        /// How to show it
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Have a peer get all that this pod has, before this pod ends
    ///
    /// This is for the container's preStop hook. The application may still write meanwhile: the
    /// running sync sees to the rest when it is told to stop. Exit code 1 says that no peer was found
    /// to have everything; without any peer there is nothing to do.
    #[command(after_help = "\
Examples:
  udht-sync handover")]
    Handover {
        /// Where the running sync tells of itself
        #[command(flatten)]
        ops: OpsArgs,
    },
    #[command(flatten)]
    Manual(Manual),
}

#[derive(Debug, Args)]
struct AskArgs {
    #[command(flatten)]
    ops: OpsArgs,
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
struct OpsArgs {
    /// Where the running sync tells of itself
    #[arg(
        long = "ops",
        env = "UDHT_OPS",
        value_name = "URL",
        default_value = "http://127.0.0.1:3004"
    )]
    url: BaseUrl,
}

/// How a result is shown.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// What the program ends with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Exit {
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Unreachable = 5,
}

/// A verb that was not done: how the program ends, and what it says.
#[derive(Debug)]
struct Undone {
    exit: Exit,
    text: String,
}

impl Undone {
    fn new(exit: Exit, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exit, text }
    }
}

impl From<io::Error> for Undone {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<Unconfirmed> for Undone {
    fn from(error: Unconfirmed) -> Self {
        let exit = match error {
            Unconfirmed::Unasked(_) => Exit::Usage,
            Unconfirmed::No | Unconfirmed::Unreadable(_) => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ServeError> for Undone {
    fn from(error: ServeError) -> Self {
        Self::new(Exit::Failed, chain(&error))
    }
}

impl From<ExchangeError> for Undone {
    fn from(error: ExchangeError) -> Self {
        let text = chain(&error);
        match &error {
            ExchangeError::Refused(_) => Self::new(Exit::Refused, text),
            ExchangeError::Remote(source) => match source.downcast_ref::<TransportError>() {
                Some(TransportError::Http(error)) => Self::of_http(
                    error,
                    &text,
                    "is its sync running, and its exchange port reachable from here?",
                ),
                _ => Self::new(Exit::Failed, text),
            },
            ExchangeError::Own(source) => match source.downcast_ref::<ManagerError>() {
                Some(ManagerError::Away(error)) => {
                    Self::of_http(error, &text, "is it running? Say where with --manager")
                }
                _ => Self::new(Exit::Failed, text),
            },
            _ => Self::new(Exit::Failed, text),
        }
    }
}

impl From<Trouble> for Undone {
    fn from(trouble: Trouble) -> Self {
        let exit = match &trouble {
            Trouble::Forbidden { .. } | Trouble::Bound(_) => Exit::Refused,
            Trouble::Api(ApiError::TooLong { .. } | ApiError::Failed(_)) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self::new(exit, chain(&trouble))
    }
}

impl From<VerbError> for Undone {
    fn from(error: VerbError) -> Self {
        match error {
            VerbError::Trouble(trouble) => {
                let is_none =
                    matches!(trouble, Trouble::Forbidden { .. } | Trouble::Missing { .. });
                let undone = Self::from(trouble);
                if !is_none {
                    return undone;
                }
                let hint =
                    "where --tls is not `auto` (in the chart: tls.mode), there is no authority";
                Self::new(undone.exit, format!("{}\n{hint}", undone.text))
            }
            VerbError::Output(error) => error.into(),
            error => Self::new(Exit::Failed, chain(&error)),
        }
    }
}

impl Undone {
    fn of_http(error: &HttpError, text: &str, hint: &str) -> Self {
        match error {
            HttpError::TooLarge { .. } => Self::new(Exit::Failed, text),
            HttpError::Refused { .. } => Self::new(Exit::Refused, text),
            _ => Self::new(Exit::Unreachable, format!("{text}\n{hint}")),
        }
    }
}

/// Does what the command line says.
pub fn parse_and_run() -> ExitCode {
    let command = Cli::command();
    let matches = command.clone().get_matches();
    let (program, release) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    about::begin(program, release, &command, "serve", &matches);
    // Both are made of the same struct.
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.verb, &mut io::stdout())),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Undone { exit, text }) => {
            // Nobody may be reading, and then there is nobody to tell.
            let _ = writeln!(io::stderr(), "udht-sync: {text}");
            ExitCode::from(exit as u8)
        }
    }
}

async fn run(verb: Verb, out: &mut impl Write) -> Result<(), Undone> {
    match verb {
        // All that goes on in a sync is one future, too large to be carried about.
        Verb::Serve(args) => Box::pin(serve(*args)).await,
        Verb::Peers(AskArgs { ops, output }) => {
            let body = ask(Method::GET, &ops.url, PEERS_PATH).await?;
            tell(out, output, &body, &ops, |out, report: PeerReport| {
                show::peers(out, &report)
            })
        }
        Verb::Exchange { peer, ends, output } => {
            let view = Box::pin(exchange(&peer, &ends)).await?;
            match output {
                Output::Json => serde_json::to_writer_pretty(&mut *out, &view)
                    .map_err(io::Error::from)
                    .and_then(|()| writeln!(out)),
                Output::Table => show::exchange(out, &view),
            }
            .map_err(Undone::from)
        }
        Verb::Healthcheck { ops, live } => {
            let path = if live { LIVE_PATH } else { READY_PATH };
            ask(Method::GET, &ops.url, path).await.map(drop)
        }
        Verb::Gone {
            ops,
            remove: false,
            output,
            ..
        } => {
            let body = ask(Method::GET, &ops.url, GONE_PATH).await?;
            tell(out, output, &body, &ops, |out, gone: GoneView| {
                show::gone(out, &gone)
            })
        }
        Verb::Gone {
            ops,
            remove: true,
            yes,
            output,
        } => {
            if !yes {
                confirm_removal(&ops).await?;
            }
            let body = ask(Method::POST, &ops.url, GONE_PATH).await?;
            tell(out, output, &body, &ops, |out, removed: RemovedView| {
                show::removed(out, &removed)
            })
        }
        Verb::Handover { ops } => {
            let body = ask(Method::POST, &ops.url, HANDOVER_PATH).await?;
            let handover: HandoverView = understand(&body, &ops)?;
            show::handover(out, &handover)?;
            if handover.is_done() {
                Ok(())
            } else {
                let text = "no peer was found to have everything that this pod has";
                Err(Undone::new(Exit::Failed, text))
            }
        }
        Verb::LogFilter {
            filter,
            moment,
            ops,
            output,
        } => {
            let body = match filter {
                None => ask(Method::GET, &ops.url, LOG_FILTER_PATH).await?,
                Some(filter) => {
                    let change = serde_json::to_vec(&ChangeFilter { filter, moment });
                    let change = change.map_err(io::Error::from)?;
                    ask_with(Method::POST, &ops.url, LOG_FILTER_PATH, change).await?
                }
            };
            tell(out, output, &body, &ops, |out, used: FilterInUse| {
                writeln!(out, "{used}")
            })
        }
        Verb::Authority { verb } => {
            if let Some(what) = verb.to_confirm() {
                confirm_on_terminal(&what)?;
            }
            let metrics = Metrics::new()
                .map_err(NodeError::from)
                .map_err(ServeError::from)?;
            let bounds = Bounds::default().kubernetes;
            let client = client::client(verb.api(), &bounds, &metrics.kubernetes).await;
            let client = client.map_err(ServeError::Authority)?;
            let secret = AuthoritySecret::new(client, verb.api(), bounds);
            Ok(Box::pin(verb.run(&secret, out)).await?)
        }
        Verb::Manual(manual) => Ok(manual.write(Cli::command(), out)?),
    }
}

/// Asks back before the records of pods that are gone are removed, if there are any.
async fn confirm_removal(ops: &OpsArgs) -> Result<(), Undone> {
    let body = ask(Method::GET, &ops.url, GONE_PATH).await?;
    let gone: GoneView = understand(&body, ops)?;
    if gone.waiting.is_empty() {
        return Ok(());
    }
    let what = format!(
        "Of the {} records whose pods Kubernetes does not list, those that have waited for long enough \
         are deleted, in all pods.",
        gone.waiting.len()
    );
    Ok(confirm_on_terminal(&what)?)
}

async fn serve(args: ServeArgs) -> Result<(), Undone> {
    let log = log::begin(&args.log);
    tokio::spawn(log.keep());
    tokio::spawn(memory::keep_giving_back());
    let stop = CancellationToken::new();
    let told = told_to_stop()?;
    let bound = serve::bind(args, Bounds::default()).await;
    let bound = bound.inspect_err(|error| {
        tracing::error!(error = chain(error), "the sync cannot begin");
    })?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            told.await;
            stop.cancel();
        }
    });
    bound.run(stop).await;
    log.tell_left_out();
    Ok(())
}

/// Done when the program is asked to end. From the call on, such a wish no longer ends it at once.
fn told_to_stop() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn exchange(peer: &Address, ends: &EndsArgs) -> Result<ExchangeView, Undone> {
    let (node, _news) =
        Node::new(ends, Bounds::default(), Duration::ZERO).map_err(ServeError::from)?;
    let own = serve::own_authority(&node, ends)
        .await
        .map_err(ServeError::Authority)?;
    if let Some((secret, rules)) = own {
        Box::pin(authority::take_once(&node, &secret, &rules)).await?;
    }
    let (report, took) = node.exchange(peer).await?;
    Ok(ExchangeView::new(peer, &report, took))
}

/// Shows what the running sync answered.
fn tell<T: DeserializeOwned, W: Write>(
    out: &mut W,
    output: Output,
    body: &Bytes,
    ops: &OpsArgs,
    show: impl FnOnce(&mut W, T) -> io::Result<()>,
) -> Result<(), Undone> {
    match output {
        Output::Json => out.write_all(body).and_then(|()| writeln!(out)),
        Output::Table => show(out, understand(body, ops)?),
    }
    .map_err(Undone::from)
}

fn understand<T: DeserializeOwned>(body: &Bytes, ops: &OpsArgs) -> Result<T, Undone> {
    serde_json::from_slice(body).map_err(|error| {
        let text = format!("what {} tells is no report: {error}", ops.url);
        Undone::new(Exit::Failed, text)
    })
}

/// Asks the running sync; anything but success is told in its own words.
async fn ask(method: Method, url: &BaseUrl, path: &str) -> Result<Bytes, Undone> {
    ask_with(method, url, path, Vec::new()).await
}

/// The same with a body.
async fn ask_with(
    method: Method,
    url: &BaseUrl,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, Undone> {
    const ANSWER_BYTES_MAX: usize = 16 << 20;
    let request = url
        .request(method, path, body)
        .map_err(|error| Undone::new(Exit::Usage, error.to_string()))?;
    let http = HttpClient::new(Bounds::default().peer);
    let (status, body) = http
        .send(request, ANSWER_BYTES_MAX)
        .await
        .map_err(|error| {
            let hint = "is a sync running there? Say where with --ops";
            Undone::of_http(&error, &chain(&error), hint)
        })?;
    if status.is_success() {
        Ok(body)
    } else {
        let detail = crate::http::detail(&body);
        let text = format!("{url}{path} answered {status}: {detail}");
        Err(Undone::new(Exit::Failed, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_serve_has_its_variable() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for flag in serve.get_arguments().filter(|flag| flag.get_id() != "help") {
            let name = flag.get_long().unwrap().to_uppercase().replace('-', "_");
            let variable = flag.get_env().map(|variable| variable.to_str().unwrap());
            assert_eq!(variable, Some(format!("UDHT_{name}").as_str()));
        }
    }
}
