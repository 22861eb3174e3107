//! `/command`: run, list, status, logs, output, input, interrupt.

mod input;
mod interrupt;
mod logs;
mod output;
mod plan;
mod run;
mod status;

use std::sync::Arc;

use api_types::ErrorCode;
use api_types::ids::ExecutionId;

pub use input::input;
pub use interrupt::interrupt;
pub use logs::logs;
pub use output::{events, form, output};
pub use plan::{directory, shell, timeout};
pub use run::run;
pub use status::{list, status};

use super::{ApiError, App};
use crate::exec::Execution;

/// The execution with this id, or the last one of the session with it.
fn find(app: &App, id: &str) -> Result<Arc<Execution>, ApiError> {
    let missing = || ApiError::new(ErrorCode::CommandNotFound, format!("command not found: {id}"));
    let found = app.engine.find(&ExecutionId::new(id));
    found.or_else(|| app.sessions.last_run(id)).ok_or_else(missing)
}
