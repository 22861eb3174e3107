//! Handing archives to what runs containers: kind, Docker, containerd.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::tool;

/// Where containerd listens unless told otherwise.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The namespace that Kubernetes uses in containerd.
const NAMESPACE: &str = "k8s.io";

/// Who shall have the images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every node of a kind cluster.
    Kind(String),
    /// The Docker engine that `docker` speaks to.
    Docker,
    /// A containerd on this machine.
    Containerd {
        /// Its socket.
        socket: String,
        /// The namespace in it.
        namespace: String,
    },
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("kind", Some("")) | ("containerd", Some("")) => bail!("there is nothing behind the colon of {text:?}"),
            ("kind", name) => Ok(Self::Kind(name.unwrap_or("kind").to_owned())),
            ("docker", None) => Ok(Self::Docker),
            ("containerd", place) => {
                let place = place.unwrap_or(CONTAINERD);
                let (socket, namespace) = place.split_once('@').unwrap_or((place, NAMESPACE));
                Ok(Self::Containerd { socket: socket.to_owned(), namespace: namespace.to_owned() })
            }
            _ => bail!("{text:?} is none of kind:CLUSTER, docker, containerd[:SOCKET[@NAMESPACE]]"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(name) => write!(formatter, "the kind cluster {name}"),
            Self::Docker => write!(formatter, "Docker"),
            Self::Containerd { socket, namespace } => write!(formatter, "containerd at {socket} ({namespace})"),
        }
    }
}

impl Target {
    /// Fails early where the tool or the cluster is missing, before anything is built.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Kind(name) => {
                let clusters = said("kind", &["get", "clusters"], "https://kind.sigs.k8s.io tells how to install it")?;
                ensure!(
                    clusters.lines().any(|line| line == name),
                    "there is no kind cluster {name:?} (there are: {}); `kind create cluster --name {name}` makes one",
                    clusters.split_whitespace().collect::<Vec<_>>().join(", ")
                );
            }
            Self::Docker => {
                said("docker", &["version", "--format", "{{.Server.Version}}"], "is a Docker engine running?")?;
            }
            Self::Containerd { socket, .. } => {
                ensure!(
                    Path::new(socket).exists(),
                    "there is no socket {socket}; --load containerd:SOCKET names containerd's, which its configuration \
                     has under [grpc] address"
                );
                said("ctr", &["--address", socket, "version"], "containerd's packages contain it")?;
            }
        }
        Ok(())
    }

    /// Loads one archive.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the archive's path is not UTF-8")?;
        match self {
            Self::Kind(name) => said("kind", &["load", "image-archive", archive, "--name", name], ""),
            Self::Docker => said("docker", &["load", "--input", archive], ""),
            Self::Containerd { socket, namespace } => {
                said("ctr", &["--address", socket, "--namespace", namespace, "images", "import", archive], "")
            }
        }
        .map(drop)
    }
}

/// What a program prints, or an error with what it complained about and what to do.
fn said(program: &str, arguments: &[&str], advice: &str) -> Result<String> {
    tool::said(Command::new(program).args(arguments), "").or_else(|error| match error.downcast_ref::<io::Error>() {
        Some(cause) if cause.kind() == io::ErrorKind::NotFound => bail!("{program} is not installed; {advice}"),
        _ if advice.is_empty() => Err(error),
        _ => bail!("{error:#}; {advice}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let containerd =
            |socket: &str, namespace: &str| Target::Containerd { socket: socket.into(), namespace: namespace.into() };
        for (text, target) in [
            ("kind", Target::Kind("kind".into())),
            ("kind:dev", Target::Kind("dev".into())),
            ("docker", Target::Docker),
            ("containerd", containerd(CONTAINERD, NAMESPACE)),
            ("containerd:/run/c.sock", containerd("/run/c.sock", NAMESPACE)),
            ("containerd:/run/c.sock@moby", containerd("/run/c.sock", "moby")),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), target);
        }
        for text in ["", "podman", "docker:x", "kind:", "containerd:"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_told() {
        let target: Target = "containerd:/nowhere/c.sock".parse().unwrap();
        let error = target.check().unwrap_err().to_string();
        assert!(error.contains("/nowhere/c.sock") && error.contains("--load"), "{error}");
    }
}
