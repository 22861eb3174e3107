//! The pools that sandboxes are taken from.

use api_types::lifecycle::{CreatePoolRequest, ListPoolsResponse, PoolCapacity, PoolResponse, UpdatePoolRequest};
use reqwest::Method;

use crate::{Client, Result, client::segment, transport::Retry};

/// The pools of the platform.
///
/// ```no_run
/// # async fn f(client: opensandbox::Client) -> opensandbox::Result<()> {
/// for pool in client.pools().list().await? {
///     println!("{}: {:?}", pool.name, pool.status);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Pools {
    client: Client,
}

impl Pools {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// All pools.
    pub async fn list(&self) -> Result<Vec<PoolResponse>> {
        let call = self.client.call("list pools", Retry::Idempotent);
        self.client.json::<ListPoolsResponse>(call, Method::GET, "/pools", |r| r).await.map(|answer| answer.items)
    }

    /// One pool.
    pub async fn get(&self, name: &str) -> Result<PoolResponse> {
        let call = self.client.call("get pool", Retry::Idempotent);
        self.client.json(call, Method::GET, &format!("/pools/{}", segment(name)), |r| r).await
    }

    /// Makes a pool.
    pub async fn create(&self, pool: &CreatePoolRequest) -> Result<PoolResponse> {
        let call = self.client.call("create pool", Retry::Unsent);
        self.client.json(call, Method::POST, "/pools", |r| r.json(pool)).await
    }

    /// Changes the sizes of a pool.
    pub async fn update(&self, name: &str, capacity: PoolCapacity) -> Result<PoolResponse> {
        let call = self.client.call("update pool", Retry::Idempotent);
        let body = UpdatePoolRequest { capacity_spec: capacity };
        self.client.json(call, Method::PUT, &format!("/pools/{}", segment(name)), |r| r.json(&body)).await
    }

    /// Deletes a pool.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let call = self.client.call("delete pool", Retry::Idempotent);
        self.client.send(call, Method::DELETE, &format!("/pools/{}", segment(name)), |r| r).await.map(drop)
    }
}
