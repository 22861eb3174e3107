//! Sandboxes for agents.
//!
//! A sandbox is a container of one's own, taken in milliseconds out of a warm pool or made from an
//! image. This crate creates it, runs commands in it, reads and writes its files, and kills it.
//!
//! ```no_run
//! # async fn agent() -> opensandbox::Result<()> {
//! use opensandbox::Sandbox;
//!
//! let sandbox = Sandbox::builder("nginx:latest").pool("agent-pool").env("AGENT_ID", "agent-1").create().await?;
//! let execution = sandbox.commands().run("echo hello from $AGENT_ID").await?;
//! println!("{}", execution.stdout_text());
//! sandbox.kill().await?;
//! # Ok(()) }
//! ```
//!
//! - [`Sandbox`] is one sandbox, [`Commands`] and [`Files`] what can be done in it.
//! - [`Client`] is the connection to the platform: it lists, gets and kills any sandbox, and holds
//!   the [`Pools`]. Clone it freely; one connection pool is shared.
//! - [`Error`] tells by type and [`ErrorCode`] what went wrong and whether trying again helps.
//!
//! Every call has a deadline. Dropping a future cancels the call and leaves nothing half done on
//! this side; a sandbox whose `create` is dropped after it was made is killed in the background.

#[cfg(feature = "blocking")]
pub mod blocking;
mod body;
mod builder;
mod client;
mod commands;
mod config;
mod diagnostics;
mod error;
mod execd;
mod files;
mod guard;
mod list;
mod parser;
mod pools;
mod ports;
mod pty;
mod sandbox;
mod sessions;
mod tls;
mod transport;
mod usage;
mod watch;

pub use api_types::ErrorCode;
pub use builder::SandboxBuilder;
pub use client::Client;
pub use commands::{CommandLogs, Commands, Event, EventStream, Execution, ExecutionError, OutputMessage, RunCommand};
pub use config::{
    ApiKey, ConnectionConfig, ENV_API_KEY, ENV_DOMAIN, ENV_PROTOCOL, ENV_REQUEST_TIMEOUT, ENV_USE_SERVER_PROXY,
    Protocol,
};
pub use diagnostics::Diagnosis;
pub use error::{ApiError, Error, Result};
pub use files::{FileChange, FileStream, Files, Progress, WriteFile};
pub use guard::KillOnDrop;
pub use list::ListSandboxes;
pub use pools::Pools;
pub use ports::{Port, PortEvent};
pub use pty::{
    AttachTerminal, NewTerminal, Terminal, TerminalControl, TerminalEnd, TerminalInfo, TerminalStream, Terminals,
};
pub use sandbox::Sandbox;
pub use sessions::{BashSession, SessionInfo, Sessions};
pub use usage::Usage;

/// The wire types that calls of this crate take and give.
pub mod types {
    pub use api_types::{
        execd::{CommandStatus, FileInfo, FileType, Metrics, Permission},
        explain::{Explanation, Obituary, PodFacts, PoolFigures, RecordedEvent, Step, Waiting},
        ids::SandboxId,
        lifecycle::{
            AllocationSummary, CreatePoolRequest, CreateSandboxRequest, Endpoint, ImageAuth, ImageSpec,
            ListSandboxesResponse, PaginationInfo, Platform, PoolCapacity, PoolResponse, PoolStatusSummary,
            Sandbox as SandboxInfo, SandboxStatus,
        },
    };
}
