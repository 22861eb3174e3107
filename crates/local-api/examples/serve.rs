//! Serves the API alone, for trying it with kubectl: `serve DIRECTORY [ADDRESS]`, kubeconfig in the directory.

use std::path::PathBuf;

use local_api::{Api, Identity};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: serve DIRECTORY [ADDRESS]")?);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".into());
    let identity = Identity::load_or_generate(&directory)?;
    let api = Api::open(&directory)?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(&kubeconfig, identity.kubeconfig(listener.local_addr()?, "default"))?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    api.serve(listener, &identity, std::future::pending()).await?;
    Ok(())
}
