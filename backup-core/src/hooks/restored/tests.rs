use super::*;
use crate::backup::server::Server;

fn pod(annotations: Value) -> Pod {
    let pod = json!({"metadata": {"name": "p", "namespace": "shop", "uid": "u", "labels": {"app": "db"}, "annotations": annotations},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]}});
    Pod::read(pod.to_string().as_bytes()).unwrap()
}

#[test]
fn annotations_ask_for_commands_after_a_restore() {
    let hooks = RestoreHooks::default();
    let execs = hooks.execs(&pod(json!({
        "post.hook.restore.velero.io/command": "[\"psql\", \"-c\", \"select\"]", "post.hook.restore.velero.io/container": "side",
        "post.hook.restore.velero.io/on-error": "Fail", "post.hook.restore.velero.io/exec-timeout": "90s",
        "post.hook.restore.velero.io/wait-timeout": "5m", "post.hook.restore.velero.io/wait-for-ready": "true",
    })));
    let [exec] = &execs[..] else {
        panic!("{execs:?}")
    };
    assert_eq!(exec.hook.command, ["psql", "-c", "select"]);
    assert_eq!(
        (exec.hook.container.as_str(), exec.hook.on_error),
        ("side", OnError::Fail)
    );
    assert_eq!(
        (exec.hook.timeout.as_secs(), exec.wait.as_secs(), exec.ready),
        (90, 300, true)
    );
    let plain = hooks.execs(&pod(json!({"post.hook.restore.velero.io/command": "x"})));
    assert_eq!(plain[0].hook.on_error, OnError::Continue);
    assert_eq!(
        (
            plain[0].hook.container.as_str(),
            plain[0].wait,
            plain[0].ready
        ),
        ("main", WAIT, false)
    );
    assert!(hooks.execs(&pod(Value::Null)).is_empty());
}

#[test]
fn annotations_ask_for_an_init_container_where_they_name_image_and_command() {
    let hooks = RestoreHooks::default();
    let whole = json!({"init.hook.restore.velero.io/container-image": "i:1", "init.hook.restore.velero.io/container-name": "n",
        "init.hook.restore.velero.io/command": "[\"a\", \"b\"]"});
    assert_eq!(
        hooks.inits(&pod(whole)),
        [json!({"name": "n", "image": "i:1", "command": ["a", "b"]})]
    );
    let own = json!({"init.hook.restore.velero.io/container-image": "i:1"});
    let own = hooks.inits(&pod(own));
    assert_eq!(own[0]["image"], "i:1");
    assert!(own[0].get("command").is_none(), "{own:?}");
    let half = json!({"init.hook.restore.velero.io/command": "x"});
    assert!(hooks.inits(&pod(half)).is_empty());
}

#[test]
fn a_truth_is_one_as_go_reads_it() {
    for (text, ready) in [
        ("True", true),
        ("1", true),
        ("t", true),
        ("yes", false),
        ("", false),
    ] {
        let asks = json!({"post.hook.restore.velero.io/command": "x", "post.hook.restore.velero.io/wait-for-ready": text});
        let execs = RestoreHooks::default().execs(&pod(asks));
        assert_eq!(execs[0].ready, ready, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_awaited_hold_up_no_other() {
    let mut server = Server::new();
    for index in 0..40 {
        let name = format!("p{index:02}");
        let status = if index == 39 {
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}]})
        } else {
            json!({"phase": "Pending"})
        };
        let pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "annotations": {
                "post.hook.restore.velero.io/command": "x", "post.hook.restore.velero.io/wait-timeout": "10m"}},
            "spec": {"containers": [{"name": "c"}]}, "status": status});
        let path = format!("/api/v1/namespaces/n/pods/{name}");
        server.fix(&path, 200, &pod.to_string());
    }
    let (cluster, server) = server.start();
    let (_keep, cancel) = watch::channel(false);
    let hooks = RestoreHooks::default();
    let runner = Runner {
        cluster: &cluster,
        hooks: &hooks,
        cancel,
    };
    let pods = (0..40).map(|index| ("n".to_owned(), format!("p{index:02}")));
    let pods = pods.collect();
    let soon = tokio::time::timeout(Duration::from_secs(60), runner.run(pods));
    assert!(soon.await.is_err(), "the others are awaited");
    let log = server.log.lock().unwrap();
    assert!(log.iter().any(|asked| asked.path.ends_with("/p39/exec")));
}

#[test]
fn a_restores_spec_asks_for_the_pods_that_fit() {
    let hooks = RestoreHooks::read(&json!({"resources": [
        {"name": "one", "includedNamespaces": ["shop"], "postHooks": [
            {"exec": {"command": ["a"], "waitForReady": true, "execTimeout": "7s"}},
            {"init": {"initContainers": [{"name": "i", "image": "x", "volumeMounts": []}]}}]},
        {"name": "two", "labelSelector": {"matchLabels": {"app": "web"}}, "postHooks": [{"exec": {"command": ["b"]}}]},
    ]}))
    .unwrap();
    let execs = hooks.execs(&pod(Value::Null));
    assert_eq!(execs.len(), 1);
    assert_eq!(
        (execs[0].hook.origin.as_str(), execs[0].ready),
        ("one", true)
    );
    assert_eq!(hooks.inits(&pod(Value::Null))[0]["name"], "i");
    let own = hooks.execs(&pod(json!({"post.hook.restore.velero.io/command": "mine"})));
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].hook.command, ["mine"]);
    for bad in [
        json!({"resources": [{"name": "h", "postHooks": [{}]}]}),
        json!({"resources": [{"name": "h", "postHooks": [{"exec": {}}]}]}),
        json!({"resources": [{"name": "h", "postHooks": [{"init": {"initContainers": [{"name": "x"}]}}]}]}),
    ] {
        assert!(RestoreHooks::read(&bad).is_err(), "{bad}");
    }
    assert!(RestoreHooks::read(&Value::Null).is_ok());
}
