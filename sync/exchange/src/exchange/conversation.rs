//! Requests to one partner and its answers, each checked before it is looked into.

use peer_table::contract::{State, WireHorizon};
use peer_table::floors::Replicas;
use peer_table::table::Digest;
use peer_table::{TableName, WallTime};

use super::find::{Prefix, wire};
use super::{ExchangeError, Kind, Moved, Options, Report, Traffic};
use crate::ends::{Own, Remote};
use crate::handshake::{HandshakeRefused, Identity, Partner, Protocols, Refusal, skew_ms};
use crate::message::{Answer, Ask, Hello, Open, Opened, Request, Response};
use crate::versions;

/// Asks one partner about one table.
pub(crate) struct Conversation<'a, O, R> {
    pub(super) own: &'a O,
    remote: &'a R,
    pub(super) table: &'a TableName,
    pub(super) options: &'a Options,
    identity: Identity,
    /// The version of the protocol that is spoken.
    protocol: u32,
    /// Whether that is the one that the partner named, as it refused another.
    is_named: bool,
    /// Whom we met at the other end, and how far its clock is ahead, in milliseconds.
    met: Option<(Partner, i64)>,
    /// The digest of the partner's table when it last said one.
    pub(super) partner_digest: Digest,
    /// The exchange of ours that this is.
    pub(super) session: Option<u64>,
    /// The tombstones that we may have let go, where we hold any.
    pub(super) ours_left: Option<WireHorizon>,
    /// Those that the partner may have let go, where that matters.
    pub(super) theirs_left: Option<WireHorizon>,
    find: Traffic,
    swap: Traffic,
}

impl<'a, O: Own, R: Remote> Conversation<'a, O, R> {
    /// With whoever is behind `remote`; `state` says who we are.
    pub(crate) fn new(
        own: &'a O,
        remote: &'a R,
        table: &'a TableName,
        state: &State,
        options: &'a Options,
    ) -> Result<Self, ExchangeError> {
        let common = options
            .partner
            .and_then(|partner| options.protocols.highest_common(partner));
        Ok(Self {
            own,
            remote,
            table,
            options,
            identity: Identity::from_state(state).map_err(ExchangeError::own)?,
            protocol: common.unwrap_or(options.protocols.max),
            is_named: false,
            met: None,
            partner_digest: Digest::default(),
            session: None,
            ours_left: None,
            theirs_left: None,
            find: Traffic::default(),
            swap: Traffic::default(),
        })
    }

    /// Says who we are from now on.
    pub(super) fn introduce(&mut self, state: &State) -> Result<(), ExchangeError> {
        self.identity = Identity::from_state(state).map_err(ExchangeError::own)?;
        Ok(())
    }

    /// Asks how the partner's table stands, where ours stands as `state` says.
    ///
    /// What may have left here is told where we hold tombstones; and where only the partner does, and
    /// the tables differ, as they may differ by what has left here.
    pub(super) async fn open(&mut self, state: &State) -> Result<Opened, ExchangeError> {
        let opened = self.open_without(state, state.has_tombstones).await?;
        let ours = Prefix::of_own(state, self.table)?.digest;
        let may_have_left = opened.snapshot.is_some() && Digest::from(opened.digest) != ours;
        if may_have_left && !state.has_tombstones {
            return self.open_without(state, true).await;
        }
        Ok(opened)
    }

    async fn open_without(&mut self, state: &State, tells: bool) -> Result<Opened, ExchangeError> {
        let prefix = Prefix::of_own(state, self.table)?;
        let vector = state.vector.as_ref().filter(|_| tells);
        self.ours_left = vector.map(|vector| WireHorizon {
            origin: state.origin.clone(),
            vector: vector.clone(),
            reading: state.horizon,
        });
        let open = Open {
            digest: prefix.digest.into(),
            symbols: wire(prefix.len()),
            without: self.ours_left.clone(),
        };
        match self.ask(Ask::Open(open)).await? {
            Answer::Opened(opened) => Ok(opened),
            _ => Err(ExchangeError::unexpected("the opening of an exchange")),
        }
    }

    /// Notes what there is to know of tombstones that have left.
    pub(super) fn begin(&mut self, state: &State, opened: &Opened) {
        self.session = state.session;
        // Who holds none has none to leave out.
        if state.has_tombstones {
            self.theirs_left = opened.snapshot.as_ref().map(|snapshot| WireHorizon {
                origin: snapshot.origin.clone(),
                vector: snapshot.vector.clone(),
                reading: opened.horizon,
            });
        }
    }

    /// Whether the partner knows other replicas than we do, or other news of them.
    pub(super) fn knows_other_replicas(&self) -> Result<bool, ExchangeError> {
        Ok(self.met()?.0.replicas_digest != self.identity.replicas_digest())
    }

    /// Tells the partner what we know of all replicas, and takes in what it knows.
    pub(super) async fn swap_replicas(&mut self) -> Result<(), ExchangeError> {
        let ours = self.own.replicas(&Replicas::default()).await;
        let ask = Ask::Replicas(ours.map_err(ExchangeError::own)?);
        let Answer::Replicas(theirs) = self.ask(ask).await? else {
            return Err(ExchangeError::unexpected("what is known of all replicas"));
        };
        let joined = self.own.replicas(&theirs).await;
        joined.map(drop).map_err(ExchangeError::own)
    }

    /// Asks, and answers with what the partner said, unless that is a refusal.
    ///
    /// We speak the highest version that both understood when they last met, or else that we do; and
    /// if that is refused, the highest of both as the partner names its own then.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Answer, ExchangeError> {
        let is_swap = matches!(ask, Ask::Swap(_));
        let mut request = Request {
            hello: Hello::default(),
            table: self.table.to_string(),
            ask: Some(ask),
        };
        loop {
            let asked = self.own.now();
            request.hello = self
                .identity
                .hello(self.protocol, self.options.protocols, asked);
            let response = self.carry(&request, is_swap).await?;
            let answered = self.own.now();
            if let Some(Answer::Refused(refused)) = &response.answer {
                let refusal = Refusal::from_wire(refused);
                match self.other_protocol(&refusal, response.hello.as_ref()) {
                    Some(other) => (self.protocol, self.is_named) = (other, true),
                    None => return Err(ExchangeError::Refused(refusal)),
                }
                continue;
            }
            let hello = response
                .hello
                .ok_or_else(|| ExchangeError::invalid("hello", "is missing"))?;
            let partner = self
                .identity
                .check(&hello, self.options.protocols)
                .map_err(ExchangeError::Refused)?;
            self.meet(partner, asked, answered)?;
            if response.table != self.table.as_str() {
                return Err(ExchangeError::invalid(
                    "table",
                    "is not the one asked about",
                ));
            }
            let answer = response
                .answer
                .ok_or_else(|| ExchangeError::invalid("answer", "is none that is known here"))?;
            return Ok(versions::take(answer, hello.protocol)?);
        }
    }

    /// One round trip.
    async fn carry(&mut self, request: &Request, is_swap: bool) -> Result<Response, ExchangeError> {
        let round_trips = self.options.round_trips_max;
        if self.traffic().round_trips >= round_trips {
            return Err(ExchangeError::TooManyRounds { round_trips });
        }
        let body = request.to_bytes();
        let traffic = if is_swap {
            &mut self.swap
        } else {
            &mut self.find
        };
        traffic.round_trips += 1;
        traffic.sent += body.len() as u64;
        let answer = self
            .remote
            .ask(body)
            .await
            .map_err(|error| ExchangeError::Remote(error.into()))?;
        traffic.received += answer.len() as u64;
        Ok(Response::from_bytes(&answer)?)
    }

    /// The version to try next, if the one spoken was refused and the partner understands another
    /// that we do too. Once: who then refuses the one that it named has none.
    fn other_protocol(&self, refusal: &Refusal, hello: Option<&Hello>) -> Option<u32> {
        if refusal.reason != HandshakeRefused::Protocol || self.is_named {
            return None;
        }
        let common = self
            .options
            .protocols
            .highest_common(Protocols::of(hello?))?;
        (common != self.protocol).then_some(common)
    }

    fn meet(
        &mut self,
        partner: Partner,
        asked: WallTime,
        answered: WallTime,
    ) -> Result<(), ExchangeError> {
        match &self.met {
            Some((met, _)) if met.store != partner.store => Err(ExchangeError::invalid(
                "hello",
                "is of another store than before",
            )),
            Some((_, skew_ms)) => {
                self.met = Some((partner, *skew_ms));
                Ok(())
            }
            None => {
                let skew_ms = skew_ms(asked, answered, partner.wall);
                self.met = Some((partner, skew_ms));
                Ok(())
            }
        }
    }

    /// Whom we met, and how far its clock is ahead of ours, in milliseconds.
    pub(crate) fn met(&self) -> Result<(&Partner, i64), ExchangeError> {
        match &self.met {
            Some((partner, skew_ms)) => Ok((partner, *skew_ms)),
            // Every answer that `ask` gave came with a hello.
            None => Err(ExchangeError::invalid("hello", "is missing")),
        }
    }

    /// What it cost so far.
    pub(crate) const fn traffic(&self) -> Traffic {
        self.find.plus(self.swap)
    }

    /// The report of an exchange that is done.
    pub(super) fn report(
        self,
        kind: Kind,
        digest: Digest,
        symbols: usize,
        moved: Moved,
        advanced: bool,
    ) -> Result<Report, ExchangeError> {
        let (partner, skew_ms) = self.met()?;
        Ok(Report {
            kind,
            origin: self.identity.origin(),
            partner: partner.clone(),
            protocol: self.protocol,
            skew_ms,
            digest,
            partner_digest: self.partner_digest,
            moved,
            symbols,
            find: self.find,
            swap: self.swap,
            advanced,
        })
    }
}
