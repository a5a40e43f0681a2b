//! The exchange port: other pods' syncs ask here.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::{Method, StatusCode};
use peer_exchange::alarms::result_word;
use peer_exchange::handshake::HandshakeRefused;
use peer_exchange::message::{Answer, Response};
use peer_exchange::respond::{RespondReport, Responded, refuse, respond};
use peer_table::contract::MEDIA_TYPE;
use tokio::sync::Semaphore;
use udht_tell::trace::{self, Kind, Span};

use crate::listen::{Answered, Asked, Asker, answer, problem, read_body};
use crate::metrics::Direction;
use crate::node::Node;
use crate::push::Pusher;
use crate::report::{asked_kind, event};
use crate::transport::{BODY_BYTES_MAX, EXCHANGE_PATH};
use crate::wall::Stopwatch;

/// Answers the messages of peers.
#[derive(Clone, Debug)]
pub struct Responder {
    node: Arc<Node>,
    pusher: Arc<Pusher>,
    turns: Arc<Semaphore>,
    /// Room for bodies, in KiB.
    room: Arc<Semaphore>,
}

impl Responder {
    /// One that passes on what is pushed to it by `pusher`.
    pub fn new(node: Arc<Node>, pusher: Arc<Pusher>) -> Self {
        let bounds = &node.bounds;
        let room = usize::try_from(bounds.messages_kib_max).unwrap_or(usize::MAX);
        Self {
            turns: Arc::new(Semaphore::new(bounds.messages_max)),
            room: Arc::new(Semaphore::new(room)),
            node,
            pusher,
        }
    }

    /// Answers one request.
    pub async fn answer(self, request: Asked) -> Answered {
        if request.method() != Method::POST || request.uri().path() != EXCHANGE_PATH {
            let detail = format!("this is the exchange port of a sync: POST {EXCHANGE_PATH}");
            return problem(StatusCode::NOT_FOUND, &detail);
        }
        let bounds = &self.node.bounds;
        let from = request.extensions().get::<Asker>().copied();
        // The turn comes before the body, so that only so much of bodies is in memory.
        let kib = self.kib(&request);
        let turn = async { tokio::try_join!(self.turns.acquire(), self.room.acquire_many(kib)) };
        let Ok(Ok(_turn)) = tokio::time::timeout(bounds.turn, turn).await else {
            let detail = "too many messages are being dealt with";
            return self.done(refuse(HandshakeRefused::Busy, detail), from);
        };
        let watch = Stopwatch::start();
        let asked = request.headers().get(trace::HEADER);
        let asked = asked.and_then(|place| place.to_str().ok()?.parse().ok());
        let span = asked.map(|asked| Span::under(Some(asked), "answer", Kind::Server));
        let place = span.as_ref().and_then(Span::place);
        let body = match read_body(request, BODY_BYTES_MAX, bounds.server.body).await {
            Ok(body) => body,
            Err(problem) => {
                self.node.metrics.exchanges.cut_off.inc();
                return *problem;
            }
        };
        let received = self.node.metrics.exchanges.bytes(Direction::Received);
        received.inc_by(body.len() as u64);
        let work = async {
            let responded = respond(&self.node.manager, &body, self.node.options.protocols).await;
            self.tell(&responded, watch.elapsed());
            self.done(responded, from)
        };
        let answered = trace::within(place, work).await;
        self.node.metrics.exchanges.answering_took(watch.elapsed());
        answered
    }

    /// The room that a body may take: what it says, or the most there is.
    fn kib(&self, request: &Asked) -> u32 {
        let said = request.body().size_hint().upper();
        let bytes = said.unwrap_or(u64::MAX).min(BODY_BYTES_MAX as u64);
        u32::try_from(bytes.div_ceil(1 << 10))
            .unwrap_or(u32::MAX)
            .clamp(1, self.node.bounds.messages_kib_max)
    }

    /// Notes for who looks on what a peer did here.
    fn tell(&self, responded: &Responded, took: Duration) {
        let Responded { response, report } = responded;
        let (Some(partner), Some(kind)) = (&report.partner, asked_kind(report.ask)) else {
            return;
        };
        let is_open = report.ask == "open";
        let result = match &report.refused {
            Some(refusal) => result_word(refusal.reason.word()),
            // What moves comes with the next messages, and is told of then.
            None if is_open && differed(response, report) => return,
            None if is_open => {
                self.node.book().found_equal(partner.store);
                "equal".to_owned()
            }
            None => {
                let now = self.node.uptime();
                self.node
                    .book()
                    .refused_of(partner.store, &report.merged, now);
                "ok".to_owned()
            }
        };
        let name = partner.peer_id.as_ref().map(ToString::to_string);
        let peer = name.unwrap_or_else(|| partner.store.to_string());
        let moved = [report.sent, report.received];
        self.node
            .telling
            .happened(event(kind, peer, result, moved, took));
    }

    /// Notes what was asked and answered, and begins what follows from it.
    fn done(&self, responded: Responded, from: Option<Asker>) -> Answered {
        let Responded { response, report } = responded;
        let node = &self.node;
        let sent = node.metrics.exchanges.bytes(Direction::Sent);
        sent.inc_by(response.len() as u64);
        node.metrics
            .exchanges
            .answered(&report, || differed(&response, &report));
        if let Some(refusal) = &report.refused
            && refusal.reason != HandshakeRefused::Myself
        {
            tracing::warn!(
                peer = from.map(|Asker(from)| tracing::field::display(from)),
                reason = refusal.reason.word(),
                error = refusal.detail,
                "a peer was refused"
            );
        }
        if let Some(partner) = report.partner {
            let now = node.uptime();
            node.book().heard(&partner, report.partner_digest, now);
            let node = Arc::clone(node);
            tokio::spawn(async move { node.touch(&partner).await });
        }
        if let Some(news) = report.pass_on {
            self.pusher.pass_on(news, report.state);
        }
        answer(StatusCode::OK, MEDIA_TYPE, response)
    }
}

/// Whether the tables of who began an exchange and of this pod differed.
fn differed(response: &[u8], report: &RespondReport) -> bool {
    match Response::from_bytes(response).map(|response| response.answer) {
        Ok(Some(Answer::Opened(opened))) => report.partner_digest != Some(opened.digest.into()),
        _ => true,
    }
}
