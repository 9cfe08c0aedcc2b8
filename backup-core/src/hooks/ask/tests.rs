use serde_json::json;

use super::*;

fn pods() -> ApiResource {
    ApiResource {
        version: "v1".into(),
        plural: "pods".into(),
        singular: "pod".into(),
        kind: "Pod".into(),
        namespaced: true,
        ..ApiResource::default()
    }
}

fn pod(annotations: Value) -> Pod {
    let pod = json!({"metadata": {"name": "db-0", "namespace": "shop", "uid": "u", "labels": {"app": "db"}, "annotations": annotations},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]}, "status": {"phase": "Running"}});
    Pod::read(pod.to_string().as_bytes()).unwrap()
}

fn asked(annotations: Value, hooks: Value) -> PodHooks {
    let spec = SpecHooks::read(&hooks).unwrap();
    of_backup(&pod(annotations), &spec, &pods())
}

#[test]
fn annotations_ask_as_velero_reads_them() {
    let hooks = asked(
        json!({
            "pre.hook.backup.velero.io/command": "[\"sh\", \"-c\", \"sync; true\"]",
            "pre.hook.backup.velero.io/container": "side",
            "pre.hook.backup.velero.io/on-error": "Continue",
            "pre.hook.backup.velero.io/timeout": "1m30s",
            "post.hook.backup.velero.io/command": "/bin/thaw",
        }),
        json!({}),
    );
    let [pre] = &hooks.pre[..] else {
        panic!("{hooks:?}")
    };
    assert_eq!(pre.command, ["sh", "-c", "sync; true"]);
    assert_eq!(
        (pre.container.as_str(), pre.on_error),
        ("side", OnError::Continue)
    );
    assert_eq!(pre.timeout, Duration::from_secs(90));
    let [post] = &hooks.post[..] else {
        panic!("{hooks:?}")
    };
    assert_eq!(post.command, ["/bin/thaw"]);
    assert_eq!(
        (post.container.as_str(), post.on_error),
        ("main", OnError::Fail)
    );
    assert_eq!(post.timeout, TIMEOUT);
    assert_eq!(hooks.unfit, None);
}

#[test]
fn the_old_annotations_are_a_hook_before_where_no_new_one_is() {
    let old = asked(
        json!({"hook.backup.velero.io/command": "old", "hook.backup.velero.io/timeout": "5s"}),
        json!({}),
    );
    assert_eq!(
        (old.pre[0].command[0].as_str(), old.pre[0].timeout.as_secs()),
        ("old", 5)
    );
    assert!(old.post.is_empty());
    let both = asked(
        json!({"hook.backup.velero.io/command": "old", "pre.hook.backup.velero.io/command": "new"}),
        json!({}),
    );
    assert_eq!(both.pre.len(), 1);
    assert_eq!(both.pre[0].command, ["new"]);
}

#[test]
fn odd_values_mean_what_they_mean_to_velero() {
    let of = |key: &str, value: &str| {
        let mut all = json!({"pre.hook.backup.velero.io/command": "x"});
        all[format!("pre.hook.backup.velero.io/{key}")] = value.into();
        asked(all, json!({})).pre.remove(0)
    };
    assert_eq!(of("on-error", "continue").on_error, OnError::Fail);
    assert_eq!(of("timeout", "soon").timeout, TIMEOUT);
    assert_eq!(of("timeout", "0s").timeout, TIMEOUT);
    assert_eq!(of("timeout", "-5s").timeout, TIMEOUT);
    assert_eq!(of("timeout", "1.5s").timeout, Duration::from_millis(1500));
    assert_eq!(of("timeout", "9999h").timeout, LONGEST);
    assert_eq!(of("command", "[not json").command, ["[not json"]);
    assert_eq!(of("command", "[]").command, ["[]"]);
    assert_eq!(of("command", "two words").command, ["two words"]);
    assert!(asked(json!({"pre.hook.backup.velero.io/command": ""}), json!({})).is_empty());
    assert!(asked(Value::Null, Value::Null).is_empty());
}

#[test]
fn entries_of_the_spec_run_in_their_order_for_the_pods_they_fit() {
    let entry = |name: &str, more: Value| {
        let mut entry =
            json!({"name": name, "pre": [{"exec": {"command": [name], "timeout": "7s"}}]});
        for (key, value) in more.as_object().unwrap() {
            entry[key] = value.clone();
        }
        entry
    };
    let hooks = asked(
        json!({}),
        json!({"resources": [
            entry("all", json!({"post": [{"exec": {"command": ["after"], "container": "side", "onError": "Continue"}}]})),
            entry("named", json!({"includedNamespaces": ["sh*"], "includedResources": ["po", "pods"], "labelSelector": {"matchLabels": {"app": "db"}}})),
            entry("elsewhere", json!({"includedNamespaces": ["other"]})),
            entry("not here", json!({"excludedNamespaces": ["shop"]})),
            entry("other kind", json!({"includedResources": ["deployments"]})),
            entry("no pods", json!({"excludedResources": ["pods"]})),
            entry("other label", json!({"labelSelector": {"matchLabels": {"app": "web"}}})),
        ]}),
    );
    let origins: Vec<_> = hooks.pre.iter().map(|hook| hook.origin.as_str()).collect();
    assert_eq!(origins, ["all", "named"]);
    assert_eq!(hooks.pre[0].timeout.as_secs(), 7);
    assert_eq!(hooks.post.len(), 1);
    assert_eq!(
        (hooks.post[0].container.as_str(), hooks.post[0].on_error),
        ("side", OnError::Continue)
    );
}

#[test]
fn an_annotation_beats_the_spec_before_and_after_apart() {
    let spec = json!({"resources": [{"name": "s", "pre": [{"exec": {"command": ["s-pre"]}}], "post": [{"exec": {"command": ["s-post"]}}]}]});
    let hooks = asked(json!({"pre.hook.backup.velero.io/command": "mine"}), spec);
    assert_eq!(hooks.pre.len(), 1);
    assert_eq!(hooks.pre[0].origin, "annotation");
    assert_eq!(hooks.post[0].command, ["s-post"]);
}

#[test]
fn a_spec_that_can_not_be_understood_is_refused() {
    for hooks in [
        json!({"resources": ["x"]}),
        json!({"resources": [{"name": "h", "pre": [{}]}]}),
        json!({"resources": [{"name": "h", "pre": [{"exec": {}}]}]}),
        json!({"resources": [{"name": "h", "pre": [{"exec": {"command": "sh"}}]}]}),
        json!({"resources": [{"name": "h", "includedNamespaces": ["["]}]}),
    ] {
        let refused = SpecHooks::read(&hooks).unwrap_err();
        assert!(refused.to_string().contains("spec.hooks"), "{refused}");
    }
    assert!(SpecHooks::read(&Value::Null).is_ok());
    assert!(SpecHooks::read(&json!({"resources": null})).is_ok());
}

#[test]
fn pods_that_do_not_run_are_told_apart() {
    let spec = SpecHooks::default();
    let mut pod = pod(json!({"pre.hook.backup.velero.io/command": "x"}));
    for (phase, asks, fits) in [
        ("Succeeded", false, true),
        ("Failed", false, true),
        ("Pending", true, false),
        ("Running", true, true),
    ] {
        pod.status.phase = phase.to_owned();
        let hooks = of_backup(&pod, &spec, &pods());
        assert_eq!(
            (!hooks.is_empty(), hooks.unfit.is_none()),
            (asks, fits),
            "{phase}"
        );
    }
}

#[test]
fn a_digest_is_of_container_and_command_alone() {
    let of = |container: &str, timeout: u64| Hook {
        origin: "a".into(),
        container: container.into(),
        command: vec!["x".into()],
        on_error: OnError::Fail,
        timeout: Duration::from_secs(timeout),
    };
    assert_eq!(of("c", 1).digest(), of("c", 2).digest());
    assert_ne!(of("c", 1).digest(), of("d", 1).digest());
}
