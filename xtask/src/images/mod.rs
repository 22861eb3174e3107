//! `cargo xtask images`: OCI images from static binaries, without a container engine.

mod archive;
mod build;
mod elf;
mod image;
mod layer;
mod load;
mod pack;
mod recipe;
mod report;
mod shell;
mod source;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use oci_spec::distribution::Reference;

use build::Profile;
use pack::Ground;
use recipe::Recipe;
use report::{Format, Made};
use source::Source;

use crate::progress::Step;

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
    /// A static busybox for the images that carry a shell [default: an installed one, else Debian's package].
    #[arg(long, value_name = "PATH")]
    shell: Option<PathBuf>,
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

/// Builds, packs, writes, loads and tells.
pub fn run(options: &Options) -> Result<()> {
    let made = make(options)?;
    report::print(&made, options.output)
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
    let target = options.target.clone().map_or_else(build::host_target, Ok)?;
    let metadata = build::metadata(&target)?;
    let out = options.out.clone().unwrap_or_else(|| metadata.target_directory.join("images").into());
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let source = Source::find(&metadata)?;
    let arch = elf::target_arch(&target)?;

    let binaries = build::binaries(&all, &recipes, options.profile, &target)?;
    let shell = match recipes.iter().any(|recipe| recipe.shell.is_some()) {
        true => Some(shell::find(options.shell.as_deref(), &arch, &out.join("cache"))?),
        false => None,
    };
    let ground = Ground { binaries, shell, arch, source, level: options.profile.compression() };
    let mut made = Vec::new();
    for recipe in recipes {
        let step = Step::new(&format!("packing {}", recipe.name));
        let references = references(recipe, &ground.source, &options.tag)?;
        let image = ground.pack(recipe, references.clone())?;
        if options.check {
            let again = ground.pack(recipe, references)?;
            ensure!(
                again.manifest.digest() == image.manifest.digest(),
                "{} is not reproducible: {} and then {}",
                recipe.name,
                image.manifest.digest(),
                again.manifest.digest()
            );
        }
        let archive = out.join(format!("{}.tar", recipe.name));
        archive::write(&image, &archive)?;
        step.done();
        for target in &options.load {
            let step = Step::new(&format!("loading {} into {target}", recipe.name));
            target.load(&archive).with_context(|| format!("cannot load {} into {target}", archive.display()))?;
            step.done();
        }
        made.push(Made {
            name: image.name.clone(),
            references: image.references.iter().map(Reference::whole).collect(),
            digest: image.manifest.digest(),
            platform: format!("linux/{}", image.architecture),
            user: recipe.user.clone(),
            size: image.size(),
            unpacked: image.unpacked,
            archive,
        });
    }
    Ok(made)
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
