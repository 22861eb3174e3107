//! Packet filter rules: pods reach the outside by masquerade, the outside does not reach pods.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

/// The tool that rules were made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// `iptables`, either flavour.
    Iptables,
    /// `nft`.
    Nft,
}

/// Longest time that one call of a tool may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Installs the rules with whichever tool the machine has; `None` when it has neither.
///
/// `iptables` comes first: an engine that was there before may drop forwarded packets in its tables, and only a rule in
/// the same place can let them through.
pub fn install(bridge: &str, net: Ipv4Net) -> io::Result<Option<Tool>> {
    let mut failure = None;
    for (tool, attempt) in
        [(Tool::Iptables, install_iptables as fn(&str, Ipv4Net) -> io::Result<()>), (Tool::Nft, install_nft)]
    {
        match attempt(bridge, net) {
            Ok(()) => return Ok(Some(tool)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}

/// Removes every rule of this bridge; rules that are not there are no error.
pub fn remove(tool: Tool, bridge: &str) {
    match tool {
        Tool::Iptables => {
            for (table, hook, chain) in chains(bridge) {
                let _ = run("iptables", &["-w", "5", "-t", table, "-D", hook, "-j", &chain], "");
                let _ = run("iptables", &["-w", "5", "-t", table, "-F", &chain], "");
                let _ = run("iptables", &["-w", "5", "-t", table, "-X", &chain], "");
            }
        }
        Tool::Nft => {
            let _ = run("nft", &["delete", "table", "ip", &nft_table(bridge)], "");
        }
    }
}

fn chains(bridge: &str) -> [(&'static str, &'static str, String); 2] {
    let name = bridge.to_ascii_uppercase();
    [("nat", "POSTROUTING", format!("{name}-EGRESS")), ("filter", "FORWARD", format!("{name}-FORWARD"))]
}

/// The rules in `iptables-restore`'s language; naming a chain there empties it.
fn iptables_script(bridge: &str, net: Ipv4Net) -> String {
    let [(_, _, egress), (_, _, forward)] = chains(bridge);
    format!(
        "*nat\n:{egress} - [0:0]\n-A {egress} -s {net} ! -o {bridge} -j MASQUERADE\nCOMMIT\n\
         *filter\n:{forward} - [0:0]\n-A {forward} -i {bridge} -j ACCEPT\n\
         -A {forward} -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A {forward} -o {bridge} -j DROP\nCOMMIT\n"
    )
}

fn install_iptables(bridge: &str, net: Ipv4Net) -> io::Result<()> {
    run("iptables-restore", &["-w", "5", "--noflush"], &iptables_script(bridge, net))?;
    for (table, hook, chain) in chains(bridge) {
        if run("iptables", &["-w", "5", "-t", table, "-C", hook, "-j", &chain], "").is_err() {
            run("iptables", &["-w", "5", "-t", table, "-I", hook, "-j", &chain], "")?;
        }
    }
    Ok(())
}

fn nft_table(bridge: &str) -> String {
    format!("opensandbox_{bridge}")
}

/// The rules in `nft`'s language. Naming the table first makes deleting it safe whether it was there or not.
fn nft_script(bridge: &str, net: Ipv4Net) -> String {
    let table = nft_table(bridge);
    format!(
        "table ip {table} {{ }}\ndelete table ip {table}\ntable ip {table} {{\n\
         chain egress {{\n\
         type nat hook postrouting priority 100;\n\
         ip saddr {net} oifname != \"{bridge}\" masquerade\n\
         }}\n\
         chain forward {{\n\
         type filter hook forward priority 0;\n\
         iifname \"{bridge}\" accept\n\
         oifname \"{bridge}\" ct state established,related accept\n\
         oifname \"{bridge}\" drop\n\
         }}\n}}\n"
    )
}

fn install_nft(bridge: &str, net: Ipv4Net) -> io::Result<()> {
    run("nft", &["-f", "-"], &nft_script(bridge, net))
}

fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        // A caller without a usable PATH still finds system tools.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it has read everything says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (done, finished) = std::sync::mpsc::channel();
    let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            if finished.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output();
        drop::<std::sync::mpsc::Sender<()>>(done);
        let output = output?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program}: {}", text.trim().lines().next().unwrap_or("failed"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_only_our_own_chains() {
        let net: Ipv4Net = "10.88.0.0/16".parse().unwrap();
        let script = iptables_script("osb0", net);
        assert!(script.contains("-A OSB0-EGRESS -s 10.88.0.0/16 ! -o osb0 -j MASQUERADE"));
        assert!(script.lines().filter(|line| line.starts_with("-A")).all(|line| line.starts_with("-A OSB0-")));
        let script = nft_script("osb0", net);
        assert!(script.starts_with("table ip opensandbox_osb0 { }\ndelete table ip opensandbox_osb0\n"));
        // The tool wants each statement and each brace on a line of its own.
        assert!(script.lines().skip(2).all(|line| line.matches(['{', '}']).count() <= 1), "{script}");
    }
}
