//! Volumes of a pod: directories and files of the host that the pod's containers see.

pub mod env_file;
mod host_path;
pub mod objects;
mod sub_path;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, KeyToPath, Pod, Volume, VolumeMount, VolumeProjection,
};

use crate::env::{self, EnvError, NodeFacts};
use crate::pod::quantity;
use objects::{ObjectError, ObjectKind, ObjectSource, Objects};
pub use sub_path::bind_sub_path;
use write::File;

/// Mode of files that say nothing.
const DEFAULT_MODE: i32 = 0o644;

/// Where volumes are and what pods may see of the host.
#[derive(Debug, Clone)]
pub struct VolumeConfig {
    /// Directory of the pods; a pod's volumes are in `UID/volumes`.
    pub pods_dir: PathBuf,
    /// A directory in memory for the content of Secrets; where there is none, it is kept beside the other volumes.
    pub memory_dir: Option<PathBuf>,
    /// Paths of the host that `hostPath` may name, with everything below them.
    pub host_paths: Vec<PathBuf>,
}

impl VolumeConfig {
    /// No `hostPath`, and Secrets in memory where the machine has a file system there.
    pub fn new(pods_dir: impl Into<PathBuf>) -> Self {
        let pods_dir = pods_dir.into();
        let memory_dir = write::memory_dir(&pods_dir);
        Self { pods_dir, memory_dir, host_paths: Vec::new() }
    }
}

/// Why a pod's volumes cannot be prepared. The text is that of a `FailedMount` event.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VolumeError {
    /// A ConfigMap or Secret is missing, or has no such key.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Object {
        /// Volume.
        volume: String,
        /// What is missing.
        reason: ObjectError,
    },
    /// A field that cannot be had.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Field {
        /// Volume.
        volume: String,
        /// What cannot be had.
        reason: EnvError,
    },
    /// The volume cannot be on this node, or is wrong.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Refused {
        /// Volume.
        volume: String,
        /// Why.
        reason: String,
    },
    /// A container mounts what the pod does not have, or cannot.
    #[error("container {container:?}: {reason}")]
    Mount {
        /// Container.
        container: String,
        /// Why.
        reason: String,
    },
    /// The disk refused.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Io {
        /// Volume.
        volume: String,
        /// What and why.
        reason: String,
    },
}

impl VolumeError {
    /// Whether something outside the pod may still appear, so that trying again makes sense.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Object { .. } | Self::Io { .. })
    }
}

/// A file system in memory, which the pod's shim mounts before any container starts, where nobody else sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// An empty directory to mount it on.
    pub path: PathBuf,
    /// Most bytes; half of the machine's memory when none is given.
    pub size: Option<u64>,
}

/// A volume where a container sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume on the host: a directory, or one file.
    pub source: PathBuf,
    /// A path below `source`. It must be taken by `bind_sub_path` and never be joined: it may lead through links
    /// that a container made.
    pub sub_path: Option<PathBuf>,
    /// In the container.
    pub target: PathBuf,
    /// Not writable.
    pub read_only: bool,
}

/// Volumes of one pod, ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodVolumes {
    /// What the shim mounts first.
    pub tmpfs: Vec<Tmpfs>,
    by_name: BTreeMap<String, Ready>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ready {
    path: PathBuf,
    read_only: bool,
}

/// Prepares volumes and takes them away.
#[derive(Debug, Clone)]
pub struct Volumes {
    config: VolumeConfig,
}

impl Volumes {
    /// Volumes as configured.
    pub fn new(config: VolumeConfig) -> Self {
        Self { config }
    }

    /// Makes every volume of the pod, or brings it up to date. Doing it again keeps what an emptyDir holds.
    pub async fn prepare(
        &self,
        pod: &Pod,
        source: &dyn ObjectSource,
        facts: &NodeFacts,
    ) -> Result<PodVolumes, VolumeError> {
        let mut objects = Objects::new(pod.metadata.namespace.clone().unwrap_or_default());
        let list = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
        for volume in &list {
            fetch(volume, source, &mut objects)
                .await
                .map_err(|reason| VolumeError::Object { volume: volume.name.clone(), reason })?;
        }
        let (config, pod, facts) = (self.config.clone(), pod.clone(), facts.clone());
        let work = move || prepare(&config, &pod, &list, &objects, &facts);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| Err(VolumeError::Io { volume: String::new(), reason: error.to_string() }))
    }

    /// Takes away what `prepare` made. The pod's tmpfs goes with its shim's mount namespace.
    pub fn remove(&self, pod_uid: &str) -> io::Result<()> {
        let dirs =
            [Some(disk_dir(&self.config, pod_uid)), self.config.memory_dir.as_ref().map(|dir| dir.join(pod_uid))];
        for dir in dirs.into_iter().flatten() {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes away the volumes in memory of every pod that is not among `live`; those on disk go with the pod's directory.
    pub fn reconcile(&self, live: &BTreeSet<String>) -> io::Result<()> {
        let Some(dir) = &self.config.memory_dir else { return Ok(()) };
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|uid| live.contains(uid)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Takes everything in memory away.
    pub fn purge(&self) -> io::Result<()> {
        self.reconcile(&BTreeSet::new())?;
        let Some(dir) = &self.config.memory_dir else { return Ok(()) };
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl PodVolumes {
    /// Where the container sees its volumes, parents before what is below them. `environment` is for `subPathExpr`.
    pub fn mounts(&self, container: &Container, environment: &[(String, String)]) -> Result<Vec<Mount>, VolumeError> {
        let values: BTreeMap<String, String> = environment.iter().cloned().collect();
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            mounts.push(
                self.mount(mount, &values)
                    .map_err(|reason| VolumeError::Mount { container: container.name.clone(), reason })?,
            );
        }
        mounts.sort_by_key(|mount: &Mount| mount.target.components().count());
        Ok(mounts)
    }

    /// Where a volume is on the host; one in memory is there in the eyes of the pod's shim.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.by_name.get(name).map(|ready| ready.path.as_path())
    }

    fn mount(&self, mount: &VolumeMount, values: &BTreeMap<String, String>) -> Result<Mount, String> {
        let ready = self.by_name.get(&mount.name).ok_or_else(|| format!("no volume {:?} in the pod", mount.name))?;
        if mount.mount_propagation.as_deref().is_some_and(|kind| !matches!(kind, "" | "None")) {
            return Err("mountPropagation is not supported by this node".to_owned());
        }
        let sub_path = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
            (Some(path), _) if !path.is_empty() => Some(path.to_owned()),
            (_, Some(text)) if !text.is_empty() => {
                let path = env::expand(text, values);
                if path.contains("$(") {
                    return Err(format!("missing value for {path:?} in subPathExpr"));
                }
                Some(path)
            }
            _ => None,
        };
        let sub_path = sub_path.map(|path| sub_path::check(&path)).transpose()?;
        let target = PathBuf::from(&mount.mount_path);
        if !target.is_absolute() || target.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(format!("mountPath {:?} must be absolute and must not contain `..`", mount.mount_path));
        }
        Ok(Mount {
            source: ready.path.clone(),
            sub_path,
            target,
            read_only: ready.read_only || mount.read_only == Some(true),
        })
    }
}

fn disk_dir(config: &VolumeConfig, uid: &str) -> PathBuf {
    config.pods_dir.join(uid).join("volumes")
}

async fn fetch(volume: &Volume, source: &dyn ObjectSource, objects: &mut Objects) -> Result<(), ObjectError> {
    if let Some(map) = &volume.config_map {
        objects.fetch(source, ObjectKind::ConfigMap, &map.name).await?;
    }
    if let Some(name) = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_ref()) {
        objects.fetch(source, ObjectKind::Secret, name).await?;
    }
    for part in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(map) = &part.config_map {
            objects.fetch(source, ObjectKind::ConfigMap, &map.name).await?;
        }
        if let Some(secret) = &part.secret {
            objects.fetch(source, ObjectKind::Secret, &secret.name).await?;
        }
    }
    Ok(())
}

struct Context<'a> {
    config: &'a VolumeConfig,
    pod: &'a Pod,
    objects: &'a Objects,
    facts: &'a NodeFacts,
    volume: &'a Volume,
    uid: &'a str,
}

fn prepare(
    config: &VolumeConfig,
    pod: &Pod,
    list: &[Volume],
    objects: &Objects,
    facts: &NodeFacts,
) -> Result<PodVolumes, VolumeError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
        return Err(VolumeError::Refused { volume: String::new(), reason: "the pod has no usable UID".to_owned() });
    }
    let mut ready = PodVolumes::default();
    for volume in list {
        let context = Context { config, pod, objects, facts, volume, uid };
        let (path, read_only) = context.prepare(&mut ready.tmpfs)?;
        ready.by_name.insert(volume.name.clone(), Ready { path, read_only });
    }
    Ok(ready)
}

impl Context<'_> {
    fn refused(&self, reason: impl Into<String>) -> VolumeError {
        VolumeError::Refused { volume: self.volume.name.clone(), reason: reason.into() }
    }

    fn failed(&self, what: &str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
        let (volume, what) = (self.volume.name.clone(), format!("cannot {what} {}", path.display()));
        move |error| VolumeError::Io { volume, reason: format!("{what}: {error}") }
    }

    fn object(&self) -> impl Fn(ObjectError) -> VolumeError {
        let volume = self.volume.name.clone();
        move |reason| VolumeError::Object { volume: volume.clone(), reason }
    }

    fn dir(&self, kind: &str) -> PathBuf {
        disk_dir(self.config, self.uid).join(kind).join(&self.volume.name)
    }

    /// Secrets never touch a disk where that can be had.
    fn secret_dir(&self, kind: &str) -> PathBuf {
        match &self.config.memory_dir {
            Some(dir) => dir.join(self.uid).join(kind).join(&self.volume.name),
            None => self.dir(kind),
        }
    }

    fn prepare(&self, tmpfs: &mut Vec<Tmpfs>) -> Result<(PathBuf, bool), VolumeError> {
        let volume = self.volume;
        if volume.name.is_empty() || volume.name.contains('/') || volume.name.starts_with('.') {
            return Err(self.refused("the volume has no usable name"));
        }
        if let Some(source) = &volume.empty_dir {
            return self.empty_dir(source, tmpfs).map(|path| (path, false));
        }
        if let Some(source) = &volume.host_path {
            let allowed = &self.config.host_paths;
            let path = host_path::resolve(&source.path, source.type_.as_deref().unwrap_or_default(), allowed)
                .map_err(|reason| self.refused(reason))?;
            return Ok((path, false));
        }
        let (files, dir) = if let Some(source) = &volume.config_map {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let optional = source.optional == Some(true);
            let files = self.keys(ObjectKind::ConfigMap, &source.name, source.items.as_deref(), mode, optional)?;
            (files, self.dir("configmap"))
        } else if let Some(source) = &volume.secret {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let name = source.secret_name.as_deref().unwrap_or_default();
            let optional = source.optional == Some(true);
            let files = self.keys(ObjectKind::Secret, name, source.items.as_deref(), mode, optional)?;
            (files, self.secret_dir("secret"))
        } else if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            (self.fields(source.items.as_deref().unwrap_or_default(), mode)?, self.dir("downwardapi"))
        } else if let Some(source) = &volume.projected {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let mut files = Vec::new();
            for part in source.sources.iter().flatten() {
                files.extend(self.projection(part, mode)?);
            }
            (files, self.secret_dir("projected"))
        } else {
            return Err(self.refused("this kind of volume is not supported by this node"));
        };
        let group = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref()?.fs_group)
            .and_then(|group| u32::try_from(group).ok());
        write::update(&dir, &files, group).map_err(self.failed("write", &dir))?;
        Ok((dir, true))
    }

    fn empty_dir(&self, source: &EmptyDirVolumeSource, tmpfs: &mut Vec<Tmpfs>) -> Result<PathBuf, VolumeError> {
        let dir = self.dir("empty-dir");
        let group = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group);
        write::empty_dir(&dir, group.and_then(|group| u32::try_from(group).ok())).map_err(self.failed("make", &dir))?;
        match source.medium.as_deref().unwrap_or_default() {
            "" => {}
            "Memory" => {
                let size = match &source.size_limit {
                    Some(limit) => Some(
                        quantity::units(limit)
                            .and_then(|bytes| u64::try_from(bytes).ok())
                            .ok_or_else(|| self.refused(format!("sizeLimit {:?} is no size", limit.0)))?,
                    ),
                    None => None,
                };
                // A size of 0 means no limit to the kernel as it does to Kubernetes.
                tmpfs.push(Tmpfs { path: dir.clone(), size: size.filter(|size| *size > 0) });
            }
            other => return Err(self.refused(format!("medium {other:?} is not supported by this node"))),
        }
        Ok(dir)
    }

    fn keys(
        &self,
        kind: ObjectKind,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Vec<File>, VolumeError> {
        let Some(data) = self.objects.keys(kind, name, optional).map_err(self.object())? else {
            return Ok(Vec::new());
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return data.iter().map(|(key, value)| self.file(key, value.clone(), mode)).collect();
        };
        let mut files = Vec::new();
        for item in items {
            match data.get(&item.key) {
                Some(value) => files.push(self.file(&item.path, value.clone(), item.mode.unwrap_or(mode))?),
                None if optional => {}
                None => {
                    return Err(self.refused(format!("references non-existent {} key: {}", kind_of(kind), item.key)));
                }
            }
        }
        Ok(files)
    }

    fn fields(&self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Vec<File>, VolumeError> {
        let wrong = |reason| VolumeError::Field { volume: self.volume.name.clone(), reason };
        items
            .iter()
            .map(|item| {
                let value = if let Some(field) = &item.field_ref {
                    env::field(self.pod, &field.field_path, self.facts).map_err(wrong)?
                } else if let Some(resource) = &item.resource_field_ref {
                    env::resource(self.pod, &Container::default(), resource, self.facts).map_err(wrong)?
                } else {
                    return Err(self.refused(format!("the item {:?} has no source", item.path)));
                };
                self.file(&item.path, value.into_bytes(), item.mode.unwrap_or(mode))
            })
            .collect()
    }

    fn projection(&self, part: &VolumeProjection, mode: i32) -> Result<Vec<File>, VolumeError> {
        if let Some(map) = &part.config_map {
            return self.keys(ObjectKind::ConfigMap, &map.name, map.items.as_deref(), mode, map.optional == Some(true));
        }
        if let Some(secret) = &part.secret {
            let optional = secret.optional == Some(true);
            return self.keys(ObjectKind::Secret, &secret.name, secret.items.as_deref(), mode, optional);
        }
        if let Some(fields) = &part.downward_api {
            return self.fields(fields.items.as_deref().unwrap_or_default(), mode);
        }
        // A made-up token would open nothing, and a missing file says so at once.
        Err(self.refused("service account tokens and trust bundles are not supported by this node"))
    }

    fn file(&self, path: &str, content: Vec<u8>, mode: i32) -> Result<File, VolumeError> {
        let path = sub_path::check(path).map_err(|reason| self.refused(reason))?;
        let mode = u32::try_from(mode)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| self.refused(format!("file mode {mode} must be between 0 and 0777 (octal)")))?;
        Ok(File { path, content, mode })
    }
}

fn kind_of(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::ConfigMap => "config",
        ObjectKind::Secret => "secret",
    }
}

#[cfg(test)]
mod tests;
