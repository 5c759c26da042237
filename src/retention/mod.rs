//! Which snapshots a retention policy keeps, and why. A pure function of the snapshots and the policy:
//! it reads no clock, and "within" counts back from the newest snapshot of a group, so a machine
//! whose backups stopped does not lose its history. Snapshots that a wrong clock dated into the future
//! stay and do not count.
//!
//! The rules are those of restic's `forget`: for each period, the newest snapshot of each of the
//! last N periods that have one; where fewer are there, the oldest too.

pub mod group;
pub mod span;

use jiff::civil::ISOWeekDate;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::error::{Error, Result};
use crate::id::ObjectName;
use crate::repository::snapshots::NamedSnapshot;

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// By the clock on the wall; where an hour comes twice, both count.
    Hour,
    /// Midnight to midnight.
    Day,
    /// Monday to Sunday (ISO 8601).
    Week,
    /// A month of the calendar.
    Month,
    /// A year of the calendar.
    Year,
}

impl Period {
    /// All of them, short ones first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The word in options and reasons.
    pub fn word(self) -> &'static str {
        ["hourly", "daily", "weekly", "monthly", "yearly"][self as usize]
    }

    /// What two moments of one period have in common.
    fn of(self, time: &Zoned) -> [i64; 4] {
        let (year, month, day) = (time.year().into(), time.month().into(), time.day().into());
        match self {
            Self::Hour => {
                let hour = i64::from(time.hour()) * 100_000 + i64::from(time.offset().seconds());
                [year, month, day, hour]
            }
            Self::Day => [year, month, day, 0],
            Self::Week => {
                let week: ISOWeekDate = time.date().iso_week_date();
                [week.year().into(), week.week().into(), 0, 0]
            }
            Self::Month => [year, month, 0, 0],
            Self::Year => [year, 0, 0, 0],
        }
    }
}

/// How many of each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Count {
    /// None for its own sake.
    #[default]
    None,
    /// So many.
    Some(u32),
    /// All.
    All,
}

/// What to keep. Whatever one of its rules keeps is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many.
    pub last: Count,
    /// The newest of so many periods each, by [`Period`].
    pub periods: [Count; 5],
    /// All that are not older than this before the newest.
    pub within: Option<span::Length>,
    /// The newest of each period as far back as this, by [`Period`].
    pub periods_within: [Option<span::Length>; 5],
    /// Those with all tags of one of these lists; of an empty list, those without tags.
    pub tags: Vec<Vec<String>>,
    /// These.
    pub ids: Vec<ObjectName>,
    /// Forget even the last snapshot of a group.
    pub allow_empty: bool,
}

impl Policy {
    /// Whether no rule keeps anything: most likely a mistake.
    pub fn is_empty(&self) -> bool {
        let no_rule = Self { allow_empty: self.allow_empty, ..Self::default() };
        *self == no_rule
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which one.
    pub name: ObjectName,
    /// When it was made.
    pub time: Timestamp,
    /// Why it is kept; empty where it is forgotten.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Why a snapshot stays that is dated after now.
pub const FUTURE: &str = "in the future";
/// Why one stays though the policy does not say so: nothing else would be left of its group, …
const LAST_OF_GROUP: &str = "last of its group";
/// … or only backups that lack files.
const LAST_COMPLETE: &str = "last complete";

/// Decides about the snapshots of one group. The result is in the order of time, newest first. What is
/// dated after `now` stays; rules count and reach back as if it were not there.
pub fn decide(
    policy: &Policy,
    snapshots: &[NamedSnapshot],
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Vec<Verdict>> {
    let mut sorted: Vec<&NamedSnapshot> = snapshots.iter().collect();
    sorted.sort_by_key(|named| std::cmp::Reverse((named.snapshot.time, named.name)));
    // Those that a wrong clock dated into the future must neither make the others look old nor take
    // their places.
    let first = sorted.partition_point(|named| named.snapshot.time > now);
    let newest = sorted.get(first).or(sorted.first());
    let Some(newest) = newest.map(|named| named.snapshot.time.to_zoned(zone.clone())) else {
        return Ok(Vec::new());
    };
    let mut buckets = Bucket::all(policy, &newest)?;
    let limit = policy.within.as_ref().map(|length| length.before(&newest)).transpose()?;
    let mut verdicts = Vec::new();
    for (number, named) in sorted.iter().enumerate() {
        let time = named.snapshot.time.to_zoned(zone.clone());
        let is_oldest = number + 1 == sorted.len();
        let mut reasons = Vec::new();
        if policy.ids.contains(&named.name) {
            reasons.push("named".to_owned());
        }
        if named.snapshot.held {
            reasons.push("held".to_owned());
        }
        if let Some(tags) = policy.tags.iter().find(|tags| named.snapshot.has_tags(tags)) {
            let none = || "no tags".to_owned();
            reasons.push(tags.first().map_or_else(none, |_| format!("tag {}", tags.join(","))));
        }
        if number < first {
            reasons.push(FUTURE.to_owned());
            verdicts.push(Verdict { name: named.name, time: named.snapshot.time, reasons });
            continue;
        }
        if limit.is_some_and(|limit| named.snapshot.time > limit)
            && let Some(length) = &policy.within
        {
            reasons.push(format!("within {length}"));
        }
        reasons.extend(buckets.iter_mut().filter_map(|bucket| bucket.take(&time, is_oldest)));
        verdicts.push(Verdict { name: named.name, time: named.snapshot.time, reasons });
    }
    keep_last(policy, &sorted[first..], &mut verdicts[first..]);
    Ok(verdicts)
}

/// Keeps what nobody means to lose: the last snapshot of a group, and the last complete one where only
/// newer ones that lack files would be left after it.
fn keep_last(policy: &Policy, sorted: &[&NamedSnapshot], verdicts: &mut [Verdict]) {
    // A group that would be gone is most likely one that nobody thought of.
    if !policy.allow_empty
        && !verdicts.iter().any(Verdict::is_kept)
        && let Some(newest) = verdicts.first_mut()
    {
        newest.reasons.push(LAST_OF_GROUP.to_owned());
    }
    if let Some(complete) = sorted.iter().position(|named| named.snapshot.is_complete())
        && !verdicts[complete].is_kept()
        && verdicts[..complete].iter().any(Verdict::is_kept)
    {
        verdicts[complete].reasons.push(LAST_COMPLETE.to_owned());
    }
}

/// One rule at work: how many it still keeps, and of which period the last one was.
struct Bucket {
    period: Option<Period>,
    reason: String,
    left: Count,
    /// Nothing that is not after this.
    limit: Option<Timestamp>,
    last: Option<[i64; 4]>,
}

impl Bucket {
    fn all(policy: &Policy, newest: &Zoned) -> Result<Vec<Self>> {
        let bucket = |period, reason, left| Self { period, reason, left, limit: None, last: None };
        let mut buckets = vec![bucket(None, "last".to_owned(), policy.last)];
        for (period, count) in Period::ALL.into_iter().zip(policy.periods) {
            buckets.push(bucket(Some(period), period.word().to_owned(), count));
        }
        for (period, length) in Period::ALL.into_iter().zip(&policy.periods_within) {
            if let Some(length) = length {
                let reason = format!("{} within {length}", period.word());
                let limit = Some(length.before(newest)?);
                buckets.push(Self { limit, ..bucket(Some(period), reason, Count::All) });
            }
        }
        Ok(buckets)
    }

    /// Whether this rule keeps the next older snapshot, and why.
    fn take(&mut self, time: &Zoned, is_oldest: bool) -> Option<String> {
        if self.left == Count::None || self.limit.is_some_and(|limit| time.timestamp() <= limit) {
            return None;
        }
        let value = self.period.map(|period| period.of(time));
        let is_next = value.is_none() || value != self.last;
        if !is_next && !is_oldest {
            return None;
        }
        self.last = value;
        self.left = match self.left {
            Count::Some(1) | Count::None => Count::None,
            Count::Some(count) => Count::Some(count - 1),
            Count::All => Count::All,
        };
        Some(if is_next { self.reason.clone() } else { format!("oldest {}", self.reason) })
    }
}

/// A number of snapshots as it is typed: digits, or `all`; -1 is all too, as in restic.
impl std::str::FromStr for Count {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" | "unlimited" | "-1" => Ok(Self::All),
            digits => match digits.parse() {
                Ok(0) => Ok(Self::None),
                Ok(count) => Ok(Self::Some(count)),
                Err(_) => Err(Error::Usage(format!(
                    "'{text}' is neither a number of snapshots nor 'all'"
                ))),
            },
        }
    }
}

#[cfg(test)]
mod tests;
