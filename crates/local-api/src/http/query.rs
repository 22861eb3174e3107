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
        matches!(self.get(key), "true" | "1" | "True" | "t")
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("invalid {key}: {text:?}"))),
        }
    }

    fn version(&self) -> Result<Option<u64>> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                let cause =
                    Cause::invalid("resourceVersion", &text.into(), "strconv.ParseUint: parsing: invalid syntax");
                ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
            }),
        }
    }

    fn dry_run(&self) -> Result<bool> {
        for word in self.all("dryRun") {
            if word != "All" {
                let cause = Cause::unsupported("dryRun", &serde_json::json!([word]), &["All".into()]);
                return Err(ApiError::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
            }
        }
        Ok(self.all("dryRun").next().is_some())
    }

    pub(crate) fn write(&self, user_agent: &str) -> Result<WriteOptions> {
        let field_validation = match self.get("fieldValidation") {
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"].map(String::from);
                let cause = Cause::unsupported("fieldValidation", &other.into(), &supported);
                return Err(ApiError::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
            }
        };
        // Kubernetes: without a name, the first word of the user agent owns what is written.
        let manager = match self.get("fieldManager") {
            "" => user_agent.split('/').next().unwrap_or_default(),
            name => name,
        };
        if manager.chars().count() > 128 {
            let cause = Cause::too_long("fieldManager", 128);
            return Err(ApiError::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
        }
        let manager = if manager.is_empty() { "unknown" } else { manager }.to_owned();
        Ok(WriteOptions { dry_run: self.dry_run()?, field_validation, manager, force: self.flag("force") })
    }

    pub(crate) fn list(&self) -> Result<ListOptions> {
        let version_match = self.get("resourceVersionMatch").to_owned();
        if !version_match.is_empty() && self.get("resourceVersion").is_empty() && !self.flag("watch") {
            let cause = Cause::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
        }
        Ok(ListOptions {
            limit: self.number("limit")?.unwrap_or(0),
            page: self.get("continue").to_owned(),
            resource_version: self.version()?,
            version_match,
        })
    }

    pub(crate) fn watch(&self) -> Result<WatchOptions> {
        let send_initial = self.flag("sendInitialEvents");
        if send_initial && self.get("resourceVersionMatch") != "NotOlderThan" {
            let cause = Cause::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
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
            dry_run: self.dry_run()?,
            ..DeleteOptions::default()
        })
    }
}
