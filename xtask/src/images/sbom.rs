//! The parts list of an image, as CycloneDX.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId, TargetKind};
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

/// Its media type, also the artifact's type in a registry.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";
const SPEC: SpecVersion = SpecVersion::V1_5;

/// What a list is made from.
pub struct Facts<'a> {
    /// What cargo resolved for the image's target.
    pub metadata: &'a Metadata,
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

    let packages = linked(facts.metadata, &recipe.package)?;
    let mut components = Vec::new();
    let mut dependencies = BTreeMap::new();
    for (package, needs) in packages.values() {
        components.push(of_package(package)?);
        dependencies.insert(reference(package), needs.iter().map(|id| reference(&facts.metadata[id])).collect());
    }
    let program = packages.values().find(|(package, _)| *package.name == *recipe.package);
    let mut direct: BTreeSet<_> = program.map(|(package, _)| reference(package)).into_iter().collect();
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

type Linked<'a> = BTreeMap<&'a PackageId, (&'a Package, BTreeSet<&'a PackageId>)>;

/// The packages that go into a package's binaries: normal dependencies, without procedural macros
/// and what only they need.
fn linked<'a>(metadata: &'a Metadata, name: &str) -> Result<Linked<'a>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let root = metadata.workspace_packages().into_iter().find(|package| *package.name == *name);
    let root = root.with_context(|| format!("there is no package {name} in the workspace"))?;
    let mut linked = Linked::new();
    let mut queue = VecDeque::from([&root.id]);
    while let Some(id) = queue.pop_front() {
        if linked.contains_key(id) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("cargo metadata has no node for {id}"))?;
        let needs: BTreeSet<_> = node
            .deps
            .iter()
            .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal))
            .map(|dep| &dep.pkg)
            .filter(|id| !metadata[id].targets.iter().any(|target| target.is_kind(TargetKind::ProcMacro)))
            .collect();
        queue.extend(&needs);
        linked.insert(id, (&metadata[id], needs));
    }
    Ok(linked)
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
    fn what_is_linked_is_found_and_macros_are_not() {
        let metadata = crate::images::build::metadata("x86_64-unknown-linux-gnu").unwrap();
        let names: BTreeSet<_> =
            linked(&metadata, "execd").unwrap().values().map(|(package, _)| package.name.to_string()).collect();
        assert!(names.contains("execd") && names.contains("tokio") && names.contains("libc"), "{names:?}");
        for stranger in ["serde_derive", "syn", "tempfile", "kube"] {
            assert!(!names.contains(stranger), "{stranger}");
        }
    }
}
