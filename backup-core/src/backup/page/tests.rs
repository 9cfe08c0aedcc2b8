use super::*;
use crate::filter::{Filter, Selector};

fn resource(plural: &str, kind: &str, namespaced: bool) -> ApiResource {
    ApiResource {
        version: "v1".into(),
        plural: plural.into(),
        kind: kind.into(),
        namespaced,
        ..ApiResource::default()
    }
}

fn keep(filter: Filter, pick: Pick) -> Keep {
    Keep {
        by_labels: filter.selectors.len() > 1,
        gathered: Arc::new(Gathered {
            filter,
            ..Gathered::default()
        }),
        pick,
        tell_passed: false,
    }
}

fn cut(items: &str, plural: &str, kind: &str, keep: &Keep) -> Page {
    let page = format!(
        r#"{{"metadata":{{"resourceVersion":"7","continue":"t\u0041","remainingItemCount":3}},"items":[{items}]}}"#
    );
    split(&Bytes::from(page), &resource(plural, kind, true), keep).unwrap()
}

#[test]
fn objects_are_saved_byte_for_byte() {
    let odd = r#"{ "z" : 1e2 , "kind":"ConfigMap","n":123456789012345678901234567890,"metadata":{"unknown":-0.0,"namespace":"a","name":"odd"},"apiVersion":"v1","u":"\u003c","a":[ ] }"#;
    let page = cut(
        odd,
        "configmaps",
        "ConfigMap",
        &keep(Filter::default(), Pick::All),
    );
    assert_eq!(page.items[0].body, odd.as_bytes());
    assert_eq!((page.token.as_str(), page.revision.as_str()), ("tA", "7"));
    assert_eq!((page.sent, page.remaining), (1, 3));
}

#[test]
fn version_and_kind_are_put_first_where_the_list_leaves_them_out() {
    let keep = keep(Filter::default(), Pick::All);
    for (item, want) in [
        (
            r#"{"metadata":{"name":"x","namespace":"a"},"n":1e2}"#,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"a"},"n":1e2}"#,
        ),
        (
            r#"{"kind":"Pod","metadata":{"name":"x","namespace":"a"}}"#,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"a"}}"#,
        ),
        (
            r#"{"kind":"","apiVersion":"","metadata":{"name":"x","namespace":"a"}}"#,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"a"}}"#,
        ),
        (
            r#"{"apiVersion":null,"metadata":{"name":"x","namespace":"a","uid":"1","ownerReferences":[{"uid":"2","name":"o"}],"labels":{"l":"v"}},"status":{}}"#,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"a","uid":"1","ownerReferences":[{"uid":"2","name":"o"}],"labels":{"l":"v"}},"status":{}}"#,
        ),
    ] {
        let page = cut(item, "pods", "Pod", &keep);
        assert_eq!(std::str::from_utf8(&page.items[0].body).unwrap(), want);
        // What is told of it is what its saved bytes tell.
        let (told, read) = (&page.items[0].facts, Facts::read(want.as_bytes()).unwrap());
        assert_eq!(told.sha256, read.sha256);
        assert_eq!(
            (&told.uid, &told.labels, &told.owners),
            (&read.uid, &read.labels, &read.owners)
        );
    }
}

#[test]
fn what_is_no_list_is_an_error_and_null_is_an_empty_list() {
    let keep = keep(Filter::default(), Pick::All);
    let pods = resource("pods", "Pod", true);
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"metadata":{}}"#,
        r#"{"items":{}}"#,
        r#"{"items":[{]}"#,
    ] {
        assert!(
            split(&Bytes::from(bad.to_owned()), &pods, &keep).is_err(),
            "{bad}"
        );
    }
    let empty = split(&Bytes::from(r#"{"items":null}"#), &pods, &keep).unwrap();
    assert!(empty.items.is_empty() && empty.token.is_empty());
}

#[test]
fn deleted_labelled_and_foreign_objects_stay_out_and_unfit_ones_are_told() {
    let filter = Filter {
        namespaces: vec!["a".into()],
        ..Filter::default()
    };
    let items = [
        r#"{"metadata":{"name":"in","namespace":"a","deletionTimestamp":null}}"#,
        r#"{"metadata":{"name":"other","namespace":"b"}}"#,
        r#"{"metadata":{"name":"going","namespace":"a","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#,
        r#"{"metadata":{"name":"out","namespace":"a","labels":{"velero.io/exclude-from-backup":"true"}}}"#,
        r#"{"metadata":{"name":"out2","namespace":"a","labels":{"velero.io\/exclude-from-backup":"true"}}}"#,
        r#"{"metadata":{"name":"stays","namespace":"a","labels":{"velero.io/exclude-from-backup":"false"}}}"#,
        r#"{"metadata":{"name":"../../etc","namespace":"a"}}"#,
        r#"{"metadata":{"name":"nowhere"}}"#,
        r#"{"metadata":{"name":5}}"#,
        r#"{"spec":{}}"#,
        r#"{"metadata":{"name":"odd","namespace":"a","labels":{"x":1}}}"#,
    ];
    let page = cut(&items.join(","), "pods", "Pod", &keep(filter, Pick::All));
    let names: Vec<_> = page.items.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["in", "stays"]);
    assert_eq!((page.seen.terminating, page.seen.labelled_out), (1, 2));
    assert_eq!(page.seen.unfit.len(), 5);
    assert_eq!(page.sent, 11);
}

#[test]
fn several_selectors_are_matched_here() {
    let filter = Filter {
        selectors: Selector::parse_any("app=web or !app").unwrap(),
        ..Filter::default()
    };
    let items = [
        r#"{"metadata":{"name":"web","namespace":"a","labels":{"app":"web"}}}"#,
        r#"{"metadata":{"name":"api","namespace":"a","labels":{"app":"api"}}}"#,
        r#"{"metadata":{"name":"none","namespace":"a","labels":null}}"#,
        r#"{"metadata":{"name":"bare","namespace":"a"}}"#,
    ];
    let page = cut(&items.join(","), "pods", "Pod", &keep(filter, Pick::All));
    let names: Vec<_> = page.items.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["web", "none", "bare"]);
}

#[test]
fn pods_and_claims_tell_what_belongs_to_them() {
    let keep = keep(Filter::default(), Pick::All);
    let pod = r#"{"metadata":{"name":"p","namespace":"a","annotations":{"backup.velero.io/backup-volumes":"data","pre.hook.backup.velero.io/command":"[\"sync\"]"}},
        "spec":{"priorityClassName":"high","volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"c"}},{"name":"e","emptyDir":{}}]},"status":{"phase":"Running"}}"#;
    let seen = cut(pod, "pods", "Pod", &keep).seen;
    assert!(seen.uses[&("a".into(), "c".into())].asked);
    assert!(seen.priority_classes.contains("high"));
    assert!(seen.used_claims.contains(&("a".into(), "c".into())));
    let ended = pod.replace("Running", "Succeeded");
    assert!(cut(&ended, "pods", "Pod", &keep).seen.uses.is_empty());
    let claim = r#"{"metadata":{"name":"c","namespace":"a"},"spec":{"volumeName":"pv-1"}}"#;
    let seen = cut(
        claim,
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        &keep,
    )
    .seen;
    assert_eq!(seen.claims[&("a".into(), "c".into())].volume, "pv-1");
}

#[test]
fn bindings_are_picked_by_the_accounts_they_name() {
    let accounts = [("a".to_owned(), "robot".to_owned())].into();
    let keep = keep(Filter::default(), Pick::Binding(accounts));
    let items = [
        r#"{"metadata":{"name":"yes"},"roleRef":{"kind":"ClusterRole","name":"reader"},"subjects":[{"kind":"User","name":"u"},{"kind":"ServiceAccount","name":"robot","namespace":"a"}]}"#,
        r#"{"metadata":{"name":"no"},"roleRef":{"kind":"ClusterRole","name":"admin"},"subjects":[{"kind":"ServiceAccount","name":"robot","namespace":"b"}]}"#,
        r#"{"metadata":{"name":"empty"},"roleRef":{"kind":"ClusterRole","name":"admin"},"subjects":null}"#,
    ];
    let page = format!(r#"{{"items":[{}]}}"#, items.join(","));
    let mut bindings = resource("clusterrolebindings", "ClusterRoleBinding", false);
    bindings.group = "rbac.authorization.k8s.io".into();
    let page = split(&Bytes::from(page), &bindings, &keep).unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.seen.roles.into_iter().collect::<Vec<_>>(), ["reader"]);
}

#[test]
fn pods_with_hooks_are_kept_aside_where_hooks_are_run_and_not_without_end() {
    let pod = |name: &str, annotations: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"a","uid":"u-{name}","annotations":{annotations}}},"spec":{{"containers":[{{"name":"c"}}]}},"status":{{"phase":"Running"}}}}"#
        )
    };
    let asks = r#"{"pre.hook.backup.velero.io/command":"sync"}"#;
    let pods = [pod("one", asks), pod("plain", "{}"), pod("two", asks)].join(",");
    let mut keep = keep(Filter::default(), Pick::All);
    // Nobody runs any, as where only kinds are counted.
    let page = cut(&pods, "pods", "Pod", &keep);
    assert_eq!((page.items.len(), page.seen.hooked.len()), (3, 0));
    let mut gathered = (*keep.gathered).clone();
    gathered.hooks = Some(Arc::default());
    keep.gathered = Arc::new(gathered);
    let mut page = cut(&pods, "pods", "Pod", &keep);
    let names: Vec<_> = page.items.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["plain"]);
    let hooked = &page.seen.hooked;
    assert_eq!(hooked[0].asked.uid, "u-one");
    assert_eq!(hooked[1].asked.hooks.pre[0].command, ["sync"]);
    let size = hooked[0].item.as_ref().unwrap().body.len();
    assert!(page.seen.release_beyond(0, 2 * size).is_empty());
    let released = page.seen.release_beyond(1, 2 * size - 1);
    assert_eq!(released[0].name, "two");
    // Its hooks run all the same.
    assert!(page.seen.hooked[1].item.is_none() && page.seen.hooked[0].item.is_some());
    keep.pick = Pick::Named(["one".to_owned()].into());
    assert_eq!(cut(&pods, "pods", "Pod", &keep).seen.hooked.len(), 0);
}
