//! Which process a run is, so that another one on the same machine can tell whether it still is. Where a system does not tell, nobody is taken for dead.

use serde::{Deserialize, Serialize};

/// A process, as far as another one can recognise it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// The machine's name.
    pub host: String,
    /// The machine's start, by a random id; empty where it is not known.
    boot: String,
    /// The namespace in which its number counts.
    pid_namespace: String,
    /// Its number.
    pid: u32,
    /// When it was started, in ticks since the machine's start: numbers are used again.
    started: u64,
    /// `namespace/name` of the pod of a controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

impl Process {
    /// This one. `pod` is that of a controller.
    pub fn this(host: String, pod: Option<String>) -> Self {
        let pid = std::process::id();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            host,
            boot: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            pid_namespace: namespace.to_string_lossy().into_owned(),
            pid,
            started: started(pid).unwrap_or_default(),
            pod,
        }
    }

    fn is_known(&self) -> bool {
        !self.boot.is_empty() && !self.pid_namespace.is_empty() && self.started > 0
    }

    /// Whether this process can tell that the other one is not there any more, and does.
    pub(super) fn sees_dead(&self, other: &Self) -> bool {
        if !self.is_known() || !other.is_known() || self.boot != other.boot {
            return false;
        }
        if self.pid_namespace == other.pid_namespace {
            return started(other.pid) != Some(other.started);
        }
        // A pod's controller has one container, and its namespace ends with it.
        self.pod.is_some() && self.pod == other.pod && self.host == other.host
    }
}

/// When a process was started; nothing where it is not there. One that has ended and was not awaited counts as not there.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold any.
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = rest.next()?;
    let started = rest.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_there_is_not_dead_and_one_that_was_awaited_is() {
        let me = Process::this("h".into(), None);
        assert!(me.is_known() && !me.sees_dead(&me));
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let mut other = Process {
            pid: child.id(),
            started: started(child.id()).unwrap(),
            ..me.clone()
        };
        assert!(!me.sees_dead(&other));
        // Another one of the same number.
        let again = Process {
            started: other.started + 1,
            ..other.clone()
        };
        assert!(me.sees_dead(&again));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(me.sees_dead(&other));
        // What another machine, or another start of it, says of its processes can not be checked here.
        other.boot = "other".into();
        assert!(!me.sees_dead(&other) && !me.sees_dead(&Process::default()));
    }

    #[test]
    fn an_earlier_process_of_the_same_controllers_pod_is_dead() {
        let me = Process::this("pod-1".into(), Some("ns/pod-1".into()));
        let earlier = Process {
            pid_namespace: "pid:[1]".into(),
            ..me.clone()
        };
        assert!(me.sees_dead(&earlier));
        let another = Process {
            pod: Some("ns/pod-2".into()),
            ..earlier.clone()
        };
        assert!(!me.sees_dead(&another));
        let nobodys = Process {
            pod: None,
            ..earlier
        };
        assert!(!me.sees_dead(&nobodys));
    }
}
