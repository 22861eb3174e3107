//! Every setting, once. The names are those of OpenSandbox 1.1.1 where it has the setting; ours are marked.

use super::value::Kind;

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It takes effect.
    Effective,
    /// It is understood, and changes nothing here, because ...
    NoEffect(&'static str),
    /// Only this value, which asks for nothing, is taken; others are refused, because ...
    Refused(&'static str, &'static str),
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Section and key in the file.
    pub key: &'static str,
    /// Flag, without dashes.
    pub flag: Option<&'static str>,
    /// Environment variables, the first wins.
    pub env: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// Default, as text.
    pub default: Option<&'static str>,
    /// Whether its value is masked.
    pub secret: bool,
    /// What becomes of it.
    pub usage: Use,
    /// One line for people.
    pub about: &'static str,
}

impl Setting {
    /// Its environment variables.
    pub fn environment(&self) -> impl Iterator<Item = &'static str> {
        self.env.iter().copied()
    }

    const fn new(key: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { key, flag: None, env: &[], kind, default: None, secret: false, usage: Use::Effective, about }
    }

    const fn flag(mut self, flag: &'static str, env: &'static [&'static str]) -> Self {
        self.flag = Some(flag);
        self.env = env;
        self
    }

    const fn env(mut self, env: &'static [&'static str]) -> Self {
        self.env = env;
        self
    }

    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn idle(mut self, why: &'static str) -> Self {
        self.usage = Use::NoEffect(why);
        self
    }

    const fn only(mut self, value: &'static str, why: &'static str) -> Self {
        self.usage = Use::Refused(value, why);
        self
    }
}

/// Sections that are understood and mean nothing here.
pub const FOREIGN: &[(&str, &str)] = &[
    ("docker", "this server runs sandboxes on Kubernetes, not on a Docker engine"),
    ("agent_sandbox", "sandboxes are BatchSandboxes here"),
    ("store", "everything is kept in Kubernetes"),
    ("renew_intent", "sandboxes are not renewed by access; call renew-expiration"),
    ("egress", "there is no egress sidecar; requests that need one are refused"),
];

const NATURAL: Kind = Kind::Integer(0, i64::MAX);
const SECONDS: Kind = Kind::Integer(1, 86_400);
const THREADS: &str = "threads and event loops need no sizing here";
const INFORMER: &str = "memory follows one watch a kind, without a period";
const PACE: &str = "calls are not paced here; Kubernetes' priority and fairness does it";
const LOG_FILES: &str = "logs go to standard error";
const OTLP: &str = "metrics are served on the admin address, for Prometheus";

/// The table, in the order in which it is shown.
pub static SETTINGS: &[Setting] = &[
    Setting::new("server.host", Kind::Text, "Address to listen on")
        .flag("host", &["OPENSANDBOX_SERVER_HOST"])
        .or("0.0.0.0"),
    Setting::new("server.port", Kind::Integer(0, 65_535), "Port to listen on")
        .flag("port", &["OPENSANDBOX_SERVER_PORT"])
        .or("8080"),
    Setting::new("server.admin_bind_address", Kind::Address, "Address of /healthz, /readyz and /metrics; 0 for none")
        .flag("admin-bind-address", &["OPENSANDBOX_SERVER_ADMIN_BIND_ADDRESS"])
        .or(":8081"),
    Setting::new("server.api_key", Kind::Text, "API key; one is made and printed when none is given")
        .flag("api-key", &["OPENSANDBOX_SERVER_API_KEY"])
        .secret(),
    Setting::new("server.api_keys_file", Kind::Path, "File with API keys, one a line; read again when it changes")
        .flag("api-keys-file", &["OPENSANDBOX_SERVER_API_KEYS_FILE"]),
    Setting::new("server.insecure", Kind::Choice(&["", "YES"]), "YES, in capitals, serves everybody without a key")
        .flag("insecure", &["OPENSANDBOX_SERVER_INSECURE", "OPENSANDBOX_INSECURE_SERVER"]),
    Setting::new(
        "server.token_secret_file",
        Kind::Path,
        "File with the platform's secret of 32 bytes; the controller has the same",
    )
    .flag("token-secret-file", &["OPENSANDBOX_SERVER_TOKEN_SECRET_FILE", "OPENSANDBOX_TOKEN_SECRET_FILE"]),
    Setting::new(
        "server.endpoints",
        Kind::Choice(&["auto", "direct", "proxy"]),
        "Which address endpoint answers give: the pod's (auto, direct) or the server's proxy",
    )
    .flag("endpoints", &["OPENSANDBOX_SERVER_ENDPOINTS"])
    .or("auto"),
    Setting::new("server.eip", Kind::Text, "host[:port] in proxy addresses; without it the Host the caller used")
        .flag("public-host", &["OPENSANDBOX_SERVER_PUBLIC_HOST"]),
    Setting::new("server.tls_cert_file", Kind::Path, "Certificate chain, PEM; read again when it changes")
        .flag("tls-cert-file", &["OPENSANDBOX_SERVER_TLS_CERT_FILE"]),
    Setting::new("server.tls_key_file", Kind::Path, "Private key of the certificate, PEM; read again when it changes")
        .flag("tls-key-file", &["OPENSANDBOX_SERVER_TLS_KEY_FILE"]),
    Setting::new("server.max_sandbox_timeout_seconds", Kind::Integer(60, i64::MAX), "Longest timeout of a create")
        .flag("max-sandbox-timeout-seconds", &["OPENSANDBOX_SERVER_MAX_SANDBOX_TIMEOUT_SECONDS"]),
    Setting::new(
        "server.requests_per_second",
        Kind::Integer(0, 1_000_000),
        "Requests a second that one caller may send to one replica, the proxy apart; 0 for no bound",
    )
    .flag("requests-per-second", &["OPENSANDBOX_SERVER_REQUESTS_PER_SECOND"])
    .or("0"),
    Setting::new(
        "server.requests_burst",
        Kind::Integer(0, 1_000_000),
        "Requests at once after a rest; 0 for two seconds' worth",
    )
    .flag("requests-burst", &["OPENSANDBOX_SERVER_REQUESTS_BURST"])
    .or("0"),
    Setting::new("server.limit_concurrency", NATURAL, "Open connections; 0 for the built-in bound").or("0"),
    Setting::new(
        "server.limit_streams",
        NATURAL,
        "Proxied requests and event streams at once; 0 for the built-in bound",
    )
    .or("0"),
    Setting::new("server.timeout_keep_alive", SECONDS, "Seconds a connection may rest between requests").or("30"),
    Setting::new("server.timeout_graceful_shutdown", Kind::Integer(0, 3_600), "Seconds that a stop leaves to requests")
        .flag("shutdown-seconds", &["OPENSANDBOX_SERVER_SHUTDOWN_SECONDS"])
        .or("5"),
    Setting::new("server.shutdown_delay_seconds", Kind::Integer(0, 300), "Seconds between unready and the last accept")
        .flag("shutdown-delay-seconds", &["OPENSANDBOX_SERVER_SHUTDOWN_DELAY_SECONDS"])
        .or("0"),
    Setting::new("server.cors_allow_origins", Kind::List, "Origins of web pages that may call the API; * for all")
        .or("*"),
    Setting::new("server.backlog", NATURAL, "Length of the listen queue").idle("the system's bound holds"),
    Setting::new("server.thread_pool_size", NATURAL, "Threads").idle(THREADS),
    Setting::new("server.loop", Kind::Text, "Event loop").idle(THREADS),
    Setting::new("server.http", Kind::Text, "HTTP library").idle("there is one"),
    Setting::new("kubernetes.kubeconfig_path", Kind::Path, "Kubeconfig; without it the pod's service account")
        .flag("kubeconfig", &["OPENSANDBOX_SERVER_KUBECONFIG"]),
    Setting::new("kubernetes.namespace", Kind::Text, "Namespace of sandboxes and pools")
        .flag("namespace", &["OPENSANDBOX_SERVER_NAMESPACE", "OPENSANDBOX_NAMESPACE"])
        .or("default"),
    Setting::new("kubernetes.insecure_skip_tls_verify", Kind::Bool, "Does not check the Kubernetes API's certificate")
        .or("false"),
    Setting::new("kubernetes.sandbox_create_timeout_seconds", SECONDS, "Seconds from a create to a live sandbox")
        .or("60"),
    Setting::new("kubernetes.pool_acquisition_timeout_seconds", SECONDS, "Seconds from a create to a pod of the pool")
        .or("25"),
    Setting::new("kubernetes.image_pull_policy", Kind::Choice(&["IfNotPresent", "Always", "Never"]), "Pull policy")
        .or("IfNotPresent"),
    Setting::new("kubernetes.execd_init_resources", Kind::Table, "limits and requests of the init container"),
    Setting::new("kubernetes.workload_provider", Kind::Text, "Kind of object a sandbox is")
        .only("batchsandbox", "sandboxes are BatchSandboxes here; leave it out or write \"batchsandbox\""),
    Setting::new("kubernetes.batchsandbox_template_file", Kind::Path, "Template under every BatchSandbox")
        .only("", "templates for sandboxes are not on this server; put it into a Pool"),
    Setting::new("kubernetes.informer_resync_seconds", NATURAL, "Resync").idle(INFORMER),
    Setting::new("kubernetes.informer_watch_timeout_seconds", NATURAL, "Watch time-out").idle(INFORMER),
    Setting::new("kubernetes.sandbox_create_poll_interval_seconds", NATURAL, "Poll interval").idle("nothing is polled"),
    Setting::new("kubernetes.read_qps", NATURAL, "Reads a second").idle(PACE),
    Setting::new("kubernetes.read_burst", NATURAL, "Reads at once").idle(PACE),
    Setting::new("kubernetes.write_qps", NATURAL, "Writes a second").idle(PACE),
    Setting::new("kubernetes.write_burst", NATURAL, "Writes at once").idle(PACE),
    Setting::new("kubernetes.fastpath_endpoint", Kind::Text, "FastPath controller").idle("there is no FastPath"),
    Setting::new("kubernetes.fastpath_timeout_seconds", NATURAL, "FastPath time-out").idle("there is no FastPath"),
    Setting::new("kubernetes.fastpath_wait_ready_seconds", NATURAL, "FastPath wait").idle("there is no FastPath"),
    Setting::new("kubernetes.fastpath_resource_pool", Kind::Text, "FastPath pool").idle("there is no FastPath"),
    Setting::new("kubernetes.template_s3_publish_secret", Kind::Text, "S3 secret").idle("there are no templates"),
    Setting::new("runtime.type", Kind::Text, "Runtime")
        .only("kubernetes", "this server runs sandboxes on Kubernetes; write \"kubernetes\""),
    Setting::new("runtime.execd_image", Kind::Text, "Image with execd and a shell, for sandboxes made from an image")
        .flag("execd-image", &["OPENSANDBOX_SERVER_EXECD_IMAGE"])
        .or(concat!("opensandbox/execd:", env!("CARGO_PKG_VERSION"))),
    Setting::new("runtime.execd_run_as_init", Kind::Bool, "execd as the first process").idle("it always is"),
    Setting::new("secure_runtime.type", Kind::Choice(&["", "gvisor", "kata", "firecracker"]), "Secure runtime"),
    Setting::new("secure_runtime.k8s_runtime_class", Kind::Text, "RuntimeClass of sandboxes made from an image"),
    Setting::new("secure_runtime.docker_runtime", Kind::Text, "Docker's runtime").idle("there is no Docker engine"),
    Setting::new("storage.allowed_host_paths", Kind::List, "Directories of nodes that sandboxes may mount"),
    Setting::new("storage.volume_default_size", Kind::Text, "Size of a claim that names none").or("1Gi"),
    Setting::new("storage.ossfs_mount_root", Kind::Text, "Root of ossfs mounts").idle("there is no ossfs"),
    Setting::new("proxy.resolve_internal", Kind::Bool, "Proxy to pod addresses").idle("it always does"),
    Setting::new("ingress.mode", Kind::Choice(&["direct", "gateway"]), "Whether a gateway stands before the sandboxes")
        .or("direct"),
    Setting::new(
        "ingress.gateway.address",
        Kind::Text,
        "The gateway: host[:port], or *.host[:port] for the route wildcard",
    ),
    Setting::new(
        "ingress.gateway.route.mode",
        Kind::Choice(&["wildcard", "header", "uri"]),
        "How the gateway is told where a request goes",
    )
    .or("header"),
    Setting::new("ingress.secure_access.active_key", Kind::Text, "Id of the key that signs addresses")
        .env(&["OPENSANDBOX_SECURE_ACCESS_ACTIVE_KEY"]),
    Setting::new("ingress.secure_access.keys", Kind::Keys, "Keys that sign addresses: key_id, one of 0-9a-z, and key")
        .env(&["OPENSANDBOX_SECURE_ACCESS_KEYS"])
        .secret(),
    Setting::new("tenants.provider", Kind::Choice(&["", "file", "http"]), "Who knows the tenants: a file or a service"),
    Setting::new("tenants.file", Kind::Path, "File with [[tenants]]; read again when it changes")
        .flag("tenants-file", &["OPENSANDBOX_SERVER_TENANTS_FILE", "SANDBOX_TENANTS_CONFIG_PATH"])
        .or("~/.opensandbox/tenants.toml"),
    Setting::new("tenants.endpoint", Kind::Text, "URL of the service, asked with GET and the caller's key"),
    Setting::new(
        "tenants.max_stale_seconds",
        NATURAL,
        "Seconds that an old answer stands in for a service that is away",
    )
    .or("300"),
    Setting::new("tenants.timeout_seconds", SECONDS, "Longest question to the service").or("5"),
    Setting::new("tenants.auth_header", Kind::Text, "Header by which the service knows this server"),
    Setting::new("tenants.auth_token", Kind::Text, "Value of that header").secret(),
    Setting::new("otel.enabled", Kind::Bool, "OTLP").idle(OTLP),
    Setting::new("otel.endpoint", Kind::Text, "OTLP").idle(OTLP),
    Setting::new("otel.service_name", Kind::Text, "OTLP").idle(OTLP),
    Setting::new("otel.export_interval_millis", NATURAL, "OTLP").idle(OTLP),
    Setting::new("log.level", Kind::Text, "error, warn, info, debug, trace, or directives such as info,server=debug")
        .flag("log-level", &["OPENSANDBOX_SERVER_LOG_LEVEL"])
        .or("info"),
    Setting::new("log.format", Kind::Choice(&["text", "json"]), "text or json")
        .flag("log-format", &["OPENSANDBOX_SERVER_LOG_FORMAT"])
        .or("text"),
    Setting::new("log.file_enabled", Kind::Bool, "Log file").idle(LOG_FILES),
    Setting::new("log.file_path", Kind::Path, "Log file").idle(LOG_FILES),
    Setting::new("log.access_file_path", Kind::Path, "Log file").idle(LOG_FILES),
    Setting::new("log.file_max_bytes", NATURAL, "Log file").idle(LOG_FILES),
    Setting::new("log.file_backup_count", NATURAL, "Log file").idle(LOG_FILES),
];
