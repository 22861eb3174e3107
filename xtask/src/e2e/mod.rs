//! `cargo xtask e2e`: the end-to-end suite on the embedded cluster, on kind, or on any cluster.

mod audit;
mod kind;
mod kubectl;
mod leftovers;
mod release;
mod setting;
mod tool;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, ValueEnum};

use crate::progress::Step;
use crate::{cargo, images};
use kubectl::Kubectl;
use release::Release;
use setting::Setting;

/// The environment variable that names the file which says where the platform is.
pub const SETTING: &str = "OPENSANDBOX_E2E_CLUSTER";
/// A tag under which images are loaded once more, to upgrade to.
const NEXT_TAG: &str = "e2e-next";

/// Where the suite runs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// A kind cluster: the named one, or one that is made and deleted.
    Kind,
    /// The cluster of the current kubeconfig.
    Kubeconfig,
    /// `osb up` on this machine, one for each case.
    Embedded,
}

/// How images are built.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Quick to build.
    Dev,
    /// What is shipped.
    Release,
}

/// On which cluster the platform is put, and how.
#[derive(Args)]
pub struct Place {
    /// Where it runs.
    #[arg(long, value_enum, default_value = "kind")]
    on: On,
    /// Name of the kind cluster. One that is not there is made, and deleted at the end.
    #[arg(long, default_value = "opensandbox-e2e")]
    cluster: String,
    /// Keep the platform installed, and a cluster that was made.
    #[arg(long)]
    keep: bool,
    /// How to build the images.
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Images are there already: build and load none.
    #[arg(long)]
    no_images: bool,
    /// With `--on kubeconfig`: where to load the images, as in `cargo xtask images --load`. Without it the nodes have
    /// to pull what the values name.
    #[arg(long, value_name = "TARGET")]
    load: Vec<String>,
    /// More values for the chart, such as a registry.
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Turn the API server's audit log on in an existing kind cluster, which restarts its API server. A cluster that is
    /// made has it.
    #[arg(long)]
    audit: bool,
    /// A configuration for the kind cluster that is made, instead of ours.
    #[arg(long, value_name = "FILE")]
    kind_config: Option<PathBuf>,
    /// A shell command to run after a stopped node was started, with its name in `$NODE`: for pod networks that do not
    /// mend themselves.
    #[arg(long, value_name = "COMMAND")]
    node_started: Option<String>,
    /// Directory for what tells of failures [default: `e2e` in cargo's target directory].
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

/// What the suite may be told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Run only the cases whose name contains this.
    filter: Option<String>,
    /// More arguments for the suite, such as `--skip NAME`.
    #[arg(last = true)]
    more: Vec<String>,
}

/// Builds, loads, installs, runs the suite, and leaves nothing behind.
pub fn run(options: &Options) -> Result<()> {
    match options.place.on {
        On::Embedded => cargo::run(&mut suite(options, None)),
        _ => installed(&options.place, &|installed| cargo::run(&mut suite(options, Some(installed.setting)))),
    }
}

/// A platform on a cluster.
pub struct Installed<'a> {
    /// The file that says where it is; the variable [`SETTING`] leads to it.
    pub setting: &'a Path,
    /// Since when it is being installed.
    pub begun: std::time::SystemTime,
}

/// Builds, loads, installs, does the job, and leaves nothing behind.
pub fn installed(options: &Place, job: &dyn Fn(&Installed<'_>) -> Result<()>) -> Result<()> {
    match options.on {
        On::Embedded => bail!("this is done on a cluster: --on kind, or --on kubeconfig"),
        On::Kind => on_kind(options, job),
        On::Kubeconfig => {
            tool::need(&["kubectl", "helm"])?;
            let work = Work::new()?;
            let kubectl = Kubectl::of_current(&work.path().join("kubeconfig"))?;
            if !options.no_images && !options.load.is_empty() {
                make_images(options, &options.load)?;
            }
            on_cluster(options, &work, &kubectl, None, job)
        }
    }
}

fn on_kind(options: &Place, job: &dyn Fn(&Installed<'_>) -> Result<()>) -> Result<()> {
    tool::need(&["kind", "docker", "kubectl", "helm"])?;
    let work = Work::new()?;
    let cluster = kind::Cluster::find_or_make(&options.cluster, options.kind_config.as_deref(), work.path())?;
    let outcome = (|| {
        let kubectl = cluster.kubectl(&work.path().join("kubeconfig"))?;
        if options.audit {
            audit::enable(&cluster, &kubectl)?;
        }
        if !options.no_images {
            make_images(options, &[format!("kind:{}", cluster.name())])?;
        }
        on_cluster(options, &work, &kubectl, Some(&cluster), job)
    })();
    if !cluster.is_ours() || options.keep {
        return outcome;
    }
    let deleted = cluster.delete();
    outcome.and(deleted)
}

fn on_cluster(
    options: &Place,
    work: &Work,
    kubectl: &Kubectl,
    kind: Option<&kind::Cluster>,
    job: &dyn Fn(&Installed<'_>) -> Result<()>,
) -> Result<()> {
    let evidence = match &options.evidence {
        Some(directory) => std::path::absolute(directory)?,
        None => cargo::target_dir()?.join("e2e"),
    };
    let release = Release::new(kubectl, work.path(), &options.values)?;
    let has_next = !options.no_images && (kind.is_some() || !options.load.is_empty());
    let outcome = (|| {
        let begun = std::time::SystemTime::now();
        release.install()?;
        eprintln!("installed in {:.1} s", begun.elapsed().unwrap_or_default().as_secs_f64());
        let setting = Setting {
            kubeconfig: kubectl.kubeconfig(),
            release: release::NAME,
            platform_namespace: release::NAMESPACE,
            namespace: "default",
            chart: &release.chart,
            values: &release.values,
            next_tag: (has_next || options.no_images).then_some(NEXT_TAG),
            kind: kind.map(kind::Cluster::name),
            node_started: options.node_started.as_deref(),
            audit_log: match kind {
                Some(cluster) => audit::log(cluster)?,
                None => None,
            },
            evidence: &evidence,
        };
        let file = work.path().join("cluster.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&setting)?).context("cannot write the suite's setting")?;
        job(&Installed { setting: &file, begun })
    })();
    if outcome.is_err() {
        let directory = evidence.join("cluster");
        match gather(kubectl, &directory) {
            Ok(()) => eprintln!("evidence: {}", evidence.display()),
            Err(error) => eprintln!("no evidence of the cluster: {error:#}"),
        }
    }
    if options.keep {
        eprintln!("kept; the platform is in namespace {}", release::NAMESPACE);
        return outcome;
    }
    let gone = release.uninstall().and_then(|()| leftovers::check(kubectl));
    match (outcome, gone) {
        (Err(error), Err(further)) => Err(error.context(format!("and {further:#}"))),
        (outcome, gone) => outcome.and(gone),
    }
}

/// The suite, on the ground that a setting describes.
fn suite(options: &Options, setting: Option<&Path>) -> std::process::Command {
    let mut command = cargo::cargo(&["test", "--quiet", "--workspace", "--test", "suite", "--"]);
    command.args(&options.filter).args(&options.more);
    match setting {
        Some(path) => command.env(SETTING, path),
        None => command.env_remove(SETTING),
    };
    command
}

/// Makes and loads the images, under the names that the example's pool has for them, too.
fn make_images(options: &Place, targets: &[String]) -> Result<()> {
    #[derive(Parser)]
    struct Images {
        #[command(flatten)]
        options: images::Options,
    }
    let profile = options.profile.to_possible_value().context("a profile has a name")?;
    let mut words = vec!["images".to_owned(), "--profile".to_owned(), profile.get_name().to_owned()];
    for target in targets {
        words.extend(["--load".to_owned(), target.clone()]);
    }
    for alias in ["execd:v1.0.5=execd", "task-executor:dev=task-executor"] {
        words.extend(["--tag".to_owned(), format!("opensandbox/{alias}")]);
    }
    for name in ["controller", "server"] {
        words.extend(["--tag".to_owned(), format!("opensandbox/{name}:{NEXT_TAG}={name}")]);
    }
    images::run(&Images::try_parse_from(words)?.options)
}

fn gather(kubectl: &Kubectl, directory: &Path) -> Result<()> {
    let step = Step::new("gathering evidence");
    let mut command = cargo::cargo(&["run", "--quiet", "--bin", "evidence", "--"]);
    command.arg(kubectl.kubeconfig()).arg(directory).args([release::NAMESPACE, "default", "kube-system"]);
    let done = cargo::run(&mut command);
    step.done();
    done
}

/// A directory for this run.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Self> {
        let path = cargo::target_dir()?.join("e2e-work").join(std::process::id().to_string());
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // It holds credentials of the cluster.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Fails unless a name can be a cluster's.
fn plain(name: &str) -> Result<()> {
    ensure!(!name.is_empty(), "the cluster has no name");
    if name.bytes().any(|b| !(b.is_ascii_alphanumeric() || b"-._".contains(&b))) {
        bail!("{name:?} is no name of a kind cluster");
    }
    Ok(())
}
