//! Names, selectors and flags that can not be meant.

use crate::place::Place;

#[test]
fn names_that_are_not_allowed_are_refused_before_anything_happens() {
    let place = Place::new();
    for name in ["Upper", "a/b", "../a", "a_b", &"a".repeat(64)] {
        let run = place.run(&["create", name]).code(2);
        assert!(run.stderr.contains("not allowed"), "{}", run.stderr);
    }
    for arguments in [
        &["describe", "../b"] as &[&str],
        &["restore", "create", "--from-backup", "a/b"],
        &["delete", "A", "--yes"],
    ] {
        place.run(arguments).code(2);
    }
}

#[test]
fn selectors_and_durations_that_do_not_parse_are_usage_errors() {
    let place = Place::new();
    for arguments in [
        &["create", "b", "-l", "a in (b"] as &[&str],
        &["create", "b", "-l", "=x"],
        &["create", "b", "--or-selector", "a=b or"],
        &["create", "b", "--ttl", "soon"],
        &["create", "b", "--expires", "tomorrow"],
        &[
            "create",
            "b",
            "--include-resources",
            "pods",
            "--include-cluster-scoped-resources",
            "nodes",
        ],
        &[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--namespace-mappings",
            "a",
        ],
        &[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--existing-resource-policy",
            "destroy",
        ],
        &["create", "b", "--nonsense"],
    ] {
        let run = place.run(arguments).code(2);
        assert!(
            run.stderr.starts_with("error:"),
            "{arguments:?}: {}",
            run.stderr
        );
    }
    assert!(place.files("b").is_empty());
}

#[test]
fn a_backup_that_is_not_there_is_named_with_those_like_it() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("near");
    place.run(&["create", "nightly", "-n", &namespace]).ok();
    for arguments in [
        &["get", "nightli"] as &[&str],
        &["describe", "nightli"],
        &["logs", "nightli"],
        &["contents", "nightli"],
        &["verify", "nightli"],
        &["restore", "create", "--from-backup", "nightli"],
    ] {
        let run = place.run(arguments).code(1);
        assert!(
            run.stderr.contains("not found"),
            "{arguments:?}: {}",
            run.stderr
        );
        assert!(
            run.stderr.contains("\"nightly\"") || run.stderr.contains("nightly"),
            "{arguments:?}: {}",
            run.stderr
        );
    }
}

#[test]
fn kinds_that_are_never_restored_can_not_be_asked_for() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("never");
    place.run(&["create", "b", "-n", &namespace]).ok();
    let run = place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--include-resources",
            "nodes",
        ])
        .code(2);
    assert!(run.stderr.contains("nodes"), "{}", run.stderr);
}

#[test]
fn kinds_and_namespaces_that_match_nothing_are_no_success() {
    let place = Place::new();
    let run = place
        .run(&["create", "a", "--include-resources", "foos,bars"])
        .code(1);
    assert!(
        run.stderr.contains("bars, foos") && run.stderr.contains("api-resources"),
        "{}",
        run.stderr
    );
    assert!(place.files("a").is_empty());
    place
        .run(&[
            "create",
            "b",
            "-n",
            "default",
            "--include-resources",
            "cm,foos",
        ])
        .ok();
    for wrong in [
        ["--include-resources", "foos"],
        ["--include-namespaces", "nosuch"],
    ] {
        let restore = ["restore", "create", "--from-backup", "b"];
        let run = place.run(&restore).args(&wrong).code(1);
        assert!(
            run.stderr.contains("what was asked for") && run.stderr.contains("contents b"),
            "{}",
            run.stderr
        );
        assert!(!run.stderr.contains("same command again"), "{}", run.stderr);
    }
    let restores = place.run(&["restore", "get", "-o", "name"]).ok();
    assert_eq!(restores.stdout, "");
}
