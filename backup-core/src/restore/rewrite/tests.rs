use super::*;

fn rewrite() -> Rewrite {
    Rewrite {
        backup: "b".into(),
        restore: "r".into(),
        mappings: BTreeMap::from([("old".to_owned(), "new".to_owned())]),
        preserve_node_ports: false,
        kept_volumes: HashSet::from(["kept".to_owned()]),
        awaited_volumes: HashSet::new(),
        ..Rewrite::default()
    }
}

fn shaped(resource: &str, body: &str) -> String {
    let shaped = rewrite()
        .shape(resource, body.as_bytes(), Side::Backup)
        .unwrap();
    String::from_utf8(shaped.object.to_vec()).unwrap()
}

#[test]
fn what_a_server_sets_goes_and_everything_else_stays_byte_for_byte() {
    let body = r#"{"apiVersion":"x/v1","kind":"W","metadata":{"name":"n","namespace":"old","uid":"u","generateName":"n-","selfLink":"/","resourceVersion":"1","generation":3,"creationTimestamp":null,"deletionTimestamp":"t","deletionGracePeriodSeconds":0,"ownerReferences":[{"uid":"o"}],"finalizers":["x/y"],"zzz":{"k": 1e2},"labels":{"a":"b","velero.io/restore-name":"earlier"}},"spec":{"big":123456789012345678901234567890,"f":1e2,"z":1,"a":{"x": [ 1 ]}},"status":{"s":1},"unknown":-0.0}"#;
    assert_eq!(
        shaped("ws.x", body),
        r#"{"apiVersion":"x/v1","kind":"W","metadata":{"name":"n","namespace":"new","finalizers":["x/y"],"zzz":{"k": 1e2},"labels":{"a":"b"}},"spec":{"big":123456789012345678901234567890,"f":1e2,"z":1,"a":{"x": [ 1 ]}},"unknown":-0.0}"#
    );
    let rewrite = rewrite();
    let mut shaped = rewrite.shape("ws.x", body.as_bytes(), Side::Live).unwrap();
    rewrite.stamp(&mut shaped).unwrap();
    let text = String::from_utf8(shaped.object.to_vec()).unwrap();
    assert!(
        text.contains(r#""namespace":"old""#),
        "live objects are where they are"
    );
    assert!(text.contains(
        r#""labels":{"a":"b","velero.io/backup-name":"b","velero.io/restore-name":"r"},"annotations":{"kubectl-backup/uid":"u"}"#
    ));
}

#[test]
fn every_kind_is_changed_as_velero_does_and_no_further() {
    let m = r#""metadata":{"name":"n"}"#;
    for (resource, before, after) in [
        (
            "services",
            r#"{"spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"type":"NodePort","healthCheckNodePort":30001,"ports":[{"name":"a","port":80,"nodePort":30000}]}}"#,
            r#"{"spec":{"type":"NodePort","ports":[{"name":"a","port":80}]}}"#,
        ),
        (
            "services",
            r#"{"spec":{"clusterIP":"None","clusterIPs":["None"],"ports":[]}}"#,
            r#"{"spec":{"clusterIP":"None","clusterIPs":["None"],"ports":[]}}"#,
        ),
        (
            "services",
            r#"{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"spec\":{\"healthCheckNodePort\":30009,\"ports\":[{\"name\":\"a\",\"nodePort\":30000},{\"nodePort\":30002}]}}"}},"spec":{"healthCheckNodePort":30009,"ports":[{"name":"a","nodePort":30000},{"name":"b","nodePort":30001},{"nodePort":30002},{"nodePort":30003}]}}"#,
            r#"{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"spec\":{\"healthCheckNodePort\":30009,\"ports\":[{\"name\":\"a\",\"nodePort\":30000},{\"nodePort\":30002}]}}"}},"spec":{"healthCheckNodePort":30009,"ports":[{"name":"a","nodePort":30000},{"name":"b"},{"nodePort":30002},{}]}}"#,
        ),
        (
            "services",
            r#"{"metadata":{"managedFields":[{"manager":"m","operation":"Update","fieldsV1":{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{"f:nodePort":{}},"k:{\"port\":81,\"protocol\":\"TCP\"}":{"f:port":{}}}}}}]},"spec":{"ports":[{"port":80,"protocol":"TCP","nodePort":30000},{"port":81,"protocol":"TCP","nodePort":30001}]}}"#,
            r#"{"metadata":{},"spec":{"ports":[{"port":80,"protocol":"TCP","nodePort":30000},{"port":81,"protocol":"TCP"}]}}"#,
        ),
        (
            "jobs.batch",
            r#"{"spec":{"selector":{"matchLabels":{"controller-uid":"u","batch.kubernetes.io/controller-uid":"u"}},"template":{"metadata":{"labels":{"a":"b","controller-uid":"u","batch.kubernetes.io/controller-uid":"u"}}}}}"#,
            r#"{"spec":{"selector":{},"template":{"metadata":{"labels":{"a":"b"}}}}}"#,
        ),
        (
            "pods",
            r#"{"spec":{"serviceAccountName":"sa","nodeName":"x","priority":0,"priorityClassName":"p","volumes":[{"name":"sa-token-abc"},{"name":"kube-api-access-1"}],"containers":[{"name":"c","volumeMounts":[{"name":"sa-token-abc"},{"name":"d"}]}]}}"#,
            r#"{"spec":{"serviceAccountName":"sa","priorityClassName":"p","volumes":[{"name":"kube-api-access-1"}],"containers":[{"name":"c","volumeMounts":[{"name":"d"}]}]}}"#,
        ),
        (
            "pods",
            r#"{"spec":{"initContainers":[{"name":"restore-wait","args":["uid"]},{"name":"restic-wait"},{"name":"mine"}]}}"#,
            r#"{"spec":{"initContainers":[{"name":"mine"}]}}"#,
        ),
        (
            "persistentvolumeclaims",
            r#"{"metadata":{"annotations":{"pv.kubernetes.io/bind-completed":"yes","pv.kubernetes.io/bound-by-controller":"yes","volume.kubernetes.io/storage-provisioner":"x","keep":"me"}},"spec":{"volumeName":"anew","dataSource":{},"dataSourceRef":{},"selector":{},"storageClassName":"s"}}"#,
            r#"{"metadata":{"annotations":{"keep":"me"}},"spec":{"storageClassName":"s"}}"#,
        ),
        (
            "persistentvolumeclaims",
            r#"{"metadata":{"annotations":{"pv.kubernetes.io/bind-completed":"yes"},"finalizers":["a/b","snapshot.storage.kubernetes.io/pvc-as-source-protection"]},"spec":{"volumeName":"kept","selector":{}}}"#,
            r#"{"metadata":{"finalizers":["a/b"]},"spec":{"volumeName":"kept","selector":{}}}"#,
        ),
        (
            "persistentvolumes",
            r#"{"spec":{"claimRef":{"namespace":"old","name":"c","uid":"u","resourceVersion":"1"},"persistentVolumeReclaimPolicy":"Retain"}}"#,
            r#"{"spec":{"claimRef":{"namespace":"new","name":"c"},"persistentVolumeReclaimPolicy":"Retain"}}"#,
        ),
        (
            "rolebindings.rbac.authorization.k8s.io",
            r#"{"subjects":[{"kind":"ServiceAccount","namespace":"old","name":"s"},{"kind":"User","name":"u"},{"kind":"ServiceAccount","namespace":"other"}]}"#,
            r#"{"subjects":[{"kind":"ServiceAccount","namespace":"new","name":"s"},{"kind":"User","name":"u"},{"kind":"ServiceAccount","namespace":"other"}]}"#,
        ),
        (
            "secrets",
            r#"{"metadata":{"annotations":{"kubernetes.io/service-account.uid":"u","kubernetes.io/service-account.name":"s"}},"data":{"token":"t","ca.crt":"c","extra":"e"},"type":"kubernetes.io/service-account-token"}"#,
            r#"{"metadata":{"annotations":{"kubernetes.io/service-account.name":"s"}},"data":{"extra":"e"},"type":"kubernetes.io/service-account-token"}"#,
        ),
        (
            "secrets",
            r#"{"data":{"token":"t"},"type":"Opaque"}"#,
            r#"{"data":{"token":"t"},"type":"Opaque"}"#,
        ),
        (
            "serviceaccounts",
            r#"{"metadata":{"name":"sa"},"secrets":[{"name":"sa-token-1"},{"name":"other"}]}"#,
            r#"{"metadata":{"name":"sa"},"secrets":[{"name":"other"}]}"#,
        ),
        (
            "customresourcedefinitions.apiextensions.k8s.io",
            r#"{"apiVersion":"apiextensions.k8s.io/v1","spec":{"preserveUnknownFields":true,"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object"}}}]}}"#,
            r#"{"apiVersion":"apiextensions.k8s.io/v1","spec":{"preserveUnknownFields":false,"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}"#,
        ),
        (
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
            r#"{"apiVersion":"admissionregistration.k8s.io/v1","webhooks":[{"sideEffects":"Unknown"},{"sideEffects":"NoneOnDryRun"}]}"#,
            r#"{"apiVersion":"admissionregistration.k8s.io/v1","webhooks":[{"sideEffects":"None"},{"sideEffects":"NoneOnDryRun"}]}"#,
        ),
        (
            "namespaces",
            r#"{"metadata":{"name":"old","labels":{"kubernetes.io/metadata.name":"old","a":"b"}},"spec":{"finalizers":["kubernetes"]}}"#,
            r#"{"metadata":{"name":"new","labels":{"a":"b"}},"spec":{"finalizers":["kubernetes"]}}"#,
        ),
        (
            "configmaps",
            r#"{"data":{"namespace":"old"}}"#,
            r#"{"data":{"namespace":"old"}}"#,
        ),
    ] {
        assert_eq!(shaped(resource, before), after, "{resource}");
    }
    let mut keep = rewrite();
    keep.preserve_node_ports = true;
    let body = r#"{"spec":{"ports":[{"nodePort":30000}],"healthCheckNodePort":30001}}"#;
    let kept = keep
        .shape("services", body.as_bytes(), Side::Backup)
        .unwrap();
    assert_eq!(kept.object.to_vec(), body.as_bytes());
    assert_eq!(shaped("x", &format!("{{{m}}}")), format!("{{{m}}}"));
}

#[test]
fn one_manager_needs_one_call_and_several_a_patch() {
    let managers = |entries: &str| {
        let body = format!(r#"{{"metadata":{{"managedFields":{entries}}}}}"#);
        rewrite()
            .shape("x", body.as_bytes(), Side::Backup)
            .unwrap()
            .managers
    };
    let update = r#"{"manager":"helm","operation":"Update","fieldsV1":{}}"#;
    let status = r#"{"manager":"kubelet","operation":"Update","subresource":"status"}"#;
    let apply = r#"{"manager":"argo","operation":"Apply","n":1e2}"#;
    let revision = r#"{"manager":"kcm","operation":"Update","subresource":"status","fieldsV1":{"f:metadata":{},"f:status":{}}}"#;
    assert_eq!(
        managers(&format!("[{update},{revision}]")),
        Managers::Several(format!("[{update}]")),
        "what a controller wrote is not its creator's"
    );
    assert_eq!(managers("[]"), Managers::One(MANAGER.into()));
    assert_eq!(
        managers(&format!("[{update},{status}]")),
        Managers::One("helm".into())
    );
    assert_eq!(
        managers(&format!("[{apply}]")),
        Managers::Several(format!("[{apply}]"))
    );
    assert_eq!(
        managers(&format!("[{update},{status},{apply}]")),
        Managers::Several(format!("[{update},{apply}]"))
    );
}

#[test]
fn long_names_become_labels_as_velero_makes_them() {
    assert_eq!(crate::name::label_value("short"), "short");
    let long = "a".repeat(70);
    let value = crate::name::label_value(&long);
    assert_eq!(value.len(), 63);
    assert_eq!(&value[..57], &long[..57]);
    assert_eq!(&value[57..], &sha256(long.as_bytes())[..6]);
}
