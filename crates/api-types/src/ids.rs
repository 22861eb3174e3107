//! Identifiers that must not be mistaken for one another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }
    };
}

string_id! {
    /// What the lifecycle API calls a sandbox: the name of its BatchSandbox.
    SandboxId
}
string_id! {
    /// UID of a BatchSandbox object: never given to a namesake.
    SandboxUid
}
string_id! {
    /// UID of a Pod object: never given to a namesake.
    PodUid
}
string_id! {
    /// One execution of a command in execd.
    ExecutionId
}
string_id! {
    /// A secret name under which execd runs one task: who knows it may ask for its state and stop it.
    TaskHandle
}
