//! `GET` of a collection, whole or in pages.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use parking_lot::Mutex;

use super::Target;
use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::selector::Selector;
use crate::store::Stored;

/// The query of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListOptions {
    pub(crate) limit: usize,
    pub(crate) page: String,
    pub(crate) resource_version: Option<u64>,
    pub(crate) version_match: String,
}

/// One answer to a list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) items: Vec<Arc<Stored>>,
    pub(crate) version: u64,
    /// Token of the next page, empty on the last.
    pub(crate) next: String,
    pub(crate) remaining: Option<usize>,
}

/// Lists that have been begun. A page is of the moment at which the list began; the oldest lists are forgotten.
#[derive(Default)]
pub(crate) struct Pages(Mutex<PagesInner>);

#[derive(Default)]
struct PagesInner {
    counter: u64,
    /// Number, version and everything of each.
    open: VecDeque<(u64, u64, Items)>,
}

/// What a list gives, shared by its pages.
type Items = Arc<[Arc<Stored>]>;

/// Begun lists remembered at once.
const OPEN_LISTS: usize = 64;

/// Objects of a collection that a selector takes.
pub(crate) fn list(core: &Core, target: &Target, selector: &Selector, options: &ListOptions) -> Result<Listed> {
    let (id, version, from, items) = if options.page.is_empty() {
        let (version, items) = begin(core, target, selector, options)?;
        (0, version, 0, items)
    } else {
        let (id, from) = decode_token(&options.page)?;
        let mut pages = core.pages.0.lock();
        let at = pages.open.iter().position(|(open, _, _)| *open == id);
        let Some(entry) = at.and_then(|at| pages.open.remove(at)) else {
            return Err(ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
            ));
        };
        // The list that was asked for last is forgotten last.
        pages.open.push_back(entry.clone());
        (id, entry.1, from, entry.2)
    };
    let rest = items.get(from..).unwrap_or_default();
    if options.limit == 0 || rest.len() <= options.limit {
        return Ok(Listed { items: rest.to_vec(), version, next: String::new(), remaining: None });
    }
    let page = rest[..options.limit].to_vec();
    let remaining = selector.is_empty().then_some(rest.len() - options.limit);
    let id = if id == 0 { open(core, version, items) } else { id };
    Ok(Listed { items: page, version, next: encode_token(id, from + options.limit), remaining })
}

/// Everything that a list is to give, and the version at which it is so.
fn begin(core: &Core, target: &Target, selector: &Selector, options: &ListOptions) -> Result<(u64, Items)> {
    let mut state = core.store.state();
    let version = state.version();
    if let Some(wanted) = options.resource_version.filter(|v| *v > version) {
        let why = format!("Timeout: Too large resource version: {wanted}, current: {version}");
        let mut error = ApiError::new(504, "Timeout", why);
        error.details.retry_after = Some(1);
        error.details.causes.push(crate::error::Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".into(),
            field: String::new(),
        });
        return Err(error);
    }
    if options.version_match == "Exact" && options.resource_version != Some(version) {
        return Err(ApiError::expired("The resourceVersion for the provided list is too old."));
    }
    let items = candidates(&mut state, target, selector);
    drop(state);
    Ok((version, items.into_iter().filter(|o| selector.matches(&o.value)).collect()))
}

/// Remembers a list that goes on.
fn open(core: &Core, version: u64, items: Items) -> u64 {
    let mut pages = core.pages.0.lock();
    pages.counter += 1;
    let id = pages.counter;
    pages.open.push_back((id, version, items));
    if pages.open.len() > OPEN_LISTS {
        pages.open.pop_front();
    }
    id
}

fn candidates(state: &mut crate::store::State, target: &Target, selector: &Selector) -> Vec<Arc<Stored>> {
    let namespace = (target.resource.namespaced && !target.namespace.is_empty()).then_some(target.namespace.as_str());
    if let Some(name) = selector.exact_name()
        && (namespace.is_some() || !target.resource.namespaced)
    {
        let key = crate::store::Key::new(&target.resource.table, namespace.unwrap_or_default(), name);
        return state.get(&key).into_iter().collect();
    }
    if let Some((key, values)) = selector.exact_label()
        && let Some(found) = state.labelled(&target.resource.table, namespace, key, values)
    {
        return found;
    }
    state.scan(&target.resource.table, namespace).cloned().collect()
}

fn encode_token(id: u64, from: usize) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("osb:{id}:{from}"))
}

fn decode_token(token: &str) -> Result<(u64, usize)> {
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| {
            let text = String::from_utf8(bytes).ok()?;
            let (id, from) = text.strip_prefix("osb:")?.split_once(':')?;
            Some((id.parse().ok()?, from.parse().ok()?))
        })
        .ok_or_else(|| ApiError::bad_request("invalid continue token: continue key is not valid"))
}
