use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::images::host::hex;

/// A layer with one file.
pub(super) fn layer(path: &str, content: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(nix::unistd::getuid().as_raw().into());
    header.set_gid(nix::unistd::getgid().as_raw().into());
    builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Blobs of an image by their digests, and its manifest's digest.
pub(super) fn image(layers: &[Vec<u8>], architecture: &str) -> (BTreeMap<String, Vec<u8>>, String) {
    let mut blobs = BTreeMap::new();
    let mut put = |bytes: Vec<u8>| {
        let (digest, size) = (digest(&bytes), bytes.len());
        blobs.insert(digest.clone(), bytes);
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": size})
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Env": ["A=1"], "Cmd": ["run"], "Entrypoint": null, "WorkingDir": "/srv", "User": "7"}
    });
    let config = put(config.to_string().into_bytes());
    let layers: Vec<Value> = layers.iter().map(|layer| put(gzip(layer))).collect();
    let manifest = put(json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes());
    let manifest = manifest["digest"].as_str().unwrap().to_owned();
    (blobs, manifest)
}

fn here() -> String {
    manifest::Platform::here().architecture
}

/// An OCI layout of one image for two machines, in an index of its own.
fn layout(dir: &Path, name: Option<&str>) {
    let (mut blobs, ours) = image(&[layer("second", "2"), layer("hello", "world"), layer("second", "2")], &here());
    let (others, theirs) = image(&[layer("hello", "foreign")], "sparc");
    blobs.extend(others);
    let index = json!({"manifests": [
        {"digest": theirs, "platform": {"architecture": "sparc", "os": "linux"}},
        {"digest": ours, "platform": {"architecture": here(), "os": "linux"}}
    ]})
    .to_string()
    .into_bytes();
    let top = digest(&index);
    blobs.insert(top.clone(), index);
    let annotations = name.map(|name| json!({"org.opencontainers.image.ref.name": name}));
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    for (digest, bytes) in blobs {
        fs::write(dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), bytes).unwrap();
    }
    fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    fs::write(dir.join("index.json"), json!({"manifests": [{"digest": top, "annotations": annotations}]}).to_string())
        .unwrap();
}

fn packed(dir: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", dir).unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn layouts_and_archives_are_imported_for_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let layout_dir = dir.path().join("My Tool");
    layout(&layout_dir, None);
    let tar = packed(&layout_dir);
    let files = [
        ("plain.tar", tar.clone()),
        ("small.tar.gz", gzip(&tar)),
        ("other.tar.zst", zstd::encode_all(tar.as_slice(), 0).unwrap()),
    ];
    let store = store(dir.path(), |_| {});
    let imported = store.import(&layout_dir, None).await.unwrap();
    assert_eq!(imported[0].reference, "docker.io/library/my-tool:latest");
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let imported = store.import(&path, Some("registry.example/team/app:3")).await.unwrap();
        assert_eq!(imported.len(), 1);
        assert_eq!(imported[0].reference, "registry.example/team/app:3", "{name}");
    }
    let image = store.ensure("registry.example/team/app:3", PullPolicy::IfNotPresent, None, no_progress).await.unwrap();
    assert_eq!(image.lower.len(), 2);
    assert_eq!(fs::read(image.lower[1].join("hello")).unwrap(), b"world");
    assert_eq!(fs::read(image.lower[0].join("second")).unwrap(), b"2", "the uppermost layer comes first");
    assert_eq!(image.config.env, ["A=1"]);
    assert_eq!((image.config.working_dir.as_deref(), image.config.user.as_deref()), (Some("/srv"), Some("7")));
    assert_eq!(image.config.command, ["run"]);

    // Another process sees it, and names go one by one.
    let other = self::store(dir.path(), |_| {});
    assert_eq!(other.list().await.unwrap().len(), 2);
    other.remove("my-tool").await.unwrap();
    assert!(matches!(other.remove("my-tool").await, Err(ImageError::Unknown { .. })));
    assert_eq!(store.prune(Default::default()).await.unwrap(), 0, "another has the store open");
    drop(other);
    assert_eq!(store.prune(Default::default()).await.unwrap(), 0, "the other name still uses the layers");
    store.remove("registry.example/team/app:3").await.unwrap();
    assert_eq!(store.prune(image.lower.iter().take(1).cloned().collect()).await.unwrap(), 1);
    assert_eq!(store.prune(Default::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn what_docker_saves_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [layer("hello", "world"), layer("two", "2")];
    let config = json!({"architecture": here(), "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layers[0]), digest(&layers[1])]}})
    .to_string();
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    put("a/layer.tar", &layers[0]);
    put("c.json", config.as_bytes());
    put("b/real.tar", &layers[1]);
    let saved = json!([{"Config": "c.json", "RepoTags": ["nginx:1.27", "me/nginx:x"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    put("manifest.json", saved.to_string().as_bytes());
    // Shared layers are links in older archives.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "b/layer.tar", "../b/real.tar").unwrap();
    let path = dir.path().join("saved.tar");
    fs::write(&path, builder.into_inner().unwrap()).unwrap();
    let store = store(dir.path(), |_| {});
    let names: Vec<String> = store.import(&path, None).await.unwrap().into_iter().map(|i| i.reference).collect();
    assert_eq!(names, ["docker.io/library/nginx:1.27", "docker.io/me/nginx:x"]);
    let image = store.ensure("nginx:1.27", PullPolicy::IfNotPresent, None, no_progress).await.unwrap();
    assert_eq!(image.config.command, ["sh"]);
    assert_eq!(image.id, digest(config.as_bytes()));
    assert_eq!(fs::read(image.lower[0].join("two")).unwrap(), b"2");
}

#[tokio::test]
async fn damaged_and_foreign_files_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), |_| {});
    let good = dir.path().join("good");
    layout(&good, Some("app:1"));
    let tar = packed(&good);
    let refused = async |name: &str, bytes: &[u8], expected: &str| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let said = store.import(&path, None).await.unwrap_err().to_string();
        assert!(said.contains(expected), "{name}: {said}");
    };
    refused("text", b"this is no image, whatever its name says", "image archive").await;
    refused("empty", b"", "image archive").await;
    refused("truncated.tar", &tar[..tar.len() / 2], "truncated").await;
    refused("truncated.tar.gz", &gzip(&tar)[..200], "").await;
    refused("other.tar", &layer("hello", "x"), "neither an OCI layout nor").await;
    let missing = store.import(&dir.path().join("nowhere"), None).await.unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");

    // Every kind of content is checked by its digest.
    for entry in fs::read_dir(good.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, damaged).unwrap();
        let fresh = tempfile::tempdir().unwrap();
        let store = self::store(fresh.path(), |_| {});
        let foreign =
            String::from_utf8_lossy(&bytes).contains("sparc") && !String::from_utf8_lossy(&bytes).contains(&here());
        match store.import(&good, None).await {
            Err(ImageError::Corrupt { .. }) => assert!(store.list().await.unwrap().is_empty()),
            Ok(_) => {
                let used: Vec<u8> = bytes.clone();
                assert!(
                    foreign || used.starts_with(b"{\"schemaVersion\"") || used.starts_with(&[0x1f, 0x8b]),
                    "{}",
                    path.display()
                );
            }
            other => panic!("{other:?}"),
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(store.list().await.unwrap().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("images/tmp")).unwrap().count(), 0, "nothing is left half done");
    assert_eq!(store.import(&good, None).await.unwrap()[0].reference, "docker.io/library/app:1");
}
