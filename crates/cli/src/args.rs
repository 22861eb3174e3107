//! Values on the command line: durations, pairs, modes.

use std::time::Duration;

/// A time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is killed.
    Unlimited,
    /// This long.
    Limited(Duration),
}

/// Reads `10m`, `1h30m`, `90s`, `90`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 90s, 10m, 1h30m, or seconds");
    if let Ok(seconds) = text.parse() {
        return if seconds == 0 {
            Err("a duration must be above 0".to_owned())
        } else {
            Ok(Duration::from_secs(seconds))
        };
    }
    let mut total: u64 = 0;
    let mut number = String::new();
    let mut last_unit = u64::MAX;
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        // Each unit once, from large to small.
        if unit >= last_unit {
            return Err(wrong());
        }
        last_unit = unit;
        let count: u64 = number.parse().map_err(|_| wrong())?;
        total = count.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        number.clear();
    }
    if number.is_empty() && total > 0 { Ok(Duration::from_secs(total)) } else { Err(wrong()) }
}

/// Reads a duration or `none`.
pub fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text.eq_ignore_ascii_case("none") { Ok(Lifetime::Unlimited) } else { duration(text).map(Lifetime::Limited) }
}

/// Reads `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// Reads a mode of octal digits, e.g. `644` or `0644`.
pub fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("{text:?} is no mode; write octal digits such as 644"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        let seconds = |text| duration(text).map(|d| d.as_secs()).ok();
        assert_eq!(seconds("90"), Some(90));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("2d"), Some(172_800));
        for wrong in ["", "0", "0s", "m", "10x", "30m1h", "1h30", "99999999999999999999h", "-1", "1.5h"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        assert_eq!(lifetime("none"), Ok(Lifetime::Unlimited));
    }

    #[test]
    fn pairs_and_modes() {
        assert_eq!(pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err() && pair("A").is_err());
        assert_eq!(mode("0755"), Ok(0o755));
        assert!(mode("888").is_err() && mode("77777").is_err());
    }
}
