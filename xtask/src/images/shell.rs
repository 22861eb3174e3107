//! The static shell that the execd image carries: busybox, from the distribution or as named.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::Arch;

use super::elf;

/// Where distributions install a static busybox.
const PLACES: [&str; 4] = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/bin/busybox.static"];

const ADVICE: &str = "install one (Debian, Ubuntu: apt-get install busybox-static), name one with --shell PATH, \
                      or put the image on one that has a shell with --base IMAGE";

/// Reads a static busybox for the image's processor: the named one, an installed one, or Debian's package
/// fetched into `cache`.
pub fn find(named: Option<&Path>, architecture: &Arch, cache: &Path) -> Result<Vec<u8>> {
    if let Some(path) = named {
        return read(path, architecture).with_context(|| format!("{} cannot be the shell", path.display()));
    }
    let mut refused = Vec::new();
    for path in PLACES.iter().map(Path::new).filter(|path| path.exists()) {
        match read(path, architecture) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => refused.push(format!("{}: {error:#}", path.display())),
        }
    }
    match fetch(architecture, cache).and_then(|path| read(&path, architecture)) {
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            refused.push(format!("apt-get download: {error:#}"));
            bail!("no static busybox for {architecture} ({}); {ADVICE}", refused.join("; "))
        }
    }
}

fn read(path: &Path, architecture: &Arch) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).context("cannot read it")?;
    elf::check(&bytes, architecture)?;
    Ok(bytes)
}

/// Debian's package, unpacked below `cache`. Needs no root and installs nothing.
fn fetch(architecture: &Arch, cache: &Path) -> Result<PathBuf> {
    let directory = cache.join(format!("busybox-static-{architecture}"));
    let places = ["bin/busybox", "usr/bin/busybox"].map(|path| directory.join("root").join(path));
    if let Some(path) = places.iter().find(|path| path.exists()) {
        return Ok(path.clone());
    }
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let package = match architecture {
        Arch::PowerPC64le => "busybox-static:ppc64el".to_owned(),
        other => format!("busybox-static:{other}"),
    };
    let mut download = Command::new("apt-get");
    quiet(download.args(["--quiet", "download", &package]).current_dir(&directory))?;
    let archive = std::fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get wrote no package")?;
    quiet(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(directory.join("root")))?;
    places.into_iter().find(|path| path.exists()).context("the package has no busybox where it used to be")
}

fn quiet(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} ended with {}: {}", output.status, said.trim());
    Ok(())
}
