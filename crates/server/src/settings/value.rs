//! Kinds of values, and how each is read from text and from TOML.

use std::net::SocketAddr;

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path.
    Path,
    /// `host:port`, `:port`, or `0` for none.
    Address,
    /// A whole number within bounds.
    Integer(i64, i64),
    /// Yes or no.
    Bool,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// Texts.
    List,
    /// A table, kept as it is.
    Table,
    /// Signing keys: `ID=BASE64,..`, or in the file a list of tables with `key_id` and `key`.
    Keys,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, a path, a word or an address.
    Text(String),
    /// A number.
    Integer(i64),
    /// Yes or no.
    Bool(bool),
    /// Texts.
    List(Vec<String>),
    /// A table or an array of tables.
    Table(toml::Value),
}

impl Value {
    /// Text of a text, nothing of others.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
            _ => "",
        }
    }

    /// As it is shown.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Bool(truth) => truth.to_string(),
            Self::List(items) => format!("{items:?}"),
            Self::Table(value) => value.to_string(),
        }
    }
}

impl Kind {
    /// Placeholder in the help.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Path => "PATH",
            Self::Address => "HOST:PORT",
            Self::Integer(..) => "NUMBER",
            Self::Bool => "true|false",
            Self::Choice(_) => "WORD",
            Self::List => "A,B",
            Self::Table => "TABLE",
            Self::Keys => "ID=BASE64,..",
        }
    }

    /// Reads a flag or a variable.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Self::Text | Self::Path => Ok(Value::Text(text.to_owned())),
            Self::Address => address(text),
            Self::Integer(min, max) => match text.parse() {
                Ok(number) => integer(number, min, max),
                Err(_) => Err(format!("{text:?} is no whole number; give one {}", between(min, max))),
            },
            Self::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" | "on" => Ok(Value::Bool(true)),
                "false" | "no" | "0" | "off" => Ok(Value::Bool(false)),
                _ => Err(format!("{text:?} is neither true nor false")),
            },
            Self::Choice(words) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(text))
                .map(|word| Value::Text((*word).to_owned()))
                .ok_or_else(|| format!("{text:?} is unknown; give one of {}", listed(words))),
            Self::List => {
                Ok(Value::List(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()))
            }
            Self::Table => Err("is set in the file only".to_owned()),
            Self::Keys => {
                let pairs = text.split(',').map(str::trim).filter(|t| !t.is_empty());
                // What does not read is a secret as well, and not repeated.
                pairs
                    .map(|pair| {
                        pair.split_once('=').map(|_| pair.to_owned()).ok_or("is no list of ID=BASE64".to_owned())
                    })
                    .collect::<Result<_, _>>()
                    .map(Value::List)
            }
        }
    }

    /// Takes a value of the file, whose type must be right.
    pub fn take(self, value: toml::Value) -> Result<Value, String> {
        let wrong = |value: &toml::Value, wanted: &str| Err(format!("is {}; it is {wanted}", type_of(value)));
        match (self, value) {
            (Self::Text | Self::Path | Self::Address | Self::Choice(_), toml::Value::String(text)) => self.parse(&text),
            // `admin_bind_address = 0` is as clear as `"0"`.
            (Self::Address, toml::Value::Integer(0)) => self.parse("0"),
            (Self::Text | Self::Path, value) => wrong(&value, "a text"),
            (Self::Choice(words), value) => wrong(&value, &format!("one of {}", listed(words))),
            (Self::Address, value) => wrong(&value, "a text such as \":8081\""),
            (Self::Integer(min, max), toml::Value::Integer(number)) => integer(number, min, max),
            // Published files write seconds as 1.0 here and there.
            (Self::Integer(min, max), toml::Value::Float(number)) if number.fract() == 0.0 && number.abs() < 1e15 => {
                integer(number as i64, min, max)
            }
            (Self::Integer(min, max), value) => wrong(&value, &format!("a whole number {}", between(min, max))),
            (Self::Bool, toml::Value::Boolean(truth)) => Ok(Value::Bool(truth)),
            (Self::Bool, value) => wrong(&value, "true or false"),
            (Self::List, toml::Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    toml::Value::String(text) => Ok(text),
                    other => Err(format!("has {} in it; it is a list of texts", type_of(&other))),
                })
                .collect::<Result<_, _>>()
                .map(Value::List),
            (Self::List, value) => wrong(&value, "a list of texts"),
            (Self::Keys, toml::Value::Array(items)) => items
                .iter()
                .map(|item| {
                    let member = |name: &str| item.get(name).and_then(toml::Value::as_str);
                    let pair = member("key_id").zip(member("key")).map(|(id, key)| format!("{id}={key}"));
                    pair.ok_or("is a list of tables with key_id and key, both texts".to_owned())
                })
                .collect::<Result<_, _>>()
                .map(Value::List),
            (Self::Keys, value) => wrong(&value, "a list of tables with key_id and key"),
            (Self::Table, value @ (toml::Value::Table(_) | toml::Value::Array(_))) => Ok(Value::Table(value)),
            (Self::Table, value) => wrong(&value, "a table"),
        }
    }
}

fn type_of(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(_) => "a table".to_owned(),
        toml::Value::Array(_) => "a list".to_owned(),
        toml::Value::String(_) => "a text".to_owned(),
        other => format!("{other}"),
    }
}

fn integer(number: i64, min: i64, max: i64) -> Result<Value, String> {
    if (min..=max).contains(&number) {
        return Ok(Value::Integer(number));
    }
    Err(format!("is {number}; it is a whole number {}", between(min, max)))
}

fn between(min: i64, max: i64) -> String {
    if max == i64::MAX { format!("from {min} on") } else { format!("from {min} to {max}") }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| if word.is_empty() { "\"\"" } else { word }).collect::<Vec<_>>().join(", ")
}

fn address(text: &str) -> Result<Value, String> {
    if text == "0" || text.is_empty() {
        return Ok(Value::Text("0".to_owned()));
    }
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    match whole.parse::<SocketAddr>() {
        Ok(address) => Ok(Value::Text(address.to_string())),
        Err(_) => Err(format!("{text:?} is no address; give IP:PORT, :PORT, or 0 for none")),
    }
}
