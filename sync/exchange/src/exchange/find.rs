//! Finding which fingerprints differ, by coded symbols.

use std::ops::ControlFlow;

use peer_table::Fingerprint;
use peer_table::TableName;
use peer_table::contract::{InvalidMessage, State, StateRequest, WireDigest};
use peer_table::mutants;
use peer_table::sketch::{DecodeError, Decoded, Difference, Symbol, WIRE_LEN, WireSymbols};
use peer_table::table::Digest;

use super::listing::Page;
use super::{Conversation, ExchangeError, Fallback, Options};
use crate::ends::{Own, Remote};
use crate::message::{Answer, Ask, AskSymbols, Opened, Symbols, count_symbols};

/// How many times more symbols are asked for, whether the last ones were too few or the tables had
/// changed. After that the fingerprints are listed, which changes do not disturb.
const GROWTHS_MAX: u32 = 10;
/// How many times as many symbols are asked for as the estimate says. A difference that still does
/// not decode is one of a few that hang on two fingerprints of which a short run looks alike, and
/// then a little more is mostly not enough.
const ESTIMATED_GROWTHS: u32 = 2;
/// The share of a sketch's length up to which a difference is expected to decode.
const DECODABLE: (u64, u64) = (7, 10);
/// The length of a fingerprint on the wire, in bytes.
const FINGERPRINT_LEN: u64 = 8;

/// What came of the search.
pub(super) enum Found {
    /// The tables are equal.
    Equal,
    /// They differ by this.
    Decoded(Decoded),
    /// The partner listed all its fingerprints.
    Listed(Page),
    /// Coded symbols do not tell, or tell it at too high a price.
    Beyond(Fallback),
}

/// The first coded symbols of one snapshot of a table.
pub(super) struct Prefix {
    /// The digest of that snapshot.
    pub(super) digest: Digest,
    symbols: Vec<u8>,
}

impl Prefix {
    fn new(digest: WireDigest, symbols: Vec<u8>) -> Result<Self, InvalidMessage> {
        count_symbols(&symbols)?;
        Ok(Self {
            digest: digest.into(),
            symbols,
        })
    }

    /// That of our own table.
    pub(super) fn of_own(state: &State, table: &TableName) -> Result<Self, ExchangeError> {
        let Some(own) = state.table(table) else {
            let problem = format!("have no {table} among them");
            return Err(ExchangeError::own(InvalidMessage::field("tables", problem)));
        };
        Self::new(own.digest, own.symbols.clone()).map_err(ExchangeError::own)
    }

    /// How many symbols there are.
    pub(super) fn len(&self) -> usize {
        self.symbols.len() / WIRE_LEN
    }

    fn run(&self, from: usize, to: usize) -> Vec<Symbol> {
        let run = &self.symbols[from * WIRE_LEN..to * WIRE_LEN];
        WireSymbols::parse(run)
            .map(|symbols| symbols.into_iter().collect())
            .unwrap_or_default()
    }

    /// Takes in the partner's answer to having been asked for the symbols up to `to`. Whether the
    /// table had changed, so that all symbols are new.
    fn take(&mut self, answer: Symbols, to: usize) -> Result<bool, InvalidMessage> {
        let from = wire(self.len());
        let next = Self::new(answer.digest, answer.symbols)?;
        let changed = next.digest != self.digest;
        if answer.from != if changed { 0 } else { from } {
            return Err(InvalidMessage::field("from", "is not the symbol asked for"));
        }
        if changed {
            *self = next;
        } else {
            self.symbols.extend(next.symbols);
        }
        if self.len() > to {
            return Err(InvalidMessage::field(
                "symbols",
                "are more than were asked for",
            ));
        }
        Ok(changed)
    }
}

/// A count of symbols or fingerprints as it is sent.
pub(super) fn wire(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Looks for the difference. With it go the number of the partner's symbols that were taken in, and
/// the digest of our table that it was found for.
pub(super) async fn find<O: Own, R: Remote>(
    conversation: &mut Conversation<'_, O, R>,
    mut ours: Prefix,
    opened: Opened,
) -> Result<(Found, usize, Digest), ExchangeError> {
    let options = conversation.options;
    let first = ours.len();
    let mut theirs = Prefix::new(opened.digest, opened.symbols)?;
    conversation.partner_digest = theirs.digest;
    if theirs.digest != ours.digest && conversation.theirs_left.is_some() {
        ours = own_prefix(conversation, first).await?;
    }
    let is_as_long = theirs.digest.records == ours.digest.records;
    if theirs.digest == ours.digest || mutants::is("digest-of-numbers") && is_as_long {
        return Ok((Found::Equal, 0, ours.digest));
    }
    if let Some(listing) = &opened.listing {
        // As many as take no more bytes than the symbols would have.
        let page = Page::read(listing, Fingerprint(0), first * WIRE_LEN / 8)?;
        return Ok((Found::Listed(page), 0, ours.digest));
    }
    if theirs.len() > first {
        return Err(ExchangeError::invalid(
            "symbols",
            "are more than were asked for",
        ));
    }

    let mut symbols = theirs.len();
    let mut difference = Difference::new(ours.digest.records, theirs.digest.records);
    for grown in 0..=GROWTHS_MAX {
        let (seen, common) = (difference.symbols(), ours.len().min(theirs.len()));
        if common <= seen {
            break;
        }
        difference
            .extend(ours.run(seen, common), theirs.run(seen, common))
            .map_err(ExchangeError::own)?;
        let to = match judge(&mut difference, &ours, &theirs, options, grown) {
            ControlFlow::Break(found) => return Ok((found, symbols, ours.digest)),
            ControlFlow::Continue(to) => to,
        };

        let fresh = own_prefix(conversation, to).await?;
        let to = fresh.len().min(to);
        let mut changed = fresh.digest != ours.digest;
        ours = fresh;
        if to > theirs.len() {
            let (digest, from) = (theirs.digest.into(), wire(theirs.len()));
            let ask = AskSymbols {
                digest,
                from,
                to: wire(to),
                without: conversation.ours_left.clone(),
            };
            let Answer::Symbols(answer) = conversation.ask(Ask::Symbols(ask)).await? else {
                return Err(ExchangeError::unexpected("a request for symbols"));
            };
            symbols += answer.symbols.len() / WIRE_LEN;
            changed |= theirs.take(answer, to)?;
            conversation.partner_digest = theirs.digest;
        }
        if changed {
            difference = Difference::new(ours.digest.records, theirs.digest.records);
        }
    }
    Ok((Found::Beyond(Fallback::Undecoded), symbols, ours.digest))
}

/// Our first symbols now, without the tombstones that the partner may have let go.
async fn own_prefix<O: Own, R: Remote>(
    conversation: &Conversation<'_, O, R>,
    symbols: usize,
) -> Result<Prefix, ExchangeError> {
    let request = StateRequest {
        symbols: wire(symbols),
        without: conversation.theirs_left.clone(),
        ..StateRequest::default()
    };
    let state = conversation.own.state(&request).await;
    Prefix::of_own(&state.map_err(ExchangeError::own)?, conversation.table)
}

/// What the symbols so far tell: a result, or how many are needed.
fn judge(
    difference: &mut Difference,
    ours: &Prefix,
    theirs: &Prefix,
    options: &Options,
    grown: u32,
) -> ControlFlow<Found, usize> {
    let beyond = |fallback| ControlFlow::Break(Found::Beyond(fallback));
    match difference.decode() {
        Ok(decoded) if agrees(&decoded, ours.digest, theirs.digest) => {
            return ControlFlow::Break(Found::Decoded(decoded));
        }
        Ok(_) | Err(DecodeError::Inconsistent) => return beyond(Fallback::Inconsistent),
        Err(DecodeError::Incomplete) => {}
    }
    let (seen, max) = (difference.symbols(), options.symbols_max);
    if seen >= max {
        return beyond(Fallback::Undecoded);
    }
    let (share, whole) = DECODABLE;
    // Symbols in vain cost less than a listing in vain: it has to be beyond the sketch for sure.
    if difference.estimate_low() > max as u64 * share / whole {
        return beyond(Fallback::TooLarge);
    }
    let least = if grown < ESTIMATED_GROWTHS {
        0
    } else {
        2 * seen
    };
    let needed = difference.symbols_needed().max(least).min(max);
    let symbol_bytes = needed.saturating_sub(seen) as u64 * WIRE_LEN as u64;
    if symbol_bytes > theirs.digest.records.saturating_mul(FINGERPRINT_LEN) {
        return beyond(Fallback::Cheaper);
    }
    ControlFlow::Continue(needed)
}

/// Whether the digests differ by just what was decoded.
fn agrees(decoded: &Decoded, ours: Digest, theirs: Digest) -> bool {
    let all = decoded.ours.iter().chain(&decoded.theirs);
    let agrees = all.fold(ours.sum, |sum, fingerprint| sum ^ fingerprint.0) == theirs.sum;
    agrees || mutants::is("decode-taken-when-incomplete")
}
