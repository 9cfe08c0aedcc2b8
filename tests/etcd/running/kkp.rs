//! Where KKP manages the clusters, the launcher leaves restores to it: the test plays KKP's controller.

use std::time::Duration;

use harness::hosted::Hosted;
use harness::wait_for;
use serde_json::{Value, json};

use super::place::{LONG, Place, SNAPSHOT, condition};

/// What a launcher would have changed.
#[track_caller]
fn assert_left_alone(place: &Place) {
    let annotations = place.cluster()["metadata"]["annotations"].clone();
    assert_eq!(annotations["etcd-launcher/active-restore"], Value::Null);
    assert_eq!(place.replicas("apiserver"), 2);
    assert_ne!(place.cluster()["spec"]["pause"], true);
    assert!(!place.is_restored());
}

/// What the launcher says of it.
#[track_caller]
fn wait_for_note(place: &Place) -> String {
    wait_for("the launcher's word", LONG, || {
        let note = place.members[0].state()?["note"].as_str()?.to_owned();
        note.contains("ManagedByKKP").then_some(note)
    })
}

#[test]
fn with_kkps_kinds_the_launcher_writes_to_no_restore_and_kkps_controller_has_it_alone() {
    let place = Place::with(Hosted::builder().managed_by_kkp());
    let note = wait_for_note(&place);
    assert!(note.contains("not the one of etcd-launcher"), "{note}");
    place.hosting.apply(&format!(
        "{{apiVersion: kubermatic.k8c.io/v1, kind: EtcdRestore, metadata: {{name: kkps, namespace: {}}},
          spec: {{name: kkps, cluster: {{name: {}}}, backupName: {SNAPSHOT}, destination: s3}}}}",
        place.namespace, place.name
    ));
    // Every write is the controller's: nobody comes in between, for as long as a launcher looks several times.
    for phase in ["Started", "StsRebuilding", "Completed"] {
        place.kubectl(&[
            "patch",
            "etcdrestore",
            "kkps",
            "--subresource=status",
            "--type=merge",
            "-p",
            &json!({"status": {"phase": phase}}).to_string(),
        ]);
        let written = place.restore("kkps").unwrap();
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(place.restore("kkps").unwrap(), written, "{phase}");
        assert_left_alone(&place);
    }
}

#[test]
fn with_our_kinds_and_kkps_finalizer_on_the_cluster_a_condition_says_why_nothing_is_done() {
    let place = Place::with(Hosted::builder().with_own_hosting());
    let kkps = json!({"metadata": {"finalizers": ["kubermatic.k8c.io/cleanup-etcdbackupconfigs"]}});
    place.patch_cluster(None, &kkps);
    wait_for_note(&place);
    place.apply_restore("ours", SNAPSHOT);
    let told = wait_for("the condition", LONG, || {
        let restore = place.restore("ours")?;
        condition(&restore, "ManagedByKKP").cloned()
    });
    assert_eq!(told["status"], "True");
    let restore = place.restore("ours").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(place.restore("ours").unwrap(), restore);
    assert_eq!(restore["status"]["phase"], Value::Null);
    assert_left_alone(&place);
    // Once KKP has gone, it is done.
    place.patch_cluster(None, &json!({"metadata": {"finalizers": null}}));
    place.wait_for_phase("ours", "Completed");
    place.assert_put_back();
    assert!(place.is_restored());
}
