//! The parts list of an image, as CycloneDX.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Metadata, Package};
use cyclonedx_bom::external_models::spdx::SpdxExpression;
use cyclonedx_bom::external_models::uri::Purl;
use cyclonedx_bom::models::bom::{Bom, SpecVersion, UrnUuid};
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata as About;
use cyclonedx_bom::prelude::Validate;

use super::image::Image;
use super::layer::digest;
use super::recipe::Recipe;
use super::source::Source;
use crate::cargo;

/// Its media type, also the artifact's type in a registry.
#[cfg(feature = "registry")]
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";
const SPEC: SpecVersion = SpecVersion::V1_5;

/// What a list is made from.
pub struct Facts<'a> {
    /// What cargo knows of the packages.
    pub metadata: &'a Metadata,
    /// The Rust target.
    pub target: &'a str,
    /// Version, commit, time.
    pub source: &'a Source,
    /// The shell that the image carries.
    pub busybox: Option<&'a [u8]>,
}

/// Lists the crates that are linked into the image's binaries, and what else lies in it. The list
/// depends on the image alone, its serial number too.
pub fn write(recipe: &Recipe, image: &Image, facts: &Facts<'_>) -> Result<Vec<u8>> {
    let image_digest = image.manifest.digest();
    let mut root = component(Classification::Container, &recipe.name, &facts.source.version, &image_digest);
    root.hashes = Some(sha256(&image_digest));
    root.licenses = recipe.licenses.as_deref().or(Some(&facts.source.license)).map(licenses);

    let crates = linked(&recipe.package, facts.target)?;
    let mut components = Vec::new();
    for reference in crates.needs.keys() {
        components.push(of_package(package(facts.metadata, reference)?)?);
    }
    let mut dependencies = crates.needs;
    let mut direct = BTreeSet::from([crates.root]);
    if let Some(bytes) = facts.busybox {
        let mut shell = component(Classification::Application, "busybox", &busybox_version(bytes), "busybox");
        shell.hashes = Some(sha256(&digest(bytes)));
        shell.licenses = Some(licenses("GPL-2.0-only"));
        components.push(shell);
        direct.insert("busybox".to_owned());
    }
    if recipe.ca_certificates {
        let roots = facts.metadata.packages.iter().find(|package| *package.name == "webpki-root-certs");
        let roots = roots.context("the crate of the root certificates is not in the lock file")?;
        let name = format!("{} as /etc/ssl/certs/ca-certificates.crt", reference(roots));
        let mut data = of_package(roots)?;
        data.component_type = Classification::Data;
        data.bom_ref = Some(name.clone());
        components.push(data);
        direct.insert(name);
    }
    dependencies.insert(image_digest.clone(), direct);

    let bom = Bom {
        spec_version: SPEC,
        version: 1,
        serial_number: Some(serial(&image_digest)?),
        metadata: Some(About {
            timestamp: Some(facts.source.created.clone().try_into().context("the time is malformed")?),
            component: Some(root),
            tools: None,
            authors: None,
            manufacture: None,
            supplier: None,
            licenses: None,
            properties: None,
            lifecycles: None,
        }),
        components: Some(Components(components)),
        dependencies: Some(Dependencies(
            dependencies
                .into_iter()
                .map(|(dependency_ref, needs)| Dependency { dependency_ref, dependencies: needs.into_iter().collect() })
                .collect(),
        )),
        ..Bom::default()
    };
    let problems = bom.validate_version(SPEC);
    ensure!(problems.passed(), "the parts list of {} is not valid: {problems:?}", recipe.name);
    let mut json = Vec::new();
    bom.output_as_json(&mut json, SPEC).context("cannot write the parts list")?;
    Ok(json)
}

/// The crates of a package's binaries.
struct Linked {
    /// `NAME@VERSION` of the package.
    root: String,
    /// What each crate needs.
    needs: BTreeMap<String, BTreeSet<String>>,
}

/// Asks cargo for the crates that go into a package's binaries: normal dependencies, without procedural macros
/// and what only they need. `cargo metadata` cannot say it: it unites the features of all packages.
fn linked(package: &str, target: &str) -> Result<Linked> {
    let words = ["tree", "--package", package, "--edges", "normal,no-proc-macro", "--target", target];
    let output = cargo::cargo(&words)
        .args(["--prefix", "depth", "--format", " {p}"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo tree ended with {}", output.status);
    read_tree(&String::from_utf8(output.stdout).context("cargo tree is not UTF-8")?)
}

/// Lines of `DEPTH NAME vVERSION [(SOURCE)] [(*)]`; what is below a crate is only with its first line.
fn read_tree(text: &str) -> Result<Linked> {
    let mut above: Vec<String> = Vec::new();
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| format!("cargo tree says {line:?}"));
        let depth: usize = word()?.parse().with_context(|| format!("cargo tree says {line:?}"))?;
        let reference = format!("{}@{}", word()?, word()?.trim_start_matches('v'));
        above.truncate(depth);
        if let Some(parent) = above.last() {
            needs.entry(parent.clone()).or_default().insert(reference.clone());
        }
        needs.entry(reference.clone()).or_default();
        above.push(reference);
    }
    let root = above.into_iter().next().context("cargo tree says nothing")?;
    Ok(Linked { root, needs })
}

fn package<'a>(metadata: &'a Metadata, wanted: &str) -> Result<&'a Package> {
    let found = metadata.packages.iter().find(|package| reference(package) == wanted);
    found.with_context(|| format!("cargo metadata does not know {wanted}"))
}

fn reference(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}

fn component(kind: Classification, name: &str, version: &str, reference: &str) -> Component {
    Component::new(kind, name, version, Some(reference.to_owned()))
}

fn of_package(package: &Package) -> Result<Component> {
    let version = package.version.to_string();
    let mut component = component(Classification::Library, &package.name, &version, &reference(package));
    if package.source.is_some() {
        component.purl = Some(Purl::new("cargo", &package.name, &version).context("a package's name is malformed")?);
    }
    component.licenses = package.license.as_deref().map(licenses);
    Ok(component)
}

/// Old manifests separate alternatives by a slash.
fn licenses(expression: &str) -> Licenses {
    Licenses(vec![LicenseChoice::Expression(SpdxExpression::new(&expression.replace('/', " OR ")))])
}

fn sha256(digest: &str) -> Hashes {
    let hex = digest.trim_start_matches("sha256:").to_owned();
    Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content: HashValue(hex) }])
}

/// A UUID made of the digest, marked as one that its maker defines (version 8 of RFC 9562).
fn serial(digest: &str) -> Result<UrnUuid> {
    let hex = digest.trim_start_matches("sha256:");
    let part = |from: usize, to: usize| hex.get(from..to).context("the digest is too short");
    Ok(UrnUuid(format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        part(0, 8)?,
        part(8, 12)?,
        part(12, 15)?,
        part(15, 18)?,
        part(18, 30)?
    )))
}

/// `BusyBox v1.35.0 (Debian 1:1.35.0-4+deb12u1)` lies in the binary; `unknown` where it does not.
fn busybox_version(binary: &[u8]) -> String {
    let mark = b"BusyBox v";
    let found = binary.windows(mark.len()).position(|window| window == mark).map(|at| &binary[at + mark.len()..]);
    let text = found.map(|rest| rest.split(|byte| !(b' '..=b'~').contains(byte)).next().unwrap_or_default());
    text.map_or_else(|| "unknown".to_owned(), |text| String::from_utf8_lossy(text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_the_binary() {
        assert_eq!(busybox_version(b"\0\0BusyBox v1.35.0 (Debian 1:1.35.0-4)\0more"), "1.35.0 (Debian 1:1.35.0-4)");
        assert_eq!(busybox_version(b"\0toybox\0"), "unknown");
    }

    #[test]
    fn a_serial_number_is_the_digests() {
        let serial = serial(&digest(b"")).unwrap();
        assert_eq!(serial.to_string(), "urn:uuid:e3b0c442-98fc-81c1-849a-fbf4c8996fb9");
    }

    #[test]
    fn the_tree_becomes_a_graph() {
        let tree = "0 a v1.0.0 (/a)\n1 b v2.0.0\n2 c v3.0.0\n1 c v3.0.0\n1 b v2.0.0 (*)\n";
        let linked = read_tree(tree).unwrap();
        assert_eq!(linked.root, "a@1.0.0");
        let expected = [("a@1.0.0", vec!["b@2.0.0", "c@3.0.0"]), ("b@2.0.0", vec!["c@3.0.0"]), ("c@3.0.0", vec![])];
        let seen: Vec<_> = linked
            .needs
            .iter()
            .map(|(name, needs)| (name.as_str(), needs.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_linked_is_found_and_the_rest_is_not() {
        let linked = linked("execd", "x86_64-unknown-linux-gnu").unwrap();
        let has = |name: &str| linked.needs.keys().any(|key| key.starts_with(&format!("{name}@")));
        assert!(has("execd") && has("tokio") && has("libc"));
        for stranger in ["serde_derive", "syn", "tempfile", "kube"] {
            assert!(!has(stranger), "{stranger}");
        }
    }
}
