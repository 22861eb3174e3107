//! The guards behind what the controller promises, each with a name: under the feature `mutants` one of them can be
//! taken away, and the simulator shows which rule breaks then.

/// Makes the guards, and their list, of one table.
macro_rules! guards {
    ($(#[doc = $what:literal] $name:ident,)*) => {
        /// One guard.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Guard {
            $(#[doc = $what] $name,)*
        }

        /// Every guard, and what it does.
        #[cfg(feature = "mutants")]
        pub const ALL: &[(Guard, &str)] = &[$((Guard::$name, $what),)*];
    };
}

guards! {
    /// A deletion names the UID that it means.
    DeleteUid,
    /// A status is written under the version that was read.
    StatusVersion,
    /// Nothing is written after the lease has run out.
    LeaseCheck,
    /// What is not answered while the lease holds is given up.
    LeaseDeadline,
    /// A new leader makes stale what the leader before it had read.
    Barrier,
    /// Nothing is promised while another leads.
    StandBy,
    /// Nothing is decided before everything was listed.
    Listed,
    /// A deletion that was accepted counts before the watch tells it.
    AssumedDeletion,
    /// A pod that was created counts before the watch tells it.
    AssumedCreation,
    /// Older news does not undo newer.
    NewerWins,
    /// Late news does not bring a deleted pod back.
    Buried,
    /// The finalizer is there before the first grant.
    FinalizerFirst,
    /// The finalizer goes after the pods.
    FinalizerLast,
    /// A pod that refuses a claim is not held.
    ClaimRefusal,
    /// An answer counts for the grant that it was given to.
    ClaimEpoch,
    /// A pod that was used is never offered again.
    DirtyMark,
    /// A pod whose grant is over is never offered again.
    Stained,
    /// A pod that another's label names is never offered.
    ForeignMark,
    /// A pod whose containers were restarted is never offered.
    Restarted,
    /// A promise that is given back is asked for anew.
    PromiseAgain,
    /// A pod that is about to be deleted is promised to nobody.
    DoomedFirst,
    /// A promised pod is looked at again before it is granted.
    PromiseChecked,
    /// A pod that is given back is deleted first.
    ReleaseProtocol,
    /// `poolMax` bounds what exists.
    PoolMax,
    /// Creations under way count.
    CreatingCounts,
    /// A creation that was not answered counts until it is known.
    Settled,
    /// Whoever can never fit blocks nobody.
    NeverFits,
    /// A pod that cannot be claimed is not tried for ever.
    Attempts,
    /// Only a pod of its own is taken for one.
    OwnPod,
    /// A container that restarted after the grant makes its pod lost.
    RestartIsLoss,
    /// An idle pod of an older revision is replaced.
    OldRevision,
    /// An idle pod whose eviction was asked for is replaced.
    Evicted,
    /// A sandbox whose time is over is deleted.
    Expiry,
}

#[cfg(feature = "mutants")]
pub use mutant::remove;
#[cfg(feature = "mutants")]
pub(crate) use mutant::stands;
#[cfg(not(feature = "mutants"))]
pub(crate) use whole::stands;

#[cfg(not(feature = "mutants"))]
mod whole {
    /// Every guard stands.
    pub(crate) const fn stands(_: super::Guard) -> bool {
        true
    }
}

#[cfg(feature = "mutants")]
mod mutant {
    use std::cell::Cell;

    use super::Guard;

    thread_local! {
        static REMOVED: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    /// Whether a guard stands on this thread.
    pub(crate) fn stands(guard: Guard) -> bool {
        REMOVED.get() != Some(guard)
    }

    /// Takes a guard away from the controllers of this thread, or puts the last one back.
    pub fn remove(guard: Option<Guard>) {
        REMOVED.set(guard);
    }
}
