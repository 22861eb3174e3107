use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

mod archives;
mod registry;

fn no_progress(_: PullProgress) {}

fn store(dir: &Path, change: impl FnOnce(&mut ImageConfig)) -> ImageStore {
    let mut config = ImageConfig::new(dir.join("images"), dir.join("bin"));
    config.connect_timeout = Duration::from_secs(5);
    change(&mut config);
    ImageStore::open(config).unwrap()
}

/// Runs a script in the image, on an overlay in a mount namespace of its own.
fn run(image: &Image, script: &str) -> String {
    let (image, script) = (image.clone(), script.to_owned());
    let output = std::thread::spawn(move || {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let root = dir.path().join("root");
        let lower: Vec<String> = image.lower.iter().map(|path| path.display().to_string()).collect();
        let at = dir.path().display();
        let options = format!("lowerdir={},upperdir={at}/upper,workdir={at}/work", lower.join(":"));
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        for bind in &image.binds {
            let target = root.join(bind.target.strip_prefix("/").unwrap());
            mount(Some(&bind.source), &target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &target, none, flags, none).unwrap();
        }
        let output = Command::new("chroot").arg(&root).args(["/bin/sh", "-c", &script]).output().unwrap();
        nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).unwrap();
        output
    });
    let output = output.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: mounting an image needs root");
    }
    root
}

#[tokio::test]
async fn this_machine_is_an_image_without_anybodys_files() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = store(dir.path(), |_| {});
    let image = store.ensure("host", PullPolicy::Always, None, no_progress).await.unwrap();
    assert!(image.id.starts_with("sha256:") && !image.stand_in);
    let said = run(
        &image,
        "echo ok; ls -A /home /root /tmp; test ! -e /etc/shadow && test ! -e /etc/ssh && test ! -e /etc/gshadow && echo clean; \
         (: > /usr/bin/evil) 2>/dev/null || echo read-only; : > /tmp/x && echo writable; id -un",
    );
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["ok", "/home:", "/root:", "/tmp:", "clean", "read-only", "writable", "root"]);
    let again = store.ensure("host:any", PullPolicy::Never, None, no_progress).await.unwrap();
    assert_eq!(again.id, image.id);
}

#[tokio::test]
async fn the_guests_install_as_manifests_do() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = store(dir.path(), |_| {});
    let missing = store.ensure("opensandbox/execd:v1", PullPolicy::IfNotPresent, None, no_progress).await.unwrap_err();
    assert!(matches!(missing, ImageError::GuestMissing { binary: "execd", .. }), "{missing}");
    fs::create_dir(dir.path().join("bin")).unwrap();
    for name in ["execd", "task-executor"] {
        fs::write(dir.path().join("bin").join(name), format!("#!/bin/sh\necho {name} runs\n")).unwrap();
    }
    for name in ["opensandbox/execd:v1.0.5", "docker.io/opensandbox/execd", "opensandbox/execd:latest"] {
        let image = store.ensure(name, PullPolicy::IfNotPresent, None, no_progress).await.unwrap();
        let said = run(
            &image,
            "mkdir -p /opt/opensandbox/bin && cp ./execd /opt/opensandbox/bin/execd && \
             cp ./bootstrap.sh /opt/opensandbox/bin/bootstrap.sh && chmod +x /opt/opensandbox/bin/execd && \
             chmod +x /opt/opensandbox/bin/bootstrap.sh && /opt/opensandbox/bin/execd && head -c 9 ./bootstrap.sh",
        );
        assert_eq!(said, "execd runs\n#!/bin/sh");
        assert_eq!(image.config.working_dir.as_deref(), Some("/"));
    }
    let image = store.ensure("opensandbox/task-executor:dev", PullPolicy::Never, None, no_progress).await.unwrap();
    assert_eq!(image.config.entrypoint, ["/task-executor"]);
    assert_eq!(run(&image, "/task-executor"), "task-executor runs\n");
    // A new build is a new image; the old one goes when no container uses it.
    fs::write(dir.path().join("bin/task-executor"), "#!/bin/sh\necho anew\n").unwrap();
    let newer = store.ensure("opensandbox/task-executor:dev", PullPolicy::Never, None, no_progress).await.unwrap();
    assert_ne!(newer.id, image.id);
    assert_eq!(store.prune(image.lower.iter().cloned().collect()).await.unwrap(), 0);
    assert_eq!(store.prune(Default::default()).await.unwrap(), 1);
    assert_eq!(run(&newer, "/task-executor"), "anew\n");
}

#[tokio::test]
async fn what_is_not_here_says_what_to_do_or_is_stood_in_for() {
    let dir = tempfile::tempdir().unwrap();
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = store(dir.path(), |config| {
        config.stand_ins.insert("nginx".into(), "host".into());
    });
    let ensure = |name: String, policy| {
        let store = store.clone();
        async move { store.ensure(&name, policy, None, no_progress).await }
    };
    let error = ensure("Not An Image".into(), PullPolicy::Always).await.unwrap_err();
    assert_eq!(error.reason(), "InvalidImageName");
    let error = ensure("busybox".into(), PullPolicy::Never).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNeverPull");
    assert!(error.to_string().contains("osb image import FILE"), "{error}");
    let error = ensure(format!("{free}/app:1"), PullPolicy::IfNotPresent).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImagePull");
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    let image = ensure("docker.io/library/nginx:latest".into(), PullPolicy::Always).await.unwrap();
    assert!(image.stand_in);
    assert_eq!(image.reference, "docker.io/library/nginx:latest");

    let any = self::store(dir.path(), |config| {
        config.stand_ins.insert("*".into(), "host".into());
    });
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Never] {
        let image = any.ensure(&format!("{free}/app:1"), policy, None, no_progress).await.unwrap();
        assert!(image.stand_in);
    }
    let wrong = ImageConfig {
        stand_ins: BTreeMap::from([("a".into(), "b".into())]),
        ..ImageConfig::new(dir.path(), dir.path())
    };
    assert!(matches!(ImageStore::open(wrong), Err(ImageError::StandIn { .. })));
}

#[test]
fn the_policy_follows_the_tag() {
    for (given, reference, expected) in [
        (None, "nginx", PullPolicy::Always),
        (None, "nginx:latest", PullPolicy::Always),
        (None, "nginx:1.27", PullPolicy::IfNotPresent),
        (None, "localhost:5000/nginx", PullPolicy::Always),
        (Some("Never"), "nginx", PullPolicy::Never),
    ] {
        assert_eq!(PullPolicy::of(given, reference), expected, "{reference}");
    }
}
