//! Lengths of time as options give them: `2y5m7d3h`, by the calendar.

use std::fmt;
use std::str::FromStr;

use jiff::{Span, Timestamp, Zoned};

use crate::error::{Error, Result};

/// A length of time by the calendar: a month before 31 March is 28 February, a day before the clock
/// was put forward is the same time of the day before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Length {
    years: i32,
    months: i32,
    weeks: i32,
    days: i32,
    hours: i32,
}

impl Length {
    /// The moment so long before another.
    pub fn before(&self, moment: &Zoned) -> Result<Timestamp> {
        let span = Span::new()
            .try_years(self.years)
            .and_then(|span| span.try_months(self.months))
            .and_then(|span| span.try_weeks(self.weeks))
            .and_then(|span| span.try_days(self.days))
            .and_then(|span| span.try_hours(self.hours));
        let before = span.and_then(|span| moment.checked_sub(span));
        // Before all time is before every snapshot.
        Ok(before.map_or(Timestamp::MIN, |before| before.timestamp()))
    }
}

impl FromStr for Length {
    type Err = Error;

    /// Numbers, each followed by y, m (months), w, d or h, in any order, each once.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Usage(format!("'{text}' is no length of time such as 14d, 8w, 6m or 2y5m7d3h"))
        };
        let mut length = Self { years: 0, months: 0, weeks: 0, days: 0, hours: 0 };
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: i32 = rest[..digits].parse().map_err(|_| wrong())?;
            let field = match rest.as_bytes()[digits] {
                b'y' => &mut length.years,
                b'm' => &mut length.months,
                b'w' => &mut length.weeks,
                b'd' => &mut length.days,
                b'h' => &mut length.hours,
                _ => return Err(wrong()),
            };
            if *field != 0 || number == 0 {
                return Err(wrong());
            }
            *field = number;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() { Err(wrong()) } else { Ok(length) }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.years, 'y'),
            (self.months, 'm'),
            (self.weeks, 'w'),
            (self.days, 'd'),
            (self.hours, 'h'),
        ];
        parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_typed_and_printed() {
        for text in ["14d", "2y5m7d3h", "8w", "1h"] {
            assert_eq!(text.parse::<Length>().unwrap().to_string(), text);
        }
        for bad in ["", "d", "14", "14x", "1d1d", "-1d", "0d", "99999999999d", "1ü"] {
            assert!(bad.parse::<Length>().is_err(), "{bad}");
        }
    }

    #[test]
    fn they_count_by_the_calendar() {
        let before = |moment: &str, length: &str| {
            let zoned: Zoned = moment.parse().unwrap();
            length.parse::<Length>().unwrap().before(&zoned).unwrap().to_string()
        };
        assert_eq!(before("2026-03-31T12:00[UTC]", "1m"), "2026-02-28T12:00:00Z");
        // The clock went forward that night: the day had 23 hours.
        assert_eq!(before("2026-03-29T12:00[Europe/Berlin]", "1d"), "2026-03-28T11:00:00Z");
        assert_eq!(before("2026-03-29T12:00[Europe/Berlin]", "24h"), "2026-03-28T10:00:00Z");
        assert_eq!(before("2026-03-29T12:00[UTC]", "2000000y"), Timestamp::MIN.to_string());
    }
}
