//! Golden tables, and the same rules said another way.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::format::snapshot::{Snapshot, Summary};

fn snapshot(time: Timestamp, tags: &[&str]) -> NamedSnapshot {
    let snapshot = Snapshot {
        version: 1,
        time,
        host: "h".into(),
        user: String::new(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        description: None,
        parent: None,
        original: None,
        origin: None,
        repaired_from: None,
        held: false,
        held_until: None,
        source: None,
        unpacked: Vec::new(),
        catalogue: None,
        sealed: false,
        problems: 0,
        streams: Vec::new(),
        paths: Vec::new(),
        tree: None,
        summary: Summary::default(),
        program: String::new(),
        extra: Default::default(),
    };
    NamedSnapshot { name: ObjectName::of(time.to_string().as_bytes()), snapshot }
}

fn at(texts: &[&str]) -> Vec<NamedSnapshot> {
    texts.iter().map(|text| snapshot(text.parse().unwrap(), &[])).collect()
}

/// Times that are kept, newest first, with the first reason.
fn kept(policy: &Policy, snapshots: &[NamedSnapshot], zone: &str) -> Vec<(String, String)> {
    let zone = TimeZone::get(zone).unwrap();
    let verdicts = decide(policy, snapshots, &zone, now()).unwrap();
    let kept = verdicts.iter().filter(|verdict| verdict.is_kept());
    kept.map(|verdict| (verdict.time.to_string(), verdict.reasons.join(", "))).collect()
}

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(time, why)| ((*time).to_owned(), (*why).to_owned())).collect()
}

fn with(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::default();
    change(&mut policy);
    policy
}

#[test]
fn the_newest_of_each_period_stays() {
    let snapshots = at(&[
        "2026-01-01T08:00:00Z",
        "2026-01-01T20:00:00Z",
        "2026-01-02T08:00:00Z",
        "2026-01-04T08:00:00Z",
        "2026-01-04T09:30:00Z",
        "2026-01-05T08:00:00Z",
    ]);
    let daily = with(|policy| policy.periods[1] = Count::Some(3));
    let expected = pairs(&[
        ("2026-01-05T08:00:00Z", "daily"),
        ("2026-01-04T09:30:00Z", "daily"),
        ("2026-01-02T08:00:00Z", "daily"),
    ]);
    assert_eq!(kept(&daily, &snapshots, "UTC"), expected);
    // Fewer days than asked for: the oldest stays too, so that history reaches as far back as it may.
    let daily = with(|policy| policy.periods[1] = Count::Some(9));
    let expected = pairs(&[
        ("2026-01-05T08:00:00Z", "daily"),
        ("2026-01-04T09:30:00Z", "daily"),
        ("2026-01-02T08:00:00Z", "daily"),
        ("2026-01-01T20:00:00Z", "daily"),
        ("2026-01-01T08:00:00Z", "oldest daily"),
    ]);
    assert_eq!(kept(&daily, &snapshots, "UTC"), expected);
    // 4 January 2026 is a Sunday, 5 January begins a week.
    let weekly = with(|policy| {
        (policy.last, policy.periods[2]) = (Count::Some(1), Count::Some(2));
    });
    let expected =
        pairs(&[("2026-01-05T08:00:00Z", "last, weekly"), ("2026-01-04T09:30:00Z", "weekly")]);
    assert_eq!(kept(&weekly, &snapshots, "UTC"), expected);
}

#[test]
fn days_and_hours_are_those_of_the_zone() {
    let snapshots = at(&["2026-01-01T04:30:00Z", "2026-01-01T05:30:00Z"]);
    let daily = with(|policy| policy.periods[1] = Count::Some(1));
    let two = with(|policy| policy.periods[1] = Count::Some(2));
    assert_eq!(kept(&daily, &snapshots, "UTC").len(), 1);
    // In New York midnight lies between them.
    let in_new_york = kept(&two, &snapshots, "America/New_York");
    assert_eq!(
        in_new_york.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>(),
        ["daily", "daily"]
    );
    // 25 October 2026, Berlin: the hour from 2 to 3 comes twice, and both are hours.
    let twice = at(&["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
    let hourly = with(|policy| policy.periods[0] = Count::Some(2));
    let expected = pairs(&[("2026-10-25T01:30:00Z", "hourly"), ("2026-10-25T00:30:00Z", "hourly")]);
    assert_eq!(kept(&hourly, &twice, "Europe/Berlin"), expected);
}

#[test]
fn within_counts_back_from_the_newest() {
    let snapshots = at(&[
        "2020-01-01T00:00:00Z",
        "2020-01-13T00:00:00Z",
        "2020-01-13T12:00:00Z",
        "2020-01-15T00:00:00Z",
    ]);
    let within = with(|policy| policy.within = Some("2d".parse().unwrap()));
    let expected =
        pairs(&[("2020-01-15T00:00:00Z", "within 2d"), ("2020-01-13T12:00:00Z", "within 2d")]);
    assert_eq!(kept(&within, &snapshots, "UTC"), expected);
    // A wrong clock.
    let mut future = snapshots.clone();
    future.extend(at(&["2099-01-01T00:00:00Z"]));
    assert_eq!(kept(&within, &future, "UTC").len(), 3);
    assert_eq!(kept(&within, &future, "UTC")[0].1, "in the future");
    let daily = with(|policy| policy.periods_within[1] = Some("14d".parse().unwrap()));
    let expected = pairs(&[
        ("2020-01-15T00:00:00Z", "daily within 14d"),
        ("2020-01-13T12:00:00Z", "daily within 14d"),
    ]);
    assert_eq!(kept(&daily, &snapshots, "UTC"), expected);
}

#[test]
fn tags_names_holds_and_the_last_one() {
    let mut snapshots = vec![
        snapshot("2026-01-01T00:00:00Z".parse().unwrap(), &["a", "b"]),
        snapshot("2026-01-02T00:00:00Z".parse().unwrap(), &["a"]),
        snapshot("2026-01-03T00:00:00Z".parse().unwrap(), &[]),
        snapshot("2026-01-04T00:00:00Z".parse().unwrap(), &[]),
    ];
    let policy = with(|policy| {
        policy.tags = vec![vec!["a".into(), "b".into()], vec!["c".into()]];
        policy.ids = vec![snapshots[1].name];
    });
    let expected = pairs(&[("2026-01-02T00:00:00Z", "named"), ("2026-01-01T00:00:00Z", "tag a,b")]);
    assert_eq!(kept(&policy, &snapshots, "UTC"), expected);
    snapshots[2].snapshot.held = true;
    assert_eq!(kept(&policy, &snapshots, "UTC")[0].1, "held");
    let nothing = with(|policy| policy.tags = vec![vec!["none".into()]]);
    let last = kept(&nothing, &snapshots[3..], "UTC");
    assert_eq!(last, pairs(&[("2026-01-04T00:00:00Z", "last of its group")]));
    let nothing = Policy { allow_empty: true, ..nothing };
    assert!(kept(&nothing, &snapshots[3..], "UTC").is_empty());
    assert!(Policy { allow_empty: true, ..Policy::default() }.is_empty() && !policy.is_empty());
    assert!(decide(&policy, &[], &TimeZone::UTC, now()).unwrap().is_empty());
}

#[test]
fn counts_are_numbers_or_all() {
    for text in ["all", "unlimited", "-1"] {
        assert_eq!(text.parse::<Count>().unwrap(), Count::All);
    }
    for text in ["0", "00", "000"] {
        assert_eq!(text.parse::<Count>().unwrap(), Count::None);
    }
    assert_eq!("07".parse::<Count>().unwrap(), Count::Some(7));
    assert!(["-2", "", "x", "1.5"].iter().all(|text| text.parse::<Count>().is_err()));
}

#[test]
fn an_empty_list_of_tags_is_those_without_tags() {
    let snapshots = [
        snapshot("2026-01-01T00:00:00Z".parse().unwrap(), &[]),
        snapshot("2026-01-02T00:00:00Z".parse().unwrap(), &["a"]),
    ];
    let policy = with(|policy| policy.tags = vec![vec![]]);
    assert!(!policy.is_empty());
    assert_eq!(kept(&policy, &snapshots, "UTC"), pairs(&[("2026-01-01T00:00:00Z", "no tags")]));
}

#[test]
fn what_is_dated_in_the_future_takes_nobodys_place() {
    let mut snapshots = at(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]);
    snapshots.extend(at(&["2031-01-01T00:00:00Z", "2031-01-02T00:00:00Z"]));
    let last = with(|policy| policy.last = Count::Some(1));
    let expected = pairs(&[
        ("2031-01-02T00:00:00Z", "in the future"),
        ("2031-01-01T00:00:00Z", "in the future"),
        ("2026-01-02T00:00:00Z", "last"),
    ]);
    assert_eq!(kept(&last, &snapshots, "UTC"), expected);
    // They are no reason to let all others go either.
    let none = with(|policy| policy.tags = vec![vec!["none".into()]]);
    assert_eq!(kept(&none, &snapshots, "UTC")[2].1, "last of its group");
    assert_eq!(kept(&none, &snapshots[2..], "UTC").len(), 2);
}

#[test]
fn the_last_complete_one_stays_behind_incomplete_ones() {
    let mut snapshots =
        at(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    snapshots.extend(at(&["2026-01-04T00:00:00Z"]));
    for incomplete in &mut snapshots[2..] {
        incomplete.snapshot.problems = 1;
    }
    let last = with(|policy| policy.last = Count::Some(1));
    let expected =
        pairs(&[("2026-01-04T00:00:00Z", "last"), ("2026-01-02T00:00:00Z", "last complete")]);
    assert_eq!(kept(&last, &snapshots, "UTC"), expected);
    let three = with(|policy| policy.last = Count::Some(3));
    assert_eq!(kept(&three, &snapshots, "UTC").len(), 3);
    // One that comes later ends it, unless it claims to come from the future.
    let complete = at(&["2026-01-05T00:00:00Z"]);
    assert_eq!(kept(&last, &[&snapshots[..], &complete].concat(), "UTC").len(), 1);
    let complete = at(&["2031-01-05T00:00:00Z"]);
    assert_eq!(kept(&last, &[&snapshots[..], &complete].concat(), "UTC").len(), 3);
}

/// The same rules said another way: sets of periods instead of a walk with counters.
fn naive(
    policy: &Policy,
    snapshots: &[NamedSnapshot],
    zone: &TimeZone,
    now: Timestamp,
) -> HashSet<ObjectName> {
    let (mut sorted, future): (Vec<_>, Vec<_>) =
        snapshots.iter().partition(|named| named.snapshot.time <= now);
    sorted.sort_by_key(|named| (named.snapshot.time, named.name));
    sorted.reverse();
    let most = |count: Count| match count {
        Count::None => 0,
        Count::Some(count) => count as usize,
        Count::All => usize::MAX,
    };
    let mut kept: HashSet<ObjectName> =
        sorted.iter().take(most(policy.last)).map(|named| named.name).collect();
    for (period, count) in Period::ALL.into_iter().zip(policy.periods) {
        let value = |named: &NamedSnapshot| {
            let time = named.snapshot.time.to_zoned(zone.clone());
            match period {
                Period::Hour => time.strftime("%Y-%m-%d %H %z").to_string(),
                Period::Day => time.strftime("%Y-%m-%d").to_string(),
                Period::Week => time.strftime("%G-%V").to_string(),
                Period::Month => time.strftime("%Y-%m").to_string(),
                Period::Year => time.strftime("%Y").to_string(),
            }
        };
        let mut seen = HashSet::new();
        let newest: Vec<_> = sorted.iter().filter(|named| seen.insert(value(named))).collect();
        let chosen = newest.iter().take(most(count));
        kept.extend(chosen.clone().map(|named| named.name));
        if chosen.len() < most(count) {
            kept.extend(sorted.last().map(|named| named.name));
        }
    }
    let mut incomplete = sorted.iter().take_while(|named| !named.snapshot.is_complete());
    if incomplete.any(|named| kept.contains(&named.name)) {
        let complete = sorted.iter().find(|named| named.snapshot.is_complete());
        kept.extend(complete.map(|named| named.name));
    }
    kept.extend(future.iter().map(|named| named.name));
    kept
}

fn count() -> impl Strategy<Value = Count> {
    prop_oneof![
        3 => Just(Count::None),
        4 => (1u32..6).prop_map(Count::Some),
        1 => Just(Count::All),
    ]
}

proptest! {
    #[test]
    fn the_walk_keeps_what_the_sets_keep(
        hours in proptest::collection::btree_map(0i64..30_000, proptest::bool::weighted(0.6), 1..60),
        present in 0i64..40_000,
        last in count(),
        periods in proptest::array::uniform5(count()),
        zone in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/St_Johns")],
    ) {
        let start: Timestamp = "2024-01-01T00:10:00Z".parse().unwrap();
        let moment = |hour: i64| start + jiff::SignedDuration::from_mins(hour * 37);
        let now = moment(present);
        let snapshots: Vec<_> = hours
            .iter()
            .map(|(hour, is_complete)| {
                let mut named = snapshot(moment(*hour), &[]);
                named.snapshot.problems = u64::from(!is_complete);
                named
            })
            .collect();
        let zone = TimeZone::get(zone).unwrap();
        let policy = Policy { last, periods, allow_empty: true, ..Policy::default() };
        let verdicts = decide(&policy, &snapshots, &zone, now).unwrap();
        let kept: HashSet<_> =
            verdicts.iter().filter(|verdict| verdict.is_kept()).map(|verdict| verdict.name).collect();
        prop_assert_eq!(kept, naive(&policy, &snapshots, &zone, now));
    }
}
