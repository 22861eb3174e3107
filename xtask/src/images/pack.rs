//! From recipe and binaries to an image.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use oci_spec::distribution::Reference;
use oci_spec::image::Arch;
use pem::Pem;

use super::base::Base;
use super::image::Image;
use super::layer::{Entry, Kind, Layer, Tree};
use super::recipe::{File, Recipe};
use super::source::Source;

/// Where the images that need a shell have it from.
pub enum Shell {
    /// A static busybox of ours.
    Busybox(Vec<u8>),
    /// An image that has a shell, below ours.
    Base(Box<Base>),
}

/// What all images of a run are made from.
pub struct Ground {
    /// The binaries by name, as they go in.
    pub binaries: BTreeMap<String, Vec<u8>>,
    /// What is below the images that need a shell; none of them being made, nothing.
    pub shell: Option<Shell>,
    /// The processor.
    pub arch: Arch,
    /// Version, commit, time.
    pub source: Source,
    /// Level of compression.
    pub level: u32,
}

impl Ground {
    /// Two layers: what seldom changes below what changes with every build.
    pub fn pack(&self, recipe: &Recipe, references: Vec<Reference>) -> Result<Image> {
        let mut layers = Vec::new();
        let base = self.base(recipe)?;
        if !base.is_empty() {
            layers.push(Layer::new(&base, self.level, "shell and certificates")?);
        }
        let mut own = Tree::default();
        for file in &recipe.files {
            let kind = self.contents(recipe, file)?;
            own.add(&file.path, Entry { mode: file.mode, owner: file.owner, kind });
        }
        layers.push(Layer::new(&own, self.level, &format!("cargo xtask images {}", recipe.name))?);
        let below = match (&recipe.shell, &self.shell) {
            (Some(_), Some(Shell::Base(base))) => Some(&**base),
            _ => None,
        };
        Image::new(recipe, below, layers, self.arch.clone(), &self.source, references)
    }

    /// The busybox that goes into an image.
    pub fn busybox(&self, recipe: &Recipe) -> Option<&[u8]> {
        match (&recipe.shell, &self.shell) {
            (Some(_), Some(Shell::Busybox(bytes))) => Some(bytes),
            _ => None,
        }
    }

    fn base(&self, recipe: &Recipe) -> Result<Tree> {
        let mut base = Tree::default();
        if let (Some(shell), Some(bytes)) = (&recipe.shell, self.busybox(recipe)) {
            base.add(&shell.path, Entry { mode: 0o755, owner: 0, kind: Kind::File(bytes.to_vec()) });
            let (directory, _) = shell.path.rsplit_once('/').context("the shell's path is not absolute")?;
            for applet in &shell.applets {
                let kind = Kind::Link(shell.path.clone());
                base.add(&format!("{directory}/{applet}"), Entry { mode: 0o777, owner: 0, kind });
            }
        }
        if recipe.ca_certificates {
            let kind = Kind::File(ca_certificates().into_bytes());
            base.add("/etc/ssl/certs/ca-certificates.crt", Entry { mode: 0o644, owner: 0, kind });
        }
        Ok(base)
    }

    fn contents(&self, recipe: &Recipe, file: &File) -> Result<Kind> {
        Ok(if let Some(binary) = &file.binary {
            Kind::File(self.binaries.get(binary).with_context(|| format!("{binary} was not built"))?.clone())
        } else if let Some(source) = &file.source {
            let path = recipe.folder.join(source);
            Kind::File(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?)
        } else if let Some(link) = &file.link {
            Kind::Link(link.clone())
        } else {
            Kind::Directory
        })
    }
}

/// Mozilla's roots as PEM, in the order of the crate that carries them: those of this machine would make
/// another image on another machine.
fn ca_certificates() -> String {
    let roots: Vec<_> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|certificate| Pem::new("CERTIFICATE", certificate.as_ref()))
        .collect();
    pem::encode_many_config(&roots, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::recipe;

    fn ground(created: &str) -> Ground {
        let names = ["opensandbox-controller", "opensandbox-server", "execd", "osb", "task-executor"];
        Ground {
            binaries: names.map(|name| (name.to_owned(), name.as_bytes().to_vec())).into(),
            shell: Some(Shell::Busybox(b"busybox".to_vec())),
            arch: Arch::Amd64,
            source: Source {
                version: "1.2.3+build".to_owned(),
                license: "Apache-2.0".to_owned(),
                repository: String::new(),
                revision: None,
                created: created.to_owned(),
            },
            level: 6,
        }
    }

    #[test]
    fn two_runs_make_one_digest_and_another_time_changes_no_layer() {
        for recipe in recipe::read_all(&crate::cargo::root().join("images"), &[]).unwrap() {
            let pack = |created| ground(created).pack(&recipe, Vec::new()).unwrap();
            let (one, other, later) =
                (pack("2026-01-01T00:00:00Z"), pack("2026-01-01T00:00:00Z"), pack("2027-01-01T00:00:00Z"));
            assert_eq!(one.manifest.digest(), other.manifest.digest(), "{}", recipe.name);
            assert_ne!(one.manifest.digest(), later.manifest.digest(), "{}", recipe.name);
            let layers = |image: &Image| image.layers.iter().map(|layer| layer.digest()).collect::<Vec<_>>();
            assert_eq!(layers(&one), layers(&later), "{}", recipe.name);
        }
    }

    #[test]
    fn the_roots_are_a_bundle() {
        let roots = pem::parse_many(ca_certificates()).unwrap();
        assert!(roots.len() > 100, "{} roots", roots.len());
    }

    #[test]
    fn an_archive_can_be_the_base_of_an_image() {
        let recipes = recipe::read_all(&crate::cargo::root().join("images"), &[]).unwrap();
        let execd = recipes.iter().find(|recipe| recipe.name == "execd").unwrap();
        let mut ground = ground("2026-01-01T00:00:00Z");
        let below = ground.pack(execd, vec!["opensandbox/execd:1".parse().unwrap()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below.tar");
        crate::images::archive::write(&below, &path).unwrap();

        let base = Base::from_archive(&path, &Arch::Amd64).unwrap();
        assert_eq!(base.digest, below.manifest.digest());
        assert!(Base::from_archive(&path, &Arch::ARM64).is_err_and(|error| error.to_string().contains("linux/arm64")));
        ground.shell = Some(Shell::Base(Box::new(base)));
        let image = ground.pack(execd, Vec::new()).unwrap();
        assert_eq!(image.layers.len(), below.layers.len() + 1);
        let config: oci_spec::image::ImageConfiguration = serde_json::from_slice(&image.config.bytes).unwrap();
        assert_eq!(config.rootfs().diff_ids().len(), image.layers.len());
        assert_eq!(config.history().as_ref().unwrap().len(), image.layers.len());
    }
}
