//! What differs between a backup and the cluster, and between two backups.

use harness::store::Minio;

use crate::place::{Place, on};

const SHOP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NS, labels: {app: web}}
data: {a: b, c: d}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: gone, namespace: NS}
data: {c: d}
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: NS}
stringData: {t: s3cr3t}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  # So that its controller makes nothing of a change.
  paused: true
  replicas: 0
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'localhost/none:1'}]}}
";

/// Lines that are no field, sorted.
fn objects(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

#[test]
fn what_changed_came_or_went_since_the_backup_is_told_by_object_and_field() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("diff");
    cluster.apply(&SHOP.replace("NS", &namespace));
    place.run(&["create", "b", "-n", &namespace]).ok();

    // What the server wrote since, such as the status of the Deployment, is no difference; nor is what the backup was not asked to hold.
    let same = place.run(&["diff", "b"]).ok();
    assert_eq!(same.stdout, "");
    assert!(
        same.stderr.contains("0 objects different"),
        "{}",
        same.stderr
    );

    // What is on neither side is not the same.
    let nothing = place
        .run(&["diff", "b", "-n", "none-such", "-o", "json"])
        .code(2);
    assert_eq!(nothing.stdout, "");
    assert!(
        nothing.stderr.contains("nothing to compare"),
        "{}",
        nothing.stderr
    );

    let kubectl = |arguments: &[&str]| {
        cluster.kubectl(&[&["-n", &namespace], arguments].concat());
    };
    kubectl(&[
        "patch",
        "configmap",
        "settings",
        "-p",
        r#"{"data":{"a":"x","c":null}}"#,
    ]);
    kubectl(&["patch", "secret", "token", "-p", r#"{"data":{"t":"bjN3"}}"#]);
    kubectl(&["set", "image", "deployment/web", "c=localhost/none:2"]);
    kubectl(&["delete", "configmap", "gone"]);
    kubectl(&["create", "configmap", "new", "--from-literal=a=b"]);
    let expected = [
        format!("added configmaps {namespace}/new"),
        format!("changed configmaps {namespace}/settings"),
        format!("changed deployments.apps {namespace}/web"),
        format!("changed secrets {namespace}/token"),
        format!("removed configmaps {namespace}/gone"),
    ];
    let differs = place.run(&["diff", "b"]).code(1);
    assert_eq!(objects(&differs.stdout), expected, "{}", differs.stdout);
    for field in [
        r#".data.a: "b" -> "x""#,
        r#".data.c: "d" -> <none>"#,
        r#".spec.template.spec.containers[c].image: "localhost/none:1" -> "localhost/none:2""#,
        r#".data.t: "***" -> "***""#,
    ] {
        assert!(
            differs.stdout.contains(field),
            "{field}\n{}",
            differs.stdout
        );
    }
    assert_eq!(differs.stdout.lines().count(), 5 + 4, "{}", differs.stdout);
    assert!(
        differs.stderr.contains("5 objects different"),
        "{}",
        differs.stderr
    );

    // Two backups differ as the first one and the cluster do.
    place.run(&["create", "c", "-n", &namespace]).ok();
    place.run(&["diff", "c"]).ok();
    let live = place.run(&["diff", "b", "-o", "json"]).code(1).json();
    let saved = place.run(&["diff", "b", "c", "-o", "json"]).code(1).json();
    assert_eq!(live["kind"], "DifferenceList");
    assert_eq!(live["items"].as_array().map(Vec::len), Some(5));
    assert_eq!(live, saved);
    let yaml = place.run(&["diff", "b", "c", "-o", "yaml"]).code(1).stdout;
    assert!(
        yaml.contains("change: removed") && !yaml.contains("bjN3"),
        "{yaml}"
    );

    // An archive without our index, as another tool makes it, is rewritten for reading and compared in the same way.
    for name in ["b", "c"] {
        std::fs::rename(place.file(name, "index.jsonl.zst"), place.folder.join(name)).unwrap();
        let foreign = place.run(&["diff", "b", "c", "-o", "json"]).code(1).json();
        assert_eq!(live, foreign, "without the index of {name}");
    }
    assert_eq!(place.run(&["diff", "b", "-o", "json"]).code(1).json(), live);
    for name in ["b", "c"] {
        std::fs::rename(place.folder.join(name), place.file(name, "index.jsonl.zst")).unwrap();
    }

    // A part of it.
    let part = place
        .run(&["diff", "b", "--include-resources", "deploy", "-o", "name"])
        .code(1);
    assert_eq!(part.stdout, "deployments.apps/web\n");
    place
        .run(&[
            "diff",
            "b",
            "--include-resources",
            "services,serviceaccounts",
        ])
        .ok();
    let one = format!("{namespace}/gone");
    let part = place
        .run(&[
            "diff",
            "b",
            "--include-resources",
            "configmaps",
            "--objects",
            &one,
        ])
        .code(1);
    assert_eq!(objects(&part.stdout), expected[4..]);
    // The object has lost the label since, and is meant all the same.
    kubectl(&["label", "configmap", "settings", "app-"]);
    let part = place
        .run(&[
            "diff",
            "b",
            "-l",
            "app=web",
            "--include-resources",
            "configmaps",
        ])
        .code(1);
    assert_eq!(objects(&part.stdout), expected[1..2]);

    // What a restore marks its objects with is no difference.
    place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--existing-resource-policy=update",
        ])
        .ok();
    let after = place.run(&["diff", "b"]).code(1);
    assert_eq!(objects(&after.stdout), expected[..1], "{}", after.stdout);

    // What fails is told apart from a difference.
    for (arguments, says) in [
        (&["diff", "absent"][..], "absent"),
        (&["diff", "b", "absent"], "absent"),
        (
            &["diff", "b", "--include-resources", "nonsense"],
            "nonsense",
        ),
        (&["diff", "b", "--objects", "nowhere/none"], "nowhere/none"),
        (&["diff", "b", "--include-resources", "events"], "events"),
        (&["diff"], "NAME"),
    ] {
        let failed = place.run(arguments).code(2);
        assert!(
            failed.stderr.contains(says),
            "{arguments:?}\n{}",
            failed.stderr
        );
    }
}

#[test]
fn what_can_not_be_compared_is_named_and_is_not_taken_for_the_same() {
    let minio = Minio::shared();
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("unseen");
    cluster.apply(&SHOP.replace("NS", &namespace));
    let location = format!(
        "s3://{}/x?endpoint={}",
        minio.bucket("diff"),
        minio.endpoint()
    );
    let run = |arguments: &[&str]| on(cluster, &location, arguments).credentials_of(minio);
    run(&["create", "b", "-n", &namespace]).ok();
    run(&["diff", "b"]).ok();
    cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "role",
        "half-sighted",
        "--verb=get,list",
        "--resource=configmaps",
    ]);
    cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "rolebinding",
        "half-sighted",
        "--role=half-sighted",
        "--user=half-sighted",
    ]);
    let user = cluster.user("half-sighted", &[]);
    let half = run(&["diff", "b", "--include-resources", "configmaps,secrets"])
        .kubeconfig(&user)
        .code(2);
    assert!(
        half.stderr.contains("not compared: secrets"),
        "{}",
        half.stderr
    );
    assert!(
        !half.stderr.contains("not compared: configmaps"),
        "{}",
        half.stderr
    );
    run(&["diff", "b", "--include-resources", "configmaps"])
        .kubeconfig(&user)
        .ok();
}
