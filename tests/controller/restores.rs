//! Restores that are asked for with objects, and the answer to `velero version`.

use serde_json::json;

use super::{NAMESPACE, SHOP, Served};

#[test]
fn veleros_command_restores_and_looks_at_it() {
    let served = Served::start("controller-restores");
    served.apply(SHOP);
    served
        .velero(&[
            "backup",
            "create",
            "b",
            "--include-namespaces",
            "shop",
            "--wait",
        ])
        .ok();
    served.ends("b", "Completed");
    let version = served.velero(&["version"]).ok().stdout;
    assert!(version.contains("kubectl-backup-v"), "{version}");
    let made = served
        .velero(&[
            "restore",
            "create",
            "r",
            "--from-backup",
            "b",
            "--namespace-mappings",
            "shop:copy",
            "--wait",
        ])
        .ok();
    assert!(
        made.stdout.contains("completed with status: Completed"),
        "{}{}",
        made.stdout,
        served.log()
    );
    let copy = served
        .cluster
        .get_raw("/api/v1/namespaces/copy/configmaps/settings");
    assert_eq!(copy["data"], json!({"a": "b"}));
    assert_eq!(copy["metadata"]["labels"]["velero.io/restore-name"], "r");
    let listed = served.velero(&["restore", "get"]).ok().stdout;
    assert!(
        listed.contains("Completed") && listed.contains(" b "),
        "{listed}"
    );
    let parts = [
        "Phase:",
        "Completed",
        "copy/settings(created)",
        "Items restored:",
    ];
    served.is_described("restore", "r", &parts);

    for (name, spec, part) in [
        ("gone", "{backupName: never}", "never"),
        (
            "nodes",
            "{backupName: b, includedResources: [nodes]}",
            "nodes",
        ),
        ("none", "{scheduleName: never}", "never"),
    ] {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {spec}}}"
        ));
        let refused = served.wait(&format!("restores/{name}"), "refused", |object| {
            object["status"]["phase"] == "FailedValidation"
        });
        let why = refused["status"]["validationErrors"].to_string();
        assert!(why.contains(part), "{name}: {why}");
    }
    // The restores of a backup go with it.
    served.velero(&["backup", "delete", "b", "--confirm"]).ok();
    harness::wait_for("the end of the restore", super::PATIENT, || {
        (served.object("restores/r").is_none() && served.object("backups/b").is_none())
            .then_some(())
    });
    assert_eq!(
        served.minio.list(&served.bucket, "main/restores/r/"),
        [""; 0]
    );
    assert!(served.object("restores/gone").is_some());
    // What was deleted is brought back by nobody.
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: late, namespace: {NAMESPACE}}}, spec: {{backupName: b}}}}"
    ));
    let late = served.wait("restores/late", "refused", |object| {
        object["status"]["phase"] == "FailedValidation"
    });
    let why = late["status"]["validationErrors"].to_string();
    assert!(why.contains(r#"backup \"b\" not found"#), "{why}");
}
