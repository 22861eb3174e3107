//! `images/NAME/image.toml`: what goes into an image and how it is run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// An image as its folder declares it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// The folder's name, which is the image's.
    #[serde(skip)]
    pub name: String,
    /// The folder, which holds the files that `source` names.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Label `org.opencontainers.image.title`.
    pub title: String,
    /// Label `org.opencontainers.image.description`.
    pub description: String,
    /// Label `org.opencontainers.image.licenses`, an SPDX expression; the workspace's licence if absent.
    pub licenses: Option<String>,
    /// The cargo package whose binaries go in.
    pub package: String,
    /// What a container runs; nothing for images that are only copied from.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// `UID:GID`, numeric, so that `runAsNonRoot` can be checked.
    pub user: String,
    /// The working directory.
    #[serde(default = "root")]
    pub workdir: String,
    /// TCP ports that are listened on.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Whether Mozilla's root certificates go in.
    #[serde(default)]
    pub ca_certificates: bool,
    /// The static shell, where the image needs one.
    pub shell: Option<Shell>,
    /// Files, links and directories.
    pub files: Vec<File>,
}

/// A static busybox and its links.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// Where the binary lies in the image.
    pub path: String,
    /// Links beside it, by name.
    pub applets: Vec<String>,
}

/// One path of an image: a binary of the package, a file of the folder, a link, or (none of these) a directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it lies, from the root.
    pub path: String,
    /// Permission bits; 0755 if absent.
    #[serde(default = "executable")]
    pub mode: u32,
    /// UID and GID.
    #[serde(default)]
    pub owner: u64,
    /// A binary of the package.
    pub binary: Option<String>,
    /// A file beside `image.toml`.
    pub source: Option<String>,
    /// What a symbolic link points to.
    pub link: Option<String>,
}

fn root() -> String {
    "/".to_owned()
}

fn executable() -> u32 {
    0o755
}

impl Recipe {
    /// The names of the binaries that go in.
    pub fn binaries(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| file.binary.as_deref())
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("image.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut recipe: Self = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        recipe.name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        recipe.folder = folder.to_owned();
        recipe.validate().with_context(|| format!("in {}", path.display()))?;
        Ok(recipe)
    }

    fn validate(&self) -> Result<()> {
        let numeric = |id: &str| id.parse::<u32>().is_ok();
        ensure!(
            self.user.split_once(':').is_some_and(|(user, group)| numeric(user) && numeric(group)),
            "user {:?} is not UID:GID in numbers",
            self.user
        );
        let shell = self.shell.iter().map(|shell| &shell.path);
        for path in self.files.iter().map(|file| &file.path).chain(shell).chain([&self.workdir]) {
            ensure!(
                path.starts_with('/') && !path.split('/').any(|part| part == ".."),
                "path {path:?} is not absolute and plain"
            );
        }
        for file in &self.files {
            let kinds = [&file.binary, &file.source, &file.link].into_iter().flatten().count();
            ensure!(kinds <= 1, "{} is more than one of binary, source and link", file.path);
        }
        Ok(())
    }
}

/// The images that the workspace declares, sorted by name; only those of `names` if there are any.
pub fn read_all(images: &Path, names: &[String]) -> Result<Vec<Recipe>> {
    let mut recipes = Vec::new();
    for entry in std::fs::read_dir(images).with_context(|| format!("cannot read {}", images.display()))? {
        let folder = entry?.path();
        if folder.join("image.toml").is_file() {
            recipes.push(Recipe::read(&folder)?);
        }
    }
    recipes.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(unknown) = names.iter().find(|name| recipes.iter().all(|recipe| recipe.name != **name)) {
        let known: Vec<_> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
        bail!("there is no image {unknown:?}; there are {}", known.join(", "));
    }
    Ok(recipes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_recipes_are_sound() {
        let recipes = read_all(&crate::cargo::root().join("images"), &[]).unwrap();
        let names: Vec<_> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
        assert_eq!(names, ["controller", "execd", "osb", "server", "task-executor"]);
        let packages: Vec<_> = recipes.iter().map(|recipe| recipe.package.as_str()).collect();
        assert_eq!(packages, crate::cargo::PLATFORM, "one release build serves the images and the demo");
        for recipe in recipes {
            for source in recipe.files.iter().filter_map(|file| file.source.as_ref()) {
                assert!(recipe.folder.join(source).is_file(), "{source} of {} is missing", recipe.name);
            }
        }
    }

    #[test]
    fn an_unknown_image_is_told_with_those_there_are() {
        let error = read_all(&crate::cargo::root().join("images"), &["exced".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("there are controller, execd"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, word) in [
            ("user = \"root\"", "numbers"),
            ("user = \"0:0\"\nworkdir = \"home\"", "absolute"),
            ("user = \"0:0\"\n[[files]]\npath = \"/a\"\nbinary = \"a\"\nlink = \"b\"", "more than one"),
        ] {
            let files = if line.contains("files") { "" } else { "files = []\n" };
            let text = format!("title = \"t\"\ndescription = \"d\"\npackage = \"p\"\n{files}{line}\n");
            let recipe: Recipe = toml::from_str(&text).unwrap();
            let error = recipe.validate().unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
