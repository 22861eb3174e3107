//! Schedules: five fields as cron has them, `@hourly` and its like, and `@every 30s`.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;

use crate::config::go_duration;

/// When something is due.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// Again and again after this time.
    Every(Duration),
    /// At the minutes that match. Where both days are given, either is enough, as cron has it.
    Fields(Box<Cron>),
}

impl Schedule {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let every = go_duration(every.trim())?;
            if every < Duration::from_secs(1) {
                return Err("@every needs at least 1s".to_owned());
            }
            return Ok(Self::Every(every));
        }
        // The parser knows all names but this one.
        let fields = if text == "@midnight" { "@daily" } else { text };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(fields);
        let cron = cron.map_err(|e| format!("{text:?} is no schedule; write five fields, or @every 30s: {e}"))?;
        Ok(Self::Fields(Box::new(cron)))
    }

    /// The time after `now` at which it is next due; none if it never is.
    pub fn next(&self, now: &Zoned) -> Option<Zoned> {
        match self {
            Self::Every(every) => now.checked_add(*every).ok(),
            Self::Fields(cron) => cron.find_next_occurrence(now, false).ok(),
        }
    }
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
