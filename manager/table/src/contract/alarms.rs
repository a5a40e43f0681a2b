//! Alarms over time: since when each stands, and whether one has begun or ended.

use std::collections::BTreeMap;

use super::report::{
    ALARM_ABOUT_MAX, ALARM_TEXT_BYTES_MAX, About, Alarm, AlarmKind, REPORT_TEXT_BYTES_MAX,
};
use crate::clock::WallTime;
use crate::peers::rfc3339;

/// An alarm as it is found at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which.
    pub alarm: AlarmKind,
    /// What is the matter, in a sentence, with its figures.
    pub text: String,
    /// What to do.
    pub advice: String,
    /// Whom it is about, the most important first.
    pub about: Vec<About>,
}

/// The alarms that stand.
#[derive(Clone, Debug, Default)]
pub struct Alarms {
    standing: BTreeMap<AlarmKind, Alarm>,
}

impl Alarms {
    /// Takes all that is found at `now`: what was not found ends, and what stood already keeps the
    /// time of its beginning. Texts and lists are cut to their bounds. Answers whether an alarm began
    /// or ended.
    pub fn find(&mut self, found: Vec<Found>, now: WallTime) -> bool {
        let mut before = std::mem::take(&mut self.standing);
        let mut has_begun = false;
        for it in found {
            let since = before.remove(&it.alarm).map(|alarm| alarm.since);
            has_begun |= since.is_none() && !self.standing.contains_key(&it.alarm);
            let alarm = Alarm {
                alarm: it.alarm,
                since: since.unwrap_or_else(|| rfc3339(now)),
                text: cut(it.text, ALARM_TEXT_BYTES_MAX),
                advice: cut(it.advice, ALARM_TEXT_BYTES_MAX),
                about: it
                    .about
                    .into_iter()
                    .take(ALARM_ABOUT_MAX)
                    .map(bounded)
                    .collect(),
            };
            // Of two of one kind the first counts.
            self.standing.entry(it.alarm).or_insert(alarm);
        }
        has_begun || !before.is_empty()
    }

    /// Those that stand, the worst first.
    pub fn list(&self) -> Vec<Alarm> {
        self.standing.values().cloned().collect()
    }

    /// Whether this one stands.
    pub fn stands(&self, alarm: AlarmKind) -> bool {
        self.standing.contains_key(&alarm)
    }
}

/// Those of `these` that `others` have nothing of: of two looks, what began or what ended.
pub fn lacking<'a>(these: &'a [Alarm], others: &[Alarm]) -> impl Iterator<Item = &'a Alarm> {
    let is_lacking = |it: &&Alarm| others.iter().all(|other| other.alarm != it.alarm);
    these.iter().filter(is_lacking)
}

fn bounded(about: About) -> About {
    let About { who, reason } = about;
    About {
        who: cut(who, REPORT_TEXT_BYTES_MAX),
        reason: cut(reason, REPORT_TEXT_BYTES_MAX),
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(alarm: AlarmKind, text: &str) -> Found {
        Found {
            alarm,
            text: text.to_owned(),
            advice: String::new(),
            about: Vec::new(),
        }
    }

    #[test]
    fn an_alarm_keeps_its_beginning_until_it_ends_and_has_another_when_it_comes_again() {
        let at = |ms: u64| WallTime::from_millis(1_700_000_000_000 + ms);
        let since = |alarms: &Alarms| alarms.list()[0].since.clone();
        let mut alarms = Alarms::default();
        assert!(!alarms.find(Vec::new(), at(0)));
        assert!(alarms.find(vec![found(AlarmKind::Isolated, "2 peers")], at(1_000)));
        let first = since(&alarms);
        assert!(!alarms.find(vec![found(AlarmKind::Isolated, "3 peers")], at(2_000)));
        assert_eq!(since(&alarms), first);
        assert_eq!(alarms.list()[0].text, "3 peers");
        assert!(alarms.find(Vec::new(), at(3_000)));
        assert!(!alarms.stands(AlarmKind::Isolated));
        assert!(alarms.find(vec![found(AlarmKind::Isolated, "")], at(4_000)));
        assert_ne!(since(&alarms), first);
    }

    #[test]
    fn the_worst_comes_first_and_one_that_takes_the_place_of_another_is_news() {
        let mut alarms = Alarms::default();
        let [first, last] = [AlarmKind::Isolated, AlarmKind::SyncSilent];
        let both = vec![found(last, ""), found(first, "")];
        assert!(alarms.find(both, WallTime::default()));
        let kinds: Vec<_> = alarms.list().into_iter().map(|it| it.alarm).collect();
        assert_eq!(kinds, [first, last]);
        assert!(alarms.find(vec![found(last, "")], WallTime::default()));
        assert!(alarms.find(vec![found(first, "")], WallTime::default()));
    }

    #[test]
    fn what_began_and_what_ended_is_told_by_its_kind() {
        let of = |kinds: &[AlarmKind], text| {
            let mut alarms = Alarms::default();
            let found = kinds.iter().map(|kind| found(*kind, text));
            alarms.find(found.collect(), WallTime::default());
            alarms.list()
        };
        let before = of(&[AlarmKind::Isolated, AlarmKind::Diverged], "2 peers");
        let now = of(&[AlarmKind::Isolated, AlarmKind::TableFull], "3 peers");
        let kinds = |these: &[Alarm], others: &[Alarm]| {
            let lacking = lacking(these, others);
            lacking.map(|it| it.alarm).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&now, &before), [AlarmKind::TableFull]);
        assert_eq!(kinds(&before, &now), [AlarmKind::Diverged]);
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_characters() {
        let mut alarms = Alarms::default();
        let long = "\u{e9}".repeat(ALARM_TEXT_BYTES_MAX) + "x";
        let about = About {
            who: format!("x{long}"),
            reason: long.clone(),
        };
        let found = Found {
            about: vec![about; ALARM_ABOUT_MAX + 1],
            ..found(AlarmKind::Diverged, &long)
        };
        alarms.find(vec![found], WallTime::default());
        let report = super::super::Report {
            alarms: alarms.list(),
            ..super::super::Report::default()
        };
        report.check().unwrap();
        assert_eq!(report.alarms[0].about.len(), ALARM_ABOUT_MAX);
    }
}
