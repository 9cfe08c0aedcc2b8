//! What a node has of this machine: a pair of addresses on an interface of its own, and control groups of its own.
//! Both are leased, so that nodes side by side do not meet, and gone when dropped.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::guardian;
use crate::process::Output;

const GROUPS: &str = "/sys/fs/cgroup";

/// A private network of two: this machine and the node.
#[derive(Debug)]
pub(super) struct Network {
    number: u8,
    link: String,
    _lease: UnixListener,
}

impl Network {
    /// A network no other test has and this machine knows nothing of.
    pub(super) fn lease() -> Self {
        let known = Output::of(Command::new("ip").args(["-oneline", "address"])).stdout;
        for number in 0..=u8::MAX {
            let lease =
                SocketAddr::from_abstract_name(format!("kubectl-backup-tests-net-{number}"))
                    .and_then(|address| UnixListener::bind_addr(&address));
            let network = match lease {
                Ok(_lease) => Self {
                    number,
                    link: format!("kbtest{number}"),
                    _lease,
                },
                Err(_) => continue,
            };
            if !known.contains(&format!(" {}/", network.outside())) {
                return network;
            }
        }
        panic!("no free network in 10.245.0.0/16");
    }

    /// The name of this machine's end of it.
    pub(super) fn link(&self) -> &str {
        &self.link
    }

    /// This machine's address, which the node and its pods reach.
    pub(super) fn outside(&self) -> String {
        format!("10.245.{}.1", self.number)
    }

    /// The node's address.
    pub(super) fn inside(&self) -> String {
        format!("10.245.{}.2", self.number)
    }

    /// Makes the interface, with one end in the network namespace of this process, where it is `eth0`.
    pub(super) fn connect(&self, pid: u32) {
        guardian::link_made(&self.link);
        let (link, namespace) = (self.link.as_str(), format!("--net=/proc/{pid}/ns/net"));
        let (outside, inside) = (
            format!("{}/30", self.outside()),
            format!("{}/30", self.inside()),
        );
        let ip = |arguments: &[&str]| Output::of(Command::new("ip").args(arguments)).ok();
        // One left behind by a machine that lost its power, or by a guardian that was killed.
        let _ = Output::of(Command::new("ip").args(["link", "delete", link]));
        ip(&[
            "link",
            "add",
            link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &pid.to_string(),
        ]);
        ip(&["address", "add", &outside, "dev", link]);
        ip(&["link", "set", link, "up"]);
        let within = |arguments: &[&str]| {
            Output::of(
                Command::new("nsenter")
                    .args([&namespace, "--", "ip"])
                    .args(arguments),
            )
            .ok()
        };
        within(&["address", "add", &inside, "dev", "eth0"]);
        within(&["link", "set", "eth0", "up"]);
        // There is no way out that would lead to services: without this one only pods reach them.
        within(&["route", "add", SERVICES, "dev", "eth0"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // As a rule it went with the namespace of its other end.
        let _ = Output::of(Command::new("ip").args(["link", "delete", &self.link]));
        guardian::link_gone(&self.link);
    }
}

/// As kubeadm.yaml has it.
const SERVICES: &str = "10.96.0.0/16";

/// Control groups of one name: one in the single hierarchy of version 2, or one in each of version 1.
#[derive(Debug)]
pub(super) struct ControlGroup {
    name: String,
}

impl ControlGroup {
    pub(super) fn new(name: String) -> Self {
        guardian::control_group_made(&name);
        let group = Self { name };
        for folder in group.folders() {
            fs::create_dir_all(&folder)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            // An empty cpuset of version 1 takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read(folder.parent().unwrap().join(file)) {
                    let _ = fs::write(folder.join(file), all);
                }
            }
        }
        group
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn folders(&self) -> Vec<PathBuf> {
        hierarchies()
            .into_iter()
            .map(|hierarchy| hierarchy.join(&self.name))
            .collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A group can be removed a moment after its last process has ended.
        for _ in 0..50 {
            self.folders().iter().for_each(|folder| remove(folder));
            if !self.folders().iter().any(|folder| folder.exists()) {
                guardian::control_group_gone(&self.name);
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The roots of the hierarchies there are.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(GROUPS);
    if root.join("cgroup.procs").exists() {
        return vec![root.to_owned()];
    }
    let found = fs::read_dir(root).into_iter().flatten().flatten();
    found
        .map(|entry| entry.path())
        // Controllers that share a hierarchy are links to it.
        .filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect()
}

/// The groups below it first; the files in them go with them.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
