//! The files that every container of a pod finds in `/etc`: hosts, hostname, resolv.conf.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::spec::{Bind, hostname};

/// Writes the files of a pod below `dir`; returns where they appear.
pub fn write(dir: &Path, pod: &Pod, ip: &str, host_resolv: &str) -> io::Result<Vec<Bind>> {
    std::fs::create_dir_all(dir)?;
    let name = hostname(pod);
    let mut binds = Vec::new();
    for (file, text) in
        [("hosts", hosts(pod, ip, &name)), ("hostname", format!("{name}\n")), ("resolv.conf", resolv(pod, host_resolv))]
    {
        let source = dir.join(file);
        std::fs::write(&source, text)?;
        binds.push(Bind { source, target: PathBuf::from("/etc").join(file), read_only: false });
    }
    Ok(binds)
}

fn hosts(pod: &Pod, ip: &str, name: &str) -> String {
    let mut text = String::from(
        "# Made by the node for this pod.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let spec = pod.spec.clone().unwrap_or_default();
    let _ = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            writeln!(text, "{ip}\t{name}.{subdomain}.{namespace}.svc.cluster.local\t{name}")
        }
        None => writeln!(text, "{ip}\t{name}"),
    };
    let aliases = spec.host_aliases.unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.unwrap_or_default().join("\t"));
    }
    text
}

/// There is no cluster DNS: `ClusterFirst` is the machine's own servers, without those that only the machine reaches.
fn resolv(pod: &Pod, host: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    if spec.dns_policy.as_deref() != Some("None") {
        for line in host.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().map(str::to_owned)),
                Some("search") => searches = words.map(str::to_owned).collect(),
                Some("options") => options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        servers.retain(|server| !server.starts_with("127.") && server != "::1");
    }
    if let Some(config) = spec.dns_config {
        servers.extend(config.nameservers.unwrap_or_default());
        searches.extend(config.searches.unwrap_or_default());
        options.extend(config.options.unwrap_or_default().into_iter().filter_map(|option| {
            let name = option.name?;
            Some(match option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            })
        }));
    }
    let mut text = String::new();
    let mut list = |key: &str, values: &[String]| {
        if !values.is_empty() {
            let _ = writeln!(text, "{key} {}", values.join(" "));
        }
    };
    list("search", &searches);
    for server in servers {
        list("nameserver", &[server]);
    }
    list("options", &options);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_the_pod_asks_for() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}],
                "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "5"}]}}
        }))
        .unwrap();
        let hosts = hosts(&pod, "10.88.0.2", "web");
        assert!(hosts.contains("10.88.0.2\tweb\n") && hosts.ends_with("1.2.3.4\ta\tb\n"), "{hosts}");
        assert_eq!(
            resolv(&pod, "nameserver 127.0.0.53\nnameserver 8.8.8.8\nsearch corp.example\n"),
            "search corp.example\nnameserver 8.8.8.8\nnameserver 9.9.9.9\noptions ndots:5\n"
        );
    }
}
