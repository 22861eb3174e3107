//! Tables, the form in which kubectl asks for what it prints.

mod builtin;
mod jsonpath;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::{Column, Resource};
use crate::object;

/// A column's definition for the built-in tables.
pub(crate) fn column(name: &str, kind: &str, format: &str, priority: i64, description: &str) -> Column {
    Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        description: description.into(),
        priority,
        json_path: String::new(),
    }
}

fn name_column() -> Column {
    column("Name", "string", "name", 0, "Name must be unique within a namespace.")
}

/// The columns of a resource's table.
pub(crate) fn columns(resource: &Resource) -> Vec<Column> {
    if let Some(builtin) = resource.builtin {
        return builtin::columns(builtin);
    }
    let mut list = vec![name_column()];
    if resource.columns.is_empty() {
        list.push(column("Age", "date", "", 0, "Time since the object was created."));
    }
    list.extend(resource.columns.iter().cloned());
    list
}

/// The definitions as a table carries them.
pub(crate) fn definitions(resource: &Resource) -> Value {
    let list: Vec<Value> = columns(resource)
        .into_iter()
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
        })
        .collect();
    list.into()
}

/// One row's cells.
pub(crate) fn cells(resource: &Resource, value: &Value, now: Timestamp) -> Vec<Value> {
    if let Some(builtin) = resource.builtin {
        return builtin::cells(builtin, value, now);
    }
    let mut cells = vec![object::name(value).into()];
    if resource.columns.is_empty() {
        cells.push(age(value, now).into());
    }
    for column in &resource.columns {
        cells.push(custom_cell(column, value, now));
    }
    cells
}

fn custom_cell(column: &Column, value: &Value, now: Timestamp) -> Value {
    let Some(found) = jsonpath::find(value, &column.json_path) else { return Value::Null };
    match column.kind.as_str() {
        "integer" => {
            found.as_i64().map_or_else(|| found.as_f64().map_or(Value::Null, |n| (n as i64).into()), Into::into)
        }
        "number" => found.as_f64().map_or(Value::Null, Into::into),
        "boolean" => found.as_bool().map_or(Value::Null, Into::into),
        "date" => found.as_str().map_or(Value::Null, |t| since(t, now).into()),
        _ => match found {
            Value::String(text) => text.clone().into(),
            Value::Null => Value::Null,
            other => other.to_string().into(),
        },
    }
}

/// Time since the object was made.
pub(crate) fn age(value: &Value, now: Timestamp) -> String {
    since(object::meta_str(value, "creationTimestamp"), now)
}

/// Time since `then`, as kubectl shows it.
pub(crate) fn since(then: &str, now: Timestamp) -> String {
    match then.parse::<Timestamp>() {
        Ok(then) => human_duration(now.duration_since(then).as_secs()),
        Err(_) => "<unknown>".into(),
    }
}

/// A duration with two units at most, fewer the longer it is.
pub(crate) fn human_duration(seconds: i64) -> String {
    // Clocks differ a little; kubectl calls what lies in the near future no time at all.
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (-5, "<invalid>"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (3600, "60m"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (50 * 3600, "2d2h"),
            (30 * 86_400, "30d"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
