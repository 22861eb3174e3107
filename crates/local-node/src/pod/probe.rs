//! Probes and hooks: one attempt of each kind, and the task that repeats a probe and judges.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::exec;
use crate::shim::client::Shim;

/// Most of an answer that is read or told.
const MAX_ANSWER: u64 = 1024;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether the program has come up.
    Startup,
    /// Whether it should get work.
    Readiness,
    /// Whether it should go on.
    Liveness,
}

impl Purpose {
    /// As it stands in events.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What a probe's task reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Container.
    pub container: String,
    /// The run that was probed.
    pub id: String,
    /// What the probe is for.
    pub purpose: Purpose,
    /// The verdict: `None` while a threshold is not reached.
    pub verdict: Option<bool>,
    /// What went wrong in this attempt.
    pub trouble: Option<String>,
}

/// Where a container is to be probed.
#[derive(Clone)]
pub struct Target {
    /// Its pod's shim.
    pub shim: Shim,
    /// Its pod's address.
    pub ip: IpAddr,
    /// The container.
    pub container: Container,
    /// Its run.
    pub id: String,
}

/// Probes until the receiver or the task is dropped.
pub async fn repeat(target: Target, probe: Probe, purpose: Purpose, reports: mpsc::Sender<Report>) {
    let seconds = |value: Option<i32>, default: u64| Duration::from_secs(value.map_or(default, |v| v.max(0) as u64));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let threshold = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1);
    let (enough, too_many) = (threshold(probe.success_threshold, 1), threshold(probe.failure_threshold, 3));
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let (mut good, mut bad) = (0, 0);
    let mut told = None;
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let result = attempt(&target, &probe, timeout).await;
        match &result {
            Ok(()) => (good, bad) = (good + 1, 0),
            Err(_) => (good, bad) = (0, bad + 1),
        }
        let verdict = if good >= enough {
            Some(true)
        } else if bad >= too_many {
            Some(false)
        } else {
            None
        };
        let trouble = result.err();
        if trouble.is_some() || (verdict.is_some() && verdict != told) {
            let news = if verdict == told { None } else { verdict };
            told = verdict.or(told);
            let report = Report {
                container: target.container.name.clone(),
                id: target.id.clone(),
                purpose,
                verdict: news,
                trouble,
            };
            if reports.send(report).await.is_err() {
                return;
            }
        }
        if purpose == Purpose::Startup && verdict == Some(true) {
            return;
        }
    }
}

async fn attempt(target: &Target, probe: &Probe, timeout: Duration) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return run(target, action, timeout).await;
    }
    let network = async {
        if let Some(action) = &probe.http_get {
            http(target, action).await
        } else if let Some(action) = &probe.tcp_socket {
            let address = address(target, action.host.as_deref(), &action.port)?;
            TcpStream::connect(address).await.map(drop).map_err(|error| format!("dial tcp {address}: {error}"))
        } else {
            Err("this node supports exec, httpGet and tcpSocket probes".to_owned())
        }
    };
    match tokio::time::timeout(timeout, network).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

async fn run(target: &Target, action: &ExecAction, timeout: Duration) -> Result<(), String> {
    let command = action.command.clone().unwrap_or_default();
    match exec::run(&target.shim, &target.container.name, command, timeout).await {
        Ok(Some((0, _))) => Ok(()),
        Ok(Some((code, output))) => Err(format!(
            "exit code {code}: {}",
            output.chars().take(MAX_ANSWER as usize).collect::<String>().trim_end()
        )),
        Ok(None) => Err(format!("command timed out after {} s", timeout.as_secs())),
        Err(error) => Err(error.to_string()),
    }
}

async fn http(target: &Target, action: &HTTPGetAction) -> Result<(), String> {
    if action.scheme.as_deref().is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http")) {
        return Err("this node supports httpGet probes over HTTP only".to_owned());
    }
    let address = address(target, action.host.as_deref(), &action.port)?;
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut head = format!("GET {}{path} HTTP/1.1\r\n", if path.starts_with('/') { "" } else { "/" });
    let headers = action.http_headers.clone().unwrap_or_default();
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    for header in headers {
        head.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    head.push_str("User-Agent: kube-probe/1.36\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    let failed = |error: std::io::Error| format!("Get \"http://{address}{path}\": {error}");
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.write_all(head.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await.map_err(failed)?;
    let text = String::from_utf8_lossy(&answer);
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err("the answer is not HTTP".to_owned()),
    }
}

fn address(target: &Target, host: Option<&str>, port: &IntOrString) -> Result<SocketAddr, String> {
    let ip = match host.filter(|host| !host.is_empty()) {
        Some(host) => host.parse().map_err(|_| format!("host {host:?} is not an address"))?,
        None => target.ip,
    };
    let number = match port {
        IntOrString::Int(number) => Some(i64::from(*number)),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let ports = target.container.ports.iter().flatten();
            ports.into_iter().find(|port| port.name.as_ref() == Some(name)).map(|port| i64::from(port.container_port))
        }),
    };
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    Ok(SocketAddr::new(ip, port.ok_or_else(|| format!("no port {port:?}"))?))
}

/// Runs a lifecycle hook once.
pub async fn hook(target: &Target, handler: &LifecycleHandler, patience: Duration) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        return run(target, action, patience).await;
    }
    let network = async {
        if let Some(action) = &handler.http_get {
            http(target, action).await
        } else if let Some(sleep) = &handler.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
            Ok(())
        } else {
            Ok(())
        }
    };
    tokio::time::timeout(patience, network).await.unwrap_or_else(|_| Err("the hook took too long".to_owned()))
}
