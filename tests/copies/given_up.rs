//! Restores that do not go on: what they left of claims and volumes is cleared with their records, and no data is given up unasked.

use harness::clock::Clock;
use harness::run::Backup;
use harness::wait_for;
use jiff::SignedDuration;
use serde_json::Value;

use super::restored::{CLAIM, claims, delete_namespace, killed_when};
use super::{PATIENT, World};

const NAMESPACE: &str = "given";

/// Volumes that hold data for a claim of the namespace.
fn held(world: &World) -> Vec<Value> {
    let answer = world.node.client().get("/api/v1/persistentvolumes").ok();
    let list = answer.map(|answer| answer.json()).unwrap_or_default();
    let all = list["items"].as_array().cloned().unwrap_or_default();
    let note = "kubectl-backup/held-for";
    let is_held = |volume: &Value| {
        let note = volume["metadata"]["annotations"][note].as_str();
        note.is_some_and(|note| note.contains(&format!("/{NAMESPACE}/")))
    };
    all.into_iter().filter(is_held).collect()
}

fn delete(world: &World, more: &[&str]) -> Backup {
    world
        .call(&["restore", "delete", NAMESPACE, "--yes", "--force"])
        .args(more)
}

/// A restore that may be at work is left alone, by its journal and by its mover; who killed it knows that it is not.
fn is_left_while_it_may_be_at_work(world: &World, clock: &Clock) {
    let refused = delete(world, &["--give-up-data"]).code(1);
    assert!(
        refused
            .stderr
            .contains("may be at work: it wrote to its journal"),
        "{}",
        refused.stderr
    );
    clock.is_apart(SignedDuration::from_mins(11));
    let refused = clock.of(delete(world, &["--give-up-data"])).code(1);
    assert!(
        refused.stderr.contains("has not ended"),
        "{}",
        refused.stderr
    );
    for pod in world.movers() {
        let words = ["-n", NAMESPACE, "delete", pod.as_str(), "--wait=false"];
        world.node.kubectl(&words);
    }
}

/// A restore that was killed when its volume was full. Its mover lives on for a while, and its pod waits.
pub(super) fn all(world: &World) {
    killed_when(
        world,
        NAMESPACE,
        NAMESPACE,
        "the note on the volume",
        &|| !held(world).is_empty(),
    );
    let clock = Clock::new();
    is_left_while_it_may_be_at_work(world, &clock);
    let delete = |more: &[&str]| clock.of(delete(world, more));
    let refused = delete(&[]).code(1);
    assert!(
        refused.stderr.contains("add --give-up-data"),
        "{}",
        refused.stderr
    );
    assert_eq!(held(world).len(), 1);

    // The pod of the set would make an empty claim of that name: its claim stays. The data goes, as was asked.
    let named = delete(&["--give-up-data"]).code(3);
    assert!(
        named.stderr.contains(&format!(
            "claim {NAMESPACE}/{CLAIM} stays Pending, for pod db-0"
        )),
        "{}",
        named.stderr
    );
    wait_for("the end of the volume", PATIENT, || {
        (claims(world, NAMESPACE).len() == 1 && world.movers().is_empty()).then_some(())
    });
    world
        .node
        .kubectl(&["-n", NAMESPACE, "delete", "statefulset", "db"]);
    wait_for("the end of the pod", PATIENT, || {
        let pods = ["-n", NAMESPACE, "get", "pods", "-o", "name"];
        world.node.kubectl(&pods).stdout.is_empty().then_some(())
    });
    delete(&[]).ok();
    wait_for("the end of the claim", PATIENT, || {
        claims(world, NAMESPACE).is_empty().then_some(())
    });
    let gone = world.call(&["restore", "describe", NAMESPACE]).code(1);
    assert!(gone.stderr.contains("not found"), "{}", gone.stderr);
    delete_namespace(world, NAMESPACE);
}
