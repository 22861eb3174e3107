//! Files in a sandbox.

mod archive;
mod read;
mod tree;
mod watch;
mod write;

pub use archive::Progress;
pub use read::FileStream;
pub use watch::FileChange;
pub use write::WriteFile;

use crate::execd::Execd;

/// Most bytes read into memory at once; larger files are streamed.
const MAX_IN_MEMORY: u64 = 256 << 20;

/// The files of one sandbox. Paths are those of the sandbox; relative ones are resolved by its
/// daemon.
///
/// ```no_run
/// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
/// let files = sandbox.files();
/// files.write("/tmp/a.txt", "hello").await?;
/// assert_eq!(files.read_text("/tmp/a.txt").await?, "hello");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Files {
    execd: Execd,
}

impl Files {
    pub(crate) fn new(execd: Execd) -> Self {
        Self { execd }
    }
}
