//! All types are saved as they were at one moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use harness::proxy::{Action, Match, Proxy};

use crate::place::{Place, on};

/// A writer keeps a ConfigMap and a Secret in step, the ConfigMap always first, while the LIST of Secrets is held for 2 s.
/// Returns how far apart the backup holds them.
fn how_far_apart(arguments: &[&str]) -> i64 {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("step");
    let write = |step: i64, client: &mut harness::http_client::Client| {
        for (path, kind) in [("configmaps", "ConfigMap"), ("secrets", "Secret")] {
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"{kind}","metadata":{{"name":"pair","namespace":"{namespace}","annotations":{{"step":"{step}"}}}}}}"#
            );
            let target = format!("/api/v1/namespaces/{namespace}/{path}");
            let answer = if step == 0 {
                client.post_json(&target, body)
            } else {
                client.send(
                    http::Method::PUT,
                    &format!("{target}/pair"),
                    &[("content-type", "application/json")],
                    body,
                )
            };
            assert!(answer.unwrap().is_success());
        }
    };
    write(0, &mut cluster.client());
    let proxy = Proxy::start(&cluster.endpoint());
    proxy.every(
        Match::path("/secrets"),
        Action::Delay(Duration::from_secs(2)),
    );
    let through = cluster.token_kubeconfig(&proxy.url());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = cluster.client();
            for step in 1.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                write(step, &mut client);
            }
        });
        on(cluster, &place.url(), &["create", "b", "-n", &namespace])
            .args(arguments)
            .kubeconfig(&through)
            .ok();
        done.store(true, Ordering::Relaxed);
    });
    let archive = place.archive("b");
    let step = |resource: &str| -> i64 {
        let object = archive.object(resource, &namespace, "pair");
        object["metadata"]["annotations"]["step"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    (step("secrets") - step("configmaps")).abs()
}

#[test]
fn two_objects_of_different_kinds_that_are_kept_in_step_are_saved_in_step() {
    assert!(how_far_apart(&[]) <= 1);
}

#[test]
fn without_a_common_revision_the_same_two_objects_are_saved_out_of_step() {
    assert!(how_far_apart(&["--point-in-time=false"]) > 1);
}
