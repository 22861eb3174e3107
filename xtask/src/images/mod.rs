//! `cargo xtask images`: OCI images from static binaries, without a container engine.

mod archive;
mod base;
mod build;
mod elf;
mod image;
mod layer;
mod load;
mod pack;
mod recipe;
#[cfg(feature = "registry")]
mod registry;
mod report;
mod sbom;
mod shell;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Metadata;
use clap::Args;
use oci_spec::distribution::Reference;
use oci_spec::image::Arch;

use base::Base;
use build::Origin;
use build::Profile;
use image::Image;
use pack::{Ground, Shell};
use recipe::Recipe;
use report::Format;
use source::Source;

use crate::progress::Step;

pub use layer::digest;
pub use report::{Made, read_made};

/// Where images belong unless they are pushed elsewhere.
const PREFIX: &str = "docker.io/opensandbox";

/// What the making of images may be told.
#[derive(Args)]
pub struct Options {
    /// Directory of the archives [default: `images` in cargo's target directory].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Load the images: `kind:CLUSTER`, `docker` or `containerd[:SOCKET[@NAMESPACE]]`.
    #[arg(long, value_name = "TARGET")]
    load: Vec<load::Target>,
    /// One more name for an image, such as `opensandbox/execd:v1.0.5=execd`.
    #[arg(long, value_name = "REF=IMAGE", value_parser = alias)]
    tag: Vec<(Reference, String)>,
    /// How to build the binaries.
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// The Rust target to build for [default: this machine's].
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Pack the binaries of this directory instead of building any.
    #[arg(long, value_name = "DIR", conflicts_with = "profile")]
    binaries: Option<PathBuf>,
    /// A static busybox for the images that carry a shell [default: an installed one, else Debian's package].
    #[arg(long, value_name = "PATH", conflicts_with = "base")]
    shell: Option<PathBuf>,
    /// An image with a shell to put below the images that need one: an OCI archive, or a name in a registry.
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// Push the images below this prefix, such as `registry.example.com/team`.
    #[arg(long, value_name = "PREFIX")]
    push: Option<String>,
    /// Make each image twice and fail unless both have one digest.
    #[arg(long)]
    check: bool,
    /// How to print what was made.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Which images to make [default: all].
    names: Vec<String>,
}

fn alias(text: &str) -> Result<(Reference, String)> {
    let (reference, image) = text.split_once('=').context("expected REF=IMAGE")?;
    let reference: Reference = reference.parse().with_context(|| format!("{reference:?} is no image's name"))?;
    ensure!(reference.digest().is_none(), "an alias has a tag, not a digest");
    Ok((reference, image.to_owned()))
}

impl Options {
    fn needs_registry(&self) -> bool {
        self.push.is_some() || self.base.as_deref().is_some_and(|base| !is_file(base))
    }
}

/// Builds, packs, writes, loads, pushes and tells.
pub fn run(options: &Options) -> Result<()> {
    if options.needs_registry() && !cfg!(feature = "registry") {
        return again_with_registry();
    }
    report::print(&make(options)?, options.output)
}

/// The images' names and references, as a version has them.
pub fn names(version: &str) -> Result<Vec<(String, String)>> {
    let recipes = recipe::read_all(&crate::cargo::root().join("images"), &[])?;
    let tag = version.replace('+', "-");
    Ok(recipes.into_iter().map(|recipe| (recipe.name.clone(), format!("{PREFIX}/{}:{tag}", recipe.name))).collect())
}

/// The same command again, by a build of this program that can speak to registries.
fn again_with_registry() -> Result<()> {
    let mut command = crate::cargo::cargo(&["run", "--quiet", "--package", "xtask", "--features", "registry", "--"]);
    crate::cargo::run(command.args(std::env::args_os().skip(1)).current_dir(std::env::current_dir()?))
}

/// Everything but the report.
fn make(options: &Options) -> Result<Vec<Made>> {
    for target in &options.load {
        target.check().with_context(|| format!("cannot load into {target}"))?;
    }
    let all = recipe::read_all(&crate::cargo::root().join("images"), &options.names)?;
    let chosen = |name: &str| options.names.is_empty() || options.names.iter().any(|wanted| wanted == name);
    let recipes: Vec<_> = all.iter().filter(|recipe| chosen(&recipe.name)).collect();
    if let Some((reference, name)) = options.tag.iter().find(|(_, name)| recipes.iter().all(|r| r.name != *name)) {
        bail!("--tag {reference}={name}: there is no image {name:?} among those to make");
    }
    let target = options.target.clone().map_or_else(crate::cargo::host_target, Ok)?;
    let metadata = build::metadata(&target)?;
    let out = options.out.clone().unwrap_or_else(|| metadata.target_directory.join("images").into());
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let arch = elf::target_arch(&target)?;
    let origin = options.binaries.as_deref().map_or(Origin::Cargo(options.profile), Origin::Directory);
    if matches!(origin, Origin::Cargo(_)) {
        build::check_target(&target)?;
    }
    let shell = match recipes.iter().any(|recipe| recipe.shell.is_some()) {
        true => Some(find_shell(options, &arch, &out)?),
        false => None,
    };
    let ground = Ground {
        binaries: build::binaries(&all, &recipes, &origin, &target)?,
        shell,
        arch,
        source: Source::find(&metadata)?,
        level: options.profile.compression(),
    };
    let made = recipes
        .into_iter()
        .map(|recipe| make_one(options, &ground, recipe, &Facts { metadata: &metadata, target: &target, out: &out }))
        .collect::<Result<Vec<_>>>()?;
    report::write(&made, &out)?;
    Ok(made)
}

fn find_shell(options: &Options, arch: &Arch, out: &Path) -> Result<Shell> {
    let Some(base) = &options.base else {
        return shell::find(options.shell.as_deref(), arch, &out.join("cache")).map(Shell::Busybox);
    };
    let step = Step::new(&format!("reading {base}"));
    let found = match is_file(base) {
        true => Base::from_archive(Path::new(base), arch),
        false => pull(base, arch),
    }?;
    step.done();
    Ok(Shell::Base(Box::new(found)))
}

/// An image's name begins with neither a slash nor a dot.
fn is_file(base: &str) -> bool {
    base.starts_with(['/', '.']) || Path::new(base).exists()
}

#[cfg(feature = "registry")]
fn pull(name: &str, arch: &Arch) -> Result<Base> {
    registry::pull(name, arch)
}

#[cfg(not(feature = "registry"))]
fn pull(name: &str, _arch: &Arch) -> Result<Base> {
    bail!("cannot pull {name}: this program was built without `--features registry`")
}

/// What an image's making needs beside its contents.
struct Facts<'a> {
    metadata: &'a Metadata,
    target: &'a str,
    out: &'a Path,
}

fn make_one(options: &Options, ground: &Ground, recipe: &Recipe, facts: &Facts<'_>) -> Result<Made> {
    let Facts { metadata, target, out } = *facts;
    let step = Step::new(&format!("packing {}", recipe.name));
    let references = references(recipe, &ground.source, &options.tag)?;
    let image = ground.pack(recipe, references.clone())?;
    if options.check {
        let again = ground.pack(recipe, references)?.manifest.digest();
        let digest = image.manifest.digest();
        ensure!(again == digest, "{} is not reproducible: {digest} and then {again}", recipe.name);
    }
    let archive = out.join(format!("{}.tar", recipe.name));
    archive::write(&image, &archive)?;
    let facts = sbom::Facts { metadata, target, source: &ground.source, busybox: ground.busybox(recipe) };
    let parts = sbom::write(recipe, &image, &facts)?;
    let list = out.join(format!("{}.cdx.json", recipe.name));
    std::fs::write(&list, &parts).with_context(|| format!("cannot write {}", list.display()))?;
    step.done();
    for target in &options.load {
        let step = Step::new(&format!("loading {} into {target}", recipe.name));
        target.load(&archive).with_context(|| format!("cannot load {} into {target}", archive.display()))?;
        step.done();
    }
    let pushed = options.push.as_deref().map(|prefix| push(prefix, &ground.source, &image, &parts)).transpose()?;
    Ok(Made {
        name: image.name.clone(),
        references: image.references.iter().map(Reference::whole).collect(),
        digest: image.manifest.digest(),
        platform: format!("linux/{}", image.architecture),
        user: recipe.user.clone(),
        size: image.size(),
        unpacked: image.unpacked,
        archive,
        sbom: list,
        pushed,
    })
}

/// Pushes an image and tells its name there, with the digest.
#[cfg(feature = "registry")]
fn push(prefix: &str, source: &Source, image: &Image, parts: &[u8]) -> Result<String> {
    let name = format!("{}/{}:{}", prefix.trim_end_matches('/'), image.name, source.tag());
    let reference: Reference = name.parse().with_context(|| format!("{name:?} is no image's name"))?;
    let step = Step::new(&format!("pushing {reference}"));
    let digest = registry::Registry::new(&reference)?.push(image, &reference, parts)?;
    step.done();
    Ok(format!("{reference}@{digest}"))
}

#[cfg(not(feature = "registry"))]
fn push(prefix: &str, _source: &Source, image: &Image, _parts: &[u8]) -> Result<String> {
    bail!("cannot push {} to {prefix}: this program was built without `--features registry`", image.name)
}

/// An image's own name and its aliases.
fn references(recipe: &Recipe, source: &Source, tags: &[(Reference, String)]) -> Result<Vec<Reference>> {
    let own = format!("{PREFIX}/{}:{}", recipe.name, source.tag());
    let mut references = vec![own.parse().with_context(|| format!("{own:?} is no image's name"))?];
    for (reference, _) in tags.iter().filter(|(_, name)| *name == recipe.name) {
        if !references.contains(reference) {
            references.push(reference.clone());
        }
    }
    Ok(references)
}
