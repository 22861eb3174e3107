//! `GET /sandboxes`: newest first, by pages, with filters on state and metadata.

use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::crd::BatchSandbox;
use api_types::lifecycle::{ListSandboxesResponse, PaginationInfo};
use axum::Json;
use axum::extract::RawQuery;

use super::{state, view};
use crate::app::App;
use crate::error::ApiError;
use crate::front::query::{Query, metadata_filter};

/// How long a list waits for the first view of the world after a start.
const FIRST_VIEW: Duration = Duration::from_secs(5);

/// What a list asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    states: Vec<String>,
    metadata: Vec<(String, String)>,
    page: u32,
    size: u32,
}

impl Filter {
    fn read(query: Option<&str>) -> Result<Self, ApiError> {
        let query = Query::parse(query)?;
        Ok(Self {
            states: query.all("state").map(str::to_owned).collect(),
            metadata: metadata_filter(query.get("metadata").unwrap_or_default())?,
            page: query.number("page", 1..=u32::MAX, 1)?,
            size: query.number("pageSize", 1..=200, 20)?,
        })
    }

    fn takes(&self, object: &BatchSandbox) -> bool {
        let labels = object.metadata.labels.as_ref();
        let of_metadata = self.metadata.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
        of_metadata
            && (self.states.is_empty() || {
                let told = state::status(object).state;
                self.states.iter().any(|wanted| wanted.eq_ignore_ascii_case(&told))
            })
    }
}

/// Answers from memory.
pub async fn handle(app: App, RawQuery(query): RawQuery) -> Result<Json<ListSandboxesResponse>, ApiError> {
    let filter = Filter::read(query.as_deref())?;
    if !app.space().sandboxes.synced(FIRST_VIEW).await {
        let message = "the server has not read the sandboxes from Kubernetes yet";
        return Err(ApiError::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1)));
    }
    let skip = u64::from(filter.page - 1) * u64::from(filter.size);
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let take = filter.size as usize;
    let (objects, total) = if filter.states.is_empty() && filter.metadata.is_empty() {
        app.space().sandboxes.page(skip, take)
    } else {
        let mut found: Vec<Arc<BatchSandbox>> = app.space().sandboxes.all();
        found.retain(|object| filter.takes(object));
        let total = found.len();
        (found.into_iter().skip(skip).take(take).collect(), total)
    };
    let total = total as u64;
    let total_pages = total.div_ceil(u64::from(filter.size));
    let pagination = PaginationInfo {
        page: filter.page,
        page_size: filter.size,
        total_items: total,
        total_pages,
        has_next_page: u64::from(filter.page) < total_pages,
    };
    Ok(Json(ListSandboxesResponse { items: objects.iter().map(|o| view::sandbox(o)).collect(), pagination }))
}
