//! Labels, annotations, finalizers, environment variables, headers and ports, each declared once.

/// API group of the custom resources.
pub const GROUP: &str = "sandbox.opensandbox.io";
/// The only version of the custom resources, served and stored.
pub const VERSION: &str = "v1alpha1";

/// TCP port of execd in every sandbox.
pub const EXECD_PORT: u16 = 44772;
/// TCP port of task-executor in pods that carry it.
pub const TASK_EXECUTOR_PORT: u16 = 5758;
/// Port the published SDKs look up for the egress sidecar.
pub const EGRESS_PORT: u16 = 18080;
/// Port of the lifecycle API on a laptop.
pub const SERVER_PORT: u16 = 8088;

/// Keys of labels.
pub mod labels {
    /// Pool pod: name of its Pool.
    pub const POOL_NAME: &str = "sandbox.opensandbox.io/pool-name";
    /// Pool pod: revision of the template it was made from, 16 hex digits.
    pub const POOL_REVISION: &str = "sandbox.opensandbox.io/pool-revision";
    /// Pool pod: UID of the sandbox that holds it. Ours; a projection, never trusted as input.
    pub const CLAIMED_BY: &str = "sandbox.opensandbox.io/claimed-by";
    /// Pod of a BatchSandbox without pool: name of the BatchSandbox.
    pub const BATCH_NAME: &str = "batch-sandbox.sandbox.opensandbox.io/name";
    /// Pod of a BatchSandbox without pool: decimal index.
    pub const POD_INDEX: &str = "batch-sandbox.sandbox.opensandbox.io/pod-index";
    /// Pool pod: its presence asks for the idle pod to be replaced.
    pub const EVICT: &str = "pool.opensandbox.io/evict";
    /// BatchSandbox made by the lifecycle server: the sandbox id.
    pub const SANDBOX_ID: &str = "opensandbox.io/id";
    /// BatchSandbox made for a tenant: the tenant's name.
    pub const TENANT: &str = "opensandbox.io/tenant";
    /// BatchSandbox made without a timeout: `"true"`.
    pub const MANUAL_CLEANUP: &str = "opensandbox.io/manual-cleanup";
    /// Prefix that user metadata must not use.
    pub const RESERVED_PREFIX: &str = "opensandbox.io/";
}

/// Keys of annotations.
pub mod annotations {
    /// BatchSandbox: `{"pods":[..]}`, every pod ever granted, in grant order.
    pub const ALLOC_STATUS: &str = "sandbox.opensandbox.io/alloc-status";
    /// BatchSandbox: `{"pods":[..]}`, pods whose return was asked for.
    pub const ALLOC_RELEASE: &str = "sandbox.opensandbox.io/alloc-release";
    /// BatchSandbox: `{"pods":[..]}`, pods whose recycling has finished.
    pub const ALLOC_RELEASED: &str = "sandbox.opensandbox.io/alloc-released";
    /// BatchSandbox: JSON array of pod addresses in index order.
    pub const ENDPOINTS: &str = "sandbox.opensandbox.io/endpoints";
    /// Pool pod: progress of a restart, written by controllers that recycle by restarting.
    pub const RESTART_RECORD: &str = "sandbox.opensandbox.io/restart-record";
    /// Pool: how to restart, written by users.
    pub const RESTART_CONFIG: &str = "sandbox.opensandbox.io/restart-config";
    /// BatchSandbox: number and name of the leader that took over while it wanted pods. It makes what the leader before
    /// it had read stale; nobody reads its value.
    pub const FENCE: &str = "sandbox.opensandbox.io/fence";
    /// Event about a BatchSandbox that is gone: how it ended, JSON of a `Termination`.
    pub const TERMINATION: &str = "sandbox.opensandbox.io/termination";
    /// Prefix under which the lifecycle server keeps a request's `opensandbox.extensions.*`.
    pub const EXTENSIONS_PREFIX: &str = "opensandbox.io/extensions.";
    /// BatchSandbox: the image that was asked for, as the create request named it.
    pub const IMAGE: &str = "opensandbox.io/image";
    /// BatchSandbox: JSON array, the entrypoint that was asked for.
    pub const ENTRYPOINT: &str = "opensandbox.io/entrypoint";
}

/// Words of Events.
pub mod events {
    /// `reportingComponent` of everything that the controller tells.
    pub const CONTROLLER: &str = "opensandbox-controller";
    /// `action` of the last Event about a BatchSandbox; its reason is `Deleted`, `Expired`, or why it failed.
    pub const TERMINATED: &str = "Terminated";
}

/// Finalizers.
pub mod finalizers {
    /// BatchSandbox: tasks are to be stopped first.
    pub const TASK_CLEANUP: &str = "batch-sandbox.sandbox.opensandbox.io/task-cleanup";
    /// BatchSandbox: pods are to be given back first.
    pub const POOL_ALLOCATION: &str = "pool.sandbox.opensandbox.io/pool-allocation";
    /// SandboxSnapshot: jobs are to be deleted first.
    pub const SNAPSHOT_CLEANUP: &str = "sandboxsnapshot.sandbox.opensandbox.io/cleanup";
}

/// Environment variables of the daemons in a pod.
pub mod env {
    /// Base64 (standard, padded) of the 32-byte Ed25519 public key that signs claims and task calls.
    pub const DAEMON_KEY: &str = "OPENSANDBOX_DAEMON_KEY";
    /// UID of the pod, by the downward API.
    pub const POD_UID: &str = "OPENSANDBOX_POD_UID";
    /// Id of the sandbox, in every command's environment after the claim.
    pub const SANDBOX_ID: &str = "OPENSANDBOX_ID";
    /// Path of the execd binary that `bootstrap.sh` starts.
    pub const EXECD: &str = "EXECD";
    /// File of `KEY=VALUE` lines that execd reads before every command.
    pub const EXECD_ENVS: &str = "EXECD_ENVS";
    /// Static access token of execd, for pods nobody claims.
    pub const EXECD_ACCESS_TOKEN: &str = "EXECD_ACCESS_TOKEN";
    /// Marks the main container of a pod for task-executor.
    pub const SANDBOX_MAIN_CONTAINER: &str = "SANDBOX_MAIN_CONTAINER";
}

/// HTTP header names, in the form that the published SDKs send.
pub mod headers {
    /// The lifecycle API's key.
    pub const API_KEY: &str = "OPEN-SANDBOX-API-KEY";
    /// Token of one port of a sandbox, at the server's proxy.
    pub const SECURE_ACCESS: &str = "OpenSandbox-Secure-Access";
    /// execd's access token.
    pub const EXECD_ACCESS_TOKEN: &str = "X-EXECD-ACCESS-TOKEN";
    /// Signature of the platform over a call to a daemon, see [`crate::auth`].
    pub const SIGNATURE: &str = "X-OpenSandbox-Signature";
    /// Next byte offset of a background command's log.
    pub const TAIL_CURSOR: &str = "EXECD-COMMANDS-TAIL-CURSOR";
    /// Identifies one request in logs and errors.
    pub const REQUEST_ID: &str = "X-Request-ID";
    /// Same key, same sandbox.
    pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
}
