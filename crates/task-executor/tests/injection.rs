//! How a task comes into the sandbox container, and what it is there. Needs root.

mod pod;

use std::path::PathBuf;
use std::time::Instant;

use pod::{COMMON_CAPS, DEADLINE, Pod, Recipe, field, possible};
use serde_json::json;

const LOOK: &str = "cat /in-sandbox; echo cwd:$PWD; hostname; echo env:$FROM_SANDBOX:$FROM_EXECUTOR:$OVER; \
                    umask; cat /proc/self/status; cat /proc/self/cgroup; ls -l /proc/self/fd";

#[test]
fn with_sys_ptrace_alone_the_task_has_the_containers_root_env_directory_and_capabilities() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    let (status, output) = pod.run("look", LOOK);
    assert_eq!(status["terminated"]["exitCode"], 0, "{status} {output}");
    assert_eq!(status["injection"], "executorCgroup");
    assert!(output.contains("sandbox\ncwd:/work\n") && output.contains("env:yes::sandbox"), "{output}");
    assert!(output.contains("0027"), "{output}");
    let sandbox = pod.pid_with("FROM_SANDBOX=yes").unwrap();
    let theirs = std::fs::read_to_string(format!("/proc/{sandbox}/status")).unwrap();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Uid:", "Gid:", "Groups:"] {
        assert_eq!(field(&output, set), field(&theirs, set), "{set}");
    }
    let bounding = u64::from_str_radix(field(&output, "CapBnd:"), 16).unwrap();
    assert_eq!(bounding >> 19 & 1, 0, "SYS_PTRACE must not reach the task");
    let executor = std::fs::read_to_string(format!("/proc/{}/status", pod.executor())).unwrap();
    let own = u64::from_str_radix(field(&executor, "CapBnd:"), 16).unwrap();
    assert_eq!((own >> 19 & 1, own >> 21 & 1), (1, 0), "the executor has SYS_PTRACE and not SYS_ADMIN");
    for fd in ["/tasks", "memfd", "events", "lock"] {
        assert!(!output.contains(fd), "descriptor {fd} leaked: {output}");
    }
}

#[test]
fn a_container_of_another_user_gets_its_tasks_as_that_user() {
    if !possible() {
        return;
    }
    let sandbox_user = "--reuid=1234 --regid=2345 --groups=77,88 --no-new-privs";
    let pod = Pod::start(Recipe { sandbox_user, ..Recipe::default() });
    let (status, output) = pod.run("look", LOOK);
    assert_eq!(status["terminated"]["exitCode"], 0, "{status} {output}");
    assert_eq!(field(&output, "Uid:"), "1234\t1234\t1234\t1234");
    assert_eq!(field(&output, "Gid:"), "2345\t2345\t2345\t2345");
    assert_eq!(field(&output, "Groups:"), "77 88");
    assert_eq!(field(&output, "CapEff:"), "0000000000000000");
    assert_eq!(field(&output, "NoNewPrivs:"), "1");
}

/// A cgroup of the v1 pids hierarchy, where this machine has that.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/pids/te-test-{}", std::process::id()));
        if std::fs::create_dir(&path).is_ok() && path.join("cgroup.procs").exists() {
            return Some(Self(path));
        }
        eprintln!("the joining of cgroups is not looked at: /sys/fs/cgroup/pids (v1) is missing");
        None
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = Instant::now() + DEADLINE;
        while std::fs::remove_dir(&self.0).is_err() {
            if Instant::now() > end {
                eprintln!("{} can't be removed", self.0.display());
                break;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn with_sys_admin_the_task_is_in_the_containers_namespaces_and_cgroup() {
    if !possible() {
        return;
    }
    let cgroup = Cgroup::new();
    let executor_caps = format!("{COMMON_CAPS},+sys_ptrace,+sys_admin");
    let path = cgroup.as_ref().map(|c| c.0.clone());
    let pod = Pod::start(Recipe { executor_caps, cgroup: path, ..Recipe::default() });
    let (status, output) = pod.run("look", &format!("{LOOK}; readlink /proc/self/ns/mnt /proc/self/ns/uts"));
    assert_eq!(status["terminated"]["exitCode"], 0, "{status} {output}");
    assert_eq!(status["injection"], "namespaces", "{status}");
    assert!(output.contains("the-sandbox") && output.contains("sandbox\ncwd:/work\n"), "{output}");
    let sandbox = pod.pid_with("FROM_SANDBOX=yes").unwrap();
    for ns in ["mnt", "uts"] {
        let theirs = std::fs::read_link(format!("/proc/{sandbox}/ns/{ns}")).unwrap();
        assert!(output.contains(theirs.to_str().unwrap()), "{ns}: {output}");
    }
    let bounding = u64::from_str_radix(field(&output, "CapBnd:"), 16).unwrap();
    assert_eq!((bounding >> 19 & 1, bounding >> 21 & 1), (0, 0), "no privilege of the executor reaches the task");
    if let Some(cgroup) = &cgroup {
        assert!(output.contains(cgroup.0.file_name().unwrap().to_str().unwrap()), "{output}");
    }
    drop(pod);
}

#[test]
fn without_any_privilege_the_task_says_why_no_way_is_open() {
    if !possible() {
        return;
    }
    let caps = "-all,+kill,+setuid,+setgid,+setpcap,+dac_override,+sys_ptrace".to_owned();
    let pod = Pod::start(Recipe { executor_caps: caps, ..Recipe::default() });
    let (status, _) = pod.run("look", "true");
    assert_eq!(status["terminated"]["reason"], "StartError", "{status}");
    let message = status["terminated"]["message"].as_str().unwrap();
    assert!(message.contains("chroot") && message.contains("namespaces"), "{message}");
}

#[test]
fn without_a_container_the_call_says_so_and_without_a_shared_namespace_our_own_is_used() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe { sandbox: false, ..Recipe::default() });
    let task = json!([{"name": "x", "process": {"command": ["true"]}}]);
    let (status, answer) = pod.call("POST", "/setTasks", &task);
    assert_eq!((status, &answer["code"]), (503, &json!("NO_SANDBOX_CONTAINER")), "{answer}");
    assert_eq!(pod.call("GET", "/getTasks", &json!(null)).1, json!([]));
    let mut recipe = Recipe { sandbox: false, ..Recipe::default() };
    recipe.env.push("ENABLE_SIDECAR_MODE=false".into());
    let pod = Pod::start(recipe);
    let (status, output) = pod.run("own", "echo $FROM_EXECUTOR");
    assert_eq!((output.as_str(), &status["injection"]), ("yes\n", &json!(null)), "{status}");
}

#[test]
fn a_named_container_must_be_there() {
    if !possible() {
        return;
    }
    let mut recipe = Recipe::default();
    recipe.env.push("MAIN_CONTAINER_NAME=other".into());
    let pod = Pod::start(recipe);
    let (status, answer) = pod.call("POST", "/setTasks", &json!([{"name": "x", "process": {"command": ["true"]}}]));
    assert_eq!(status, 503);
    assert!(answer["message"].as_str().unwrap().contains("SANDBOX_MAIN_CONTAINER=other"), "{answer}");
}
