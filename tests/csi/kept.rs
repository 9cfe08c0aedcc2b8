//! A snapshot outlives its namespace, comes back, and goes with its backup.

use std::fs;

use harness::node::csi::{CLAIM, Knob};
use harness::node::{Node, NodeOptions};
use harness::wait_for;

use super::{PATIENT, World, pruned};

#[test]
fn a_snapshot_outlives_its_namespace_comes_back_and_goes_with_its_backup() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start(NodeOptions::default());
    let file = || world.files("shop", "data").join("rows");
    world.node.apply(CLAIM);
    fs::write(file(), "before").unwrap();

    // Nobody says anything of snapshots. It is ready a while after the cut.
    let csi = world.csi();
    csi.turn(Knob::ReadyAfter, "3");
    world.create("one", "shop").ok();
    csi.release(Knob::ReadyAfter);
    let row = world.row("one", "data");
    let datum = &row["data"][0];
    let handle = datum["handle"].as_str().unwrap();
    assert_eq!(
        (&row["result"], &datum["method"], &datum["class"]),
        (&"saved".into(), &"snapshot".into(), &"csi".into())
    );
    assert_eq!(world.held(), [handle]);
    assert_eq!(world.known(), [handle]);
    world.is_bare();
    let shown = world.call(&["describe", "one"]).ok().stdout;
    assert!(
        shown.contains(handle) && shown.contains("CSISnapshot"),
        "{shown}"
    );

    // One that is cut and never ready is named, and removed.
    csi.turn(Knob::HoldReady, "");
    let failed = world
        .create("failed", "shop")
        .args(&["--csi-snapshot-timeout", "8s"])
        .code(3);
    csi.release(Knob::HoldReady);
    assert!(
        failed
            .stderr
            .contains("shop/data is not saved: its snapshot could not be used in time"),
        "{}",
        failed.stderr
    );
    assert_eq!(world.row("failed", "data")["result"], "failed");
    assert_eq!(world.held(), [handle]);
    world.is_bare();

    // The namespace takes its volume along, and not the snapshot.
    fs::write(file(), "after").unwrap();
    world.delete_namespace("shop");
    wait_for("no volume", PATIENT, || {
        csi.volumes().is_empty().then_some(())
    });
    assert_eq!(world.held(), [handle]);
    world.restore("back", "one", &[]).ok();
    assert_eq!(fs::read_to_string(file()).unwrap(), "before");
    world.is_bare();
    // It stands now, and nothing is written into it.
    fs::write(file(), "mine").unwrap();
    let stands = world.restore("again", "one", &[]).code(3);
    assert!(
        stands
            .stderr
            .contains("it stands, so its data was not restored"),
        "{}",
        stands.stderr
    );
    assert_eq!(fs::read_to_string(file()).unwrap(), "mine");
    world.is_bare();

    // As long as the driver refuses, the backup stays.
    csi.turn(Knob::FailDelete, "a volume depends on it");
    let refused = world.call(&["delete", "one", "--yes"]).code(3);
    assert!(
        refused.stderr.contains("its driver has not deleted it"),
        "{}",
        refused.stderr
    );
    csi.release(Knob::FailDelete);
    world.call(&["describe", "one"]).ok();
    world.call(&["delete", "one", "--yes"]).ok();
    assert_eq!(world.held(), Vec::<String>::new());
    assert_eq!(world.known(), Vec::<String>::new());
    world.is_bare();
    world.call(&["describe", "one"]).code(1);
    pruned::all(&world);
}
