//! Listing sandboxes, by page and as a stream over all pages.

use std::collections::{BTreeMap, VecDeque};

use api_types::lifecycle::{ListSandboxesResponse, Sandbox as SandboxInfo};
use futures::{Stream, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

use crate::{Client, Result, transport::Retry};

/// Which sandboxes to list.
///
/// ```
/// use opensandbox::ListSandboxes;
/// let failed_of_mine = ListSandboxes::new().state("Failed").metadata("owner", "me").page_size(200);
/// # let _ = failed_of_mine;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListSandboxes {
    states: Vec<String>,
    metadata: BTreeMap<String, String>,
    page: Option<u32>,
    page_size: Option<u32>,
}

impl ListSandboxes {
    /// All of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those in this state, or in one of several when called again.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.states.push(state.into());
        self
    }

    /// Only those that carry this metadata.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The page to start with, from 1.
    #[must_use]
    pub fn page(mut self, page: u32) -> Self {
        self.page = Some(page);
        self
    }

    /// Sandboxes per page, 1 to 200; the server's choice is 20.
    #[must_use]
    pub fn page_size(mut self, size: u32) -> Self {
        self.page_size = Some(size);
        self
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query: Vec<_> = self.states.iter().map(|state| ("state", state.clone())).collect();
        if !self.metadata.is_empty() {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let pairs: Vec<_> = self.metadata.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
            query.push(("metadata", pairs.join("&")));
        }
        query.extend(self.page.map(|page| ("page", page.to_string())));
        query.extend(self.page_size.map(|size| ("pageSize", size.to_string())));
        query
    }
}

impl Client {
    /// One page of sandboxes.
    ///
    /// ```no_run
    /// # async fn f(client: opensandbox::Client) -> opensandbox::Result<()> {
    /// let page = client.list(opensandbox::ListSandboxes::new()).await?;
    /// println!("{} of {}", page.items.len(), page.pagination.total_items);
    /// # Ok(()) }
    /// ```
    pub async fn list(&self, which: ListSandboxes) -> Result<ListSandboxesResponse> {
        let query = which.query();
        let call = self.call("list sandboxes", Retry::Idempotent);
        self.json(call, Method::GET, "/sandboxes", |r| r.query(&query)).await
    }

    /// Every sandbox from the given page on; a page is fetched when the one before is used up.
    ///
    /// ```no_run
    /// # async fn f(client: opensandbox::Client) -> opensandbox::Result<()> {
    /// use futures::TryStreamExt;
    /// let all: Vec<_> = client.list_all(opensandbox::ListSandboxes::new().page_size(200)).try_collect().await?;
    /// # let _ = all; Ok(()) }
    /// ```
    pub fn list_all(&self, which: ListSandboxes) -> impl Stream<Item = Result<SandboxInfo>> + Send + use<> {
        struct State {
            client: Client,
            which: ListSandboxes,
            buffered: VecDeque<SandboxInfo>,
            next: Option<u32>,
        }
        let next = Some(which.page.unwrap_or(1));
        let state = State { client: self.clone(), which, buffered: VecDeque::new(), next };
        stream::try_unfold(state, async |mut state| {
            loop {
                if let Some(item) = state.buffered.pop_front() {
                    return Ok(Some((item, state)));
                }
                let Some(page) = state.next else { return Ok(None) };
                let answer = state.client.list(state.which.clone().page(page)).await?;
                state.next =
                    (answer.pagination.has_next_page && !answer.items.is_empty()).then(|| page.saturating_add(1));
                state.buffered = answer.items.into();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_encoded_before_it_is_a_query() {
        let which = ListSandboxes::new().state("Running").state("Failed").metadata("a&b", "c=d").page_size(5);
        assert_eq!(
            which.query(),
            [
                ("state", "Running".into()),
                ("state", "Failed".into()),
                ("metadata", "a%26b=c%3Dd".into()),
                ("pageSize", String::from("5"))
            ]
        );
    }
}
