//! Gathers what tells of a failure: `evidence KUBECONFIG DIRECTORY NAMESPACE...`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kubeconfig, directory, namespaces @ ..] = arguments.as_slice() else {
        bail!("usage: evidence KUBECONFIG DIRECTORY NAMESPACE...")
    };
    let kubectl = || {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", kubeconfig);
        command
    };
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    e2e::evidence::gather(kubectl, &namespaces, Path::new(directory))
}
