//! Whether the control plane's processes are gone, by what the kernel says: no tool of a container runtime is needed. Kills nothing.

use std::fs;
use std::io;
use std::path::Path;

use backup_core::{Error, Result};
use serde::Serialize;

use super::manifest::Part;
use crate::run::listening;

/// A process of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Process {
    /// What it is.
    pub(crate) part: Part,
    /// Its number.
    pub(crate) pid: u32,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sought {
    /// The command line of etcd: a node may run others.
    pub(crate) etcd: Vec<String>,
    /// Ports, and which part listens on them.
    pub(crate) ports: Vec<(Part, u16)>,
}

impl Sought {
    /// Processes of the control plane in this network namespace: that of the host, where static pods run. A hosted control plane has
    /// namespaces of its own.
    ///
    /// # Errors
    /// When /proc can not be read.
    pub(crate) fn processes(&self) -> Result<Vec<Process>> {
        let told = |e: io::Error| Error::other("can not look through /proc").because(e);
        let ours = namespace("self").map_err(told)?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").map_err(told)? {
            let Some(pid) = entry
                .ok()
                .and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            else {
                continue;
            };
            // One that ends meanwhile has nothing to read.
            let command = command_of(pid);
            let Some(part) = command.first().and_then(|word| Part::started_by(word)) else {
                continue;
            };
            let is_sought = match part {
                Part::Etcd => command == self.etcd,
                _ => namespace(&pid.to_string()).is_ok_and(|other| other == ours),
            };
            if is_sought {
                found.push(Process { part, pid });
            }
        }
        found.sort_by_key(|process| (process.part, process.pid));
        Ok(found)
    }

    /// Those of the ports on which anybody in this network namespace listens.
    ///
    /// # Errors
    /// When /proc can not be read.
    pub(crate) fn listened_on(&self) -> Result<Vec<(Part, u16)>> {
        let open = listening::anybodys()
            .map_err(|e| Error::other("can not read /proc/self/net").because(e))?;
        let ports = self.ports.iter().copied();
        Ok(ports.filter(|(_, port)| open.contains(port)).collect())
    }

    /// What is left of these parts, for people; none when they are gone.
    ///
    /// # Errors
    /// When /proc can not be read.
    pub(crate) fn left(&self, parts: &[Part]) -> Result<Option<String>> {
        let processes = self.processes()?;
        if let Some(found) = processes.iter().find(|found| parts.contains(&found.part)) {
            return Ok(Some(format!("{} (process {})", found.part, found.pid)));
        }
        let ports = self.listened_on()?;
        let open = ports.iter().find(|(part, _)| parts.contains(part));
        Ok(open.map(|(part, port)| format!("somebody on port {port}, which is that of {part}")))
    }
}

/// Whether a kubelet runs: without one no pod is ended or started.
pub(crate) fn kubelet_runs() -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.any(|pid| {
        let command = command_of(pid);
        let program = command.first().map(Path::new).and_then(Path::file_name);
        program.is_some_and(|name| name == "kubelet")
    })
}

fn command_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0);
    let mut words: Vec<String> = words
        .map(|w| String::from_utf8_lossy(w).into_owned())
        .collect();
    // Each word ends with a zero.
    words.pop();
    words
}

fn namespace(pid: &str) -> io::Result<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_command_and_an_etcd_by_all_of_it() {
        let start = |name: &str, seconds: &str| {
            Command::new("sleep")
                .arg0(name)
                .arg(seconds)
                .spawn()
                .unwrap()
        };
        let mut children = [
            start("/x/kube-scheduler", "3001"),
            start("etcd", "3002"),
            start("etcd", "3003"),
        ];
        let sought = Sought {
            etcd: vec!["etcd".into(), "3003".into()],
            ports: Vec::new(),
        };
        let pids: Vec<u32> = children.iter().map(std::process::Child::id).collect();
        // A child is itself only once it has called exec.
        let found = loop {
            let found = sought.processes().unwrap();
            if found.iter().any(|p| p.pid == pids[2]) && found.iter().any(|p| p.pid == pids[0]) {
                break found;
            }
        };
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(!found.iter().any(|p| p.pid == pids[1]), "another etcd");
        let after = sought.processes().unwrap();
        assert!(!after.iter().any(|p| pids.contains(&p.pid)));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sought = Sought {
            etcd: Vec::new(),
            ports: vec![(Part::Etcd, port)],
        };
        assert_eq!(sought.listened_on().unwrap(), [(Part::Etcd, port)]);
        let left = sought.left(&[Part::Etcd]).unwrap().unwrap();
        assert!(left.contains(&port.to_string()), "{left}");
        assert_eq!(sought.left(&[]).unwrap(), None);
        drop(listener);
        // A program that another test starts holds it a moment longer, until its exec.
        let is_gone = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            sought.listened_on().unwrap().is_empty()
        });
        assert!(is_gone);
    }
}
