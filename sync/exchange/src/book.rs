//! The peers that discovery found, what became of talking to each, and whom to talk to next.
//!
//! Peers are known by address. Times are [`Uptime`]s, so that a wall clock that jumps silences
//! nobody.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use peer_table::table::Digest;
use peer_table::{Key, OriginId, StoreId};

use crate::differs::Difference;
use crate::handshake::{Partner, Protocols};
use crate::push::Position;

/// Peers in a book at the most; discovery's further ones are left out, and counted.
pub const PEERS_MAX: usize = 10_000;
/// The longest address, in bytes: a DNS name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 6;
/// How long a peer is left alone after its first failure; each further one in a row doubles it.
pub const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// The longest that a peer is left alone after a failure, so that a healed network is noticed soon.
pub const BACK_OFF_MAX: Duration = Duration::from_mins(1);
/// Of so many stores that we have not met it is remembered that they talked to us.
const UNKNOWN_MAX: usize = 1_024;
/// For how many rounds none is heard of where we are isolated: where all have failed, or
/// [`FAILING_SURE`] of many; and where fewer have.
pub(crate) const SILENT_ROUNDS: u32 = 3;
const SILENT_ROUNDS_UNSURE: u32 = 5;
const FAILING_SURE: usize = 3;
/// After so many failures in a row, a peer that was never met is taken not to be there.
pub const ABSENT_FAILURES: u32 = 3;
/// How long an address that turned out to be ourselves is left alone: names may be given to others.
pub const SELF_FOR: Duration = Duration::from_mins(10);

/// Where a peer's sync listens: `HOST:PORT`, where HOST is a name, an IPv4 or a bracketed IPv6
/// address. Two spellings are two peers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address(Arc<str>);

/// A text that is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "an address is HOST:PORT, with a port from 1 to 65535, of {ADDRESS_BYTES_MAX} bytes at the most"
)]
pub struct InvalidAddress;

impl Address {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its place on the ring.
    pub fn position(&self) -> Position {
        Position::of(&self.0)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host_fits = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
        };
        let port_fits = port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0);
        if !host_fits || host.is_empty() || !port_fits || text.len() > ADDRESS_BYTES_MAX {
            return Err(InvalidAddress);
        }
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for Address {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long the program has run, by a clock that never jumps: handed in by whoever may read one.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// So much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// What is known of one peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Its store, when we last met it.
    pub store: Option<StoreId>,
    /// The opening of that store.
    pub origin: Option<OriginId>,
    /// Whether it belonged then: see [`Floors::has_met`](peer_table::floors::Floors::has_met).
    pub has_met: bool,
    /// The `peer_id` of its pod's own record, when we last met it.
    pub peer_id: Option<Key>,
    /// When we last talked to it with success.
    pub succeeded: Option<Uptime>,
    /// When we last tried and failed.
    pub failed: Option<Uptime>,
    /// When it last talked to us.
    pub heard: Option<Uptime>,
    /// Failures in a row.
    pub failures: u32,
    /// The word for the last failure; none once we talked again.
    pub problem: Option<&'static str>,
    /// Until when it is left alone.
    pub back_off_until: Uptime,
    /// The digest of its table, and when it said so.
    pub digest: Option<(Digest, Uptime)>,
    /// How far its clock is ahead of ours, in milliseconds.
    pub skew_ms: Option<i64>,
    /// The versions of the protocol that it understood, when we last met it.
    pub protocols: Option<Protocols>,
    /// Whether the address turned out to be our own.
    pub is_self: bool,
    /// What exchanges with it leave different.
    pub difference: Option<Difference>,
}

impl Peer {
    /// Whether the last news of it is good: it answered, or talked to us, since it last failed.
    pub fn is_reachable(&self) -> bool {
        let good = self.succeeded.max(self.heard);
        !self.is_self && good.is_some() && good >= self.failed
    }

    /// Whether it was never met, and may be anybody.
    const fn is_stranger(&self) -> bool {
        !self.is_self && self.origin.is_none()
    }

    fn met(&mut self, partner: &Partner) {
        self.store = Some(partner.store);
        self.origin = Some(partner.origin);
        self.has_met = partner.has_met;
        self.peer_id.clone_from(&partner.peer_id);
        self.protocols = Some(partner.protocols);
        self.is_self = false;
    }
}

/// What a new list from discovery changed.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Replaced {
    /// Peers that were not in the book.
    pub added: usize,
    /// Peers that are no longer in it.
    pub removed: usize,
    /// Peers that the book had no room for.
    pub left_out: usize,
}

/// All peers that discovery found.
#[derive(Clone, Debug, Default)]
pub struct PeerBook {
    peers: BTreeMap<Address, Peer>,
    /// When anybody last talked to us, whether it is in the book or not.
    heard: Option<Uptime>,
    /// Stores that talked to us and that we have not met, and when the first word of each counted.
    unknown: BTreeMap<StoreId, Uptime>,
    /// The digest of our own table, and since when it is that.
    digest: Option<(Digest, Uptime)>,
}

impl PeerBook {
    /// An empty book.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a complete list from discovery. What is known of those still in it is kept.
    ///
    /// Beyond [`PEERS_MAX`], those known already stay and new ones are left out.
    pub fn replace(&mut self, addresses: impl IntoIterator<Item = Address>) -> Replaced {
        let listed: BTreeSet<Address> = addresses.into_iter().collect();
        let before = self.peers.len();
        self.peers.retain(|address, _| listed.contains(address));
        let kept = self.peers.len();
        let listed_len = listed.len();
        for address in listed {
            if self.peers.len() == PEERS_MAX {
                break;
            }
            self.peers.entry(address).or_default();
        }
        Replaced {
            added: self.peers.len() - kept,
            removed: before - kept,
            left_out: listed_len - self.peers.len(),
        }
    }

    /// Notes that talking to a peer succeeded, and the digest of its table if it said one.
    pub fn succeeded(
        &mut self,
        address: &Address,
        partner: &Partner,
        skew_ms: i64,
        digest: Option<Digest>,
        now: Uptime,
    ) {
        let Some(peer) = self.peers.get_mut(address) else {
            return;
        };
        peer.met(partner);
        peer.succeeded = Some(now);
        peer.failures = 0;
        peer.problem = None;
        peer.back_off_until = Uptime::default();
        peer.skew_ms = Some(skew_ms);
        peer.digest = digest.map(|digest| (digest, now)).or(peer.digest);
    }

    /// Notes that talking to a peer failed, and leaves it alone for a while: for
    /// [`BACK_OFF_FIRST`], doubled with each failure in a row up to [`BACK_OFF_MAX`], of which
    /// `random` takes away up to a half.
    pub fn failed(&mut self, address: &Address, problem: &'static str, now: Uptime, random: u64) {
        let Some(peer) = self.peers.get_mut(address) else {
            return;
        };
        let doublings = peer.failures.min(BACK_OFF_MAX.as_secs().ilog2() + 1);
        let longest = (BACK_OFF_FIRST * 2_u32.pow(doublings)).min(BACK_OFF_MAX);
        peer.back_off_until = now.plus(longest / 2 + share(longest / 2, random));
        peer.failures = peer.failures.saturating_add(1);
        peer.failed = Some(now);
        peer.problem = Some(problem);
    }

    /// Notes that an address is our own: left alone for [`SELF_FOR`], and counted as nobody.
    pub fn mark_self(&mut self, address: &Address, now: Uptime) {
        let Some(peer) = self.peers.get_mut(address) else {
            return;
        };
        *peer = Peer {
            is_self: true,
            back_off_until: now.plus(SELF_FOR),
            ..Peer::default()
        };
    }

    /// Notes that an address is our own, from whoever knows it for good: it is never tried.
    pub fn know_self(&mut self, address: &Address) {
        self.mark_self(address, Uptime(Duration::MAX));
    }

    /// Notes that somebody talked to us. Where we have met its store, that peer is taken for
    /// reachable again. Else it is likely one of those that were never met, and that any of them
    /// could not be reached says nothing any more; but for one that talks and talks and cannot be
    /// reached, this is so once in [`BACK_OFF_MAX`].
    pub fn heard(&mut self, partner: &Partner, digest: Option<Digest>, now: Uptime) {
        self.heard = Some(now);
        let mut is_known = false;
        for peer in self.of_store(partner.store) {
            is_known = true;
            peer.met(partner);
            peer.heard = Some(now);
            peer.back_off_until = Uptime::default();
            peer.digest = digest.map(|digest| (digest, now)).or(peer.digest);
        }
        if !is_known && self.is_first_word(partner.store, now) {
            let others = self.peers.values_mut().filter(|peer| !peer.is_self);
            for peer in others.filter(|peer| !peer.is_reachable()) {
                // It may be one that is back with another store, too.
                peer.back_off_until = Uptime::default();
                if peer.is_stranger() {
                    *peer = Peer::default();
                }
            }
        }
    }

    /// Whether nothing was heard of this unknown store within [`BACK_OFF_MAX`].
    fn is_first_word(&mut self, store: StoreId, now: Uptime) -> bool {
        let since = now.minus(BACK_OFF_MAX);
        self.unknown.retain(|_, heard| *heard > since);
        if self.unknown.len() >= UNKNOWN_MAX || self.unknown.contains_key(&store) {
            return false;
        }
        self.unknown.insert(store, now);
        true
    }

    pub(crate) fn get_mut(&mut self, address: &Address) -> Option<&mut Peer> {
        self.peers.get_mut(address)
    }

    pub(crate) fn of_store(&mut self, store: StoreId) -> impl Iterator<Item = &mut Peer> {
        let of_store = move |peer: &&mut Peer| peer.store == Some(store);
        self.peers.values_mut().filter(of_store)
    }

    /// The digest of our own table, as it was last noted.
    pub fn last_digest(&self) -> Option<Digest> {
        self.digest.map(|(digest, _)| digest)
    }

    /// Notes the digest of our own table.
    pub fn own_digest(&mut self, digest: Digest, now: Uptime) {
        if self.digest.is_none_or(|(known, _)| known != digest) {
            self.digest = Some((digest, now));
        }
    }

    /// A random peer that is neither ourselves nor left alone at the moment; of those that were never
    /// met, as long as there are any, so that all are soon known; but for those of whom nothing comes
    /// back time and again.
    pub fn choose(&self, now: Uptime, random: u64) -> Option<&Address> {
        let nth = |count: usize| usize::try_from(random.checked_rem(count as u64)?).ok();
        if let Some(chosen) = nth(self.unmet(now).count()) {
            return self.unmet(now).nth(chosen);
        }
        self.ready(now).nth(nth(self.ready(now).count())?)
    }

    /// Whether there is a peer to be met: see [`PeerBook::choose`].
    pub fn has_unmet(&self, now: Uptime) -> bool {
        self.unmet(now).next().is_some()
    }

    fn unmet(&self, now: Uptime) -> impl Iterator<Item = &Address> {
        let is_unmet = |peer: &Peer| peer.is_stranger() && peer.failures < ABSENT_FAILURES;
        self.ready(now)
            .filter(move |address| is_unmet(&self.peers[*address]))
    }

    /// Whether there is a peer, besides ourselves, of whose opening we do not know.
    pub fn has_strangers(&self) -> bool {
        self.peers.values().any(Peer::is_stranger)
    }

    /// Whether the last news is good of a peer with this own record.
    pub fn reaches(&self, peer_id: &Key) -> bool {
        let mut reached = self.peers.values().filter(|peer| peer.is_reachable());
        reached.any(|peer| peer.peer_id.as_ref() == Some(peer_id))
    }

    /// Whether no peer belongs to a cluster yet: each was talked to and said so, or could not be
    /// reached time and again.
    pub fn is_new_cluster(&self) -> bool {
        let mut others = self.peers.values().filter(|peer| !peer.is_self);
        others.all(|peer| match peer.origin {
            Some(_) => !peer.has_met,
            None => peer.failures >= ABSENT_FAILURES,
        })
    }

    /// Those to push to, each with its place on the ring: all but ourselves and those that are left
    /// alone at the moment.
    pub fn ring(&self, now: Uptime) -> impl Iterator<Item = (Position, Address)> {
        let others = self
            .ready(now)
            .filter(|address| !self.peers[*address].is_self);
        others.map(|address| (address.position(), address.clone()))
    }

    /// Our own place on the ring, if one of the addresses turned out to be ours.
    pub fn own_position(&self) -> Option<Position> {
        let own = self.peers.iter().find(|(_, peer)| peer.is_self);
        own.map(|(address, _)| address.position())
    }

    fn ready(&self, now: Uptime) -> impl Iterator<Item = &Address> {
        let ready = self
            .peers
            .iter()
            .filter(move |(_, peer)| peer.back_off_until <= now);
        ready.map(|(address, _)| address)
    }

    /// The versions of the protocol that a peer understood when we last met it, if we did.
    pub fn protocols(&self, address: &Address) -> Option<Protocols> {
        self.peers.get(address)?.protocols
    }

    /// Each peer, ourselves included.
    pub fn peers(&self) -> impl Iterator<Item = (&Address, &Peer)> {
        self.peers.iter()
    }

    /// How many peers there are, without ourselves.
    pub fn known(&self) -> usize {
        self.peers.values().filter(|peer| !peer.is_self).count()
    }

    /// Of how many the last news is good: see [`Peer::is_reachable`].
    pub fn reachable(&self) -> usize {
        self.peers
            .values()
            .filter(|peer| peer.is_reachable())
            .count()
    }

    /// Whether we are alone though we should not be: there are peers, talking to at least one of
    /// them failed, and for some rounds of this length none answered us or talked to us. One who
    /// hangs takes a few rounds by himself, so it takes longer where few have failed.
    pub fn isolated(&self, now: Uptime, interval: Duration) -> bool {
        let others = || self.peers.values().filter(|peer| !peer.is_self);
        let failing = others().filter(|peer| peer.failures > 0).count();
        let is_sure = failing >= others().count().min(FAILING_SURE);
        let window = interval
            * if is_sure {
                SILENT_ROUNDS
            } else {
                SILENT_ROUNDS_UNSURE
            };
        let recent = |at: Option<Uptime>| at.is_some_and(|at| at >= now.minus(window));
        failing > 0
            && !recent(self.heard)
            && !others().any(|peer| peer.failures == 0 && recent(peer.succeeded))
    }

    /// How many different tables we and the reachable peers hold: 1 if all are equal.
    ///
    /// What a peer said before our own table last changed tells nothing of what it holds now, and
    /// does not count: while changes come in this stays at 1, and at rest it soon tells of all.
    pub fn distinct_digests(&self) -> usize {
        let Some((own, since)) = self.digest else {
            return 0;
        };
        let said = self.peers.values().filter(|peer| peer.is_reachable());
        let fresh = said.filter_map(|peer| peer.digest.filter(|(_, at)| *at >= since));
        let of = |digest: Digest| (digest.records, digest.sum, digest.check);
        fresh
            .map(|(digest, _)| of(digest))
            .chain([of(own)])
            .collect::<BTreeSet<_>>()
            .len()
    }
}

/// Of so many peers, the last ones that were talked to, clocks are compared.
const CLOCKS: usize = 5;
/// What a peer's clock read longer ago than this tells nothing of clocks now.
const CLOCKS_WITHIN: Duration = Duration::from_mins(2);

impl PeerBook {
    /// How far our clock is ahead of those of most others, in milliseconds, where it is further off
    /// than `limit`: of the last peers that were talked to, more than half say so, and all these in
    /// one direction. With one peer alone nobody knows whose clock is wrong.
    pub fn own_clock_off(&self, limit: Duration, now: Uptime) -> Option<i64> {
        let skews = self.skews(now);
        if skews.len() < 2 {
            return None;
        }
        let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let majority = skews.len() / 2 + 1;
        // The least that a majority agrees on, in either direction.
        let behind = skews[skews.len() - majority];
        let ahead = skews[majority - 1].saturating_neg();
        if behind > limit_ms {
            Some(behind.saturating_neg())
        } else if ahead > limit_ms {
            Some(ahead)
        } else {
            None
        }
    }

    /// Whether more than half of the last peers that were talked to, two of them at the least, have a
    /// clock that is no further from ours than `limit`.
    pub fn own_clock_agrees(&self, limit: Duration, now: Uptime) -> bool {
        let skews = self.skews(now);
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let near = skews
            .iter()
            .filter(|skew_ms| skew_ms.unsigned_abs() <= limit_ms);
        skews.len() >= 2 && near.count() * 2 > skews.len()
    }

    /// How far the clocks of the last peers that were talked to are ahead of ours, in order.
    fn skews(&self, now: Uptime) -> Vec<i64> {
        let measured = self.peers.values().filter(|peer| !peer.is_self);
        let measured = measured.filter_map(|peer| Some((peer.succeeded?, peer.skew_ms?)));
        let mut measured: Vec<_> = measured
            .filter(|(at, _)| *at >= now.minus(CLOCKS_WITHIN))
            .collect();
        measured.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        measured.truncate(CLOCKS);
        let mut skews: Vec<_> = measured.into_iter().map(|(_, skew_ms)| skew_ms).collect();
        skews.sort_unstable();
        skews
    }
}

/// When to begin the next round: `interval`, give or take up to a half of it, so that pods that
/// started together do not go on together.
pub fn next_delay(interval: Duration, random: u64) -> Duration {
    interval / 2 + share(interval, random)
}

/// A random part of a duration.
fn share(whole: Duration, random: u64) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a random share may be off by its last bits"
    )]
    let part = random as f64 / u64::MAX as f64;
    whole.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::{NEXT, PROTOCOLS};
    use crate::testing::{address, at, book, partner};

    fn digest(sum: u64) -> Digest {
        Digest {
            records: 1,
            sum,
            check: 0,
        }
    }

    fn peer(book: &PeerBook, n: u64) -> &Peer {
        &book.peers[&address(n)]
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in [
            "10.0.0.7:3003",
            "[fe80::1]:3003",
            "udht-0.udht.default.svc:1",
            "a_b:65535",
        ] {
            assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
        }
        let long = format!("{}:3003", "a".repeat(255));
        for bad in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a b:1",
            "fe80::1:3003",
            "[a]:1",
            &long,
        ] {
            assert_eq!(bad.parse::<Address>(), Err(InvalidAddress), "{bad}");
        }
    }

    #[test]
    fn a_new_list_keeps_what_is_known_of_those_still_in_it() {
        let mut book = book(3);
        book.succeeded(&address(2), &partner(2), 5, Some(digest(1)), at(1));
        let replaced = book.replace([2, 3, 4, 5].map(address));
        assert_eq!(
            replaced,
            Replaced {
                added: 2,
                removed: 1,
                left_out: 0
            }
        );
        assert_eq!(peer(&book, 2).succeeded, Some(at(1)));
        assert_eq!(peer(&book, 2).skew_ms, Some(5));
        assert_eq!((book.known(), book.reachable()), (4, 1));
    }

    #[test]
    fn what_a_peer_speaks_is_what_it_said_last_to_us_or_as_it_called() {
        let mut book = book(1);
        assert_eq!(book.protocols(&address(1)), None);
        book.succeeded(&address(1), &partner(1), 0, None, at(1));
        assert_eq!(book.protocols(&address(1)), Some(PROTOCOLS));
        let upgraded = Partner {
            protocols: NEXT,
            ..partner(1)
        };
        book.heard(&upgraded, None, at(2));
        assert_eq!(book.protocols(&address(1)), Some(NEXT));
        book.failed(&address(1), "protocol", at(3), 0);
        assert_eq!(book.protocols(&address(1)), Some(NEXT), "it is told anew");
    }

    #[test]
    fn a_book_is_bounded_and_known_peers_stay_in_it() {
        let name = |n: usize| format!("a{n:05}:1").parse::<Address>().unwrap();
        let mut book = PeerBook::new();
        let last = name(PEERS_MAX + 6);
        book.replace([last.clone()]);
        let replaced = book.replace((0..PEERS_MAX + 7).map(name));
        assert_eq!(
            replaced,
            Replaced {
                added: PEERS_MAX - 1,
                removed: 0,
                left_out: 7
            }
        );
        assert_eq!(book.known(), PEERS_MAX);
        assert!(book.peers.contains_key(&last));
    }

    #[test]
    fn a_peer_that_fails_is_left_alone_for_longer_and_longer_up_to_a_minute() {
        let mut book = book(1);
        let mut waits = Vec::new();
        for _ in 0..9 {
            book.failed(&address(1), "remote", at(100), u64::MAX);
            waits.push(peer(&book, 1).back_off_until.0.as_secs() - 100);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        book.failed(&address(1), "remote", at(100), 0);
        assert_eq!(peer(&book, 1).back_off_until, at(130));
        assert_eq!(
            (peer(&book, 1).failures, peer(&book, 1).problem),
            (10, Some("remote"))
        );
        assert_eq!(book.choose(at(129), 7), None);
        assert_eq!(book.choose(at(130), 7), Some(&address(1)));
        book.succeeded(&address(1), &partner(1), 0, None, at(131));
        assert_eq!((peer(&book, 1).failures, peer(&book, 1).problem), (0, None));
        book.failed(&address(1), "remote", at(200), u64::MAX);
        assert_eq!(peer(&book, 1).back_off_until, at(201));
    }

    #[test]
    fn any_peer_that_is_ready_may_be_chosen() {
        let mut book = book(4);
        book.failed(&address(2), "remote", at(10), 0);
        let chosen: BTreeSet<_> = (0..30)
            .filter_map(|random| book.choose(at(10), random))
            .collect();
        assert_eq!(
            chosen.into_iter().cloned().collect::<Vec<_>>(),
            [1, 3, 4].map(address)
        );
        assert_eq!(PeerBook::new().choose(at(10), 1), None);
    }

    #[test]
    fn our_own_address_is_nobody_until_it_may_be_somebody_else_s() {
        let mut book = book(2);
        book.succeeded(&address(2), &partner(2), 0, None, at(9));
        book.mark_self(&address(1), at(10));
        assert_eq!((book.known(), book.reachable()), (1, 1));
        assert_eq!(book.own_position(), Some(address(1).position()));
        assert!((0..9).all(|random| book.choose(at(609), random) == Some(&address(2))));
        assert_eq!(book.ring(at(700)).count(), 1);
        assert_eq!(book.choose(at(610), 0), Some(&address(1)));
        book.succeeded(&address(1), &partner(1), 0, None, at(610));
        assert_eq!((book.known(), book.reachable()), (2, 2));
        assert_eq!(book.own_position(), None);
    }

    #[test]
    fn an_address_that_is_known_for_our_own_is_never_tried() {
        let mut book = book(2);
        book.know_self(&address(1));
        assert_eq!(book.known(), 1);
        assert_eq!(book.own_position(), Some(address(1).position()));
        let long = at(1_000_000_000);
        assert!((0..9).all(|random| book.choose(long, random) == Some(&address(2))));
    }

    #[test]
    fn those_that_were_never_met_come_first_and_are_strangers_until_they_are() {
        let mut book = book(3);
        book.succeeded(&address(1), &partner(1), 0, None, at(1));
        for _ in 0..ABSENT_FAILURES {
            assert!(book.has_unmet(at(100)));
            book.failed(&address(3), "remote", at(1), 0);
        }
        assert!((0..9).all(|random| book.choose(at(100), random) == Some(&address(2))));
        book.failed(&address(2), "remote", at(1), 0);
        assert!(!book.has_unmet(at(1)), "it is left alone");
        assert!((0..9).all(|random| book.choose(at(100), random) == Some(&address(2))));
        assert!(book.has_strangers());
        for n in [2, 3] {
            book.succeeded(&address(n.into()), &partner(n), 0, None, at(2));
        }
        assert!(!book.has_strangers());
        let chosen: BTreeSet<_> = (0..9)
            .filter_map(|random| book.choose(at(100), random))
            .collect();
        assert_eq!(chosen.len(), 3);
    }

    #[test]
    fn a_cluster_is_new_where_all_that_can_be_reached_belong_to_none() {
        let newcomer = |n| Partner {
            has_met: false,
            ..partner(n)
        };
        assert!(PeerBook::new().is_new_cluster());
        let mut book = book(2);
        book.succeeded(&address(1), &newcomer(1), 0, None, at(1));
        assert!(!book.is_new_cluster(), "one is not known yet");
        for _ in 0..ABSENT_FAILURES {
            assert!(!book.is_new_cluster());
            book.failed(&address(2), "remote", at(1), 0);
        }
        assert!(book.is_new_cluster());
        book.succeeded(&address(2), &partner(2), 0, None, at(2));
        assert!(!book.is_new_cluster());
    }

    #[test]
    fn our_clock_is_wrong_where_most_of_the_others_say_so_in_one_direction() {
        const LIMIT: Duration = Duration::from_secs(10);
        let off = |skews: &[i64]| {
            let mut book = book(skews.len() as u64);
            for (n, skew_ms) in (1..).zip(skews) {
                book.succeeded(&address(u64::from(n)), &partner(n), *skew_ms, None, at(100));
            }
            (
                book.own_clock_off(LIMIT, at(110)),
                book.own_clock_off(LIMIT, at(1_000)),
            )
        };
        assert_eq!(
            off(&[60_000, 50_000, 0]),
            (Some(-50_000), None),
            "ours is behind"
        );
        assert_eq!(
            off(&[-60_000, -50_000, -70_000]),
            (Some(60_000), None),
            "ours is ahead"
        );
        assert_eq!(off(&[60_000, 0, 0]).0, None, "one of the others is wrong");
        assert_eq!(off(&[60_000, -60_000]).0, None, "nobody agrees");
        assert_eq!(off(&[60_000, 60_000]).0, Some(-60_000));
        assert_eq!(off(&[60_000]).0, None, "of two, nobody knows which");
        assert_eq!(off(&[10_000, 10_000]).0, None);
        assert_eq!(off(&[i64::MIN, i64::MIN]).0, Some(i64::MAX));
    }

    #[test]
    fn our_clock_agrees_where_most_of_the_others_say_what_it_says() {
        const LIMIT: Duration = Duration::from_secs(10);
        let agrees = |skews: &[i64], now| {
            let mut book = book(skews.len() as u64);
            for (n, skew_ms) in (1..).zip(skews) {
                book.succeeded(&address(u64::from(n)), &partner(n), *skew_ms, None, at(100));
            }
            book.own_clock_agrees(LIMIT, at(now))
        };
        assert!(agrees(&[0, -10_000], 110));
        assert!(agrees(&[i64::MIN, 0, 5], 110), "one of the others is wrong");
        assert!(!agrees(&[0], 110), "of two, nobody knows which");
        assert!(!agrees(&[0, 10_001], 110));
        assert!(!agrees(&[0, 0], 1_000), "that was long ago");
        assert!(!agrees(&[], 110));
    }

    #[test]
    fn who_talks_to_us_is_reachable_and_no_longer_left_alone() {
        let mut book = book(2);
        for n in [1, 2] {
            book.succeeded(&address(n.into()), &partner(n), 0, None, at(1));
        }
        book.failed(&address(1), "remote", at(2), u64::MAX);
        assert_eq!(
            (book.reachable(), book.choose(at(2), 0)),
            (1, Some(&address(2)))
        );
        book.heard(&partner(1), Some(digest(9)), at(2));
        assert_eq!(book.reachable(), 2);
        assert_eq!(book.choose(at(2), 0), Some(&address(1)));
        assert_eq!(peer(&book, 1).digest, Some((digest(9), at(2))));
    }

    #[test]
    fn a_record_is_of_a_peer_that_is_reached_while_the_last_news_of_it_is_good() {
        let mut book = book(2);
        let reaches = |book: &PeerBook, own: &str| book.reaches(&own.parse().unwrap());
        assert!(!reaches(&book, "p1"));
        book.succeeded(&address(1), &partner(1), 0, None, at(1));
        assert!(reaches(&book, "p1") && !reaches(&book, "p2"));
        book.failed(&address(1), "remote", at(2), 0);
        assert!(!reaches(&book, "p1"));
        book.heard(&partner(1), None, at(3));
        assert!(reaches(&book, "p1"));
    }

    #[test]
    fn those_that_could_not_be_reached_are_tried_at_once_when_a_stranger_talks_to_us() {
        let mut book = book(3);
        book.know_self(&address(3));
        for n in [1, 2] {
            for _ in 0..9 {
                book.failed(&address(n), "unreachable", at(2), u64::MAX);
            }
        }
        book.succeeded(&address(1), &partner(1), 0, None, at(2));
        book.failed(&address(1), "unreachable", at(3), u64::MAX);
        let mut before = peer(&book, 1).clone();
        book.heard(&partner(2), None, at(3));
        assert!(
            before.back_off_until > at(3),
            "it may be back with that store"
        );
        before.back_off_until = Uptime::default();
        assert!((0..9).all(|random| book.choose(at(2), random) == Some(&address(2))));
        assert_eq!(peer(&book, 1), &before);
        assert!(book.has_strangers() && peer(&book, 3).is_self);

        // One that cannot be reached for good keeps nobody from the others, however much it says.
        book.failed(&address(2), "unreachable", at(4), u64::MAX);
        book.succeeded(&address(1), &partner(1), 0, None, at(4));
        for second in 4..9 {
            book.heard(&partner(2), None, at(second));
            assert_eq!(peer(&book, 2).failures, 1);
        }
        assert_eq!(book.choose(at(4), 0), Some(&address(1)));
        book.heard(&partner(2), None, at(3).plus(BACK_OFF_MAX));
        assert_eq!(peer(&book, 2).failures, 0);
        book.failed(&address(2), "unreachable", at(99), u64::MAX);
        book.heard(&partner(7), None, at(99));
        assert_eq!(peer(&book, 2).failures, 0, "somebody else");
    }

    #[test]
    fn we_are_isolated_when_somebody_failed_and_nobody_is_heard_of_any_more() {
        const ROUND: Duration = Duration::from_secs(10);
        let mut book = book(3);
        assert!(
            !PeerBook::new().isolated(at(100), ROUND),
            "alone, as there are no peers"
        );
        assert!(!book.isolated(at(100), ROUND), "nobody was tried yet");
        book.failed(&address(1), "remote", at(100), 0);
        assert!(book.isolated(at(100), ROUND));
        book.succeeded(&address(2), &partner(2), 0, None, at(101));
        assert!(!book.isolated(at(151), ROUND), "one who hangs is not all");
        assert!(book.isolated(at(152), ROUND), "that was long ago");
        book.heard(&partner(77), None, at(140));
        for n in 1..=3 {
            book.failed(&address(n), "remote", at(141), 0);
        }
        assert!(!book.isolated(at(170), ROUND), "somebody reaches us");
        assert!(book.isolated(at(171), ROUND), "all of them failed");
        for n in 1..=3 {
            book.mark_self(&address(n), at(180));
        }
        assert!(!book.isolated(at(180), ROUND), "there is nobody but us");
    }

    #[test]
    fn digests_are_counted_among_who_is_reachable_and_spoke_since_we_changed() {
        let mut book = book(4);
        assert_eq!(book.distinct_digests(), 0, "not even our own is known");
        book.own_digest(digest(1), at(10));
        assert_eq!(book.distinct_digests(), 1);
        for (n, sum, time) in [(1, 1, 11), (2, 2, 12), (3, 3, 13), (4, 9, 9)] {
            let partner = partner(u8::try_from(n).unwrap());
            book.succeeded(&address(n), &partner, 0, Some(digest(sum)), at(time));
        }
        assert_eq!(book.distinct_digests(), 3);
        book.failed(&address(3), "remote", at(14), 0);
        assert_eq!(book.distinct_digests(), 2);
        book.own_digest(digest(1), at(15));
        assert_eq!(book.distinct_digests(), 2, "ours did not change");
        book.own_digest(digest(2), at(16));
        assert_eq!(book.distinct_digests(), 1);
    }

    proptest! {
        #[test]
        fn the_next_round_is_half_to_one_and_a_half_intervals_away(random in any::<u64>()) {
            let delay = next_delay(Duration::from_secs(10), random);
            prop_assert!((5..=15).contains(&delay.as_secs()));
        }
    }
}
