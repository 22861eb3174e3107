use std::fs;

use super::*;

struct Ground {
    directory: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("secret"), [7; 32]).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Reads with a file of this content, these flags and these variables.
    fn read(&self, file: &str, flags: &[&str], environment: &[(&str, &str)]) -> Result<Asked, SettingsError> {
        let path = self.path("config.toml");
        fs::write(&path, file).unwrap();
        let mut arguments: Vec<String> = ["opensandbox-server"].map(str::to_owned).to_vec();
        arguments.extend(flags.iter().map(|f| (*f).to_owned()));
        arguments.extend(["--config".to_owned(), path, "--token-secret-file".to_owned(), self.path("secret")]);
        read(arguments.into_iter().map(OsString::from), |name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    fn program(&self, file: &str, flags: &[&str], environment: &[(&str, &str)]) -> Program {
        match self.read(file, flags, environment).unwrap() {
            Asked::Serve(program) => *program,
            Asked::Explain(text) => panic!("{text}"),
        }
    }

    fn refusal(&self, file: &str, flags: &[&str]) -> String {
        self.read(file, flags, &[]).err().unwrap().to_string()
    }
}

#[test]
fn the_table_is_sound() {
    let mut keys = std::collections::HashSet::new();
    for setting in SETTINGS {
        assert!(keys.insert(setting.key), "{}", setting.key);
        if let Some(default) = setting.default {
            setting.kind.parse(default).unwrap();
        }
    }
    command().debug_assert();
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let ground = Ground::new();
    let file = "[server]\nport = 1\nhost = '10.0.0.1'\n[kubernetes]\nnamespace = 'from-file'\npool_acquisition_timeout_seconds = 20\n";
    let environment = [("OPENSANDBOX_SERVER_PORT", "2"), ("OPENSANDBOX_SERVER_NAMESPACE", "from-env")];
    let program = ground.program(file, &["--port", "3"], &environment);
    assert_eq!((program.port, program.host.as_str()), (3, "10.0.0.1"));
    assert_eq!(program.config.namespace, "from-env");
    assert_eq!(program.config.limits.acquisition_timeout.as_secs(), 20);
    assert_eq!(program.config.limits.create_timeout.as_secs(), 60);
    assert!(program.made_key.is_some());
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_no_settings() {
    let ground = Ground::new();
    let program = ground.program("", &[], &[("OPENSANDBOX_SERVER_PORT", "tcp://10.96.0.7:80")]);
    assert_eq!(program.port, 8080);
}

#[test]
fn a_bad_value_is_named_with_its_place_and_what_would_be_right() {
    let ground = Ground::new();
    for (file, flags, parts) in [
        (
            "[server]\nport = 'x'\n",
            &[][..],
            &["server.port from ", "config.toml", "a whole number from 0 to 65535"][..],
        ),
        ("", &["--port", "70000"], &["server.port from --port: is 70000"]),
        ("[server]\nhots = 'x'\n", &[], &["server.hots in ", "did you mean server.host?"]),
        ("[sever]\nport = 1\n", &[], &["sever in ", "did you mean server?"]),
        ("server = 1\n", &[], &["server in ", "write [server]"]),
        ("[server\n", &[], &["is no TOML"]),
        ("", &["--endpoints", "direkt"], &["auto, direct, proxy"]),
        ("", &["--namespace", "Team A"], &["kubernetes.namespace from --namespace"]),
        ("", &["--public-host", "http://x"], &["without a scheme"]),
        ("[runtime]\ntype = 'docker'\n", &[], &["runtime.type", "on Kubernetes"]),
        ("[tenants]\nprovider = 'file'\nfile = '/nowhere'\n", &[], &["tenants.file from", "/nowhere can't be read"]),
        ("[tenants]\nprovider = 'http'\n", &[], &["tenants.endpoint", "is missing"]),
        ("[tenants]\nprovider = 'http'\nendpoint = 'ftp://x'\n", &[], &["tenants.endpoint", "http or https"]),
        (
            "[tenants]\nprovider = 'http'\nendpoint = 'http://x'\n",
            &["--api-key", "k"],
            &["server.api_key from --api-key", "beside tenants"],
        ),
        ("", &["--tls-cert-file", "/x"], &["without a key"]),
        ("", &["--api-keys-file", "/nowhere"], &["server.api_keys_file from --api-keys-file", "/nowhere"]),
        ("", &["--insecure", "yes", "--api-key", "k"], &["a key is given as well"]),
        ("[secure_runtime]\ntype = 'kata'\n", &[], &["k8s_runtime_class"]),
        ("", &["--admin-bind-address", "8081"], &["IP:PORT"]),
    ] {
        let refusal = ground.refusal(file, flags);
        for part in parts {
            assert!(refusal.contains(part), "{part:?} is not in {refusal:?}");
        }
    }
}

#[test]
fn a_gateway_comes_with_its_keys() {
    let ground = Ground::new();
    let file = "[ingress]\nmode = 'gateway'\n[ingress.gateway]\naddress = 'g:80'\n[ingress.gateway.route]\nmode = 'uri'\n\
        [ingress.secure_access]\nactive_key = 'a'\nkeys = [{key_id = 'a', key = 'c2VjcmV0LWtleS1ieXRlcw=='}]\n";
    let gateway = ground.program(file, &[], &[]).config.gateway.unwrap();
    assert_eq!(gateway.endpoint("sbx-1", 44772, Some(2_000_000_000)).0, "g:80/sbx-1/44772/x2qxvk/72a8b2d7a");
    for (file, part) in [
        ("[ingress]\nmode = 'gateway'\n", "ingress.gateway.address"),
        ("[ingress]\nmode = 'gateway'\n[ingress.gateway]\naddress = '*.g'\n", "only for it"),
        ("[ingress.secure_access]\nkeys = 1\n", "a list of tables"),
    ] {
        let refusal = ground.refusal(file, &[]);
        assert!(refusal.contains(part), "{refusal}");
    }
    let environment = [("OPENSANDBOX_SECURE_ACCESS_KEYS", "b=hunter2"), ("OPENSANDBOX_SECURE_ACCESS_ACTIVE_KEY", "b")];
    let file = "[ingress]\nmode = 'gateway'\n[ingress.gateway]\naddress = 'g:80'\n";
    let refusal = ground.read(file, &[], &environment).err().unwrap().to_string();
    assert!(refusal.contains("no base64") && !refusal.contains("hunter2"), "{refusal}");
}

#[test]
fn every_bad_value_is_named_at_once() {
    let refusal = Ground::new().refusal("[server]\nport = -1\nhots = 1\n", &["--log-format", "xml"]);
    assert_eq!(refusal.lines().count(), 3, "{refusal}");
}

#[test]
fn sections_of_another_runtime_are_accepted_and_named() {
    let file = "[docker]\nnetwork_mode = 'host'\n[server]\nthread_pool_size = 200\n[kubernetes]\nsandbox_create_poll_interval_seconds = 1.0\n";
    let program = Ground::new().program(file, &[], &[]);
    assert_eq!(program.notices.len(), 3, "{:?}", program.notices);
    assert!(program.notices.iter().any(|n| n.starts_with("[docker]")), "{:?}", program.notices);
}

#[test]
fn the_explanation_has_sources_and_no_secret() {
    let ground = Ground::new();
    let flags = ["config", "--explain", "--api-key", "hunter2"];
    let Asked::Explain(text) = ground.read("[server]\nport = 9\n", &flags, &[]).unwrap() else {
        panic!("an explanation")
    };
    assert!(!text.contains("hunter2"), "{text}");
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("server.port").contains("9") && line("server.port").ends_with("config.toml"), "{text}");
    assert!(line("server.api_key ").contains("********") && line("server.api_key ").ends_with("--api-key"), "{text}");
    assert!(line("kubernetes.namespace").ends_with("default"), "{text}");
    assert!(!text.contains("thread_pool_size"), "{text}");
}

#[test]
fn secrets_are_read_and_never_repeated() {
    let ground = Ground::new();
    fs::write(ground.path("keys"), "# keys\nalpha\nbeta scope=read\n").unwrap();
    let program = ground.program("", &["--api-keys-file", &ground.path("keys")], &[]);
    assert!(program.made_key.is_none());
    assert_eq!(format!("{:?}", program.config.api_keys), "ApiKeys(2)");
    fs::write(ground.path("secret"), "hunter2").unwrap();
    let refusal = ground.refusal("", &[]);
    assert!(refusal.contains("holds 7 bytes") && !refusal.contains("hunter2"), "{refusal}");
}
