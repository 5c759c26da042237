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
        sealed: false,
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

/// The same rules said another way: sets of periods instead of a walk with counters.
fn naive(policy: &Policy, snapshots: &[NamedSnapshot], zone: &TimeZone) -> HashSet<ObjectName> {
    let mut sorted: Vec<_> = snapshots.iter().collect();
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
        hours in proptest::collection::btree_set(0i64..30_000, 1..60),
        last in count(),
        periods in proptest::array::uniform5(count()),
        zone in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/St_Johns")],
    ) {
        let start: Timestamp = "2024-01-01T00:10:00Z".parse().unwrap();
        let snapshots: Vec<_> = hours
            .iter()
            .map(|hour| snapshot(start + jiff::SignedDuration::from_mins(hour * 37), &[]))
            .collect();
        let zone = TimeZone::get(zone).unwrap();
        let policy = Policy { last, periods, allow_empty: true, ..Policy::default() };
        let verdicts = decide(&policy, &snapshots, &zone, now()).unwrap();
        let kept: HashSet<_> =
            verdicts.iter().filter(|verdict| verdict.is_kept()).map(|verdict| verdict.name).collect();
        prop_assert_eq!(kept, naive(&policy, &snapshots, &zone));
    }
}
