//! What is to be seen of a mover from outside of its streams: its pod, what its processes were started with and have in their environment, and what stands beside it in its namespace.
//! Nothing of that opens a store or a repository.

use std::fs;
use std::path::Path;

use harness::wait_for;
use rustix::process::Signal;
use serde_json::Value;

use super::{PATIENT, World};

/// All of it, in words.
pub(super) struct Seen {
    /// Command lines, and what is in the environments.
    processes: String,
    objects: String,
}

/// Looks at the movers of a namespace while this program runs in one, which is stopped for so long.
#[track_caller]
pub(super) fn seen(world: &World, namespace: &str, program: &str) -> Seen {
    stopped(world, namespace, program, |pods| {
        let is_mover =
            |pod: &&Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "mover";
        let movers: Vec<&Value> = pods.iter().filter(is_mover).collect();
        // No Secret, no file but those of claims.
        for volume in all(&movers, |mover| &mover["spec"]["volumes"]) {
            assert!(volume["persistentVolumeClaim"].is_object(), "{volume}");
        }
        movers.iter().map(|mover| mover.to_string()).collect()
    })
}

/// The same of movers in the pods that have the volumes: nothing but the volume was put into them.
#[track_caller]
pub(super) fn seen_inside(world: &World, namespace: &str, program: &str) -> Seen {
    stopped(world, namespace, program, |pods| {
        let pods: Vec<&Value> = pods.iter().collect();
        let movers = all(&pods, |pod| &pod["spec"]["ephemeralContainers"]);
        for mover in &movers {
            // Its own name, and nothing else.
            let own = serde_json::json!([{"name": "KUBECTL_BACKUP_MOVER", "value": mover["name"]}]);
            assert_eq!((&mover["env"], &mover["envFrom"]), (&own, &Value::Null));
            assert_eq!(mover["volumeMounts"].as_array().unwrap().len(), 1);
        }
        movers.iter().map(|mover| mover.to_string()).collect()
    })
}

fn all<'a>(objects: &[&'a Value], list: impl Fn(&'a Value) -> &'a Value) -> Vec<&'a Value> {
    let lists = objects.iter().filter_map(|one| list(one).as_array());
    lists.flatten().collect()
}

#[track_caller]
fn stopped(
    world: &World,
    namespace: &str,
    program: &str,
    movers: impl Fn(&[Value]) -> String,
) -> Seen {
    let words = format!("mover\0{program}\0");
    wait_for("the mover's program", PATIENT, || {
        (world.node.signal_all(&words, Signal::STOP) > 0).then_some(())
    });
    let mut processes = String::new();
    for pid in world.node.pids() {
        let read = |file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let line = read("cmdline");
        if line.contains("/kubectl-backup mover ") {
            processes += &format!("{line}: {}\n", read("environ"));
        }
    }
    let pods = world.get(namespace, "pods");
    let mut objects = movers(pods["items"].as_array().unwrap());
    assert!(!objects.is_empty(), "{program} runs in no mover");
    objects += &world.get(namespace, "configmaps").to_string();
    assert_eq!(
        world.get(namespace, "secrets")["items"],
        serde_json::json!([])
    );
    world.node.signal_all(&words, Signal::CONT);
    // Else it was looked at in vain.
    for part in ["mover hold", &format!("mover {program}"), "HOSTNAME="] {
        assert!(processes.contains(part), "{part}: {processes}");
    }
    Seen { processes, objects }
}

impl Seen {
    /// None of these is in it, nor in what was told of the run.
    #[track_caller]
    pub(super) fn has_none_of(&self, secrets: &[&str], told: &[&str]) {
        for secret in secrets {
            let secret = secret.trim();
            assert!(secret.len() > 8, "{secret:?} is no secret");
            let seen = [self.processes.as_str(), self.objects.as_str()];
            for place in told.iter().chain(&seen) {
                assert!(!place.contains(secret), "{place}");
            }
        }
        for name in ["AWS", "TOKEN", "SECRET", "PASSWORD"] {
            assert!(!self.processes.contains(name), "{}", self.processes);
        }
    }
}

/// The key in a file of one identity.
pub(super) fn identity(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-"));
    line.expect("an identity").to_owned()
}
