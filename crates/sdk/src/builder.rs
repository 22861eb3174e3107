//! The description of a sandbox to be made, and its making.

use std::{collections::BTreeMap, time::Duration};

use api_types::lifecycle::{CreateSandboxRequest, EXTENSION_POOL_REF, ImageAuth, ImageSpec, Platform};
use tokio::time::Instant;

use crate::{Client, ConnectionConfig, Error, Result, Sandbox, execd::NotReady};

/// Time to live unless set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a create may take unless set.
const DEFAULT_READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Describes a sandbox; [`Self::create`] makes it.
///
/// ```no_run
/// # async fn f() -> opensandbox::Result<()> {
/// use std::time::Duration;
/// use opensandbox::{ConnectionConfig, Sandbox};
///
/// let sandbox = Sandbox::builder("python:3.12")
///     .env("AGENT_ID", "agent-1")
///     .entrypoint(["/bin/sh", "-c", "sleep infinity"])
///     .resource("cpu", "500m")
///     .resource("memory", "512Mi")
///     .metadata("owner", "me")
///     .timeout(Duration::from_secs(3600))
///     .connection(ConnectionConfig::new("127.0.0.1:8088"))
///     .create()
///     .await?;
/// # let _ = sandbox; Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is made before create() is awaited"]
pub struct SandboxBuilder {
    image: Option<String>,
    image_auth: Option<ImageAuth>,
    pool: Option<String>,
    env: BTreeMap<String, String>,
    entrypoint: Vec<String>,
    metadata: BTreeMap<String, String>,
    extensions: BTreeMap<String, String>,
    resources: BTreeMap<String, String>,
    requests: BTreeMap<String, String>,
    platform: Option<Platform>,
    timeout: Option<Duration>,
    ready_timeout: Duration,
    skip_health_check: bool,
    secure_access: bool,
    kill_on_drop: bool,
    idempotency_key: Option<String>,
    /// What a request had that has no member here.
    rest: CreateSandboxRequest,
    connection: Connection,
}

#[derive(Debug, Clone)]
enum Connection {
    Environment,
    Config(ConnectionConfig),
    Client(Client),
}

impl SandboxBuilder {
    pub(crate) fn new(image: Option<String>) -> Self {
        Self {
            image,
            image_auth: None,
            pool: None,
            env: BTreeMap::new(),
            entrypoint: Vec::new(),
            metadata: BTreeMap::new(),
            extensions: BTreeMap::new(),
            resources: BTreeMap::new(),
            requests: BTreeMap::new(),
            platform: None,
            timeout: Some(DEFAULT_TIMEOUT),
            ready_timeout: DEFAULT_READY_TIMEOUT,
            skip_health_check: false,
            secure_access: false,
            kill_on_drop: false,
            idempotency_key: None,
            rest: CreateSandboxRequest::default(),
            connection: Connection::Environment,
        }
    }

    /// Starts from a whole request as it is on the wire, e.g. out of a file; what is set after that replaces it.
    ///
    /// ```
    /// use opensandbox::{SandboxBuilder, types::CreateSandboxRequest};
    ///
    /// let text = r#"{"image": {"uri": "python:3.12"}, "entrypoint": ["sleep", "600"]}"#;
    /// let request: CreateSandboxRequest = serde_json::from_str(text).unwrap();
    /// let builder = SandboxBuilder::from_request(request).env("AGENT_ID", "agent-1");
    /// # let _ = builder;
    /// ```
    pub fn from_request(mut request: CreateSandboxRequest) -> Self {
        let (image, auth) = request.image.take().map_or((None, None), |image| (Some(image.uri), image.auth));
        let mut extensions = request.extensions.take().unwrap_or_default();
        let timeout = request.timeout.take().map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
        Self {
            image_auth: auth,
            pool: extensions.remove(EXTENSION_POOL_REF),
            env: request.env.take().into_iter().flatten().map(|(k, v)| (k, v.unwrap_or_default())).collect(),
            entrypoint: request.entrypoint.take().unwrap_or_default(),
            metadata: request.metadata.take().unwrap_or_default(),
            extensions,
            resources: request.resource_limits.take().unwrap_or_default(),
            requests: request.resource_requests.take().unwrap_or_default(),
            platform: request.platform.take(),
            timeout: timeout.or(Some(DEFAULT_TIMEOUT)),
            secure_access: request.secure_access.take().unwrap_or_default(),
            rest: request,
            ..Self::new(image)
        }
    }

    /// Mounts a claim, which is made when it is not there.
    pub fn claim(mut self, name: impl Into<String>, claim: impl Into<String>, mount_path: impl Into<String>) -> Self {
        let (name, claim, path) = (name.into(), claim.into(), mount_path.into());
        let volume = serde_json::json!({"name": name, "mountPath": path, "pvc": {"claimName": claim}});
        self.rest.volumes.get_or_insert_default().push(volume);
        self
    }

    /// Makes repeated creates one: the same key and the same request give the same sandbox, whichever server of the
    /// platform is asked, and also after a restart of this program. Without it each create has a key of its own, which
    /// makes its own retries safe.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Takes the sandbox from this pool, whose image and resources then count.
    pub fn pool(mut self, name: impl Into<String>) -> Self {
        self.pool = Some(name.into());
        self
    }

    /// Sets a variable in the environment of the entrypoint and of every later command.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(key.into(), value.into());
        self
    }

    /// Sets several variables.
    pub fn envs<K: Into<String>, V: Into<String>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.env.extend(pairs.into_iter().map(|(k, v)| (k.into(), v.into())));
        self
    }

    /// Sets the program the sandbox starts, with its arguments, run without a shell.
    pub fn entrypoint<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint = argv.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a label to find the sandbox by.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets an extension, e.g. `opensandbox.extensions.team`.
    pub fn extension(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.insert(key.into(), value.into());
        self
    }

    /// Sets a limit, e.g. `cpu` to `500m`; 1 cpu and 2Gi of memory when none is set.
    pub fn resource(mut self, name: impl Into<String>, quantity: impl Into<String>) -> Self {
        self.resources.insert(name.into(), quantity.into());
        self
    }

    /// Sets a request, which is what the scheduler reserves.
    pub fn resource_request(mut self, name: impl Into<String>, quantity: impl Into<String>) -> Self {
        self.requests.insert(name.into(), quantity.into());
        self
    }

    /// Sets operating system and architecture, e.g. `linux` and `arm64`.
    pub fn platform(mut self, os: impl Into<String>, arch: impl Into<String>) -> Self {
        self.platform = Some(Platform { os: os.into(), arch: arch.into() });
        self
    }

    /// Sets the account for the image's registry.
    pub fn image_auth(mut self, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.image_auth = Some(ImageAuth { username: username.into(), password: password.into() });
        self
    }

    /// Sets how long the sandbox lives unless it is renewed; 10 minutes when not set. Fractions of a
    /// second are rounded up.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets the sandbox live until it is killed.
    pub fn no_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// Sets how long the making may take until the daemon answers; 60 s when not set.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Does not wait until the daemon answers.
    pub fn skip_health_check(mut self, yes: bool) -> Self {
        self.skip_health_check = yes;
        self
    }

    /// Demands a token on every port of the sandbox.
    pub fn secure_access(mut self, yes: bool) -> Self {
        self.secure_access = yes;
        self
    }

    /// Kills the sandbox, in the background, when its last handle is dropped.
    pub fn kill_on_drop(mut self, yes: bool) -> Self {
        self.kill_on_drop = yes;
        self
    }

    /// Uses this configuration instead of the environment's.
    pub fn connection(mut self, config: ConnectionConfig) -> Self {
        self.connection = Connection::Config(config);
        self
    }

    /// Uses this client.
    pub fn client(mut self, client: &Client) -> Self {
        self.connection = Connection::Client(client.clone());
        self
    }

    /// Makes the sandbox and waits until its daemon answers: one round trip when the server's
    /// answer says where the daemon is.
    ///
    /// A sandbox that does not become ready is killed, also when this future is dropped meanwhile.
    pub async fn create(self) -> Result<Sandbox> {
        let request = self.request()?;
        let client = match self.connection {
            Connection::Environment => Client::from_env()?,
            Connection::Config(config) => Client::new(config)?,
            Connection::Client(client) => client,
        };
        let deadline = Instant::now() + self.ready_timeout;
        let answer = client
            .create(&request, self.idempotency_key, self.ready_timeout.max(client.config().request_timeout))
            .await?;
        for warning in answer.warnings.iter().flatten() {
            tracing::debug!(sandbox = %answer.id, "{warning}");
        }
        let warnings = answer.warnings.unwrap_or_default();
        let id = answer.id.as_str().to_owned();
        // From here on a failure, or a dropped future, must not leave the sandbox behind.
        let guarded = Sandbox::new(client.clone(), id.clone(), answer.execd.as_ref(), true);
        if answer.execd.is_none()
            && !self.skip_health_check
            && let Err(why) = guarded.execd().wait_ready(deadline).await
        {
            guarded.set_kill_on_drop(false);
            if let Err(error) = client.kill(&id).await {
                tracing::warn!(sandbox = %id, %error, "a sandbox that did not become ready could not be killed");
            }
            return Err(match why {
                NotReady::Never(error) => error,
                NotReady::InTime(last) => {
                    Error::NotReady { sandbox: id, after: self.ready_timeout, last: last.map(Box::new) }
                }
            });
        }
        guarded.set_kill_on_drop(self.kill_on_drop);
        Ok(guarded.with_warnings(warnings))
    }

    fn request(&self) -> Result<CreateSandboxRequest> {
        let mut extensions = self.extensions.clone();
        if let Some(pool) = &self.pool {
            extensions.insert(EXTENSION_POOL_REF.to_owned(), pool.clone());
        }
        let pooled = extensions.contains_key(EXTENSION_POOL_REF);
        let elsewhere = self.rest.snapshot_id.is_some() || self.rest.template_id.is_some();
        if self.image.is_none() && !pooled && !elsewhere {
            return Err(Error::invalid("create sandbox: neither an image nor a pool is given"));
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(Error::invalid(format!(
                "create sandbox: {name:?} cannot be the name of an environment variable"
            )));
        }
        let limits = match (self.resources.is_empty(), pooled) {
            (true, true) => None,
            (true, false) => {
                Some(BTreeMap::from([("cpu".to_owned(), "1".to_owned()), ("memory".to_owned(), "2Gi".to_owned())]))
            }
            (false, _) => Some(self.resources.clone()),
        };
        let entrypoint = match (self.entrypoint.is_empty(), pooled) {
            (true, true) => None,
            // Servers demand one for an image; this keeps the sandbox until it is killed.
            (true, false) => Some(["tail", "-f", "/dev/null"].map(str::to_owned).to_vec()),
            (false, _) => Some(self.entrypoint.clone()),
        };
        let not_empty = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
        Ok(CreateSandboxRequest {
            image: self.image.clone().map(|uri| ImageSpec { uri, auth: self.image_auth.clone() }),
            timeout: self.timeout.map(whole_seconds).transpose()?,
            resource_limits: limits,
            resource_requests: not_empty(&self.requests),
            env: (!self.env.is_empty()).then(|| self.env.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect()),
            metadata: not_empty(&self.metadata),
            extensions: not_empty(&extensions),
            platform: self.platform.clone(),
            secure_access: self.secure_access.then_some(true),
            entrypoint,
            ..self.rest.clone()
        })
    }
}

fn whole_seconds(timeout: Duration) -> Result<i64> {
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    i64::try_from(seconds).map_err(|_| Error::invalid(format!("create sandbox: a timeout of {timeout:?} is too long")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_decides_image_and_resources() {
        let request = Sandbox::builder("nginx:latest").pool("agent-pool").env("A", "1").request().unwrap();
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(
            json,
            r#"{"image":{"uri":"nginx:latest"},"timeout":600,"env":{"A":"1"},"extensions":{"poolRef":"agent-pool"}}"#
        );
    }

    #[test]
    fn an_image_gets_limits_and_an_entrypoint() {
        let request = Sandbox::builder("nginx").no_timeout().request().unwrap();
        assert_eq!(request.timeout, None);
        assert_eq!(request.entrypoint.unwrap(), ["tail", "-f", "/dev/null"]);
        assert_eq!(request.resource_limits.unwrap()["memory"], "2Gi");
    }

    #[test]
    fn a_request_of_a_file_is_kept_and_may_be_changed() {
        let text = r#"{"image":{"uri":"a"},"timeout":90,"env":{"A":"1","B":null},"lifecycle":{"x":1},"extensions":{"poolRef":"p"}}"#;
        let builder = SandboxBuilder::from_request(serde_json::from_str(text).unwrap());
        let request = builder.env("A", "2").claim("v", "c", "/data").request().unwrap();
        assert_eq!(request.env.as_ref().unwrap()["A"].as_deref(), Some("2"));
        assert_eq!((request.timeout, request.extensions.as_ref().unwrap()["poolRef"].as_str()), (Some(90), "p"));
        assert!(request.lifecycle.is_some() && request.volumes.unwrap().len() == 1);
    }

    #[test]
    fn what_cannot_work_is_refused_before_it_is_sent() {
        assert!(Sandbox::builder("nginx").env("A=B", "1").request().is_err());
        assert!(SandboxBuilder::new(None).request().is_err());
        assert_eq!(whole_seconds(Duration::from_millis(1001)).unwrap(), 2);
    }
}
