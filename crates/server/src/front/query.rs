//! Query strings, read by hand: repeated names count, and refusals name the parameter.

use api_types::ErrorCode;
use percent_encoding::percent_decode_str;

use crate::error::ApiError;

/// The parameters of a request, decoded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a raw query string.
    pub fn parse(raw: Option<&str>) -> Result<Self, ApiError> {
        let parts = raw.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        parts
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                let name = decode(name).ok_or_else(|| ApiError::field("query", "a name is no UTF-8"))?;
                let value = decode(value).ok_or_else(|| ApiError::field(&name, "is no UTF-8"))?;
                Ok((name, value))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A number within bounds, or what stands when it is absent.
    pub fn number(&self, name: &str, bounds: std::ops::RangeInclusive<u32>, absent: u32) -> Result<u32, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(absent);
        };
        text.parse().ok().filter(|n| bounds.contains(n)).ok_or_else(|| {
            ApiError::field(
                name,
                format_args!("is {text:?}; it is a number from {} to {}", bounds.start(), bounds.end()),
            )
        })
    }

    /// A truth value; absent is false.
    pub fn truth(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0" | "no" | "off") => Ok(false),
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some(other) => Err(ApiError::field(name, format_args!("is {other:?}; it is true or false"))),
        }
    }
}

/// Decodes one part: `+` is a space.
fn decode(part: &str) -> Option<String> {
    percent_decode_str(&part.replace('+', " ")).decode_utf8().ok().map(|s| s.into_owned())
}

/// The `metadata` filter: `k=v&k2=v2` in one value, its parts encoded once more, or the whole, as
/// the published SDKs do.
pub fn metadata_filter(value: &str) -> Result<Vec<(String, String)>, ApiError> {
    let whole;
    let value = if value.contains('=') || !value.contains('%') {
        value
    } else {
        whole = decode(value).unwrap_or_default();
        &whole
    };
    let refuse = |part: &str| {
        ApiError::new(
            ErrorCode::InvalidMetadataFormat,
            format!("metadata: {part:?} is no key=value; join pairs by & and URL-encode the whole"),
        )
    };
    value
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, wanted) = part.split_once('=').ok_or_else(|| refuse(part))?;
            Ok((decode(key).ok_or_else(|| refuse(part))?, decode(wanted).ok_or_else(|| refuse(part))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse(Some("state=Running&state=Paused&page=2&use=TRUE&x=a%20b+c")).unwrap();
        assert_eq!(query.all("state").collect::<Vec<_>>(), ["Running", "Paused"]);
        assert_eq!(query.number("page", 1..=9, 1).unwrap(), 2);
        assert_eq!(query.number("pageSize", 1..=200, 20).unwrap(), 20);
        assert!(query.truth("use").unwrap() && !query.truth("absent").unwrap());
        assert_eq!(query.get("x"), Some("a b c"));
        let error = Query::parse(Some("page=0")).unwrap().number("page", 1..=9, 1).unwrap_err();
        assert!(error.message.starts_with("page: "));
        assert!(Query::parse(Some("page=%ff")).is_err());
    }

    #[test]
    fn a_metadata_filter_may_be_encoded_once_or_twice() {
        let pairs = |text: &str| metadata_filter(text).unwrap();
        let ab = vec![("a&b".to_owned(), "c=d".to_owned())];
        // As it stands after the query's own decoding.
        assert_eq!(pairs("a%26b=c%3Dd"), ab);
        assert_eq!(pairs("team%3Dx%26env%3Dprod"), pairs("team=x&env=prod"));
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("k="), [("k".to_owned(), String::new())]);
        assert_eq!(metadata_filter("team").unwrap_err().code, ErrorCode::InvalidMetadataFormat);
    }
}
