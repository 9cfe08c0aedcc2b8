//! What can not be restored is refused with a reason, and nothing is stopped for it.

use harness::etcd::Etcd;

use super::place::{LONG, Place, SNAPSHOT, message};

#[test]
fn what_is_no_snapshot_of_this_cluster_is_refused_with_a_reason() {
    let place = Place::of(1);
    place.store_snapshot("damaged", &vec![7; 40960]);
    place.store_snapshot("empty", b"");
    // Its members are none of this cluster.
    let other = Etcd::start();
    other.put("/registry/foreign", b"x");
    let file = other.save_snapshot("foreign.db");
    let whole = std::fs::read(file).unwrap();
    place.store_snapshot("foreign", &whole);
    place.store_snapshot("cut", &whole[..whole.len() / 2]);
    let mut bent = whole.clone();
    bent[5000] ^= 1;
    place.store_snapshot("bent", &bent);
    for (name, reason) in [
        ("absent", "absent"),
        ("damaged", "no database of etcd"),
        ("empty", ""),
        ("cut", ""),
        ("bent", ""),
        ("foreign", "another cluster"),
    ] {
        place.apply_restore(name, name);
        let restore = place.wait_for_phase(name, "Failed");
        let message = message(&restore);
        assert!(
            message.contains(reason) && !message.is_empty(),
            "{name}: {message}"
        );
    }
    place.assert_put_back();
    assert!(!place.is_restored());
}

#[test]
fn somebody_who_still_writes_is_named_and_nothing_is_stopped() {
    let mut place = Place::of(1);
    place.apply_restore("busy", SNAPSHOT);
    let mut keys = place.keys(0);
    let mut number = 0;
    let restore = place.relaunch_until("the refusal", LONG, || {
        number += 1;
        let _ = keys.try_put("/registry/events/default/x", number.to_string().as_bytes());
        let restore = place.restore("busy")?;
        (restore["status"]["phase"] == "Failed").then_some(restore)
    });
    let message = message(&restore);
    assert!(message.contains("events default/x"), "{message}");
    keys.delete("/registry/events/default/x");
    place.assert_put_back();
    place.write_later();
    assert!(!place.is_restored());
}
