//! What a user of kubectl takes for granted: flags, lists and words.

use harness::run::through_kubectl;
use serde_json::Value;

use crate::place::Place;

#[test]
fn lists_removals_and_flags_are_as_kubectl_has_them() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("ways");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: labelled, namespace: {namespace}, labels: {{app: web, b: c}}}}}}"
    ));
    let empty = place.run(&["get"]).ok();
    assert_eq!(empty.stdout, "");
    assert!(
        empty.stderr.contains("No backups found"),
        "{}",
        empty.stderr
    );
    for (name, labels) in [("one", "team=a"), ("two", "team=b,x.y/z=1")] {
        let words = ["create", name, "-n", &namespace, "--labels", labels];
        place.run(&words).ok();
    }
    let rows = |words: &[&str]| {
        let table = place.run(words).ok().stdout;
        let rows = table.lines().map(|line| {
            let cells: Vec<&str> = line.split("   ").map(str::trim).collect();
            let cells = cells.into_iter().filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>()
    };
    let table = rows(&["get", "-L", "team,x.y/z", "--show-labels"]);
    let end = |at: usize| table[at][table[at].len() - 3..].to_vec();
    assert_eq!(end(0), ["TEAM", "Z", "LABELS"]);
    let labels = &end(2)[2];
    assert_eq!(end(2)[..2], ["b", "1"]);
    assert!(
        labels.contains("team=b") && labels.contains("x.y/z=1"),
        "{labels}"
    );
    assert_eq!(end(1)[..2], ["a", "<none>"]);
    let chosen = place.run(&["get", "-l", "team=a", "-o", "name"]).ok();
    assert_eq!(chosen.stdout, "backup/one\n");
    let bare = rows(&["get", "-l", "team in (b)", "--no-headers=true"]);
    assert_eq!((bare.len(), bare[0][0].as_str()), (1, "two"));
    let all = place
        .run(&["get", "-l", "nobody", "-o", "json"])
        .ok()
        .json();
    assert_eq!(
        (&all["kind"], &all["items"]),
        (&"List".into(), &Value::Array(Vec::new()))
    );
    place.run(&["get", "-l", "a in"]).code(2);

    // The objects of a backup are listed in the same way.
    let words = [
        "contents",
        "one",
        "configmaps",
        "-A",
        "-l",
        "app",
        "-L",
        "app",
    ];
    assert_eq!(
        rows(&words),
        [
            ["NAMESPACE", "NAME", "APP"].map(str::to_owned),
            [&namespace, "labelled", "web"].map(str::to_owned)
        ]
    );
    place
        .run(&["contents", "one", "pods", "-A", "-n", "x"])
        .code(2);
    let kinds = place.run(&["contents", "one", "-o", "json"]).ok().json();
    assert_eq!(kinds["kind"], "BackedUpKindList");
    assert!(
        kinds["items"]
            .as_array()
            .is_some_and(|kinds| !kinds.is_empty())
    );
    let checked = place.run(&["location", "check", "-o", "json"]).ok().json();
    assert_eq!(checked["kind"], "LocationCheck");

    // What takes something away tells it first where that is asked for.
    let dry = place.run(&["delete", "one", "--dry-run"]).ok();
    assert_eq!(dry.stdout, "backup/one deleted (dry run)\n");
    let names = place.run(&["delete", "one", "two", "--dry-run=client", "-o", "name"]);
    assert_eq!(names.ok().stdout, "backup/one\nbackup/two\n");
    assert_eq!(
        place.run(&["prune", "--dry-run", "-o", "name"]).ok().stdout,
        ""
    );
    assert_eq!(rows(&["get"]).len(), 3);
    place.run(&["delete", "one", "-o", "json"]).code(2);
    place.run(&["delete", "one", "--yes=false"]).code(2);
    let gone = place
        .run(&["delete", "one", "--yes=true", "-o", "name"])
        .ok();
    assert_eq!(gone.stdout, "backup/one\n");
    let words = ["restore", "create", "back", "--from-backup", "two", "-A"];
    place.run(&words).ok();
    let dry = place.run(&["restore", "delete", "back", "--dry-run"]).ok();
    assert_eq!(dry.stdout, "restore/back deleted (dry run)\n");
    place.run(&["restore", "get", "back"]).ok();

    // Requests are told where that is asked for, and no secret with them.
    let told = place.run(&["version", "-v", "6"]).ok().stderr;
    assert!(told.contains("GET /version 200 OK in "), "{told}");
    let token = cluster.token();
    let words = ["create", "-n", &namespace, "--v=9", "--token", token];
    let told = place.run(&words).run().stderr;
    assert!(
        told.contains("milliseconds") && !told.contains(token),
        "{told}"
    );
    let quiet = place.run(&["version", "--v=5"]).ok().stderr;
    assert_eq!(quiet, "");
    let versions = place.run(&["version", "-o", "json"]).ok().json();
    for side in ["clientVersion", "serverVersion"] {
        let version = versions[side]["gitVersion"].as_str();
        assert!(
            version.is_some_and(|text| text.starts_with('v')),
            "{versions}"
        );
    }

    // kubectl itself refuses flags before a plugin's name: they stand after it.
    let through = |words: &[&str]| through_kubectl(words).kubeconfig(cluster.kubeconfig());
    let after = ["version", "--context", "test"];
    assert!(through(&after).ok().stdout.contains("Server Version"));
    let help = through(&["--help"]).ok().stdout;
    assert!(help.contains("Usage: kubectl backup"), "{help}");
    assert!(help.contains("Back up and restore:"), "{help}");
}
