//! What the server sends is what is saved, byte for byte.

use harness::mock::Mock;
use harness::process::Folder;
use harness::run::kubectl_backup;

use crate::place::Archive;

/// Numbers, fields and an order of keys that a decoder would change.
const ODD: &str = r#"{"kind":"Odd","zeta":1e2,"apiVersion":"odd.example.com/v1","big":123456789012345678901234567890,"float":1.10,"metadata":{"unknown":{"x":1},"name":"odd","namespace":"default","uid":"u1","resourceVersion":"7","managedFields":[{"new":true}],"creationTimestamp":null},"text":"\u003c\u00e9"}"#;

#[test]
fn odd_numbers_unknown_fields_and_the_order_of_keys_are_saved_byte_for_byte() {
    let mock = Mock::start_cluster();
    mock.json("/apis", r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"odd.example.com","versions":[{"groupVersion":"odd.example.com/v1","version":"v1"}],"preferredVersion":{"groupVersion":"odd.example.com/v1","version":"v1"}}]}"#);
    mock.json("/apis/odd.example.com/v1", r#"{"kind":"APIResourceList","groupVersion":"odd.example.com/v1","resources":[{"name":"odds","singularName":"odd","namespaced":true,"kind":"Odd","verbs":["create","delete","get","list"]}]}"#);
    let verbs = r#""verbs":["create","delete","get","list"]"#;
    mock.json("/api/v1", format!(r#"{{"kind":"APIResourceList","groupVersion":"v1","resources":[{{"name":"namespaces","singularName":"namespace","namespaced":false,"kind":"Namespace",{verbs}}},{{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap",{verbs}}}]}}"#));
    let namespace = r#"{"metadata":{"name":"default","uid":"n1","resourceVersion":"1"},"spec":{},"status":{"phase":"Active"}}"#;
    mock.json("/api/v1/namespaces", format!(r#"{{"kind":"NamespaceList","apiVersion":"v1","metadata":{{"resourceVersion":"9"}},"items":[{namespace}]}}"#));
    mock.json("/api/v1/namespaces/kube-system", r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"cluster-1"}}"#);
    let empty = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}"#;
    mock.json("/api/v1/configmaps", empty);
    mock.json("/apis/odd.example.com/v1/odds", format!(r#"{{"kind":"OddList","apiVersion":"odd.example.com/v1","metadata":{{"resourceVersion":"9"}},"items":[{ODD}]}}"#));

    let folder = Folder::new("mock");
    let kubeconfig = folder.write(
        "kubeconfig",
        format!("apiVersion: v1\nkind: Config\nclusters: [{{name: m, cluster: {{server: \"{}\"}}}}]\nusers: [{{name: m, user: {{token: t}}}}]\ncontexts: [{{name: m, context: {{cluster: m, user: m}}}}]\ncurrent-context: m\n", mock.url()),
    );
    let location = format!("file://{}/backups-here", folder.path().display());
    let on = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .kubeconfig(&kubeconfig)
            .env("KUBECTL_BACKUP_LOCATION", &location)
    };
    on(&["create", "b"]).ok();
    let archive =
        Archive::of(&std::fs::read(folder.join("backups-here/backups/b/b.tar.gz")).unwrap());
    let text = |path: &str| String::from_utf8(archive.0[path].clone()).unwrap();
    assert_eq!(
        text("resources/odds.odd.example.com/namespaces/default/odd.json"),
        ODD
    );
    assert_eq!(
        text("resources/odds.odd.example.com/v1-preferredversion/namespaces/default/odd.json"),
        ODD
    );
    let saved = text("resources/namespaces/cluster/default.json");
    assert_eq!(
        saved,
        format!(
            r#"{{"apiVersion":"v1","kind":"Namespace",{}"#,
            &namespace[1..]
        ),
        "what a list leaves out is put first"
    );
    on(&["verify", "b"]).ok();
    let printed = on(&[
        "contents",
        "b",
        "odds.odd.example.com",
        "default/odd",
        "-o",
        "json",
    ])
    .ok()
    .stdout;
    assert!(
        printed.contains("123456789012345678901234567890") && printed.contains("1e2"),
        "{printed}"
    );
}
