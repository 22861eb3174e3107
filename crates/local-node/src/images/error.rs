//! Why an image cannot be had, and what to do about it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

const WHAT_TO_DO: &str =
    "import it with `osb image import FILE`, or let this machine's own files stand in with `--stand-in IMAGE=host`";

/// Why an image cannot be had. One error may be told to everybody who waits for the same image.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// No image can have this name.
    #[error("couldn't parse image name {reference:?}: {reason}")]
    InvalidReference {
        /// As given.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// The pod forbids pulling and the image is not here.
    #[error("Container image {reference:?} is not present with pull policy of Never; {WHAT_TO_DO}")]
    NeverPulled {
        /// Image.
        reference: String,
    },
    /// The registry has no such image.
    #[error("image {reference:?} not found in its registry; check the name, or {WHAT_TO_DO}")]
    NotFound {
        /// Image.
        reference: String,
    },
    /// The registry wants other credentials, or hides that there is no such image.
    #[error("registry {registry} refuses image {reference:?}; check the name and imagePullSecrets, or {WHAT_TO_DO}")]
    Unauthorized {
        /// Image.
        reference: String,
        /// Registry.
        registry: String,
    },
    /// The registry cannot be reached or fails.
    #[error("cannot pull image {reference:?} from {registry}: {reason}; {hint}")]
    Unreachable {
        /// Image.
        reference: String,
        /// Registry.
        registry: String,
        /// What happened.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The pull took too long.
    #[error("pulling image {reference:?} took longer than {} s; {WHAT_TO_DO}", after.as_secs())]
    TimedOut {
        /// Image.
        reference: String,
        /// The limit.
        after: Duration,
    },
    /// The image is for other machines.
    #[error("image {reference:?} is not for {wanted}, it is for {found}")]
    Platform {
        /// Image.
        reference: String,
        /// This machine.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The content is damaged or is no image.
    #[error("{what}: {reason}")]
    Corrupt {
        /// File, layer or image.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The content is larger than this node takes.
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge {
        /// File, layer or image.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// A program that belongs beside this one is not there.
    #[error("the program {binary} is not in {dir}, where the built-in image takes it from; build or install it there")]
    GuestMissing {
        /// Name of the program.
        binary: &'static str,
        /// Directory.
        dir: String,
    },
    /// A stand-in that does not exist.
    #[error("--stand-in {image}={stand_in}: the only stand-in is `host`")]
    StandIn {
        /// Image.
        image: String,
        /// As given.
        stand_in: String,
    },
    /// No such image here.
    #[error("no image {reference:?} here")]
    Unknown {
        /// Image.
        reference: String,
    },
    /// The disk or the system refused.
    #[error("cannot {what}: {reason}")]
    Io {
        /// What was being done.
        what: String,
        /// Why not.
        reason: Arc<io::Error>,
    },
}

/// What to do when a registry cannot be reached.
pub(super) const NOT_HERE: &str = WHAT_TO_DO;
/// The same when an older copy is here.
pub(super) const IS_HERE: &str = "it is here already: imagePullPolicy IfNotPresent would use that copy";

impl ImageError {
    /// The reason that a container's waiting state gives in Kubernetes.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidReference { .. } => "InvalidImageName",
            Self::NeverPulled { .. } => "ErrImageNeverPull",
            _ => "ErrImagePull",
        }
    }

    /// Whether trying again may help.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(super) fn corrupt(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.into(), reason: reason.to_string() }
    }
}

/// Turns an I/O error into an image error that says what was being done.
pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
    move |error| ImageError::Io { what: what.into(), reason: Arc::new(error) }
}
