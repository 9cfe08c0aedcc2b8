//! Listing, describing and reading backups, for people and for programs.

use crate::place::Place;
use serde_json::Value;

fn filled(place: &Place) -> String {
    let namespace = place.cluster.create_namespace("look");
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "configmap",
        "settings",
        "--from-literal=greeting=hello",
    ]);
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "secret",
        "generic",
        "token",
        "--from-literal=t=s3cr3t",
    ]);
    place.run(&["create", "b", "-n", &namespace]).ok();
    namespace
}

#[test]
fn a_table_is_like_kubectls_and_json_is_a_list() {
    let place = Place::new();
    filled(&place);
    let table = place.run(&["get"]).ok().stdout;
    let mut lines = table.lines();
    let titles: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        titles,
        [
            "NAME",
            "STATUS",
            "ERRORS",
            "WARNINGS",
            "CREATED",
            "EXPIRES",
            "STORAGE-LOCATION",
            "SELECTOR"
        ]
    );
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1]), ("b", "Completed"));
    assert!(
        !place
            .run(&["get", "--no-headers"])
            .ok()
            .stdout
            .contains("STATUS")
    );
    let list = place.run(&["get", "-o", "json"]).ok().json();
    assert_eq!(
        (list["kind"].as_str(), list["items"][0]["kind"].as_str()),
        (Some("List"), Some("Backup"))
    );
    let one = place.run(&["get", "b", "-o", "json"]).ok().json();
    assert_eq!(one["metadata"]["name"], "b");
    assert_eq!(
        place.run(&["get", "b", "-o", "name"]).ok().stdout,
        "backup/b\n"
    );
    let yaml = place.run(&["get", "b", "-o", "yaml"]).ok().stdout;
    assert!(yaml.contains("apiVersion: velero.io/v1"), "{yaml}");
}

#[test]
fn programs_are_shown_everything_as_json_or_yaml_and_lists_are_sorted_by_any_field() {
    let place = Place::new();
    let namespace = filled(&place);
    place
        .run(&["create", "a", "-n", &namespace, "--labels", "rank=10"])
        .ok();
    place
        .run(&["create", "c", "-n", &namespace, "--labels", "rank=2"])
        .ok();
    let names = |arguments: &[&str]| place.run(arguments).ok().stdout;
    let by_name = names(&["get", "-o", "name", "--sort-by", ".metadata.name"]);
    assert_eq!(by_name, "backup/a\nbackup/b\nbackup/c\n");
    // Labels are text; what has none comes first.
    let by_label = names(&["get", "-o", "name", "--sort-by={.metadata.labels.rank}"]);
    assert_eq!(by_label, "backup/b\nbackup/a\nbackup/c\n");
    let table = names(&[
        "get",
        "--no-headers",
        "--sort-by",
        ".metadata.labels['rank']",
    ]);
    let first: Vec<_> = table.lines().filter_map(|row| row.get(..1)).collect();
    assert_eq!(first, ["b", "a", "c"]);
    let listed = place
        .run(&["get", "-o", "json", "--sort-by", ".metadata.labels.rank"])
        .ok()
        .json();
    assert_eq!(listed["items"][2]["metadata"]["name"], "c");
    place.run(&["get", "--sort-by", ".metadata."]).code(2);
    let unknown = place
        .run(&["get", "--sort-by", ".metadata.nonsense"])
        .code(1);
    assert!(unknown.stderr.contains("nonsense"), "{}", unknown.stderr);

    let described = place.run(&["describe", "b", "-o", "json"]).ok().json();
    assert_eq!(described["kind"], "BackupDescription");
    assert_eq!(described["backup"]["status"]["phase"], "Completed");
    let kinds = described["resources"].as_array().unwrap();
    let saved = kinds
        .iter()
        .find(|row| row["resource"] == "secrets")
        .unwrap();
    assert_eq!(
        (saved["outcome"].as_str(), saved["count"].as_u64()),
        (Some("saved"), Some(1))
    );
    assert!(described["resourceList"].is_null());
    let wide = place.run(&["describe", "b", "-o", "wide"]).ok().stdout;
    assert_eq!(wide, place.run(&["describe", "b", "--details"]).ok().stdout);
    let yaml = place
        .run(&["describe", "b", "--details", "-o", "yaml"])
        .ok()
        .stdout;
    assert!(yaml.contains(&format!("- {namespace}/settings")), "{yaml}");
    assert_eq!(names(&["describe", "b", "-o", "name"]), "backup/b\n");
    let verified = place.run(&["verify", "b", "-o", "json"]).ok().json();
    assert_eq!(
        (verified["kind"].as_str(), verified["verified"].as_bool()),
        (Some("BackupVerification"), Some(true))
    );

    place
        .run(&["restore", "create", "r", "--from-backup", "b"])
        .ok();
    let restore = place
        .run(&["restore", "describe", "r", "--details", "-o", "json"])
        .ok()
        .json();
    assert_eq!(restore["restore"]["spec"]["backupName"], "b");
    assert!(
        restore["resourceList"]["v1/ConfigMap"].is_array(),
        "{restore}"
    );
    let restores = names(&["restore", "get", "-o", "name", "--sort-by=.metadata.name"]);
    assert_eq!(restores, "restore/r\n");
}

#[test]
fn describe_lists_every_object_when_asked_for_details() {
    let place = Place::new();
    let namespace = filled(&place);
    let plain = place.run(&["describe", "b"]).ok().stdout;
    assert!(
        plain.contains("Completed") && plain.contains("configmaps"),
        "{plain}"
    );
    let details = place.run(&["describe", "b", "--details"]).ok().stdout;
    assert!(
        details.contains(&format!("{namespace}/settings")),
        "{details}"
    );
}

#[test]
fn contents_lists_kinds_then_objects_and_prints_one_object() {
    let place = Place::new();
    let namespace = filled(&place);
    let kinds = place.run(&["contents", "b"]).ok().stdout;
    assert!(
        kinds.contains("configmaps") && kinds.contains("secrets"),
        "{kinds}"
    );
    let objects = place.run(&["contents", "b", "configmaps"]).ok().stdout;
    assert!(objects.contains("settings"), "{objects}");
    let yaml = place
        .run(&[
            "contents",
            "b",
            "configmap",
            &format!("{namespace}/settings"),
        ])
        .ok()
        .stdout;
    assert!(
        yaml.contains("greeting: hello") && yaml.contains("kind: ConfigMap"),
        "{yaml}"
    );
    let json: Value = place
        .run(&[
            "contents",
            "b",
            "cm",
            &format!("{namespace}/settings"),
            "-o",
            "json",
        ])
        .ok()
        .json();
    assert_eq!(json["data"]["greeting"], "hello");
    let missing = place
        .run(&[
            "contents",
            "b",
            "configmaps",
            &format!("{namespace}/absent"),
        ])
        .code(1);
    assert!(missing.stderr.contains("absent"), "{}", missing.stderr);
}

#[test]
fn one_object_is_read_by_ranges_and_not_by_reading_the_archive() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("ranges");
    harness::load::Load {
        prefix: format!("{namespace}-load"),
        config_maps: 400,
        config_map_bytes: 20_000,
        half_random: true,
        ..Default::default()
    }
    .fill(&cluster.endpoint());
    let minio = harness::store::Minio::shared();
    let proxy =
        harness::proxy::Proxy::start(&harness::http_client::Endpoint::plain(minio.endpoint()));
    let location = format!("s3://{}/x?endpoint={}", minio.bucket("ranges"), proxy.url());
    let on = |arguments: &[&str]| {
        crate::place::on(cluster, &location, arguments)
            .credentials_of(minio)
            .env("AWS_ENDPOINT_URL", proxy.url())
    };
    on(&[
        "create",
        "b",
        "--include-namespaces",
        &format!("{namespace}-load-000"),
    ])
    .ok();
    proxy.clear_calls();
    on(&[
        "contents",
        "b",
        "configmaps",
        &format!("{namespace}-load-000/config-00007"),
    ])
    .ok();
    let calls = proxy.calls();
    let gets = calls
        .iter()
        .filter(|call| call.method == "GET" && call.target.contains("b.tar.gz"))
        .count();
    assert!(gets <= 2, "{calls:?}");
    assert!(
        calls
            .iter()
            .filter(|call| call.target.contains("b.tar.gz")
                && call.status == Some(200)
                && call.method == "GET")
            .count()
            == 0,
        "the whole archive was read: {calls:?}"
    );
}

#[test]
fn logs_and_the_archive_can_be_fetched() {
    let place = Place::new();
    filled(&place);
    let logs = place.run(&["logs", "b"]).ok().stdout;
    assert!(logs.contains("level=info"), "{logs}");
    let target = harness::process::Folder::new("download");
    place
        .run(&["download", "b"])
        .current_dir(target.path())
        .ok();
    let file = target.join("b-data.tar.gz");
    assert_eq!(
        std::fs::read(&file).unwrap(),
        std::fs::read(place.file("b", "b.tar.gz")).unwrap()
    );
    let again = place
        .run(&["download", "b"])
        .current_dir(target.path())
        .code(1);
    assert!(again.stderr.contains("b-data.tar.gz"), "{}", again.stderr);
    // As Velero's own command line has it.
    place
        .run(&["download", "b", "-o", "elsewhere.tar.gz"])
        .current_dir(target.path())
        .ok();
    assert_eq!(
        std::fs::read(target.join("elsewhere.tar.gz")).unwrap(),
        std::fs::read(&file).unwrap()
    );
}

#[test]
fn deleting_asks_or_needs_yes_and_leaves_nothing() {
    let place = Place::new();
    filled(&place);
    let refused = place.run(&["delete", "b"]).run();
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    assert!(!place.files("b").is_empty());
    let done = place.run(&["delete", "b", "--yes"]).ok();
    assert!(
        done.stdout.contains("backup/b deleted") || done.stdout.contains("backup \"b\" deleted"),
        "{}",
        done.stdout
    );
    assert!(place.files("b").is_empty(), "{:?}", place.files("b"));
    let gone = place.run(&["delete", "b", "--yes"]).code(1);
    assert!(gone.stderr.contains("not found"), "{}", gone.stderr);
}

#[test]
fn no_secret_of_a_cluster_is_printed_by_anything_but_contents() {
    let place = Place::new();
    filled(&place);
    for arguments in [
        &["get", "-o", "yaml"] as &[&str],
        &["describe", "b", "--details"],
        &["logs", "b"],
        &["contents", "b", "secrets"],
    ] {
        let run = place.run(arguments).ok();
        for stream in [&run.stdout, &run.stderr] {
            assert!(
                !stream.contains("czNjcjN0"),
                "{arguments:?} prints the secret\n{stream}"
            );
        }
    }
}
