//! A restore that is killed goes on with the same command, and ends as if nothing had happened.

use std::sync::Arc;
use std::time::Duration;

use harness::compare::{Options, compare};
use harness::http_client::Endpoint;
use harness::process::PidSlot;
use harness::proxy::{Action, Match, Proxy};
use harness::snapshot::Snapshot;

use crate::place::Place;

fn killed_at(what: &str, when: fn() -> Match, nth: usize, after: bool) {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("killed");
    harness::load::Load {
        prefix: namespace.clone(),
        config_maps: 60,
        secrets: 20,
        deployments: 5,
        ..Default::default()
    }
    .fill(&cluster.endpoint());
    let source = format!("{namespace}-000");
    cluster.kubectl(&["-n", &source, "create", "configmap", "parent"]);
    let uid = cluster.get_raw(&format!("/api/v1/namespaces/{source}/configmaps/parent"))["metadata"]["uid"].as_str().unwrap().to_owned();
    for child in 0..5 {
        cluster.apply(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: child-{child}, namespace: {source}, ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: parent, uid: {uid}}}]}}\n"));
    }
    place
        .run(&["create", "b", "--include-namespaces", &source])
        .ok();
    let before = Snapshot::of(cluster);
    let copy = format!("{source}-copy");
    let mapping = format!("{source}:{copy}");
    let restore = || {
        place.run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--namespace-mappings",
            &mapping,
        ])
    };

    let slot = Arc::new(PidSlot::default());
    let proxy = Proxy::start(&cluster.endpoint());
    let action = if after {
        Action::KillAfterForward(Arc::clone(&slot))
    } else {
        Action::Kill(Arc::clone(&slot))
    };
    proxy.nth(nth, when(), action);
    let through = cluster.token_kubeconfig(&proxy.url());
    let running = restore().kubeconfig(&through).spawn();
    running.killed_by(&slot);
    let killed = running.wait(Duration::from_secs(60));
    assert_ne!(
        killed.code, 0,
        "{what}: it was to be killed\n{}",
        killed.stderr
    );
    proxy.clear_rules();

    let went_on = restore().ok();
    let after = Snapshot::of(cluster);
    compare(
        &before,
        &after,
        &Options::in_namespaces(&[&source]).mapped(&source, &copy),
    )
    .assert_none();
    let parent = after.get("configmaps", &copy, "parent")["metadata"]["uid"].clone();
    for child in 0..5 {
        assert_eq!(
            after.get("secrets", &copy, &format!("child-{child}"))["metadata"]["ownerReferences"]
                [0]["uid"],
            parent,
            "{what}: child-{child}"
        );
    }
    let listed = place.run(&["restore", "get", "-o", "name"]).ok().stdout;
    assert_eq!(
        listed.lines().count(),
        1,
        "{what}: it is the same restore that went on: {listed}{}",
        went_on.stderr
    );
    // Once more changes nothing.
    restore().ok();
    let again = Snapshot::of(cluster);
    for (id, object) in &after.objects {
        // Kinds whose status no controller goes on writing.
        if id.namespace == copy && ["configmaps", "secrets"].contains(&id.resource.as_str()) {
            let now = again.get(&id.resource, &id.namespace, &id.name);
            assert_eq!(
                now["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"],
                "{what}: {id:?} was touched"
            );
        }
    }
}

#[test]
fn killed_before_and_after_the_first_create() {
    killed_at("first create", || Match::method("POST"), 1, false);
    killed_at(
        "first create carried out",
        || Match::method("POST"),
        1,
        true,
    );
}

#[test]
fn killed_in_the_middle_of_the_creates() {
    killed_at(
        "middle create",
        || Match::method("POST").and_path("configmaps"),
        30,
        true,
    );
    killed_at(
        "late create",
        || Match::method("POST").and_path("deployments"),
        3,
        false,
    );
}

#[test]
fn killed_between_a_create_and_the_write_of_its_status() {
    for after in [false, true] {
        let place = Place::new();
        let cluster = place.cluster;
        let namespace = cluster.create_namespace("killed-status");
        cluster.apply(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {namespace}}}\nspec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"));
        let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"}]}}}"#;
        let patch = [
            "patch",
            "service",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ];
        cluster.kubectl(&[&["-n", &namespace], &patch[..]].concat());
        place.run(&["create", "b", "-n", &namespace]).ok();
        let copy = format!("{namespace}-copy");
        let mapping = format!("{namespace}:{copy}");
        let restore = || {
            let of = [
                "restore",
                "create",
                "--from-backup",
                "b",
                "--include-resources",
                "services",
            ];
            place.run(&of).args(&[
                "--namespace-mappings",
                &mapping,
                "--status-include-resources",
                "services",
            ])
        };
        let slot = Arc::new(PidSlot::default());
        let proxy = Proxy::start(&cluster.endpoint());
        let action = if after {
            Action::KillAfterForward(Arc::clone(&slot))
        } else {
            Action::Kill(Arc::clone(&slot))
        };
        proxy.nth(1, Match::method("PUT").and_path("/status"), action);
        let through = cluster.token_kubeconfig(&proxy.url());
        let running = restore().kubeconfig(&through).spawn();
        running.killed_by(&slot);
        let killed = running.wait(Duration::from_secs(60));
        assert_ne!(killed.code, 0, "{}", killed.stderr);
        proxy.clear_rules();
        let web = || cluster.get_raw(&format!("/api/v1/namespaces/{copy}/services/web"));
        let had = web();
        assert_eq!(
            had["status"]["loadBalancer"]["ingress"].is_null(),
            !after,
            "{had}"
        );

        let went_on = restore().ok();
        assert!(went_on.stderr.contains("goes on"), "{}", went_on.stderr);
        let web = web();
        assert_eq!(
            web["metadata"]["uid"], had["metadata"]["uid"],
            "it is the same one"
        );
        assert_eq!(
            web["status"]["loadBalancer"]["ingress"][0]["ip"],
            "192.0.2.7"
        );
        let managers = web["metadata"]["managedFields"].to_string();
        assert!(!managers.contains("unfinished"), "{managers}");
    }
}

#[test]
fn killed_while_owners_are_rewired() {
    let rewiring = || {
        Match::when(|parts| {
            (parts.method == "PATCH" || parts.method == "PUT")
                && parts.path().contains("/secrets/child")
        })
    };
    killed_at("owner patch", rewiring, 2, false);
    killed_at("owner patch carried out", rewiring, 2, true);
}

#[test]
fn killed_at_each_write_of_the_journal_and_of_the_report() {
    let cluster = harness::cluster::Cluster::shared();
    let minio = harness::store::Minio::shared();
    let bucket = minio.bucket("journal");
    for nth in 1..=4 {
        let namespace = cluster.create_namespace("journal");
        for name in ["a", "b", "c"] {
            cluster.kubectl(&[
                "-n",
                &namespace,
                "create",
                "configmap",
                name,
                "--from-literal=k=v",
            ]);
        }
        let proxy = Proxy::start(&Endpoint::plain(minio.endpoint()));
        let location = format!("s3://{bucket}/{namespace}?endpoint={}", proxy.url());
        let on = |arguments: &[&str]| {
            crate::place::on(cluster, &location, arguments)
                .credentials_of(minio)
                .env("AWS_ENDPOINT_URL", proxy.url())
        };
        on(&["create", "b", "--include-namespaces", &namespace]).ok();
        let before = Snapshot::of(cluster);
        let mapping = format!("{namespace}:{namespace}-copy");
        let restore = || {
            on(&[
                "restore",
                "create",
                "--from-backup",
                "b",
                "--namespace-mappings",
                &mapping,
            ])
        };
        let slot = Arc::new(PidSlot::default());
        proxy.nth(
            nth,
            Match::method("PUT").and_path("/restores/"),
            Action::Kill(Arc::clone(&slot)),
        );
        let running = restore().spawn();
        running.killed_by(&slot);
        let killed = running.wait(Duration::from_secs(60));
        assert_ne!(killed.code, 0, "write {nth}: {}", killed.stderr);
        proxy.clear_rules();
        restore().ok();
        let listed = on(&["restore", "get", "-o", "name"]).ok().stdout;
        assert_eq!(listed.lines().count(), 1, "write {nth}: {listed}");
        compare(
            &before,
            &Snapshot::of(cluster),
            &Options::in_namespaces(&[&namespace]).mapped(&namespace, &format!("{namespace}-copy")),
        )
        .assert_none();
    }
}
