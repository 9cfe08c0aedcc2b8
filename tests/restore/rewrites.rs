//! Objects that are changed on their way: storage classes, images, resource modifiers, and whose status comes back.

use harness::process::Folder;
use serde_json::{Value, json};

use crate::place::Place;

const SHOP: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: NS-fast}
provisioner: example.com/none
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: NS}
spec: {storageClassName: slow, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: lost, namespace: NS}
spec: {storageClassName: old, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: one, image: 'docker.io/library/one:1', env: [{name: MODE, value: prod}, {name: KEEP, value: me}]}
      - {name: two, image: 'docker.io/library/two:1'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NS, labels: {app: web}}
data: {url: 'https://prod', size: '1'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: bare, namespace: NS, labels: {app: bare}}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: NS, annotations: {velero.io/restore-status: 'true'}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: NS}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
"#;

/// Rules for the deployment, the settings, and one that the bare ConfigMap can not take.
const RULES: &str = r#"version: v1
resourceModifierRules:
- conditions: {groupResource: deployments.apps, namespaces: [NS], matches: [{path: /spec/replicas, value: "3"}]}
  patches:
  - {operation: test, path: /metadata/name, value: web}
  - {operation: replace, path: /spec/replicas, value: "0"}
- conditions: {groupResource: deployments.apps, resourceNameRegex: ^w}
  strategicPatches:
  - patchData: |
      spec:
        template:
          spec:
            containers:
            - name: one
              env:
              - {name: MODE, value: test}
            - name: two
              $patch: delete
- conditions: {groupResource: configmaps, labelSelector: {matchLabels: {app: web}}}
  mergePatches:
  - patchData: '{"data": {"url": "https://test", "size": null}}'
- conditions: {groupResource: configmaps, labelSelector: {matchLabels: {app: bare}}}
  patches:
  - {operation: replace, path: /data/url, value: x}
"#;

fn config_map(namespace: &str, name: &str, label: &str, data: &Value) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{velero.io/plugin-config: '', {label}}}}}\ndata: {data}\n"
    )
}

#[test]
fn what_was_asked_for_is_changed_and_what_can_not_be_changed_is_not_made() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("rewrites");
    // Where another Velero than anybody else's has its ConfigMaps.
    let velero = cluster.create_namespace("rewrites-velero");
    cluster.apply(&SHOP.replace("NS", &namespace));
    for service in ["front", "back"] {
        cluster.kubectl(&[
            "-n",
            &namespace,
            "patch",
            "service",
            service,
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"}]}}}"#,
        ]);
    }
    place.run(&["create", "b", "-n", &namespace]).ok();
    let action = |what: &str| format!("velero.io/change-{what}: RestoreItemAction");
    cluster.apply(&config_map(
        &velero,
        "classes",
        &action("storage-class"),
        &json!({"slow": format!("{namespace}-fast"), "old": "gone"}),
    ));
    cluster.apply(&config_map(
        &velero,
        "images",
        &action("image-name"),
        &json!({"a": "docker.io/library,mirror.example.com"}),
    ));
    let rules = RULES.replace("NS", &namespace);
    cluster.apply(&config_map(
        &velero,
        "rules",
        "a: b",
        &json!({"rules": rules}),
    ));
    let copy = format!("{namespace}-copy");
    let mapping = format!("{namespace}:{copy}");
    let create = |more: &[&str]| {
        let fixed = [
            "restore",
            "create",
            "--from-backup",
            "b",
            "--velero-namespace",
            &velero,
        ];
        place.run(&[&fixed, more].concat())
    };
    let all = [
        "--namespace-mappings",
        &mapping,
        "--resource-modifier-configmap",
        "rules",
    ];

    // The plan says what is changed, and fails what would fail.
    let plan = create(&[&all[..], &["--dry-run=client", "-o", "json"]].concat()).code(3);
    let steps: Value = serde_json::from_str(&plan.stdout).unwrap();
    let step = |name: &str| {
        let steps = steps["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["name"] == name).unwrap();
        format!(
            "{}: {}",
            step["action"],
            step["reason"].as_str().unwrap_or_default()
        )
    };
    for (name, part) in [
        ("data", format!("storage class slow to {namespace}-fast")),
        (
            "lost",
            "\"failed\": storage class old is mapped to gone, which the target does not have"
                .to_owned(),
        ),
        (
            "web",
            "image docker.io/library/one:1 to mirror.example.com/one:1".to_owned(),
        ),
        ("web", "resource modifier rules 1, 2".to_owned()),
        ("settings", "resource modifier rule 3".to_owned()),
        (
            "bare",
            "\"failed\": resource modifiers can not be applied: rule 4: there is no /data/url"
                .to_owned(),
        ),
    ] {
        assert!(step(name).contains(&part), "{name}: {}", step(name));
    }
    for part in [
        format!(
            "storage classes: old to gone, slow to {namespace}-fast (ConfigMap {velero}/classes)"
        ),
        format!("images: docker.io/library to mirror.example.com (ConfigMap {velero}/images)"),
        format!("resource modifiers: 4 rules (ConfigMap {velero}/rules)"),
    ] {
        assert!(plan.stderr.contains(&part), "{part}: {}", plan.stderr);
    }

    // A class that nobody has is a question.
    let lack = format!(
        "the target lacks StorageClass gone: a mapping of storage classes names it; needed by persistentvolumeclaims {copy}/lost"
    );
    let asked = create(&all).code(2);
    assert!(asked.stderr.contains(&lack), "{}", asked.stderr);
    let run = create(&[&all[..], &["--yes"]].concat()).code(3);
    assert!(
        run.stderr.contains("rule 4: there is no /data/url"),
        "{}",
        run.stderr
    );
    let get = |path: &str| cluster.get_raw(&format!("/{path}"));
    let in_copy = |kind: &str, name: &str| get(&format!("api/v1/namespaces/{copy}/{kind}/{name}"));
    let claim = in_copy("persistentvolumeclaims", "data");
    assert_eq!(
        claim["spec"]["storageClassName"],
        format!("{namespace}-fast")
    );
    let web = get(&format!("apis/apps/v1/namespaces/{copy}/deployments/web"));
    assert_eq!(web["spec"]["replicas"], 0);
    let containers = &web["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().unwrap().len(), 1, "{containers}");
    assert_eq!(containers[0]["image"], "mirror.example.com/one:1");
    assert_eq!(
        containers[0]["env"],
        json!([{"name": "MODE", "value": "test"}, {"name": "KEEP", "value": "me"}])
    );
    let settings = in_copy("configmaps", "settings");
    assert_eq!(settings["data"], json!({"url": "https://test"}));
    let status = |name: &str| in_copy("services", name)["status"]["loadBalancer"].take();
    assert_eq!(status("front")["ingress"][0]["ip"], "192.0.2.7");
    assert_eq!(status("back"), json!({}));
    // What was written for a status leaves no trace of us.
    let managers = in_copy("services", "front")["metadata"]["managedFields"].take();
    assert!(
        !managers.to_string().contains("kubectl-backup"),
        "{managers}"
    );
    let listed = cluster
        .kubectl(&["-n", &copy, "get", "configmaps,pvc", "-o", "name"])
        .stdout;
    assert!(
        !listed.contains("/bare") && !listed.contains("/lost"),
        "{listed}"
    );

    // Flags win over ConfigMaps, a file does what they do, and other rewrites are another restore.
    let folder = Folder::new("rules");
    let file = folder.write("rules.yaml", rules);
    let other = format!("{namespace}:{namespace}-other");
    let old = format!("old:{namespace}-fast");
    let run = create(&[
        "r2",
        "--namespace-mappings",
        &other,
        "--storage-class-mappings",
        &old,
        "--image-mappings",
        "docker.io/library/=quay.io/",
        "--rewrite-file",
        file.to_str().unwrap(),
        "--status-include-resources",
        "services",
        "-o",
        "json",
    ])
    .code(3);
    let spec = serde_json::from_str::<Value>(&run.stdout).unwrap()["spec"].take();
    assert_eq!(
        spec["restoreStatus"],
        json!({"includedResources": ["services"]})
    );
    assert_eq!(
        spec["storageClassMapping"]["old"],
        format!("{namespace}-fast")
    );
    let described = place.run(&["restore", "describe", "r2"]).ok().stdout;
    let words = described.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        &format!("old={namespace}-fast"),
        "Image mappings: docker.io/library/=quay.io/",
        "Resource modifiers: of a file",
        "Status restored: Included: services Excluded: <none>",
    ] {
        assert!(words.contains(part), "{part}: {described}");
    }
    let get = |path: &str| cluster.get_raw(&format!("/{path}"));
    let web = get(&format!(
        "apis/apps/v1/namespaces/{namespace}-other/deployments/web"
    ));
    assert_eq!(
        web["spec"]["template"]["spec"]["containers"][0]["image"],
        "quay.io/one:1"
    );
    for claim in ["data", "lost"] {
        let claim = get(&format!(
            "api/v1/namespaces/{namespace}-other/persistentvolumeclaims/{claim}"
        ));
        assert_eq!(
            claim["spec"]["storageClassName"],
            format!("{namespace}-fast")
        );
    }
    let back = get(&format!(
        "api/v1/namespaces/{namespace}-other/services/back"
    ));
    assert_eq!(
        back["status"]["loadBalancer"]["ingress"][0]["ip"],
        "192.0.2.7"
    );
    let other = [
        "r2",
        "--namespace-mappings",
        &other,
        "--image-mappings",
        "a=b",
    ];
    let refused = create(&other).code(1);
    assert!(
        refused.stderr.contains("had other options"),
        "{}",
        refused.stderr
    );

    // Mistakes are found before anything is done.
    for (more, part) in [
        (
            ["--resource-modifier-configmap", "none"],
            "is not in the target",
        ),
        (
            ["--resource-modifier-configmap", "images"],
            "these are no resource modifiers",
        ),
    ] {
        let refused = create(&more).code(1);
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    cluster.apply(&config_map(
        &velero,
        "images2",
        &action("image-name"),
        &json!({}),
    ));
    let refused = create(&[]).code(1);
    assert!(
        refused.stderr.contains("is the second one for images"),
        "{}",
        refused.stderr
    );
}
