//! Where the platform is and how it is spoken to.

use std::{fmt, str::FromStr, time::Duration};

use api_types::names::SERVER_PORT;

use crate::{Error, Result};

/// Environment variable with `host[:port]` of the lifecycle API, or its URL.
pub const ENV_DOMAIN: &str = "OPEN_SANDBOX_DOMAIN";
/// Environment variable with the API key.
pub const ENV_API_KEY: &str = "OPEN_SANDBOX_API_KEY";
/// Environment variable with `http` or `https`.
pub const ENV_PROTOCOL: &str = "OPEN_SANDBOX_PROTOCOL";
/// Environment variable with the seconds a request may take.
pub const ENV_REQUEST_TIMEOUT: &str = "OPEN_SANDBOX_REQUEST_TIMEOUT";
/// Environment variable that is true when sandboxes are reached through the server.
pub const ENV_USE_SERVER_PROXY: &str = "OPEN_SANDBOX_USE_SERVER_PROXY";

/// Scheme of the lifecycle API and of the sandboxes' endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS.
    Https,
}

impl Protocol {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            other => Err(Error::invalid(format!("protocol must be http or https, not {other:?}"))),
        }
    }
}

/// A secret: it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes the key as it is.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Where the platform is and how it is spoken to.
///
/// ```
/// use std::time::Duration;
/// use opensandbox::ConnectionConfig;
///
/// let config = ConnectionConfig::new("sandboxes.example.com").https().api_key("k").request_timeout(Duration::from_secs(10));
/// assert_eq!(config.base_url(), "https://sandboxes.example.com/v1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    pub(crate) domain: String,
    pub(crate) protocol: Protocol,
    pub(crate) api_key: Option<ApiKey>,
    pub(crate) request_timeout: Duration,
    pub(crate) stream_idle_timeout: Duration,
    pub(crate) use_server_proxy: bool,
    pub(crate) retries: usize,
    pub(crate) user_agent: String,
}

impl Default for ConnectionConfig {
    /// The embedded platform's address, `127.0.0.1:8088`, without a key.
    fn default() -> Self {
        Self {
            domain: format!("127.0.0.1:{SERVER_PORT}"),
            protocol: Protocol::Http,
            api_key: None,
            request_timeout: Duration::from_secs(30),
            stream_idle_timeout: Duration::from_secs(60),
            use_server_proxy: false,
            retries: 3,
            user_agent: concat!("opensandbox-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl ConnectionConfig {
    /// For `host[:port]`, or for a URL, whose scheme is then the protocol.
    pub fn new(domain: impl Into<String>) -> Self {
        let mut config = Self::default();
        config.set_domain(domain.into());
        config
    }

    /// From the environment: `OPEN_SANDBOX_DOMAIN`, `_API_KEY`, `_PROTOCOL`, `_REQUEST_TIMEOUT`
    /// (seconds) and `_USE_SERVER_PROXY`; what is absent or empty keeps its default.
    ///
    /// ```no_run
    /// # fn main() -> opensandbox::Result<()> {
    /// let config = opensandbox::ConnectionConfig::from_env()?;
    /// # let _ = config; Ok(()) }
    /// ```
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`Self::from_env`], with the variables from elsewhere.
    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name| lookup(name).filter(|value| !value.is_empty());
        let mut config = Self::default();
        if let Some(protocol) = get(ENV_PROTOCOL) {
            config.protocol = protocol.parse()?;
        }
        if let Some(domain) = get(ENV_DOMAIN) {
            config.set_domain(domain);
        }
        config.api_key = get(ENV_API_KEY).map(ApiKey);
        if let Some(seconds) = get(ENV_REQUEST_TIMEOUT) {
            let number: f64 = seconds.parse().unwrap_or(f64::NAN);
            config.request_timeout =
                Duration::try_from_secs_f64(number).ok().filter(|timeout| !timeout.is_zero()).ok_or_else(|| {
                    Error::invalid(format!("{ENV_REQUEST_TIMEOUT} must be seconds above 0, not {seconds:?}"))
                })?;
        }
        if let Some(flag) = get(ENV_USE_SERVER_PROXY) {
            config.use_server_proxy = match flag.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => true,
                "0" | "false" | "no" | "off" => false,
                _ => return Err(Error::invalid(format!("{ENV_USE_SERVER_PROXY} must be true or false, not {flag:?}"))),
            };
        }
        Ok(config)
    }

    fn set_domain(&mut self, domain: String) {
        let domain = domain.trim().trim_end_matches('/');
        self.domain = if let Some(rest) = domain.strip_prefix("https://") {
            self.protocol = Protocol::Https;
            rest.to_owned()
        } else if let Some(rest) = domain.strip_prefix("http://") {
            self.protocol = Protocol::Http;
            rest.to_owned()
        } else {
            domain.to_owned()
        };
    }

    /// Sets `host[:port]`, or the URL, of the lifecycle API.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.set_domain(domain.into());
        self
    }

    /// Sets the scheme.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Speaks TLS.
    #[must_use]
    pub fn https(self) -> Self {
        self.protocol(Protocol::Https)
    }

    /// Sets the API key.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(ApiKey::new(key));
        self
    }

    /// Sets how long a request may take; 30 s unless set. Streams are bounded by
    /// [`Self::stream_idle_timeout`] instead, a create also by its own ready timeout.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets how long a stream may be silent before it counts as broken; 60 s unless set. The daemon
    /// in the sandbox sends a sign of life every few seconds.
    #[must_use]
    pub fn stream_idle_timeout(mut self, timeout: Duration) -> Self {
        self.stream_idle_timeout = timeout;
        self
    }

    /// Reaches sandboxes through the server instead of directly.
    #[must_use]
    pub fn use_server_proxy(mut self, yes: bool) -> Self {
        self.use_server_proxy = yes;
        self
    }

    /// Sets how often an idempotent call is tried again; 3 unless set.
    #[must_use]
    pub fn retries(mut self, retries: usize) -> Self {
        self.retries = retries;
        self
    }

    /// Puts the name of the calling program before this crate's in `User-Agent`.
    #[must_use]
    pub fn user_agent(mut self, program: &str) -> Self {
        self.user_agent = format!("{program} {}", self.user_agent);
        self
    }

    /// Whether `host[:port][/path]`, reached by this configuration's protocol, is the lifecycle API's own host and
    /// port; the protocol's port counts whether it is written or not.
    pub(crate) fn is_own(&self, address: &str) -> bool {
        let authority = |address: &str| {
            let url = reqwest::Url::parse(&format!("{}://{address}", self.protocol)).ok()?;
            Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
        };
        authority(address).is_some_and(|found| authority(&self.domain) == Some(found))
    }

    /// URL below which the lifecycle API's routes are.
    pub fn base_url(&self) -> String {
        format!("{}://{}/v1", self.protocol, self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<ConnectionConfig> {
        ConnectionConfig::from_lookup(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn environment_is_read_and_checked() {
        let config =
            from(&[(ENV_DOMAIN, "https://a.example/"), (ENV_API_KEY, "k"), (ENV_REQUEST_TIMEOUT, "2.5")]).unwrap();
        assert_eq!(config.base_url(), "https://a.example/v1");
        assert_eq!(config.request_timeout, Duration::from_millis(2500));
        assert_eq!(from(&[(ENV_DOMAIN, "")]).unwrap(), ConnectionConfig::default());
        for bad in [
            (ENV_PROTOCOL, "ftp"),
            (ENV_REQUEST_TIMEOUT, "0"),
            (ENV_REQUEST_TIMEOUT, "soon"),
            (ENV_USE_SERVER_PROXY, "2"),
        ] {
            assert!(from(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn its_own_address_is_known_however_the_port_is_written() {
        for (domain, address) in [
            ("http://a.example:80", "a.example/v1/sandboxes/s/proxy/44772"),
            ("http://a.example", "a.example:80"),
            ("https://A.example:443/", "a.example"),
            ("https://a.example", "a.example:443/x"),
            ("http://[::1]:80", "[::1]/x"),
            ("127.0.0.1:8088", "127.0.0.1:8088/x"),
        ] {
            assert!(ConnectionConfig::new(domain).is_own(address), "{domain} {address}");
        }
        for (domain, address) in [
            ("https://a.example:80", "a.example"),
            ("http://a.example", "a.example:8080"),
            ("http://a.example", "b.example:80"),
            ("http://a.example", "a.example@b.example"),
            ("http://a.example", ""),
        ] {
            assert!(!ConnectionConfig::new(domain).is_own(address), "{domain} {address}");
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        let config = ConnectionConfig::default().api_key("hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
