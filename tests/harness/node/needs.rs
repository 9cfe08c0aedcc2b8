//! Whether this machine can have a node at all; what it lacks is said in one line.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::network;
use crate::process::{Folder, Output};

/// Debian's packages of these names, but for util-linux and iproute2.
const PROGRAMS: [&str; 9] = [
    "containerd",
    "ctr",
    "runc",
    "iptables",
    "conntrack",
    "ip",
    "unshare",
    "nsenter",
    "setpriv",
];
/// Where a node looks for them, and where they are looked for here.
pub(super) const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tries in namespaces of its own what a node does: mounts, an overlay, an interface.
const TRIAL: &str = r#"
mount -t tmpfs tmpfs /run && mkdir -p "$1/lower" "$1/upper" "$1/work" "$1/merged" &&
mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" overlay "$1/merged" &&
hostname trial && ip link add trial type veth peer name other && echo 1 > /proc/sys/net/ipv4/ip_forward
"#;

/// Nothing where a node can run, else why it can not.
pub(super) fn lacking() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(look).clone()
}

fn look() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("a node needs root".to_owned());
    }
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| !is_there(program))
        .copied()
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "a node needs {}: see tests/tools/build",
            missing.join(", ")
        ));
    }
    for file in ["/bin/busybox", "/usr/lib/cni/bridge", "/dev/kmsg"] {
        if !Path::new(file).exists() {
            return Err(format!("a node needs {file}: see tests/tools/build"));
        }
    }
    if network::hierarchies().is_empty() {
        return Err("a node needs control groups".to_owned());
    }
    let folder = Folder::new("trial");
    let hidden = ["/run", "/etc", "/var/lib", "/var/log"];
    if hidden
        .iter()
        .any(|hidden| folder.path().starts_with(hidden))
    {
        return Err(format!(
            "{} would be hidden inside a node",
            folder.path().display()
        ));
    }
    let groups = network::hierarchies()
        .into_iter()
        .map(|root| root.join("kubectl-backup-trial"));
    for group in groups {
        // May be there already: another test process looks at the same time.
        let made = fs::create_dir(&group);
        let _ = fs::remove_dir(&group);
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(format!(
                "a node needs control groups: {}: {error}",
                group.display()
            ));
        }
    }
    let mut trial = Command::new("unshare");
    trial
        .args([
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
        ])
        .args([
            "--mount-proc",
            "--propagation",
            "private",
            "/bin/sh",
            "-c",
            TRIAL,
            "trial",
        ])
        .arg(folder.path())
        .env("PATH", SEARCH);
    let tried = Output::of(&mut trial);
    if tried.code != 0 {
        return Err(format!(
            "a node needs namespaces and overlays: {}",
            tried.stderr.trim()
        ));
    }
    Ok(())
}

fn is_there(program: &str) -> bool {
    SEARCH
        .split(':')
        .any(|folder| Path::new(folder).join(program).is_file())
}
