//! Standard input of an execution: what came with the request, then what is sent later.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

/// The write end; closed once for all.
#[derive(Clone)]
pub struct Stdin(Arc<Mutex<Option<pipe::Sender>>>);

impl Stdin {
    /// Writes the first bytes as fast as they are read, and closes it then unless more may come.
    ///
    /// # Errors
    /// The pipe can't be registered.
    pub fn begin(write: OwnedFd, first: Vec<u8>, open: bool) -> io::Result<Self> {
        let this = Self(Arc::new(Mutex::new(Some(pipe::Sender::from_owned_fd(write)?))));
        if first.is_empty() && open {
            return Ok(this);
        }
        let writer = this.clone();
        // Held before the next turn of the runtime, so that what is sent later comes later.
        if let Ok(mut sender) = writer.0.try_lock_owned() {
            tokio::spawn(async move {
                if let Some(pipe) = sender.as_mut() {
                    // A program that does not read its input has the right to.
                    let _ = pipe.write_all(&first).await;
                }
                if !open {
                    *sender = None;
                }
            });
        }
        Ok(this)
    }

    /// Writes; waits while the program does not read.
    ///
    /// # Errors
    /// It was closed, by either side.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sender = self.0.lock().await;
        let pipe = sender.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        pipe.write_all(bytes).await
    }

    /// Tells the program that no more comes.
    pub async fn close(&self) {
        *self.0.lock().await = None;
    }
}
