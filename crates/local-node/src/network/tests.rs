use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use super::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn the_network_is_the_first_that_collides_with_nothing() {
    let taken = [net("192.0.2.0/24"), net("10.88.3.0/24"), net("10.89.0.0/16")];
    assert_eq!(choose_cidr(None, None, &taken).unwrap(), net("10.90.0.0/16"));
    assert_eq!(choose_cidr(None, Some(net("10.200.0.0/16")), &taken).unwrap(), net("10.200.0.0/16"));
    assert_eq!(choose_cidr(None, Some(net("10.89.0.0/16")), &taken).unwrap(), net("10.90.0.0/16"));
    assert_eq!(choose_cidr(Some(net("172.20.1.1/20")), None, &taken).unwrap(), net("172.20.0.0/20"));
    let refused = choose_cidr(Some(net("10.88.0.0/16")), None, &taken).unwrap_err().to_string();
    assert!(refused.contains("10.88.3.0/24"), "{refused}");
    assert!(matches!(choose_cidr(Some(net("10.9.0.0/31")), None, &taken), Err(NetworkError::Size(_))));
    assert!(matches!(choose_cidr(None, None, &[net("10.0.0.0/8")]), Err(NetworkError::NoneFree)));
}

#[test]
fn a_bridge_of_somebody_else_is_left_alone() {
    let link = |name: &str, alias: Option<&str>| Link {
        index: 7,
        name: name.into(),
        alias: alias.map(str::to_owned),
        master: None,
        mtu: 1500,
    };
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join(STATE_FILE), "{}").unwrap();
    let living = format!("opensandbox:{}", here.path().display());
    let links = [link("osb0", Some(&living)), link("osb1", None), link("osb2", Some("opensandbox:/gone/away"))];
    let auto = NetworkConfig::new("/x");
    assert_eq!(choose_bridge(&auto, None, &links, "opensandbox:/x").unwrap(), "osb2");
    assert_eq!(choose_bridge(&auto, None, &links, &living).unwrap(), "osb0");
    let named = NetworkConfig { bridge: Some("osb1".into()), ..auto };
    assert!(matches!(choose_bridge(&named, None, &links, "opensandbox:/x"), Err(NetworkError::BridgeTaken { .. })));
}

#[test]
fn names_fit_and_differ() {
    assert_eq!(interface_name("a").len(), 15);
    assert_ne!(interface_name("a"), interface_name("b"));
    assert_eq!(mac_of(Ipv4Addr::new(10, 88, 1, 2)), [0x0a, 0x58, 10, 88, 1, 2]);
}

/// A network namespace that lives as long as the descriptor.
fn namespace() -> OwnedFd {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

/// Runs on a thread inside the namespace.
fn inside<T: Send + 'static>(netns: &OwnedFd, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let netns = netns.try_clone().unwrap();
    std::thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

fn greet(listener: &TcpListener) {
    use std::io::Write;
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"hello").unwrap();
}

fn greeting(ip: Ipv4Addr, port: u16) -> String {
    let mut stream = TcpStream::connect_timeout(&(ip, port).into(), Duration::from_secs(5)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn pods_reach_the_host_and_each_other() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: making network interfaces needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = NetworkConfig::new(dir.path().join("network"));
    let network = Network::setup(config.clone()).await.unwrap();
    let (one, two) = (namespace(), namespace());
    let first = network.attach(one.try_clone().unwrap(), "pod-1").await.unwrap();
    let began = std::time::Instant::now();
    let second = network.attach(two.try_clone().unwrap(), "pod-2").await.unwrap();
    eprintln!("attach took {:?} on {} {}", began.elapsed(), network.bridge(), network.cidr());
    assert_ne!(first.ip, second.ip);
    assert_eq!(network.address_of("pod-1"), Some(first.clone()));

    let ip = first.ip;
    let (ready, port) = std::sync::mpsc::channel();
    let server = inside(&one, move || {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        ready.send(listener.local_addr().unwrap().port()).unwrap();
        greet(&listener);
        greet(&listener);
        greet(&listener);
    });
    let port = port.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(tokio::task::spawn_blocking(move || greeting(ip, port)).await.unwrap(), "hello", "from the host");
    assert_eq!(inside(&two, move || greeting(ip, port)).join().unwrap(), "hello", "from another pod");
    assert_eq!(inside(&one, move || greeting(ip, port)).join().unwrap(), "hello", "from the pod itself");
    server.join().unwrap();

    // A pod reaches this machine at its gateway.
    let listener = TcpListener::bind((network.gateway(), 0)).unwrap();
    let (gateway, port) = (network.gateway(), listener.local_addr().unwrap().port());
    let client = inside(&two, move || greeting(gateway, port));
    greet(&listener);
    assert_eq!(client.join().unwrap(), "hello");

    // A second start finds everything, and what nobody owns any more goes.
    let again = Network::setup(config).await.unwrap();
    assert_eq!(again.bridge(), network.bridge());
    assert_eq!(again.address_of("pod-2"), Some(second.clone()));
    let gone = again.release_except(&BTreeSet::from(["pod-2".to_owned()])).await.unwrap();
    assert_eq!(gone, ["pod-1"]);
    let interfaces = || -> BTreeSet<String> {
        Netlink::open().unwrap().links().unwrap().into_iter().map(|link| link.name).collect()
    };
    assert!(!interfaces().contains(&first.interface));
    assert!(interfaces().contains(&second.interface));
    again.detach("pod-1").await.unwrap();

    let bridge = network.bridge().to_owned();
    network.purge().await.unwrap();
    assert!(!interfaces().contains(&second.interface));
    assert!(!interfaces().contains(&bridge));
    assert!(!dir.path().join("network").exists());
}
