use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use serde_json::json;

use super::*;

#[derive(Default)]
struct Source {
    color: Mutex<String>,
}

#[async_trait]
impl ObjectSource for Source {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ObjectError> {
        let color = self.color.lock().clone();
        let map = json!({"data": {"color": color, "size": "4"}, "binaryData": {"raw": "AAE="}});
        Ok((namespace == "shop" && name == "settings").then(|| serde_json::from_value(map).unwrap()))
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Option<Secret>, ObjectError> {
        Ok((name == "keys").then(|| serde_json::from_value(json!({"data": {"token": "dDBw"}})).unwrap()))
    }
}

struct World {
    _dir: tempfile::TempDir,
    root: PathBuf,
    volumes: Volumes,
    source: Source,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let config = VolumeConfig {
        pods_dir: root.join("pods"),
        memory_dir: Some(root.join("memory")),
        host_paths: vec![root.join("shared")],
    };
    World { _dir: dir, root, volumes: Volumes::new(config), source: Source::default() }
}

impl World {
    async fn prepare(&self, volumes: serde_json::Value) -> Result<PodVolumes, VolumeError> {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}},
            "spec": {"volumes": volumes, "containers": [{"name": "main", "resources": {"limits": {"cpu": "2"}}}]}
        }));
        self.volumes.prepare(&pod.unwrap(), &self.source, &NodeFacts::default()).await
    }
}

fn container(mounts: serde_json::Value) -> Container {
    serde_json::from_value(json!({"name": "main", "volumeMounts": mounts})).unwrap()
}

#[tokio::test]
async fn an_empty_dir_is_everybodys_and_keeps_its_content() {
    let world = world();
    let list = json!([{"name": "disk", "emptyDir": {}}, {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}]);
    let ready = world.prepare(list.clone()).await.unwrap();
    let mounts = ready
        .mounts(
            &container(
                json!([{"name": "fast", "mountPath": "/a/b/c"}, {"name": "disk", "mountPath": "/a", "readOnly": true}]),
            ),
            &[],
        )
        .unwrap();
    assert_eq!(mounts[0].target, Path::new("/a"), "parents come first");
    assert!(mounts[0].read_only && !mounts[1].read_only);
    let disk = &mounts[0].source;
    assert_eq!(fs::metadata(disk).unwrap().permissions().mode() & 0o7777, 0o777);
    assert_eq!(ready.tmpfs, [Tmpfs { path: mounts[1].source.clone(), size: Some(64 << 20) }]);
    fs::write(disk.join("kept"), "x").unwrap();
    world.prepare(list).await.unwrap();
    assert!(disk.join("kept").exists());
    world.volumes.remove("u-1").unwrap();
    assert!(!disk.exists());
}

#[tokio::test]
async fn maps_and_secrets_become_files_that_change_at_once() {
    let world = world();
    *world.source.color.lock() = "blue".into();
    let list = json!([
        {"name": "all", "configMap": {"name": "settings", "defaultMode": 0o600}},
        {"name": "some", "configMap": {"name": "settings", "items": [{"key": "color", "path": "deep/c", "mode": 0o444}]}},
        {"name": "secret", "secret": {"secretName": "keys"}},
        {"name": "none", "configMap": {"name": "absent", "optional": true}},
        {"name": "both", "projected": {"sources": [
            {"configMap": {"name": "settings", "items": [{"key": "size", "path": "size"}]}},
            {"secret": {"name": "keys"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
        ]}},
        {"name": "pod", "downwardAPI": {"items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}}
        ]}}
    ]);
    let ready = world.prepare(list.clone()).await.unwrap();
    let path = |name: &str| ready.by_name[name].path.clone();
    let read = |name: &str, file: &str| fs::read_to_string(path(name).join(file)).unwrap();
    assert_eq!(read("all", "color"), "blue");
    assert_eq!(fs::read(path("all").join("raw")).unwrap(), [0, 1]);
    assert_eq!(fs::metadata(path("all").join("size")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(read("some", "deep/c"), "blue");
    assert!(!path("some").join("size").exists());
    assert_eq!(read("secret", "token"), "t0p");
    assert!(path("secret").starts_with(world.root.join("memory")));
    assert!(path("both").starts_with(world.root.join("memory")));
    assert_eq!(
        (read("both", "size"), read("both", "token"), read("both", "labels")),
        ("4".into(), "t0p".into(), "app=\"web\"".into())
    );
    assert_eq!((read("pod", "name"), read("pod", "cpu")), ("web".into(), "2".into()));
    assert_eq!(
        fs::read_dir(path("none"))
            .unwrap()
            .filter(|e| !e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".."))
            .count(),
        0
    );

    *world.source.color.lock() = "red".into();
    world.prepare(list).await.unwrap();
    assert_eq!(read("all", "color"), "red");
    assert_eq!(read("some", "deep/c"), "red");

    world.volumes.reconcile(&BTreeSet::from(["u-1".to_owned()])).unwrap();
    assert_eq!(read("secret", "token"), "t0p");
    world.volumes.purge().unwrap();
    assert!(!world.root.join("memory").exists());
}

#[tokio::test]
async fn what_cannot_be_says_why() {
    let world = world();
    fs::create_dir_all(world.root.join("shared")).unwrap();
    let prefix = "MountVolume.SetUp failed for volume \"v\" : ";
    let table = [
        (json!({"name": "v", "configMap": {"name": "absent"}}), "configmap \"absent\" not found"),
        (json!({"name": "v", "secret": {"secretName": "absent"}}), "secret \"absent\" not found"),
        (
            json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "k", "path": "p"}]}}),
            "references non-existent config key: k",
        ),
        (
            json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "size", "path": "../p"}]}}),
            "the path \"../p\" must be relative and must not contain `..`",
        ),
        (
            json!({"name": "v", "hostPath": {"path": "/etc"}}),
            "hostPath \"/etc\" is not among the paths that this node allows",
        ),
        (
            json!({"name": "v", "nfs": {"server": "s", "path": "/"}}),
            "this kind of volume is not supported by this node",
        ),
        (
            json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
            "service account tokens and trust bundles are not supported by this node",
        ),
        (
            json!({"name": "v", "emptyDir": {"medium": "HugePages"}}),
            "medium \"HugePages\" is not supported by this node",
        ),
    ];
    for (volume, expected) in table {
        let said = world.prepare(json!([volume])).await.unwrap_err().to_string();
        assert_eq!(said, format!("{prefix}{expected}"));
    }
    let shared = world.root.join("shared");
    let ready = world.prepare(json!([{"name": "v", "hostPath": {"path": shared}}])).await.unwrap();
    assert_eq!(ready.by_name["v"].path, fs::canonicalize(shared).unwrap());
}

#[tokio::test]
async fn mounts_are_checked() {
    let world = world();
    let ready = world.prepare(json!([{"name": "v", "emptyDir": {}}])).await.unwrap();
    let environment = [("POD".to_owned(), "web".to_owned())];
    let mount = |value| ready.mounts(&container(json!([value])), &environment);
    let with = mount(json!({"name": "v", "mountPath": "/d", "subPathExpr": "logs/$(POD)"})).unwrap();
    assert_eq!(with[0].sub_path.as_deref(), Some(Path::new("logs/web")));
    for value in [
        json!({"name": "w", "mountPath": "/d"}),
        json!({"name": "v", "mountPath": "d"}),
        json!({"name": "v", "mountPath": "/d/../e"}),
        json!({"name": "v", "mountPath": "/d", "subPath": "../x"}),
        json!({"name": "v", "mountPath": "/d", "subPathExpr": "$(NONE)"}),
        json!({"name": "v", "mountPath": "/d", "mountPropagation": "Bidirectional"}),
    ] {
        assert!(mount(value.clone()).is_err(), "{value}");
    }
}
