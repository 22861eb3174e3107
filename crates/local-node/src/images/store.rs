//! The store: unpacked layers, the index of images, and the one way to get an image.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use oci_client::Reference;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::{ImageError, io as io_error};
use super::guest::{self, BuiltIn};
use super::host::{self, Blanks, HostTree};
use super::index::{Index, Record};
use super::pull::{self, Credentials};
use super::unpack::{self, Unpacked};
use super::{Image, ImageConfig, PullPolicy, PullProgress};

/// Every image that cannot be had.
const ANY: &str = "*";
const HOST: &str = "host";

/// Images on disk. Clones share it; other processes may open the same directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(super) inner: Arc<Inner>,
}

type PullResult = Result<Record, ImageError>;

#[derive(Debug)]
pub(super) struct Inner {
    pub config: ImageConfig,
    pub index: Index,
    stand_ins: BTreeMap<String, String>,
    /// Held while the store is open: a start that finds nobody else cleans what was interrupted.
    users: File,
    pulls: Mutex<HashMap<String, Pull>>,
    /// Names that the machine stands in for, told once, and never looked for again by this process.
    stood_in: Mutex<BTreeSet<String>>,
    /// Held for reading while layers come that no image in the index has yet.
    pub adding: tokio::sync::RwLock<()>,
    host: tokio::sync::OnceCell<Arc<Host>>,
    guests: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Pull {
    result: Shared<BoxFuture<'static, PullResult>>,
    progress: watch::Receiver<PullProgress>,
}

#[derive(Debug)]
struct Host {
    tree: HostTree,
    dir: PathBuf,
}

/// An image of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// Full name.
    pub reference: String,
    /// Digest of the content.
    pub id: String,
    /// Bytes of all layers.
    pub size: u64,
}

impl ImageStore {
    /// Opens the store, and cleans up after interrupted pulls when nobody else has it open.
    pub fn open(config: ImageConfig) -> Result<Self, ImageError> {
        let mut stand_ins = BTreeMap::new();
        for (image, stand_in) in &config.stand_ins {
            if stand_in != HOST {
                return Err(ImageError::StandIn { image: image.clone(), stand_in: stand_in.clone() });
            }
            let name = if image == ANY { ANY.to_owned() } else { parse(image)?.whole() };
            stand_ins.insert(name, stand_in.clone());
        }
        let what = || format!("open the image store {}", config.root.display());
        for dir in ["layers", "built-in", "tmp"] {
            fs::create_dir_all(config.root.join(dir)).map_err(io_error(what()))?;
        }
        let users =
            File::options().create(true).append(true).open(config.root.join("users.lock")).map_err(io_error(what()))?;
        if users.try_lock().is_ok() {
            empty(&config.root.join("tmp")).map_err(io_error(what()))?;
        }
        users.lock_shared().map_err(io_error(what()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                index: Index::new(&config.root),
                config,
                stand_ins,
                users,
                pulls: Mutex::default(),
                stood_in: Mutex::default(),
                adding: tokio::sync::RwLock::default(),
                host: tokio::sync::OnceCell::new(),
                guests: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// The image, from here or from its registry. Everybody who asks for one image at a time shares one pull.
    pub async fn ensure(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: Option<Credentials>,
        progress: impl Fn(PullProgress) + Send,
    ) -> Result<Image, ImageError> {
        let parsed = parse(reference)?;
        let name = parsed.whole();
        if let Some(kind) = BuiltIn::find(parsed.registry(), parsed.repository()) {
            return self.built_in(kind, name).await;
        }
        let local = self.local(&name).await?;
        if let Some(image) = &local
            && policy != PullPolicy::Always
        {
            return Ok(image.clone());
        }
        let named = self.inner.stand_ins.contains_key(&name) || self.inner.stood_in.lock().contains(&name);
        if named {
            return match local {
                Some(image) => Ok(image),
                None => self.stand_in(name).await,
            };
        }
        let any = self.inner.stand_ins.contains_key(ANY);
        let pulled = match policy {
            PullPolicy::Never => Err(ImageError::NeverPulled { reference: reference.to_owned() }),
            _ => self.pull(parsed, credentials, any, local.is_some(), progress).await,
        };
        match pulled {
            Ok(record) => Ok(self.image(name, record)),
            Err(_) if any && local.is_some() => local.ok_or(ImageError::Unknown { reference: name }),
            Err(error) if any => {
                tracing::debug!(image = %name, %error, "not to be had");
                self.stand_in(name).await
            }
            Err(error) => Err(error),
        }
    }

    /// Images that were imported or pulled, by name.
    pub async fn list(&self) -> Result<Vec<ListedImage>, ImageError> {
        let store = self.clone();
        blocking(move || {
            let all = store.inner.index.all().map_err(io_error("read the list of images"))?;
            Ok(all
                .into_iter()
                .map(|(reference, record)| ListedImage { reference, id: record.id, size: record.size })
                .collect())
        })
        .await
    }

    /// Removes an image's name. Its layers go at the next `prune` that finds them unused.
    pub async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let name = parse(reference)?.whole();
        let store = self.clone();
        blocking(move || match store.inner.index.remove(&name) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ImageError::Unknown { reference: name }),
            Err(error) => Err(io_error("write the list of images")(error)),
        })
        .await
    }

    /// Removes layers that neither an image nor a container uses; `in_use` are the lower directories of containers that
    /// live. Does nothing while another process has the store open or an image is on its way.
    pub async fn prune(&self, in_use: BTreeSet<PathBuf>) -> Result<usize, ImageError> {
        let host = self.inner.host.get().map(|host| host.dir.clone());
        let store = self.clone();
        blocking(move || {
            let inner = &store.inner;
            let what = "remove unused layers";
            let Ok(_still) = inner.adding.try_write() else { return Ok(0) };
            // Our share becomes exclusive, which fails while another process has one.
            if inner.users.try_lock().is_err() {
                return Ok(0);
            }
            let removed = (|| {
                let kept: BTreeSet<String> =
                    inner.index.layers()?.iter().map(|id| directory_of(id).to_owned()).collect();
                let mut removed = 0;
                for entry in fs::read_dir(inner.config.root.join("layers"))? {
                    let entry = entry?;
                    let known = entry.file_name().to_str().is_some_and(|name| kept.contains(name));
                    if !known && !in_use.contains(&entry.path()) {
                        remove_tree(&entry.path())?;
                        removed += 1;
                    }
                }
                for entry in fs::read_dir(inner.config.root.join("built-in"))? {
                    let path = entry?.path();
                    let current = Some(&path) == host.as_ref() || inner.current_guest(&path);
                    if path.is_dir() && !path.ends_with("empty-dir") && !current && !in_use.contains(&path) {
                        remove_tree(&path)?;
                        removed += 1;
                    }
                }
                Ok(removed)
            })();
            let back = inner.users.lock_shared();
            let removed = removed.map_err(io_error(what))?;
            back.map_err(io_error(what))?;
            Ok(removed)
        })
        .await
    }

    async fn local(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let record = store.inner.index.find(&name).map_err(io_error("read the list of images"))?;
            let whole = |record: &Record| record.layers.iter().all(|layer| store.inner.layer(layer).is_dir());
            Ok(record.filter(whole).map(|record| store.image(name, record)))
        })
        .await
    }

    fn image(&self, reference: String, record: Record) -> Image {
        // Overlayfs takes a directory once. A layer that occurs again changes nothing where it is lower, since all that it
        // does is done again above.
        let mut seen = BTreeSet::new();
        let lower = record.layers.iter().rev().filter(|layer| seen.insert(*layer));
        let lower = lower.map(|layer| self.inner.layer(layer)).collect();
        Image {
            reference,
            id: record.id,
            lower,
            binds: Vec::new(),
            config: record.config,
            size: record.size,
            stand_in: false,
        }
    }

    async fn stand_in(&self, name: String) -> Result<Image, ImageError> {
        if self.inner.stood_in.lock().insert(name.clone()) {
            tracing::info!("image {name} is not here: this machine's own files (`host`) stand in for it");
        }
        Ok(Image { stand_in: true, ..self.built_in(BuiltIn::Host, name).await? })
    }

    async fn host(&self) -> Result<Arc<Host>, ImageError> {
        let store = self.clone();
        let make = || async move {
            blocking(move || {
                let root = store.inner.config.root.join("built-in");
                let what = "build the image of this machine";
                let blanks = Blanks::in_dir(&root).map_err(io_error(what))?;
                let fresh = store.inner.temporary().map_err(io_error(what))?;
                let tree = host::build(Path::new("/"), fresh.path(), &blanks).map_err(io_error(what))?;
                let dir = root.join(format!("host-{}", tree.id.trim_start_matches("sha256:")));
                settle(fresh, &dir).map_err(io_error(what))?;
                Ok(Arc::new(Host { tree, dir }))
            })
            .await
        };
        self.inner.host.get_or_try_init(make).await.cloned()
    }

    async fn built_in(&self, kind: BuiltIn, reference: String) -> Result<Image, ImageError> {
        let host = self.host().await?;
        let mut image = Image {
            reference,
            id: host.tree.id.clone(),
            lower: vec![host.dir.clone()],
            binds: host.tree.binds.clone(),
            config: kind.defaults(),
            size: host.tree.size,
            stand_in: false,
        };
        let Some(binary) = kind.binary() else { return Ok(image) };
        // One at a time: the second of two finds what the first has made.
        let _turn = self.inner.guests.lock().await;
        let store = self.clone();
        let (dir, size) = blocking(move || {
            let what = || format!("build the image of {binary}");
            let program = guest::locate(binary, &store.inner.config.guest_dir)?;
            let dir = store.inner.config.root.join("built-in").join(&program.key);
            if !dir.is_dir() {
                let fresh = store.inner.temporary().map_err(io_error(what()))?;
                guest::build(&program, kind, fresh.path()).map_err(io_error(what()))?;
                settle(fresh, &dir).map_err(io_error(what()))?;
            }
            let size = fs::metadata(dir.join(binary)).map_err(io_error(what()))?.len();
            Ok((dir, size))
        })
        .await?;
        let key = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        image.id = digest_of(&[&image.id, &key]);
        image.size += size;
        image.lower.insert(0, dir);
        Ok(image)
    }

    async fn pull(
        &self,
        reference: Reference,
        credentials: Option<Credentials>,
        brief: bool,
        have_local: bool,
        progress: impl Fn(PullProgress) + Send,
    ) -> PullResult {
        // Others' credentials open nothing: who asks with other ones pulls anew.
        let key = format!("{}\n{}", reference.whole(), credentials.as_ref().map(Credentials::key).unwrap_or_default());
        let mut pull = {
            let mut pulls = self.inner.pulls.lock();
            pulls.retain(|_, pull| pull.result.peek().is_none());
            pulls
                .entry(key)
                .or_insert_with(|| {
                    let (report, progress) = watch::channel(PullProgress::default());
                    let store = self.clone();
                    let task = tokio::spawn(async move {
                        pull::run(&store, &reference, credentials, pull::Patience { brief, have_local }, &report).await
                    });
                    let result =
                        async move { task.await.map_err(|error| io_error("pull an image")(io::Error::other(error)))? };
                    Pull { result: result.boxed().shared(), progress }
                })
                .clone()
        };
        loop {
            tokio::select! {
                result = pull.result.clone() => return result,
                Ok(()) = pull.progress.changed() => {
                    let now = *pull.progress.borrow_and_update();
                    progress(now);
                }
            }
        }
    }
}

impl Inner {
    /// Directory of a layer. Half of the digest names it: all of an image's layers must fit the options of one mount.
    pub fn layer(&self, diff_id: &str) -> PathBuf {
        self.config.root.join("layers").join(directory_of(diff_id))
    }

    /// A directory on the store's file system that goes away unless it is settled.
    pub fn temporary(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix("new-").tempdir_in(self.config.root.join("tmp"))
    }

    fn current_guest(&self, path: &Path) -> bool {
        [BuiltIn::Execd, BuiltIn::TaskExecutor]
            .into_iter()
            .filter_map(BuiltIn::binary)
            .filter_map(|binary| guest::locate(binary, &self.config.guest_dir).ok())
            .any(|program| path.file_name().is_some_and(|name| name == program.key.as_str()))
    }

    /// Unpacks a layer and puts it in its place; `digest` and `diff_id` are checked before anybody sees it.
    pub fn add_layer(
        &self,
        reader: impl io::Read,
        digest: Option<&str>,
        diff_id: &str,
        what: &str,
    ) -> Result<Unpacked, ImageError> {
        let fresh = self.temporary().map_err(io_error(format!("unpack {what}")))?;
        let root = fresh.path().join("fs");
        fs::create_dir(&root).map_err(io_error(format!("unpack {what}")))?;
        let unpacked = unpack::unpack(reader, &root, self.config.limits, what);
        let unpacked = match unpacked {
            Ok(unpacked) => unpacked,
            Err(error) => {
                let _ = remove_tree(fresh.path());
                return Err(error);
            }
        };
        for (expected, found) in [(digest, &unpacked.digest), (Some(diff_id), &unpacked.diff_id)] {
            if let Some(expected) = expected
                && expected != found
            {
                let _ = remove_tree(fresh.path());
                return Err(ImageError::corrupt(what, format_args!("digest is sha256:{found}, not sha256:{expected}")));
            }
        }
        rename_once(&root, &self.layer(diff_id)).map_err(io_error(format!("keep {what}")))?;
        Ok(unpacked)
    }
}

fn directory_of(diff_id: &str) -> &str {
    diff_id.get(..32).unwrap_or(diff_id)
}

/// The image's reference; what is missing is filled in as Docker does.
pub(super) fn parse(reference: &str) -> Result<Reference, ImageError> {
    reference
        .trim()
        .parse::<Reference>()
        .map_err(|error| ImageError::InvalidReference { reference: reference.to_owned(), reason: error.to_string() })
}

/// Runs work that blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| io_error("finish")(io::Error::other(error)))?
}

/// Gives a finished directory its name; another that is there already is as good.
fn settle(fresh: tempfile::TempDir, dir: &Path) -> io::Result<()> {
    let path = fresh.keep();
    rename_once(&path, dir)
}

fn rename_once(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(_) if to.is_dir() => remove_tree(from),
        other => other,
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { remove_tree(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn digest_of(parts: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    format!("sha256:{}", host::hex(&hash.finalize()))
}
