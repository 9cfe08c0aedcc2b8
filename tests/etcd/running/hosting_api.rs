//! A hosting API that is away, that loses answers, that lets others write first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::hosted::Hosted;
use harness::proxy::{Action, Match, Proxy};

use super::place::{Place, SNAPSHOT, from};

#[test]
fn the_hosting_api_may_be_away_in_the_middle() {
    let mut place = Place::with(Hosted::builder().with_own_hosting());
    for (number, step) in ["Planned", "Stopping", "Starting", "Restarting"]
        .iter()
        .enumerate()
    {
        let name = format!("restore-{number}");
        place.apply_restore(&name, SNAPSHOT);
        place.wait_for_step(&name, &from(step));
        place.hosting.stop_api_server();
        std::thread::sleep(Duration::from_secs(2));
        // A launcher that starts without it goes by what it remembers.
        place.members[0].kill();
        place.launch(0);
        std::thread::sleep(Duration::from_secs(2));
        place.hosting.start_api_server();
        place.wait_for_phase(&name, "Completed");
        place.assert_put_back();
        assert!(place.is_restored(), "{step}");
        place.write_later();
    }
}

#[test]
fn answers_that_are_lost_and_writes_that_others_made_first_change_nothing() {
    let mut place = Place::of(3);
    let proxy = Proxy::start(&place.hosting.endpoint());
    let (writes, reads) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_write = |method: &http::Method| *method != http::Method::GET;
    let every = |number: usize, count: AtomicUsize, writes: bool| {
        Match::when(move |request| {
            is_write(&request.method) == writes
                && count.fetch_add(1, Ordering::SeqCst) % number == number - 1
        })
    };
    proxy.every(every(3, writes, true), Action::CutAfterForward);
    proxy.every(every(5, AtomicUsize::new(0), true), Action::Cut);
    let conflict = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"somebody was faster","reason":"Conflict","code":409}"#;
    proxy.every(
        every(4, AtomicUsize::new(2), true),
        Action::status(409, conflict),
    );
    proxy.every(every(11, reads, false), Action::Cut);
    let kubeconfig = place.hosting.token_kubeconfig(&proxy.url());
    place.reach_hosting_by(kubeconfig);
    for index in 0..3 {
        place.members[index].stop();
        place.launch(index);
    }
    place.wait_until_etcd_serves();
    place.restore_well("restored");
    let cut = proxy
        .calls()
        .iter()
        .filter(|call| call.status.is_none())
        .count();
    assert!(cut > 20, "the proxy was in nobody's way: {cut}");
}
