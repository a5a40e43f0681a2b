//! The side that is asked: from the bytes of a request to those of the response.
//!
//! Nothing is remembered from message to message. Each is answered from what the own manager says
//! at that moment.

use std::collections::BTreeSet;

use bytes::Bytes;
use peer_table::contract::{
    Batch, FINGERPRINTS_MAX, FingerprintPage, InvalidMessage, MergeAnswer, State, StateRequest,
    TableState, WireHorizon, WireRecord, fingerprints_from_bytes,
};
use peer_table::feed::Via;
use peer_table::floors::Replicas;
use peer_table::sketch::WIRE_LEN;
use peer_table::table::Digest;
use peer_table::{Fingerprint, TableName};

use crate::ends::Own;
use crate::exchange::buried;
use crate::handshake::{HandshakeRefused, Identity, Partner, Protocols, Refusal, skew_ms};
use crate::message::{
    self, Answer, Ask, AskFingerprints, AskSymbols, Hello, Open, Opened, Push, Pushed, Request,
    Response, SYMBOLS_MAX, Swap, Swapped, Symbols, WANTED_MAX, count_symbols,
};
use crate::outcomes::{Outcomes, is_over};
use crate::push::{PassOn, Position, Scope};
use crate::versions;

/// A response, and what is to be known about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Responded {
    /// The body to answer with.
    pub response: Vec<u8>,
    /// For metrics and logs, and what to do next.
    pub report: RespondReport,
}

/// What a request asked and what came of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RespondReport {
    /// The word for what was asked: one of [`ASK_WORDS`].
    pub ask: &'static str,
    /// Who asked, if its hello was accepted.
    pub partner: Option<Partner>,
    /// How far its clock is ahead of ours, in milliseconds, less what the message took to get here.
    pub skew_ms: i64,
    /// The digest of its table, if it said so.
    pub partner_digest: Option<Digest>,
    /// Why nothing was done, if so.
    pub refused: Option<Refusal>,
    /// Records given.
    pub sent: u64,
    /// Records received.
    pub received: u64,
    /// What became of those here.
    pub merged: Outcomes,
    /// What was pushed and others are to have from us.
    pub pass_on: Option<PassOn>,
    /// What [`Own::state`] said of us just before, for who passes it on; `None` where what was pushed
    /// may have changed that.
    pub state: Option<State>,
}

/// The word for every ask, the last one for those that this release does not know.
pub const ASK_WORDS: [&str; 7] = [
    "open",
    "symbols",
    "fingerprints",
    "swap",
    "push",
    "replicas",
    "unknown",
];

const fn ask_word(ask: Option<&Ask>) -> &'static str {
    match ask {
        Some(Ask::Open(_)) => "open",
        Some(Ask::Symbols(_)) => "symbols",
        Some(Ask::Fingerprints(_)) => "fingerprints",
        Some(Ask::Swap(_)) => "swap",
        Some(Ask::Push(_)) => "push",
        Some(Ask::Replicas(_)) => "replicas",
        None => "unknown",
    }
}

/// Answers one request. `understood` are the versions of the protocol to accept:
/// [`PROTOCOLS`](crate::handshake::PROTOCOLS), unless somebody said otherwise.
///
/// There is an answer to any bytes; what is wrong with them is in it and in the report.
pub async fn respond<O: Own>(own: &O, body: &[u8], understood: Protocols) -> Responded {
    let mut report = RespondReport {
        ask: ask_word(None),
        ..RespondReport::default()
    };
    let request = match Request::from_bytes(body) {
        Ok(request) => request,
        Err(unreadable) => {
            let refusal = Refusal::new(HandshakeRefused::Malformed, unreadable);
            return finish(None, String::new(), Err(refusal), report);
        }
    };
    let Request { hello, table, ask } = request;
    report.ask = ask_word(ask.as_ref());
    let mut responder = Responder {
        own,
        understood,
        report,
        hello: None,
    };
    let answer = responder.answer(&hello, &table, ask).await;
    let Responder { report, hello, .. } = responder;
    finish(hello, table, answer, report)
}

/// The answer to a request that is not even looked at: by who is too busy, for one.
pub fn refuse(reason: HandshakeRefused, detail: &str) -> Responded {
    let report = RespondReport {
        ask: ask_word(None),
        ..RespondReport::default()
    };
    finish(
        None,
        String::new(),
        Err(Refusal::new(reason, detail)),
        report,
    )
}

fn finish(
    hello: Option<Hello>,
    table: String,
    answer: Result<Answer, Refusal>,
    mut report: RespondReport,
) -> Responded {
    let answer = answer.unwrap_or_else(|refusal| {
        let refused = Answer::Refused(refusal.to_wire());
        report.refused = Some(refusal);
        refused
    });
    // In the version of the hello that goes with it.
    let answer = match &hello {
        Some(hello) => versions::put(answer, hello.protocol),
        None => answer,
    };
    let response = Response {
        hello,
        table,
        answer: Some(answer),
    };
    Responded {
        response: response.to_bytes(),
        report,
    }
}

struct Responder<'a, O> {
    own: &'a O,
    understood: Protocols,
    report: RespondReport,
    /// Ours, once we know who we are.
    hello: Option<Hello>,
}

impl<O: Own> Responder<'_, O> {
    async fn answer(
        &mut self,
        hello: &Hello,
        table: &str,
        ask: Option<Ask>,
    ) -> Result<Answer, Refusal> {
        let without = left_by(ask.as_ref());
        let makes_sense = without
            .as_ref()
            .map_or(Ok(()), |left| left.read().map(drop));
        let request = StateRequest {
            symbols: symbols_for(ask.as_ref()),
            give_snapshot: matches!(ask, Some(Ask::Open(_))),
            without: without.filter(|_| makes_sense.is_ok()),
            ..StateRequest::default()
        };
        let state = self.own.state(&request).await.map_err(unavailable)?;
        let partner = self.greet(&state, hello)?;
        makes_sense.map_err(malformed)?;
        let table: TableName = table.parse().map_err(malformed)?;
        let Some(stand) = state.table(&table) else {
            let detail = format!("there is no table {table} here");
            return Err(Refusal::new(HandshakeRefused::Table, detail));
        };
        match ask {
            Some(Ask::Open(open)) => self.open(&table, &state, stand, open).await,
            Some(Ask::Symbols(ask)) => symbols(stand, &ask),
            Some(Ask::Fingerprints(ask)) => self.fingerprints(&table, stand, ask).await,
            Some(Ask::Swap(swap)) => self.swap(&table, swap, &partner).await,
            Some(Ask::Push(push)) => {
                self.report.state = push.replicas.is_none().then_some(state);
                self.push(table, push, &partner).await
            }
            Some(Ask::Replicas(theirs)) => {
                theirs.check().map_err(malformed)?;
                let ours = self.own.replicas(&theirs).await;
                Ok(Answer::Replicas(ours.map_err(unavailable)?))
            }
            None => Err(Refusal::new(
                HandshakeRefused::Ask,
                "what was asked is not known here",
            )),
        }
    }

    /// Checks who asks, and learns who we are.
    fn greet(&mut self, state: &State, hello: &Hello) -> Result<Partner, Refusal> {
        let identity = Identity::from_state(state).map_err(unavailable)?;
        let now = self.own.now();
        // In the version that was spoken to us, if we understand it.
        let Protocols { min, max } = self.understood;
        self.hello = Some(identity.hello(hello.protocol.clamp(min, max), self.understood, now));
        let partner = identity.check(hello, self.understood)?;
        self.report.skew_ms = skew_ms(now, now, partner.wall);
        self.report.partner = Some(partner.clone());
        Ok(partner)
    }

    async fn open(
        &mut self,
        table: &TableName,
        state: &State,
        stand: &TableState,
        open: Open,
    ) -> Result<Answer, Refusal> {
        let mut opened = Opened {
            digest: stand.digest,
            symbols: Vec::new(),
            listing: None,
            snapshot: state.snapshot.clone(),
            horizon: state.snapshot.as_ref().map_or(0, |_| state.horizon),
        };
        self.report.partner_digest = Some(open.digest.into());
        if open.digest == stand.digest {
            return Ok(Answer::Opened(opened));
        }
        let symbols = run(stand, 0, open.symbols)?;
        let records = usize::try_from(stand.digest.records).unwrap_or(usize::MAX);
        if records <= symbols.len() / 8 {
            let page = self
                .own
                .fingerprints(table, Fingerprint(0), symbols.len() / 8)
                .await;
            // It may have changed in between, and the snapshot is not of that.
            let is_of_it =
                |page: &FingerprintPage| page.complete && page.digest == Some(stand.digest);
            opened.listing = Some(page.map_err(unavailable)?).filter(is_of_it);
        }
        if opened.listing.is_none() {
            opened.symbols = symbols;
        }
        Ok(Answer::Opened(opened))
    }

    async fn fingerprints(
        &self,
        table: &TableName,
        stand: &TableState,
        ask: AskFingerprints,
    ) -> Result<Answer, Refusal> {
        let limit = usize::try_from(ask.limit)
            .unwrap_or(usize::MAX)
            .clamp(1, FINGERPRINTS_MAX);
        let page = self
            .own
            .fingerprints(table, Fingerprint(ask.from), limit)
            .await;
        let mut page = page.map_err(unavailable)?;
        // What our hello says is of that table, or the page vouches for none.
        page.digest = page.digest.filter(|digest| *digest == stand.digest);
        Ok(Answer::Fingerprints(page))
    }

    async fn swap(
        &mut self,
        table: &TableName,
        swap: Swap,
        partner: &Partner,
    ) -> Result<Answer, Refusal> {
        let given = message::batch_from_bytes(&swap.batch, table).map_err(malformed)?;
        let want = fingerprints_from_bytes(&swap.want).map_err(malformed)?;
        if want.len() > WANTED_MAX {
            let problem = format!("are {} fingerprints, more than {WANTED_MAX}", want.len());
            return Err(malformed(InvalidMessage::field("want", problem)));
        }
        let mut swapped = Swapped::default();
        let mut given_anyway = BTreeSet::new();
        // Taken from the table before the merge: see `exchange::swap`.
        if !want.is_empty() {
            let records = self.own.records(table, &want).await.map_err(unavailable)?;
            given_anyway.extend(records.batch.records.iter().filter_map(buried));
            self.report.sent = records.batch.records.len() as u64;
            swapped.batch = message::batch_to_bytes(&records.batch);
            swapped.dealt_with = records.dealt_with;
        }
        if let Some(batch) = given {
            let mut merged = self.merge(batch, Via::Exchange, partner).await?;
            if let Some(answers) = &mut merged.answers {
                let is_new = |record: &WireRecord| {
                    buried(record).is_none_or(|buried| !given_anyway.contains(&buried))
                };
                answers.records.retain(is_new);
            }
            swapped.answers = answers(&merged);
            swapped.outcomes = merged.outcomes;
        }
        let state = self.own.state(&StateRequest::default()).await;
        let state = state.map_err(unavailable)?;
        if let Some(stand) = state.table(table) {
            swapped.digest = stand.digest;
        }
        Ok(Answer::Swapped(swapped))
    }

    async fn push(
        &mut self,
        table: TableName,
        push: Push,
        partner: &Partner,
    ) -> Result<Answer, Refusal> {
        let batch = message::batch_from_bytes(&push.batch, &table).map_err(malformed)?;
        let mut pushed = Pushed::default();
        if let Some(news) = &push.replicas {
            // Ids are told in answer to ids only.
            let news = Replicas {
                ids: None,
                ..news.clone()
            };
            news.check().map_err(malformed)?;
            self.own.replicas(&news).await.map_err(unavailable)?;
        }
        let mut batch = batch.unwrap_or_else(|| Batch::new(&table, []));
        if !batch.records.is_empty() {
            let merged = self.merge(batch.clone(), Via::Push, partner).await?;
            pushed.answers = answers(&merged);
            pushed.outcomes = merged.outcomes;
        }
        let scope = Scope {
            after: Position(push.after),
            up_to: Position(push.up_to),
            origin: (push.origin != 0).then_some(Position(push.origin)),
        };
        let mut kept = pushed.outcomes.iter().map(|code| !is_over(*code));
        batch.records.retain(|_| kept.next().unwrap_or(false));
        let is_news = !batch.records.is_empty() || push.replicas.is_some();
        if scope.places() > 0 && is_news {
            self.report.pass_on = Some(PassOn {
                table,
                batch,
                replicas: push.replicas,
                scope,
            });
        }
        Ok(Answer::Pushed(pushed))
    }

    async fn merge(
        &mut self,
        batch: Batch,
        via: Via,
        partner: &Partner,
    ) -> Result<MergeAnswer, Refusal> {
        let received = batch.records.len() as u64;
        let merged = self
            .own
            .merge(batch, via, partner.store, None)
            .await
            .map_err(unavailable)?;
        self.report.received = received;
        self.report.merged.add(&merged.outcomes);
        Ok(merged)
    }
}

/// How many of our symbols an answer needs.
fn symbols_for(ask: Option<&Ask>) -> u32 {
    let symbols = match ask {
        Some(Ask::Open(open)) => open.symbols,
        Some(Ask::Symbols(ask)) => ask.to,
        _ => 0,
    };
    symbols.min(u32::try_from(SYMBOLS_MAX).unwrap_or(u32::MAX))
}

/// The tombstones that who asks may have let go.
fn left_by(ask: Option<&Ask>) -> Option<WireHorizon> {
    match ask {
        Some(Ask::Open(open)) => open.without.clone(),
        Some(Ask::Symbols(ask)) => ask.without.clone(),
        _ => None,
    }
}

/// What beat some of what was merged, as it is sent.
fn answers(merged: &MergeAnswer) -> Bytes {
    let answers = merged.answers.as_ref();
    answers.map(message::batch_to_bytes).unwrap_or_default()
}

fn symbols(stand: &TableState, ask: &AskSymbols) -> Result<Answer, Refusal> {
    let from = if ask.digest == stand.digest {
        ask.from
    } else {
        0
    };
    let symbols = run(stand, from, ask.to)?;
    Ok(Answer::Symbols(Symbols {
        digest: stand.digest,
        from,
        symbols,
    }))
}

/// Our symbols from one index to before another, as far as there are any.
fn run(stand: &TableState, from: u32, to: u32) -> Result<Vec<u8>, Refusal> {
    let have = count_symbols(&stand.symbols).map_err(unavailable)?;
    let index = |at: u32| usize::try_from(at).unwrap_or(usize::MAX).min(have) * WIRE_LEN;
    Ok(stand
        .symbols
        .get(index(from)..index(to))
        .unwrap_or_default()
        .to_vec())
}

fn unavailable(error: impl std::error::Error) -> Refusal {
    Refusal::new(
        HandshakeRefused::Unavailable,
        format!("the manager here failed: {error}"),
    )
}

fn malformed(error: impl std::error::Error) -> Refusal {
    Refusal::new(HandshakeRefused::Malformed, error)
}
