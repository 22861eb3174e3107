//! A small image made from the machine's own static busybox, so that the embedded node runs the same programs as a
//! cluster's busybox image.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

/// The machine's static busybox: `OPENSANDBOX_CONFORMANCE_BUSYBOX`, or where distributions put it.
pub fn busybox() -> Option<PathBuf> {
    let named = std::env::var_os("OPENSANDBOX_CONFORMANCE_BUSYBOX").map(PathBuf::from);
    let usual = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"].map(PathBuf::from);
    named.into_iter().chain(usual).find(|path| is_static(path))
}

/// Whether a program runs without an interpreter beside it.
fn is_static(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| {
        let interpreter = b"/ld-linux";
        bytes.starts_with(b"\x7fELF") && !bytes.windows(interpreter.len()).any(|window| window == interpreter)
    })
}

/// Writes the image as an archive of the `docker save` kind.
pub fn write(program: &Path, archive: &Path) -> anyhow::Result<()> {
    let layer = layer(program)?;
    let digest = |bytes: &[u8]| -> String { Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect() };
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    }))?;
    let name = format!("{}.json", digest(&config));
    let manifest = serde_json::to_vec(&serde_json::json!([
        {"Config": name, "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}
    ]))?;
    let mut tar = tar::Builder::new(std::fs::File::create(archive)?);
    for (path, bytes) in [("layer.tar", &layer), (name.as_str(), &config), ("manifest.json", &manifest)] {
        file(&mut tar, path, 0o644, bytes)?;
    }
    tar.finish()?;
    Ok(())
}

fn layer(program: &Path) -> anyhow::Result<Vec<u8>> {
    let list = Command::new(program).arg("--list").output().context("busybox --list")?;
    let applets = String::from_utf8(list.stdout)?;
    let mut tar = tar::Builder::new(Vec::new());
    for (dir, mode) in
        [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("home", 0o755), ("usr/bin", 0o755)]
    {
        let mut header = header(mode, 0);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, dir, std::io::empty())?;
    }
    file(&mut tar, "bin/busybox", 0o755, &std::fs::read(program)?)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox" && !applet.contains('/')) {
        let mut header = header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
    file(&mut tar, "etc/passwd", 0o644, users.as_bytes())?;
    file(&mut tar, "etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    Ok(tar.into_inner()?)
}

fn file<W: Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = header(mode, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
