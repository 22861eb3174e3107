//! `config --explain`: each effective value and where it came from.

use std::fmt::Write as _;

use super::table::{SETTINGS, Use};
use super::{Settings, Source};

/// The text. Secrets are masked; settings without effect are shown only when they were given.
pub fn text(settings: &Settings) -> String {
    let mut rows = vec![["SETTING".to_owned(), "VALUE".to_owned(), "FROM".to_owned()]];
    for setting in SETTINGS {
        let Some(effective) = settings.values.get(setting.key) else { continue };
        if !matches!(setting.usage, Use::Effective) && effective.source == Source::Default {
            continue;
        }
        let value = match &effective.value {
            None => "-".to_owned(),
            Some(_) if setting.secret => "********".to_owned(),
            Some(value) => value.shown(),
        };
        rows.push([setting.key.to_owned(), value, effective.source.to_string()]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for [key, value, source] in &rows {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key:first$}  {value:second$}  {source}");
    }
    for notice in &settings.notices {
        let _ = writeln!(text, "note: {notice}");
    }
    text
}
