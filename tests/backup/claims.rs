//! Two runs never write one backup.

use std::thread;
use std::time::Duration;

use crate::place::Place;
use harness::cluster::Cluster;
use harness::store::Minio;

fn rounds() -> usize {
    std::env::var("KUBECTL_BACKUP_SOAK")
        .ok()
        .and_then(|n| n.parse::<usize>().ok())
        .unwrap_or(1)
        * 6
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_backup_stays_as_it_is() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("taken");
    place.run(&["create", "b", "-n", &namespace]).ok();
    let before = place.files("b");
    let run = place.run(&["create", "b", "-n", &namespace]).code(1);
    assert!(run.stderr.contains("exists"), "{}", run.stderr);
    assert_eq!(place.files("b"), before);
    place.run(&["verify", "b"]).ok();
}

/// Many times: three creates of one name at once. At most one wins; what is there afterwards is whole.
fn race(location: &str, credentials: Option<&Minio>, cluster: &Cluster, namespace: &str) {
    for round in 0..rounds() {
        let name = format!("race-{round}");
        let runs: Vec<_> = thread::scope(|scope| {
            let run = || {
                let mut call =
                    crate::place::on(cluster, location, &["create", &name, "-n", namespace]);
                if let Some(minio) = credentials {
                    call = call.credentials_of(minio);
                }
                call.run()
            };
            let started: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
            started.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let winners = runs.iter().filter(|run| run.code == 0).count();
        assert!(winners <= 1, "{winners} winners of {name}");
        for run in &runs {
            assert!([0, 1].contains(&run.code), "{}{}", run.stdout, run.stderr);
        }
        if winners == 1 {
            let mut call = crate::place::on(cluster, location, &["verify", &name]);
            if let Some(minio) = credentials {
                call = call.credentials_of(minio);
            }
            call.ok();
        } else {
            // All withdrew: the name is free again.
            let mut call = crate::place::on(cluster, location, &["create", &name, "-n", namespace]);
            if let Some(minio) = credentials {
                call = call.credentials_of(minio);
            }
            call.ok();
        }
    }
}

#[test]
fn of_three_creates_of_one_name_in_a_folder_at_most_one_wins() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("race");
    race(&place.url(), None, place.cluster, &namespace);
}

#[test]
fn of_three_creates_of_one_name_in_a_bucket_at_most_one_wins() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let namespace = cluster.create_namespace("race");
    let location = format!(
        "s3://{}/x?endpoint={}",
        minio.bucket("races"),
        minio.endpoint()
    );
    race(&location, Some(minio), cluster, &namespace);
}

#[test]
fn an_interrupted_create_leaves_nothing_visible() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("interrupted");
    let proxy = harness::proxy::Proxy::start(&place.cluster.endpoint());
    proxy.every(
        harness::proxy::Match::path("/configmaps"),
        harness::proxy::Action::Delay(Duration::from_secs(3)),
    );
    let through = place.cluster.token_kubeconfig(&proxy.url());
    let running = place
        .run(&["create", "b", "-n", &namespace])
        .kubeconfig(&through)
        .spawn();
    harness::wait_for("the claim", Duration::from_secs(20), || {
        place
            .files("b")
            .iter()
            .any(|f| f.starts_with("claim-"))
            .then_some(())
    });
    running.signal(harness::run::Signal::INT);
    let run = running.wait(Duration::from_secs(30));
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert!(place.files("b").is_empty(), "{:?}", place.files("b"));
    let listed = place.run(&["get"]).ok();
    assert!(!listed.stdout.contains(" b "), "{}", listed.stdout);
}

#[test]
fn a_name_on_which_another_run_is_at_work_is_refused_and_that_run_goes_on() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("busy-name");
    let proxy = harness::proxy::Proxy::start(&place.cluster.endpoint());
    proxy.every(
        harness::proxy::Match::path("/configmaps"),
        harness::proxy::Action::Delay(Duration::from_secs(2)),
    );
    let through = place.cluster.token_kubeconfig(&proxy.url());
    let slow = place
        .run(&["create", "b", "-n", &namespace])
        .kubeconfig(&through)
        .spawn();
    harness::wait_for("the claim", Duration::from_secs(20), || {
        let files = place.files("b");
        files.iter().any(|f| f.starts_with("claim-")).then_some(())
    });
    let refused = place.run(&["create", "b", "-n", &namespace]).code(1);
    assert!(refused.stderr.contains("another run"), "{}", refused.stderr);
    slow.wait(Duration::from_secs(90)).ok();
    place.run(&["verify", "b"]).ok();
}
