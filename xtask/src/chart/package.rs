//! The chart as one archive: a plain tar whose bytes depend on its contents alone.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use oci_spec::distribution::Reference;
use tar::{EntryType, Header};

use super::edit;
use crate::images::Made;

/// Values of the chart that name an image, and the image.
const IMAGES: [(&str, &str); 5] = [
    ("controller", "controller"),
    ("server", "server"),
    ("execd", "execd"),
    ("taskExecutor", "task-executor"),
    ("tests", "osb"),
];

/// Files of the chart's folder, by their path in it.
pub type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// Reads a chart's folder, without what its `.helmignore` leaves out.
pub fn read(folder: &Path) -> Result<Files> {
    let ignored = ignored(&std::fs::read_to_string(folder.join(".helmignore")).unwrap_or_default())?;
    let mut files = Files::new();
    let walk = walkdir::WalkDir::new(folder).into_iter().filter_entry(|entry| {
        !ignored.iter().any(|(pattern, only_folders)| {
            (!only_folders || entry.file_type().is_dir()) && pattern.is_match(entry.file_name())
        })
    });
    for entry in walk {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(folder)?.to_string_lossy().into_owned();
            let bytes = std::fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.insert(path, bytes);
        }
    }
    Ok(files)
}

/// The patterns of a `.helmignore`: names with wildcards, a slash behind those of folders.
fn ignored(text: &str) -> Result<Vec<(globset::GlobMatcher, bool)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let glob = globset::Glob::new(line.trim_end_matches('/')).context("in .helmignore")?;
            Ok((glob.compile_matcher(), line.ends_with('/')))
        })
        .collect()
}

/// Writes the version into `Chart.yaml`, with the images as Artifact Hub reads them.
pub fn stamp(files: &mut Files, version: &str, images: &[(String, String)]) -> Result<()> {
    edit_file(files, "Chart.yaml", |text| {
        let text = edit::set(text, &["version"], version)?;
        let mut text = edit::set(&text, &["appVersion"], version)?;
        anyhow::ensure!(!text.contains("\nannotations:"), "it has annotations already");
        text.push_str("annotations:\n  artifacthub.io/images: |\n");
        for (name, image) in images {
            text.push_str(&format!("    - name: {name}\n      image: {image}\n"));
        }
        Ok(text)
    })
}

/// Makes the pushed images the chart's defaults, by digest.
pub fn point_at(files: &mut Files, pushed: &[Made]) -> Result<()> {
    for (value, name) in IMAGES {
        let image = pushed.iter().find(|image| image.name == name);
        let pushed =
            image.and_then(|image| image.pushed.as_deref()).with_context(|| format!("{name} was not pushed"))?;
        let reference: Reference = pushed.parse().with_context(|| format!("{pushed:?} is no image's name"))?;
        let digest = reference.digest().with_context(|| format!("{pushed:?} has no digest"))?;
        // The second is what templates fall back to; both are made from one file.
        for file in ["values.yaml", "files/defaults.yaml"] {
            edit_file(files, file, |text| {
                let text = edit::set(text, &[value, "image", "registry"], reference.registry())?;
                let text = edit::set(&text, &[value, "image", "repository"], reference.repository())?;
                edit::set(&text, &[value, "image", "digest"], digest)
            })?;
        }
    }
    Ok(())
}

fn edit_file(files: &mut Files, path: &str, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
    let bytes = files.get_mut(path).with_context(|| format!("the chart has no {path}"))?;
    let text = std::str::from_utf8(bytes).with_context(|| format!("{path} is not UTF-8"))?;
    *bytes = change(text).with_context(|| format!("in {path}"))?.into_bytes();
    Ok(())
}

/// The archive's bytes. `helm package` would write the time of day into them.
pub fn archive(name: &str, files: &Files) -> Result<Vec<u8>> {
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(gzip);
    // Helm reads Chart.yaml first where it comes first.
    let first = files.iter().filter(|(path, _)| *path == "Chart.yaml");
    let rest = files.iter().filter(|(path, _)| *path != "Chart.yaml");
    for (path, bytes) in first.chain(rest) {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(u64::try_from(bytes.len())?);
        archive
            .append_data(&mut header, format!("{name}/{path}"), &bytes[..])
            .with_context(|| format!("cannot archive {path}"))?;
    }
    let mut gzip = archive.into_inner().context("cannot end the archive")?;
    gzip.flush()?;
    gzip.finish().context("cannot end the archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Files {
        read(&crate::cargo::root().join("charts/opensandbox")).unwrap()
    }

    fn made(name: &str) -> Made {
        let digest = format!("sha256:{:064}", 7);
        Made {
            name: name.to_owned(),
            pushed: Some(format!("registry.example.com/team/{name}:9.9.9@{digest}")),
            digest,
            ..Made::default()
        }
    }

    #[test]
    fn what_helm_ignores_is_left_out() {
        let files = chart();
        assert!(files.contains_key("Chart.yaml") && files.contains_key("values.schema.json"));
        assert!(!files.keys().any(|path| path.starts_with("ci/") || path.ends_with(".gotmpl")), "{:?}", files.keys());
    }

    #[test]
    fn two_archives_are_one() {
        assert!(archive("opensandbox", &chart()).unwrap() == archive("opensandbox", &chart()).unwrap());
    }

    #[test]
    fn version_and_images_are_written_in() {
        let mut files = chart();
        stamp(&mut files, "9.9.9", &[("execd".to_owned(), "docker.io/opensandbox/execd:9.9.9".to_owned())]).unwrap();
        let text = String::from_utf8(files["Chart.yaml"].clone()).unwrap();
        assert!(text.contains("\nversion: \"9.9.9\"\nappVersion: \"9.9.9\"\n"), "{text}");
        assert!(text.ends_with("    - name: execd\n      image: docker.io/opensandbox/execd:9.9.9\n"), "{text}");
    }

    #[test]
    fn pushed_images_become_the_defaults() {
        let mut files = chart();
        point_at(&mut files, &IMAGES.map(|(_, name)| made(name))).unwrap();
        for file in ["values.yaml", "files/defaults.yaml"] {
            let text = String::from_utf8(files[file].clone()).unwrap();
            assert_eq!(text.matches("registry: \"registry.example.com\"").count(), IMAGES.len(), "{file}");
            assert!(text.contains("repository: \"team/task-executor\""), "{file}");
        }
        assert!(point_at(&mut chart(), &[made("execd")]).is_err());
    }
}
