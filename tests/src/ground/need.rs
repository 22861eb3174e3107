//! What a case needs beyond a platform, and why a ground cannot give it.

use programs::has;

use crate::platform::missing;

/// Something that not every ground has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Python 3 with `venv`, for the published SDK.
    Python,
    /// A platform that is a process of this machine.
    OwnProcess,
    /// A platform that was installed by helm and may be upgraded and removed.
    Helm,
    /// Admission: Pod Security and the rules of a CRD.
    Admission,
    /// Volumes from claims.
    Volumes,
    /// An API server apart from the platform, that can be killed alone.
    ApiServer,
    /// Several nodes, that can be stopped alone.
    Nodes,
    /// The API server's audit log.
    Audit,
}

impl Need {
    /// Every need.
    pub const ALL: [Self; 8] = [
        Self::Python,
        Self::OwnProcess,
        Self::Helm,
        Self::Admission,
        Self::Volumes,
        Self::ApiServer,
        Self::Nodes,
        Self::Audit,
    ];

    /// Why the embedded ground cannot give it, if so.
    pub fn embedded(self) -> Option<&'static str> {
        match self {
            Self::Python | Self::OwnProcess => None,
            Self::Helm => Some("nothing is installed: `osb up` is one process, without Deployments and Services"),
            Self::Admission => Some("admission is not run: pods are refused by the node, not by their namespace"),
            Self::Volumes => Some("volumes from claims are not served"),
            Self::ApiServer => Some("the API server is the platform's own process and ends with it"),
            Self::Nodes => Some("there is one node, this machine"),
            Self::Audit => Some("requests are not authorised by role, and no audit log is written"),
        }
    }

    /// Why no cluster can give it, if so.
    pub fn cluster(self) -> Option<&'static str> {
        match self {
            Self::OwnProcess => Some("the platform is pods of the cluster, not a process of this machine"),
            _ => None,
        }
    }

    /// What this machine lacks for it, if anything.
    pub(super) fn machine(self) -> Option<String> {
        let program = match self {
            Self::Python => "python3",
            Self::Helm => "helm",
            _ => return None,
        };
        (!has(program)).then(|| format!("this machine lacks {program}"))
    }
}

/// What this machine lacks for every case of the embedded ground, if anything.
pub fn embedded_lacks() -> Option<&'static str> {
    missing().or_else(|| (!has("kubectl")).then_some("kubectl"))
}
