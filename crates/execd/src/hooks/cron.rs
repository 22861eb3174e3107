//! Schedules of five fields, as cron has them, and `@every 30s`, `@hourly` and their like.

use std::time::Duration;

use jiff::{ToSpan, Zoned};

use crate::config::go_duration;

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Again and again after this time.
    Every(Duration),
    /// At the minutes that match.
    Fields(Box<Fields>),
}

/// The minutes that match, each field as a set of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Either of the two days is enough where both are given.
    either_day: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Minutes that are tried before a schedule counts as one that is never due: eight years and a little.
const HORIZON_DAYS: u32 = 366 * 8 + 2;

impl Schedule {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let named = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(every) = named.strip_prefix("@every ") {
            let every = go_duration(every.trim())?;
            if every < Duration::from_secs(1) {
                return Err("@every needs at least 1s".to_owned());
            }
            return Ok(Self::Every(every));
        }
        let parts: Vec<&str> = named.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(format!("{text:?} is no schedule; write five fields, or @every 30s"));
        };
        let weekdays = field(weekday, 0, 7, &WEEKDAYS, 0)?;
        Ok(Self::Fields(Box::new(Fields {
            minutes: field(minute, 0, 59, &[], 0)?,
            hours: field(hour, 0, 23, &[], 0)?,
            days: field(day, 1, 31, &[], 0)?,
            months: field(month, 1, 12, &MONTHS, 1)?,
            // 7 is Sunday too.
            weekdays: (weekdays | (weekdays >> 7)) & 0x7F,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })))
    }

    /// The time after `now` at which it is next due; none if it never is.
    pub fn next(&self, now: &Zoned) -> Option<Zoned> {
        match self {
            Self::Every(every) => now.checked_add(*every).ok(),
            Self::Fields(fields) => fields.next(now),
        }
    }
}

impl Fields {
    fn day(&self, at: &Zoned) -> bool {
        let has = |set: u64, number: i8| set & (1 << number) != 0;
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        has(self.months, at.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    fn next(&self, now: &Zoned) -> Option<Zoned> {
        let has = |set: u64, number: i8| set & (1 << number) != 0;
        let mut at = now.checked_add(1.minute()).ok()?.with().second(0).subsec_nanosecond(0).build().ok()?;
        let mut days = 0;
        while days < HORIZON_DAYS {
            if !self.day(&at) {
                at = at.tomorrow().ok()?.start_of_day().ok()?;
                days += 1;
            } else if !has(self.hours, at.hour()) {
                let before = at.day();
                at = at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?;
                days += u32::from(before != at.day());
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at);
            }
        }
        None
    }
}

/// One field as a set of numbers.
fn field(text: &str, low: u32, high: u32, names: &[&str], first: u32) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no field of numbers from {low} to {high}");
    let number = |word: &str| {
        let named = names.iter().position(|name| word.eq_ignore_ascii_case(name));
        let number = match named {
            Some(at) => u32::try_from(at).map_err(|_| wrong())? + first,
            None => word.parse().map_err(|_| wrong())?,
        };
        if (low..=high).contains(&number) { Ok(number) } else { Err(wrong()) }
    };
    let mut set = 0u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|step| *step > 0).ok_or_else(wrong)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (low, high),
            Some((from, to)) => (number(from)?, number(to)?),
            None if step > 1 => (number(range)?, high),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong());
        }
        set |= (from..=to).step_by(step as usize).fold(0, |set, number| set | 1 << number);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        for (schedule, now, want) in [
            ("* * * * *", "2026-03-01T10:00:30", "2026-03-01T10:01:00"),
            ("*/15 * * * *", "2026-03-01T10:16:00", "2026-03-01T10:30:00"),
            ("0 9-17/4 * * mon-fri", "2026-11-21T10:00:00", "2026-11-23T09:00:00"),
            ("30 2 29 2 *", "2026-01-01T00:00:00", "2028-02-29T02:30:00"),
            ("0 0 13 * 5", "2026-11-01T00:00:00", "2026-11-06T00:00:00"),
            ("5,10 0 1 JAN,jul ?", "2026-01-01T00:06:00", "2026-01-01T00:10:00"),
            ("59 23 31 12 *", "2026-12-31T23:59:00", "2027-12-31T23:59:00"),
            ("0 0 * * 7", "2026-11-24T00:00:00", "2026-11-29T00:00:00"),
            ("@hourly", "2026-11-24T10:59:59", "2026-11-24T11:00:00"),
            ("@every 90s", "2026-11-24T10:00:00", "2026-11-24T10:01:30"),
        ] {
            let at = |text: &str| format!("{text}[UTC]").parse::<Zoned>().unwrap();
            assert_eq!(Schedule::parse(schedule).unwrap().next(&at(now)), Some(at(want)), "{schedule}");
        }
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(never.next(&"2026-01-01T00:00:00[UTC]".parse().unwrap()), None);
        for wrong in ["", "* * * *", "60 * * * *", "*/0 * * * *", "5-1 * * * *", "x * * * *", "@every 10ms", "@never"] {
            assert!(Schedule::parse(wrong).is_err(), "{wrong}");
        }
    }
}
