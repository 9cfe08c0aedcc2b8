//! Hooks around a cut: a pod is quiet from before it until right after it, whatever becomes of the snapshot later.

use std::fs;
use std::path::Path;

use harness::busybox::Busybox;
use harness::node::csi::Knob;
use harness::wait_for;

use super::{PATIENT, World};

/// A pod that writes all the time, but not between its hooks.
fn writer() -> String {
    let pre = "touch /data/quiet; sleep 1; wc -l < /data/rows > /data/count";
    let post = "echo post >> /data/posts; rm /data/quiet";
    let hook = |text: &str| serde_json::json!(["sh", "-c", text]).to_string();
    let pod = Busybox::new("hooked", "db")
        .annotations(&[
            ("pre.hook.backup.velero.io/command", &hook(pre)),
            ("post.hook.backup.velero.io/command", &hook(post)),
        ])
        .runs("while true; do [ -e /data/quiet ] || echo row >> /data/rows; sleep 0.05; done")
        .ready_while(&["test", "-e", "/data/rows"])
        .claims("data", "data");
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data, namespace: hooked}}
spec: {{storageClassName: csi, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
{pod}"
    )
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

pub(super) fn all(world: &World) {
    world.namespace("hooked");
    world.node.apply(&writer());
    world.wait_ready("hooked", "pod/db");
    let files = world.files("hooked", "data");
    let posts = files.join("posts");
    let csi = world.csi();

    // The post hook runs while the snapshot can not be used yet.
    csi.turn(Knob::HoldReady, "");
    let running = world.create("hooked", "hooked").spawn();
    wait_for("the post hook", PATIENT, || {
        (lines(&posts) == 1).then_some(())
    });
    let made = world.get("hooked", "volumesnapshots");
    assert_eq!(made["items"].as_array().unwrap().len(), 1);
    assert_eq!(made["items"][0]["status"]["readyToUse"], false, "{made:#}");
    csi.release(Knob::HoldReady);
    running.wait(PATIENT).code(0);
    assert_eq!(lines(&posts), 1);
    let row = world.row("hooked", "data");
    assert_eq!(row["hooks"], "done", "{row:#}");
    // It is of the moment between both.
    let cut = world.snapshot(&world.handle("hooked", "data")).files;
    assert!(cut.join("quiet").exists() && !cut.join("posts").exists());
    let counted = fs::read_to_string(cut.join("count")).unwrap();
    assert_eq!(counted.trim(), lines(&cut.join("rows")).to_string());
    assert!(lines(&files.join("rows")) > lines(&cut.join("rows")));

    // So it does where the snapshot is lost after the cut, and where there is no cut at all.
    let held = world.held();
    for (number, knob) in [(2, Knob::HoldReady), (3, Knob::FailCut)] {
        csi.turn(knob, "no room");
        let name = format!("hooked-{number}");
        let run = world
            .create(&name, "hooked")
            .args(&["--csi-snapshot-timeout", "8s"])
            .code(3);
        csi.release(knob);
        assert!(
            run.stderr.contains("hooked/data is not saved"),
            "{}",
            run.stderr
        );
        assert_eq!(lines(&posts), number);
        assert!(!files.join("quiet").exists());
        assert_eq!(world.held(), held);
    }
}
