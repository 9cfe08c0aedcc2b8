//! A store that answers, and then sends nothing.

use harness::hosted::BUCKET;
use harness::http_client::Endpoint;
use harness::proxy::{Action, Match, Proxy};
use harness::wait_for;
use rustix::process::Signal;

use super::place::{LONG, Place, SNAPSHOT, message};

#[test]
fn a_download_that_does_not_come_on_keeps_nobody_from_its_etcd_and_ends_with_the_stores_name() {
    let mut place = Place::of(1);
    place.how.hurry = 1;
    place.start_again();
    let store = Proxy::start(&Endpoint::plain(place.minio.endpoint()));
    place.apply_destination("slow", &store.url(), &place.owner());
    store.every(
        Match::method("GET").and_path(".db.gz"),
        Action::HoldBody(500),
    );
    let downloads = || {
        let calls = store.calls().into_iter();
        calls
            .filter(|call| call.method == "GET" && call.target.contains(".db.gz"))
            .count()
    };
    place.apply_restore_from("slow", "held", SNAPSHOT);
    wait_for("the download", LONG, || (downloads() > 0).then_some(()));

    // In the middle of it, and not once it is given up, etcd is started again and the launcher ends.
    let member = &place.members[0];
    assert!(member.kill_etcd());
    wait_for("the end of etcd", LONG, || {
        member.log().contains("etcd ended by itself").then_some(())
    });
    wait_for("etcd to be started again", LONG, || {
        place.is_serving(0).then_some(())
    });
    member.signal(Signal::TERM);
    wait_for("the launcher's end", LONG, || {
        member.has_ended().then_some(())
    });
    assert_eq!(downloads(), 1);
    let log = member.log();
    assert!(!log.contains("no byte came"), "{log}");
    assert!(!member.is_open(), "its etcd is left behind");

    place.how.hurry = 40;
    place.launch(0);
    let restore = place.wait_for_phase("held", "Failed");
    let told = message(&restore);
    for part in ["no byte came", SNAPSHOT, BUCKET, "tried again and again"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(downloads() > 2, "{told}");
    place.assert_put_back();
    assert!(!place.is_restored());
}
