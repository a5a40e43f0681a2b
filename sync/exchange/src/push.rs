//! How a fresh change spreads: each peer is sent it once, by a tree that nobody has to build.
//!
//! After El-Ansary, Alima, Brand and Haridi, "Efficient Broadcast in Structured P2P Networks"
//! (IPTPS 2003): peers stand on a ring, and whoever sends a change also says for which part of the
//! ring the receiver is to pass it on. Where all know the same peers, each of n peers gets it
//! exactly once, with n - 1 messages and after log n of them in a row. Where they do not, or where
//! peers fail, somebody may miss it and finds it with the next exchange; and since every hop covers
//! a smaller part of the ring than the one before, nothing goes round for ever.
//!
//! Whoever pushes within a few seconds begins at the same place ([`Scope::shared`]), and so by nearly
//! the same tree: the same few pairs of peers talk to each other, over connections that stand, and
//! who passes on gathers the news of many that wait for the same peer ([`PassOn::add`]). The place
//! moves on, so that not always the same ones pass on.

use std::hash::Hasher;

use peer_table::contract::{BATCH_BYTES_FULL, BATCH_RECORDS_MAX, Batch, State};
use peer_table::feed::Via;
use peer_table::floors::Replicas;
use peer_table::{TableName, WallTime};
use prost::Message;
use siphasher::sip::SipHasher24;

use crate::ends::{Own, Remote};
use crate::exchange::{Conversation, ExchangeError, Options, Traffic};
use crate::handshake::Partner;
use crate::message::{self, Answer, Ask};
use crate::outcomes::Outcomes;

/// How many members of a group are tried before it is left to the next exchanges.
pub const TRIES_MAX: usize = 3;

/// For how long pushes begin at one place. Longer, and the same peers pass on for longer; shorter,
/// and more pairs of peers need a connection.
const START_STAYS_MS: u64 = 10_000;

/// A place on the ring.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position(pub u64);

impl Position {
    /// The place of the peer with this address: a SipHash-2-4 of its text under a fixed key. Part of
    /// the wire's contract: all peers must see each at the same place.
    pub fn of(address: &str) -> Self {
        Self::hash(b"udht ring place.", address.as_bytes())
    }

    /// Where pushes begin at this time.
    fn start(now: WallTime) -> Self {
        let step = now.as_millis() / START_STAYS_MS;
        Self::hash(b"udht push start.", &step.to_le_bytes())
    }

    fn hash(key: &[u8; 16], bytes: &[u8]) -> Self {
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write(bytes);
        Self(hasher.finish())
    }
}

/// The part of the ring that is still to be covered: the places after `after`, up to and with
/// `up_to`, in the direction of growing numbers and through zero. Empty where the two are equal.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    /// The place before the first one.
    pub after: Position,
    /// The last place.
    pub up_to: Position,
    /// The place of who began the push, if it knows its own: left out, as it has the change.
    pub origin: Option<Position>,
}

impl Scope {
    /// The whole ring, for who begins a push at the place `origin` now. All begin after the same
    /// place, which is another every few seconds; that clocks differ does no harm.
    pub fn shared(now: WallTime, origin: Option<Position>) -> Self {
        Self::whole(Position::start(now).0, origin)
    }

    /// The whole ring after `start`, for who begins a push at the place `origin`.
    pub const fn whole(start: u64, origin: Option<Position>) -> Self {
        Self {
            after: Position(start),
            up_to: Position(start.wrapping_sub(1)),
            origin,
        }
    }

    /// How many places are in it.
    pub const fn places(self) -> u64 {
        self.up_to.0.wrapping_sub(self.after.0)
    }

    /// How far after its beginning a place in it is: from 1 on.
    fn distance(self, position: Position) -> Option<u64> {
        let distance = position.0.wrapping_sub(self.after.0);
        (1..=self.places()).contains(&distance).then_some(distance)
    }
}

/// A peer at its place; none stands for who began the push.
type Member<A> = (Position, Option<A>);

/// Peers that follow one another on the ring. One of them, its head, is sent the change and passes
/// it on to the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group<A> {
    members: Vec<Member<A>>,
    /// Of the push, but for where it begins.
    scope: Scope,
}

impl<A> Group<A> {
    /// The peers to try one after another until one takes the change, each with the scope to send
    /// along: [`TRIES_MAX`] at the most. One that failed is covered by nobody.
    pub fn heads(&self) -> impl Iterator<Item = (&A, Scope)> {
        let peers = self.members.iter();
        let peers = peers.filter_map(|(position, peer)| Some((*position, peer.as_ref()?)));
        peers.take(TRIES_MAX).map(|(after, peer)| {
            (
                peer,
                Scope {
                    after,
                    ..self.scope
                },
            )
        })
    }

    /// How many peers are in it.
    pub fn len(&self) -> usize {
        self.members.iter().flat_map(|(_, peer)| peer).count()
    }

    /// Whether nobody is in it: never.
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Splits the peers within `scope` into groups of near-equal size, up to `fanout` of them.
///
/// Each scope reaches up to the next group's head, so that peers unknown here and known to a head
/// are covered too. Who began the push is counted, so that the groups are the same whoever that is;
/// where it would be a head, its group is split as it would do it, into up to `fanout` more.
pub fn plan<A: Clone>(
    peers: impl IntoIterator<Item = (Position, A)>,
    scope: Scope,
    fanout: usize,
) -> Vec<Group<A>> {
    let others = peers
        .into_iter()
        .filter(|(at, _)| Some(*at) != scope.origin);
    let others = others.map(|(at, peer)| (at, Some(peer)));
    let all = others.chain(scope.origin.map(|at| (at, None)));
    let mut within: Vec<(u64, Member<A>)> = all
        .filter_map(|it| scope.distance(it.0).map(|distance| (distance, it)))
        .collect();
    within.sort_by_key(|(distance, _)| *distance);
    // Were two at one place, the scope between them would be the whole ring and not nothing.
    within.dedup_by_key(|(distance, _)| *distance);
    let mut members: Vec<_> = within.into_iter().map(|(_, member)| member).collect();
    // A scope that ends with who began the push is mostly one that was stretched over it.
    members.pop_if(|(_, peer)| peer.is_none());
    let mut groups = Vec::new();
    split(members, scope, fanout.max(1), &mut groups);
    groups.reverse();
    groups
}

/// Puts the groups of these members behind `groups`, from the last to the first, as each ends where
/// the one after it begins. The answer is where the one before them ends.
fn split<A>(
    mut members: Vec<Member<A>>,
    scope: Scope,
    fanout: usize,
    groups: &mut Vec<Group<A>>,
) -> Position {
    // With so few left nobody has to pass anything on.
    if members.len() <= fanout + 1 {
        members.retain(|(_, peer)| peer.is_some());
    }
    let mut up_to = scope.up_to;
    for groups_left in (1..=fanout.min(members.len())).rev() {
        let mut group = members.split_off(members.len() - members.len() / groups_left);
        let scope = Scope { up_to, ..scope };
        if group[0].1.is_none() {
            group.remove(0);
            up_to = split(group, scope, fanout, groups);
        } else {
            up_to = Position(group[0].0.0.wrapping_sub(1));
            let members = group;
            groups.push(Group { members, scope });
        }
    }
    up_to
}

/// What a push did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushReport {
    /// Who took it.
    pub partner: Partner,
    /// How far its clock is ahead of ours, in milliseconds.
    pub skew_ms: i64,
    /// What became of the records there.
    pub merged_there: Outcomes,
    /// What it cost.
    pub traffic: Traffic,
}

/// What is to be pushed, and to whom: to be planned and pushed within the scope.
#[derive(Clone, PartialEq, Debug)]
pub struct PassOn {
    /// Of which table.
    pub table: TableName,
    /// Fresh records. Of those that were pushed here, the ones that were not refused.
    pub batch: Batch,
    /// News of replicas.
    pub replicas: Option<Replicas>,
    /// Whom to pass them on to.
    pub scope: Scope,
}

impl PassOn {
    /// Whether other news go with these in one message.
    pub fn has_room_for(&self, other: &Self) -> bool {
        let says_more = |it: &Replicas| it.ids.is_some() || !it.origin.is_empty();
        let mut replicas = self.replicas.iter().chain(&other.replicas);
        let scopes = [self.scope, other.scope];
        let [ours, theirs] = scopes.map(|scope| (scope.after, scope.up_to));
        let records = self.batch.records.len() + other.batch.records.len();
        ours == theirs
            && self.table == other.table
            && records <= BATCH_RECORDS_MAX
            && self.bytes() + other.bytes() <= BATCH_BYTES_FULL
            && !replicas.any(says_more)
    }

    /// Takes other news in, which go the same way; there has to be room for them. Where different
    /// peers began them, none is left out, and each of those gets its own again.
    pub fn add(&mut self, other: Self) {
        self.batch.append(other.batch);
        match (&mut self.replicas, other.replicas) {
            (Some(ours), Some(theirs)) => ours.publications.extend(theirs.publications),
            (ours, theirs) => *ours = ours.take().or(theirs),
        }
        if self.scope.origin != other.scope.origin {
            self.scope.origin = None;
        }
    }

    /// The size of what is told, encoded.
    pub fn bytes(&self) -> usize {
        let replicas = self.replicas.as_ref();
        self.batch.encoded_len() + replicas.map_or(0, Message::encoded_len)
    }
}

/// Sends news to one peer, which is to pass them on within `scope`, a part of theirs.
///
/// `state` is what [`Own::state`] said of us lately: asked for once for all the peers that they are
/// pushed to.
pub async fn push<O: Own, R: Remote>(
    own: &O,
    state: &State,
    remote: &R,
    news: &PassOn,
    scope: Scope,
    options: &Options,
) -> Result<PushReport, ExchangeError> {
    let PassOn { table, batch, .. } = news;
    let mut conversation = Conversation::new(own, remote, table, state, options)?;
    let ask = Ask::Push(message::Push {
        batch: message::batch_to_bytes(batch),
        after: scope.after.0,
        up_to: scope.up_to.0,
        origin: scope.origin.map_or(0, |position| position.0),
        replicas: news.replicas.clone(),
    });
    let Answer::Pushed(pushed) = conversation.ask(ask).await? else {
        return Err(ExchangeError::unexpected("a push"));
    };
    if pushed.outcomes.len() != batch.records.len() {
        return Err(ExchangeError::invalid(
            "outcomes",
            "are not one for each record pushed",
        ));
    }
    let mut merged_there = Outcomes::default();
    merged_there.add(&pushed.outcomes);
    let (partner, skew_ms) = conversation.met()?;
    if let Some(answers) = message::batch_from_bytes(&pushed.answers, table)? {
        // What we pushed is deleted, and we did not know.
        let merged = own.merge(answers, Via::Push, partner.store, None).await;
        merged.map_err(ExchangeError::own)?;
    }
    Ok(PushReport {
        partner: partner.clone(),
        skew_ms,
        merged_there,
        traffic: conversation.traffic(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use peer_table::floors::{WireIds, WirePublication};
    use peer_table::{Body, Contact, Entry, Key, OriginId, Reading, Version, peers};
    use proptest::prelude::*;

    use super::*;

    /// Peers by their place, each of which knows the others that it is said to know.
    struct Ring<'a> {
        places: &'a [u64],
        knows: &'a dyn Fn(u64, u64) -> bool,
        fails: &'a dyn Fn(u64) -> bool,
        fanout: usize,
        /// How often each got the change.
        got: BTreeMap<u64, u32>,
        /// Who sent it to whom, and which part of the ring with it.
        edges: Vec<(u64, u64, Scope)>,
        depth: u32,
    }

    impl Ring<'_> {
        fn spread(&mut self, from: u64, scope: Scope, depth: u32) {
            let sees = |to: &&u64| **to != from && (self.knows)(from, **to);
            let known = self.places.iter().filter(sees).copied().collect::<Vec<_>>();
            for group in plan(on_ring(&known), scope, self.fanout) {
                let takes = |(to, _): &(&u64, Scope)| !(self.fails)(**to);
                let Some((&to, within)) = group.heads().find(takes) else {
                    continue;
                };
                assert!(within.places() < scope.places(), "every hop covers less");
                *self.got.entry(to).or_default() += 1;
                self.edges.push((from, to, within));
                self.depth = self.depth.max(depth + 1);
                self.spread(to, within, depth + 1);
            }
        }
    }

    /// Spreads a change of the first of these peers.
    fn spread<'a>(
        places: &'a [u64],
        knows: &'a dyn Fn(u64, u64) -> bool,
        fails: &'a dyn Fn(u64) -> bool,
        fanout: usize,
        start: u64,
    ) -> Ring<'a> {
        let (got, edges, depth) = (BTreeMap::new(), Vec::new(), 0);
        let mut ring = Ring {
            places,
            knows,
            fails,
            fanout,
            got,
            edges,
            depth,
        };
        ring.spread(places[0], Scope::whole(start, Some(Position(places[0]))), 0);
        ring
    }

    const NOBODY_FAILS: &dyn Fn(u64) -> bool = &|_| false;

    /// The fewest hops in which a change can reach that many others.
    fn hops(others: usize, fanout: usize) -> u32 {
        let (mut hops, mut reached) = (0, 0);
        while reached < others {
            hops += 1;
            reached = fanout * (1 + reached);
        }
        hops
    }

    fn places(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::btree_set(any::<u64>(), count)
            .prop_map(|places| places.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
    }

    fn on_ring(places: &[u64]) -> Vec<(Position, u64)> {
        places
            .iter()
            .map(|place| (Position(*place), *place))
            .collect()
    }

    proptest! {
        #[test]
        fn each_peer_gets_a_change_once_and_after_as_few_hops_as_can_be(
            places in places(1..200), fanout in 1_usize..12, start in any::<u64>(),
        ) {
            let ring = spread(&places, &|_, _| true, NOBODY_FAILS, fanout, start);
            for place in &places[1..] {
                // One place in 2^64 is where the ring begins, and is left out.
                prop_assert!(*place == start || ring.got.get(place) == Some(&1));
            }
            prop_assert_eq!(ring.got.get(&places[0]), None);
            prop_assert!(ring.depth <= hops(places.len(), fanout));
            if places.len() <= fanout + 1 {
                prop_assert!(ring.depth <= 1, "nobody has to pass it on");
            }
        }

        #[test]
        fn whoever_begins_nearly_the_same_pairs_talk(
            places in places(2..40), fanout in 1_usize..6, start in any::<u64>(),
        ) {
            let mut places = places;
            let mut edges = BTreeSet::new();
            for _ in 0..places.len() {
                let began = places[0];
                let ring = spread(&places, &|_, _| true, NOBODY_FAILS, fanout, start);
                let passed_on = ring.edges.iter().filter(|(from, ..)| *from != began);
                edges.extend(passed_on.map(|(from, to, scope)| (*from, *to, scope.up_to.0)));
                places.rotate_left(1);
            }
            // One pair for each peer; and where the one who passes on began, another does.
            prop_assert!(edges.len() <= 5 * places.len(), "{} of {}", edges.len(), places.len());
        }

        #[test]
        fn with_differing_views_it_ends_and_nobody_gets_a_change_twice(
            places in places(2..60),
            fanout in 1_usize..6,
            start in any::<u64>(),
            views in any::<u64>(),
        ) {
            let knows =
                |from: u64, to: u64| !(from ^ to ^ views).count_ones().is_multiple_of(3);
            let ring = spread(&places, &knows, NOBODY_FAILS, fanout, start);
            prop_assert!(ring.got.values().all(|times| *times == 1));
        }

        #[test]
        fn where_few_peers_fail_all_others_get_a_change_once(
            places in places(4..100), fanout in 1_usize..6, start in any::<u64>(),
        ) {
            // Fewer than a group is given tries.
            let down = &places[1..TRIES_MAX];
            let fails = |to: u64| down.contains(&to);
            let ring = spread(&places, &|_, _| true, &fails, fanout, start);
            for place in &places[1..] {
                let expected = (!down.contains(place)).then_some(&1);
                prop_assert_eq!(ring.got.get(place), expected);
            }
        }

        #[test]
        fn peers_that_only_a_head_knows_are_covered_by_it(
            places in places(3..60), start in any::<u64>(),
        ) {
            // The first peer knows half of the others; these know all.
            let known = |to: u64| to.is_multiple_of(2);
            let knows = |from: u64, to: u64| from != places[0] || known(to);
            let ring = spread(&places, &knows, NOBODY_FAILS, 3, start);
            let scope = Scope::whole(start, None);
            let distance = |place: &u64| scope.distance(Position(*place));
            let first = places[1..].iter().filter(|to| known(**to)).filter_map(distance).min();
            for place in &places[1..] {
                let covered = first.is_some() && distance(place) >= first;
                prop_assert_eq!(ring.got.get(place), covered.then_some(&1));
            }
        }
    }

    fn scope(after: u64, up_to: u64) -> Scope {
        Scope {
            after: Position(after),
            up_to: Position(up_to),
            origin: None,
        }
    }

    #[test]
    fn groups_are_of_near_equal_size_and_meet_without_a_gap() {
        let groups = plan(on_ring(&[10, 20, 30, 40, 50, 60, 70]), scope(5, 65), 4);
        let heads: Vec<_> = groups
            .iter()
            .map(|group| group.heads().next().unwrap())
            .collect();
        let expected = [
            (&10, scope(10, 29)),
            (&30, scope(30, 49)),
            (&50, scope(50, 59)),
            (&60, scope(60, 65)),
        ];
        assert_eq!(heads, expected);
        assert_eq!(
            groups.iter().map(Group::len).collect::<Vec<_>>(),
            [2, 2, 1, 1]
        );
    }

    #[test]
    fn where_a_head_fails_the_next_of_its_group_takes_its_place() {
        let groups = plan(on_ring(&[10, 20, 30, 40, 50]), scope(0, 99), 1);
        let tries: Vec<_> = groups[0].heads().collect();
        assert_eq!(
            tries,
            [
                (&10, scope(10, 99)),
                (&20, scope(20, 99)),
                (&30, scope(30, 99))
            ]
        );
        assert_eq!(tries.len(), TRIES_MAX);
    }

    #[test]
    fn a_scope_goes_through_zero() {
        let groups = plan(on_ring(&[5, 50, u64::MAX]), scope(100, 10), 9);
        let heads: Vec<_> = groups
            .iter()
            .map(|group| group.heads().next().unwrap())
            .collect();
        assert_eq!(heads, [(&u64::MAX, scope(u64::MAX, 4)), (&5, scope(5, 10))]);
    }

    #[test]
    fn who_began_is_counted_and_left_out() {
        let from = |origin: u64| Scope {
            origin: Some(Position(origin)),
            ..scope(0, 99)
        };
        let heads = |origin: u64| {
            let groups = plan(on_ring(&[10, 20, 30, 40, 50, 60]), from(origin), 2);
            let heads = groups.iter().map(|group| group.heads().next().unwrap());
            heads
                .map(|(head, it)| (*head, it.up_to.0))
                .collect::<Vec<_>>()
        };
        assert_eq!(heads(50), [(10, 39), (40, 99)]);
        // In place of who would be a head, those that it would send it to.
        assert_eq!(heads(40), [(10, 49), (50, 59), (60, 99)]);
        // It knows nobody at its own place, and one who knows more counts it too.
        let groups = plan(on_ring(&[10, 20, 30, 50, 60]), from(40), 2);
        assert_eq!(groups.iter().map(Group::len).collect::<Vec<_>>(), [3, 1, 1]);
        // So few that nobody has to pass anything on.
        let groups = plan(on_ring(&[10, 20, 30, 40]), from(30), 3);
        let heads = groups.iter().map(|group| group.heads().next().unwrap());
        let heads: Vec<_> = heads.map(|(head, it)| (*head, it.up_to.0)).collect();
        assert_eq!(heads, [(10, 19), (20, 39), (40, 99)]);
    }

    fn record(origin: u64, number: usize) -> (Key, Entry) {
        let version = Version {
            reading: Reading::from_u64(number as u64 + 1),
            origin: OriginId::from_bytes([u8::try_from(origin).unwrap(); 16]),
        };
        let entry = Entry {
            version,
            contact: Contact::default(),
            body: Body::Tombstone,
        };
        (format!("k{number}").parse().unwrap(), entry)
    }

    #[test]
    fn news_that_go_the_same_way_go_in_one_message_as_long_as_they_fit() {
        let news = |origin: u64, records: usize, publications: usize| PassOn {
            table: peers::table_name(),
            batch: Batch::new(
                &peers::table_name(),
                (0..records).map(|number| record(origin, number)),
            ),
            replicas: (publications > 0).then(|| Replicas {
                publications: vec![WirePublication::default(); publications],
                ..Replicas::default()
            }),
            scope: Scope {
                origin: Some(Position(origin)),
                ..scope(10, 99)
            },
        };
        let read = |news: &PassOn| news.batch.clone().into_records().unwrap();
        let mut first = news(1, 2, 0);
        let same = news(1, 1, 1);
        let other = news(2, 3, 1);
        let expected = [read(&first), read(&same), read(&other)].concat();
        assert!(first.has_room_for(&same));
        first.add(same);
        assert_eq!(first.scope.origin, Some(Position(1)));
        assert!(first.has_room_for(&other));
        first.add(other);
        assert_eq!(first.scope, scope(10, 99));
        assert_eq!(read(&first), expected);
        assert_eq!(first.batch.origins.len(), 2);
        assert_eq!(first.replicas.as_ref().unwrap().publications.len(), 2);

        let elsewhere = PassOn {
            scope: scope(10, 98),
            ..news(1, 1, 0)
        };
        assert!(!first.has_room_for(&elsewhere));
        assert!(!first.has_room_for(&news(1, BATCH_RECORDS_MAX, 0)));
        let mut with_ids = news(1, 0, 1);
        with_ids.replicas.as_mut().unwrap().ids = Some(WireIds::default());
        assert!(!first.has_room_for(&with_ids));
        assert!(!with_ids.has_room_for(&first));
    }

    #[test]
    fn a_scope_that_was_stretched_over_who_began_is_split_as_if_it_was_not() {
        let peers = [10, 20, 30, 40, 50, 60];
        let whole = plan(on_ring(&peers), scope(0, 64), 3);
        let stretched = Scope {
            up_to: Position(75),
            origin: Some(Position(65)),
            ..scope(0, 64)
        };
        let sizes = |groups: &[Group<u64>]| groups.iter().map(Group::len).collect::<Vec<_>>();
        assert_eq!(sizes(&whole), [2, 2, 2]);
        assert_eq!(sizes(&plan(on_ring(&peers), stretched, 3)), [2, 2, 2]);
    }

    #[test]
    fn pushes_begin_at_one_place_for_a_while_and_then_at_another() {
        let at = |seconds: u64| Scope::shared(WallTime::from_millis(1_000 * seconds), None);
        assert_eq!(at(1_000), at(1_009));
        assert_ne!(at(1_009), at(1_010));
        assert_eq!(at(1_000).places(), u64::MAX);
    }

    #[test]
    fn an_empty_scope_has_nobody_in_it() {
        assert_eq!(plan(on_ring(&[1, 2, 3]), scope(2, 2), 4), []);
        assert_eq!(plan(on_ring(&[]), Scope::whole(1, None), 4), []);
    }

    #[test]
    fn of_two_peers_at_one_place_one_is_left_to_the_exchanges() {
        let peers = [(Position(7), "a"), (Position(7), "b"), (Position(9), "c")];
        let groups = plan(peers, Scope::whole(0, None), 3);
        let heads: Vec<_> = groups
            .iter()
            .map(|group| *group.heads().next().unwrap().0)
            .collect();
        assert_eq!(heads, ["a", "c"]);
    }

    #[test]
    fn a_peer_stands_at_the_same_place_in_every_build() {
        assert_eq!(Position::of("10.0.0.7:3003"), Position(GOLDEN_POSITION));
    }

    const GOLDEN_POSITION: u64 = 5_530_646_955_062_522_510;
}
