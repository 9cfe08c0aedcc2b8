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
    // Scattered, and the same in every run: a work of several writes gets through some time.
    let one_of = |number: usize, writes: bool| {
        let count = AtomicUsize::new(number);
        Match::when(move |request| {
            (request.method != http::Method::GET) == writes && {
                let scattered = count
                    .fetch_add(1, Ordering::SeqCst)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (scattered >> 32).is_multiple_of(number)
            }
        })
    };
    proxy.every(one_of(9, true), Action::CutAfterForward);
    proxy.every(one_of(17, true), Action::Cut);
    let conflict = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"somebody was faster","reason":"Conflict","code":409}"#;
    proxy.every(one_of(13, true), Action::status(409, conflict));
    proxy.every(one_of(29, false), Action::Cut);
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
