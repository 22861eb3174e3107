//! The published SDKs against the real execd, unchanged; and the size of its binary.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails should say where")]

mod compatibility;
#[path = "../suite/venv.rs"]
mod venv;

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::execd::Execd;

/// The npm package, in the version that is tested.
const NPM: &str = "@alibaba-group/opensandbox@0.1.11";
/// Bytes of the stripped release binary that are aimed at; a tenth more is too much.
const SIZE: u64 = 8 << 20;

fn start() -> Execd {
    let binaries = e2e::platform::binaries().expect("the platform's binaries");
    Execd::start(&binaries.join("execd")).expect("execd starts")
}

/// Its address as it is, and through its own proxy, each with a directory that others may enter.
fn ways(execd: &Execd) -> [(String, PathBuf); 2] {
    let open = |path: &Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    };
    open(execd.dir.path());
    let (address, port) = (execd.address, execd.address.port());
    let both = [("direct", address.to_string()), ("proxied", format!("{address}/proxy/{port}"))];
    both.map(|(name, address)| {
        let dir = execd.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        open(&dir);
        (address, dir)
    })
}

fn passes(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    print!("{text}");
    text
}

#[test]
fn the_python_sdk_unchanged() {
    let python = match venv::python() {
        Ok(python) => python,
        Err(error) => {
            println!("skipped: the Python SDK cannot be had: {error:#}");
            return;
        }
    };
    let execd = start();
    let [direct, proxied] = ways(&execd).map(|(address, dir)| {
        let mut command = Command::new(&python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/execd/python.py")).arg(address).arg(dir);
        passes(command)
    });
    assert_eq!(direct, proxied, "execd's own proxy changes nothing");
    compatibility::record("execd python", "Python `opensandbox` 1.1.1 against execd", &direct);
}

#[test]
fn the_npm_sdk_unchanged() {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm-opensandbox-0.1.11");
    std::fs::create_dir_all(&home).unwrap();
    if !home.join("node_modules").exists() {
        let installed = Command::new("npm").args(["install", "--silent", "--prefix"]).arg(&home).arg(NPM).status();
        if !installed.is_ok_and(|status| status.success()) {
            println!("skipped: npm or the package {NPM} cannot be had");
            return;
        }
    }
    // Beside its packages, where node looks for them.
    let script = home.join("javascript.mjs");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/execd/javascript.mjs"), &script).unwrap();
    let execd = start();
    let [direct, proxied] = ways(&execd).map(|(address, dir)| {
        let mut command = Command::new("node");
        command.arg(&script).arg(address).arg(dir);
        passes(command)
    });
    assert_eq!(direct, proxied, "execd's own proxy changes nothing");
    compatibility::record("execd npm", &format!("npm `{NPM}` against execd"), &direct);
}

#[test]
fn the_release_binary_is_small() {
    let release = e2e::platform::binaries().expect("the platform's binaries").with_file_name("release").join("execd");
    let Ok(meta) = std::fs::metadata(&release) else {
        println!("skipped: no release binary at {}", release.display());
        return;
    };
    assert!(meta.len() <= SIZE / 10 * 11, "{} bytes are more than 110 % of {SIZE}", meta.len());
}
