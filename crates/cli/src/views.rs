//! What programs read with `-o json`: the members have the names that the published CLI gives them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use opensandbox::types::{PaginationInfo, PoolResponse, SandboxInfo};
use serde::Serialize;

/// A sandbox.
#[derive(Debug, Serialize)]
pub struct SandboxView {
    pub id: String,
    pub status: StatusView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    pub entrypoint: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// State of a sandbox.
#[derive(Debug, Serialize)]
pub struct StatusView {
    pub state: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub last_transition_at: Option<Timestamp>,
}

/// An image, never with its account.
#[derive(Debug, Serialize)]
pub struct ImageView {
    pub image: String,
}

/// A page of sandboxes.
#[derive(Debug, Serialize)]
pub struct PageView<'a> {
    pub items: &'a [SandboxView],
    pub pagination: PaginationView,
}

/// Which page of how many.
#[derive(Debug, Serialize)]
pub struct PaginationView {
    pub page: u32,
    pub page_size: u32,
    pub total_items: u64,
    pub total_pages: u64,
    pub has_next_page: bool,
}

/// A pool.
#[derive(Debug, Serialize)]
pub struct PoolView {
    pub name: String,
    pub buffer_min: i32,
    pub buffer_max: i32,
    pub pool_min: i32,
    pub pool_max: i32,
    pub total: Option<i32>,
    pub allocated: Option<i32>,
    pub available: Option<i32>,
    pub revision: Option<String>,
    pub created_at: Option<Timestamp>,
}

impl From<SandboxInfo> for SandboxView {
    fn from(info: SandboxInfo) -> Self {
        Self {
            id: info.id.as_str().to_owned(),
            status: StatusView {
                state: info.status.state,
                reason: info.status.reason,
                message: info.status.message,
                last_transition_at: info.status.last_transition_at,
            },
            image: info.image.map(|image| ImageView { image: image.uri }),
            pool: info.allocation.map(|allocation| allocation.pool_ref),
            entrypoint: info.entrypoint,
            metadata: info.metadata.unwrap_or_default(),
            created_at: info.created_at,
            expires_at: info.expires_at,
        }
    }
}

impl SandboxView {
    /// What it was made from.
    pub fn origin(&self) -> String {
        match (&self.pool, &self.image) {
            (Some(pool), _) => format!("pool/{pool}"),
            (None, Some(image)) => image.image.clone(),
            (None, None) => String::new(),
        }
    }

    /// When it ends.
    pub fn end(&self) -> String {
        self.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string())
    }
}

impl From<PaginationInfo> for PaginationView {
    fn from(info: PaginationInfo) -> Self {
        Self {
            page: info.page,
            page_size: info.page_size,
            total_items: info.total_items,
            total_pages: info.total_pages,
            has_next_page: info.has_next_page,
        }
    }
}

impl From<PoolResponse> for PoolView {
    fn from(pool: PoolResponse) -> Self {
        let status = pool.status;
        Self {
            name: pool.name,
            buffer_min: pool.capacity_spec.buffer_min,
            buffer_max: pool.capacity_spec.buffer_max,
            pool_min: pool.capacity_spec.pool_min,
            pool_max: pool.capacity_spec.pool_max,
            total: status.as_ref().map(|s| s.total),
            allocated: status.as_ref().map(|s| s.allocated),
            available: status.as_ref().map(|s| s.available),
            revision: status.map(|s| s.revision),
            created_at: pool.created_at,
        }
    }
}
