//! `osb port-forward`: a port of a sandbox on this machine.

use std::{net::IpAddr, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::net::{TcpListener, TcpStream};

use crate::{cli::Globals, connection, output::notice};

/// Options of `osb port-forward`.
#[derive(Debug, Args)]
pub struct Options {
    /// Id of the sandbox
    id: String,
    /// Port of the sandbox, or the port here and that of the sandbox, e.g. 8080:80; 0 here takes any
    #[arg(required = true, value_name = "[LOCAL:]REMOTE", value_parser = ports)]
    ports: Vec<(u16, u16)>,
    /// Address to listen at
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
    let (local, remote) = match text.split_once(':') {
        Some((local, remote)) => (number(local)?, number(remote)?),
        None => (number(text)?, number(text)?),
    };
    if remote == 0 { Err("a sandbox has no port 0".to_owned()) } else { Ok((local, remote)) }
}

/// Runs it until it is interrupted.
pub async fn run(globals: &Globals, options: &Options) -> Result<ExitCode> {
    let (client, _) = connection::connect(globals)?;
    let mut served = tokio::task::JoinSet::new();
    for (local, remote) in &options.ports {
        let endpoint = client.endpoint(&options.id, *remote).await?;
        let address = endpoint.endpoint.trim_end_matches('/').to_owned();
        if address.contains('/') || endpoint.headers.as_ref().is_some_and(|headers| !headers.is_empty()) {
            bail!(
                "this platform gives ports through its HTTP proxy only; send requests to http(s)://{address} with the \
                 headers that `osb sandbox endpoint {} -p {remote}` prints",
                options.id
            );
        }
        let listener = TcpListener::bind((options.address, *local)).await;
        let listener =
            listener.with_context(|| format!("port {local} of {} cannot be listened to", options.address))?;
        notice(&format!("{} goes to port {remote} of {}", listener.local_addr()?, options.id))?;
        served.spawn(serve(listener, address));
    }
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(listener: TcpListener, address: String) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let address = address.clone();
        tokio::spawn(async move {
            let copied = async {
                let mut sandbox = TcpStream::connect(&address).await?;
                tokio::io::copy_bidirectional(&mut client, &mut sandbox).await
            };
            if let Err(error) = copied.await {
                tracing::info!(%error, %address, "a connection ended");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_or_two() {
        assert_eq!((ports("80"), ports("8080:80"), ports("0:80")), (Ok((80, 80)), Ok((8080, 80)), Ok((0, 80))));
        assert!(ports("80:0").is_err() && ports("x").is_err() && ports("70000").is_err());
    }
}
