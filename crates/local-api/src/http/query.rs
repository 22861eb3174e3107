//! The query of a request.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{ApiError, Cause, Result};
use crate::verbs::delete::{DeleteOptions, propagation};
use crate::verbs::list::ListOptions;
use crate::verbs::watch::WatchOptions;
use crate::verbs::{FieldValidation, WriteOptions};

/// Decoded pairs in the order of the query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).unwrap_or_default()
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        // Kubernetes: whatever is given and is not "false" or "0" is true, also nothing at all.
        self.0.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        match self.get(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }

    fn version(&self) -> Result<Option<u64>> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    fn dry_run(&self, kind: &str) -> Result<bool> {
        let words: Vec<&str> = self.all("dryRun").collect();
        if words.iter().any(|w| *w != "All") {
            let cause = Cause::unsupported("dryRun", &serde_json::json!(words), &["All".into()]);
            return Err(ApiError::invalid("meta.k8s.io", kind, "", vec![cause]));
        }
        Ok(!words.is_empty())
    }

    /// The options of a create, an update or a patch; `kind` is what errors call them.
    pub(crate) fn write(&self, user_agent: &str, kind: &str) -> Result<WriteOptions> {
        let field_validation = match self.get("fieldValidation") {
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"].map(String::from);
                let cause = Cause::unsupported("fieldValidation", &other.into(), &supported);
                return Err(ApiError::invalid("meta.k8s.io", kind, "", vec![cause]));
            }
        };
        // Kubernetes: without a name, the first word of the user agent owns what is written.
        let manager = match self.get("fieldManager") {
            "" => user_agent.split('/').next().unwrap_or_default(),
            name => name,
        };
        if manager.chars().count() > 128 {
            let cause = Cause::too_long("fieldManager", 128);
            return Err(ApiError::invalid("meta.k8s.io", kind, "", vec![cause]));
        }
        if let Some((at, _)) = manager.char_indices().find(|(_, c)| c.is_control()) {
            let rule = format!("should only contain printable characters ({at})");
            let cause = Cause::invalid("fieldManager", &manager.into(), rule);
            return Err(ApiError::invalid("meta.k8s.io", kind, "", vec![cause]));
        }
        let manager = if manager.is_empty() { "unknown" } else { manager }.to_owned();
        let (dry_run, force) = (self.dry_run(kind)?, self.flag("force"));
        Ok(WriteOptions { dry_run, field_validation, duplicates: Vec::new(), manager, force })
    }

    pub(crate) fn list(&self) -> Result<ListOptions> {
        let version_match = self.get("resourceVersionMatch").to_owned();
        let mut causes = Vec::new();
        let mut forbid = |field: &str, why: &str| causes.push(Cause::forbidden(field, why));
        if !version_match.is_empty() {
            if self.get("resourceVersion").is_empty() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.get("continue").is_empty() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
            }
            if version_match == "Exact" && self.get("resourceVersion") == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                forbid("resourceVersionMatch", why);
            }
        }
        if self.all("sendInitialEvents").next().is_some() {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if !matches!(version_match.as_str(), "" | "Exact" | "NotOlderThan") {
            let known = ["Exact", "NotOlderThan", ""].map(String::from);
            causes.push(Cause::unsupported("resourceVersionMatch", &version_match.as_str().into(), &known));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", causes));
        }
        let _: Option<u64> = self.number("timeoutSeconds")?;
        if !self.get("continue").is_empty() && !matches!(self.get("resourceVersion"), "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(ListOptions {
            // Less than nothing is no limit.
            limit: self.number::<i64>("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            page: self.get("continue").to_owned(),
            resource_version: self.version()?,
            version_match,
        })
    }

    pub(crate) fn watch(&self) -> Result<WatchOptions> {
        let send_initial = self.flag("sendInitialEvents");
        let says_initial = self.all("sendInitialEvents").next().is_some();
        let version_match = self.get("resourceVersionMatch");
        let mut causes = Vec::new();
        if !version_match.is_empty() {
            if !says_initial {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                causes.push(Cause::forbidden("resourceVersionMatch", why));
            }
            if version_match != "NotOlderThan" {
                let known = ["NotOlderThan".into()];
                causes.push(Cause::unsupported("resourceVersionMatch", &version_match.into(), &known));
            }
        }
        if says_initial && version_match != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(Cause::forbidden("resourceVersionMatch", why));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", causes));
        }
        Ok(WatchOptions {
            since: self.version()?.filter(|v| *v != 0),
            bookmarks: self.flag("allowWatchBookmarks"),
            send_initial,
            timeout: self.number::<u64>("timeoutSeconds")?.filter(|s| *s > 0).map(Duration::from_secs),
        })
    }

    pub(crate) fn delete(&self) -> Result<DeleteOptions> {
        Ok(DeleteOptions {
            grace: self.number("gracePeriodSeconds")?,
            propagation: match self.get("propagationPolicy") {
                "" => None,
                word => Some(propagation(word)?),
            },
            dry_run: self.dry_run("DeleteOptions")?,
            ..DeleteOptions::default()
        })
    }
}
