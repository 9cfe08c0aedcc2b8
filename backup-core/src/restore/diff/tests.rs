//! Comparisons with API servers that answer from memory.

use super::*;
use crate::backup::server::{Server, resources};
use crate::backup::{self, BackupOptions};
use crate::progress::Silent;

const CONFIG_MAPS: &str = "/api/v1/configmaps";
const WIDGETS: &str = "/apis/example.com/v1/widgets";

fn config_map(name: &str, more: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"default","resourceVersion":"1"{more}}},"data":{{"k":"v"}}}}"#
    )
}

fn widget(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"example.com/v1","kind":"Widget","metadata":{{"name":"{name}","namespace":"default"}}}}"#
    )
}

/// A backup of everything that a server has.
async fn saved(name: &str, server: Server) -> Location {
    let location = Location::in_memory("mem");
    let options = BackupOptions::of_everything(name);
    let (cluster, _) = server.start();
    let (_sender, cancel) = tokio::sync::watch::channel(false);
    backup::create(&cluster, &location, &options, cancel, &Silent)
        .await
        .unwrap();
    location
}

/// What differs, a line each, and what came of it.
async fn compared(
    location: &Location,
    filter: Filter,
    other: Other<'_>,
) -> Result<(Vec<String>, Compared)> {
    let options = DiffOptions {
        backup: "b".parse().unwrap(),
        filter,
        namespace_mappings: BTreeMap::new(),
        controlled: false,
        spool_dir: std::env::temp_dir(),
    };
    compared_so(location, &options, other).await
}

async fn compared_so(
    location: &Location,
    options: &DiffOptions,
    other: Other<'_>,
) -> Result<(Vec<String>, Compared)> {
    let mut lines = Vec::new();
    let mut show = |difference: Difference| {
        let fields: Vec<_> = difference.fields.iter().map(|f| f.path.clone()).collect();
        let line = format!(
            "{:?} {} {} {}",
            difference.change,
            difference.resource,
            difference.object.name,
            fields.join(",")
        );
        lines.push(line.trim_end().to_owned());
        Ok(())
    };
    let compared = diff(location, options, other, &Silent, &mut show).await?;
    lines.sort();
    Ok((lines, compared))
}

async fn with_server(location: &Location, server: Server) -> (Vec<String>, Compared) {
    let (cluster, _) = server.start();
    let other = Other::Cluster(&cluster);
    compared(location, Filter::default(), other).await.unwrap()
}

#[tokio::test]
async fn over_many_pages_each_object_meets_its_own() {
    let mut before = Server::new();
    for n in 0..300 {
        before.add(CONFIG_MAPS, &config_map(&format!("c{n:03}"), ""));
    }
    let location = saved("b", before).await;
    let mut after = Server::new();
    // In another order, with another resourceVersion: neither is a difference.
    for n in (1..300).rev() {
        let more = match n {
            150 => r#","labels":{"new":"label"}"#,
            _ => r#","generation":7"#,
        };
        after.add(CONFIG_MAPS, &config_map(&format!("c{n:03}"), more));
    }
    after.add(CONFIG_MAPS, &config_map("later", ""));
    after.add(WIDGETS, &widget("w"));
    // A backup would not save these either.
    let label = r#","labels":{"velero.io/exclude-from-backup":"true"}"#;
    after.add(CONFIG_MAPS, &config_map("excluded", label));
    let going = r#","deletionTimestamp":"2026-11-21T02:00:00Z""#;
    after.add(CONFIG_MAPS, &config_map("going", going));
    let (lines, compared) = with_server(&location, after).await;
    assert_eq!(
        lines,
        [
            "Added configmaps later",
            "Added widgets.example.com w",
            "Changed configmaps c150 .metadata.labels",
            "Removed configmaps c000",
        ]
    );
    assert_eq!(compared.missed, Vec::<String>::new());
    // 298 config maps and the two namespaces.
    assert_eq!((compared.different, compared.same), (4, 300));
}

#[tokio::test]
async fn an_object_that_no_backup_would_take_any_more_has_not_gone() {
    let mut before = Server::new();
    for name in ["going", "labelled", "stays"] {
        before.add(CONFIG_MAPS, &config_map(name, ""));
    }
    let location = saved("b", before).await;
    let mut after = Server::new();
    let going = r#","deletionTimestamp":"2026-11-21T02:00:00Z""#;
    after.add(CONFIG_MAPS, &config_map("going", going));
    let label = r#","labels":{"velero.io/exclude-from-backup":"true"}"#;
    after.add(CONFIG_MAPS, &config_map("labelled", label));
    after.add(CONFIG_MAPS, &config_map("stays", ""));
    let (lines, compared) = with_server(&location, after).await;
    assert_eq!(
        lines,
        [
            "Changed configmaps going .metadata.deletionTimestamp",
            "Changed configmaps labelled .metadata.labels['velero.io/exclude-from-backup']",
        ]
    );
    assert_eq!(compared.different, 2);
}

#[tokio::test]
async fn what_controllers_make_is_counted_and_told_where_it_is_asked_for() {
    let pod = |name: &str, image: &str, owner: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"default"{owner}}},"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}},"status":{{"phase":"Running"}}}}"#
        )
    };
    let owned = r#","ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"1","controller":true}]"#;
    let other = owned.replace(r#""name":"r""#, r#""name":"s""#);
    let mut before = Server::new();
    before.add("/api/v1/pods", &pod("own", "a", ""));
    before.add("/api/v1/pods", &pod("gone", "a", owned));
    before.add("/api/v1/pods", &pod("changed", "a", owned));
    before.add("/api/v1/pods", &pod("moved", "a", owned));
    before.add("/api/v1/pods", &pod("same", "a", owned));
    let location = saved("b", before).await;
    let after = || {
        let mut after = Server::new();
        after.add("/api/v1/pods", &pod("own", "b", ""));
        after.add("/api/v1/pods", &pod("new", "a", owned));
        after.add("/api/v1/pods", &pod("changed", "b", owned));
        after.add("/api/v1/pods", &pod("moved", "a", &other));
        // The owner of the same name is another object since.
        let same = owned.replace(r#""uid":"1""#, r#""uid":"2""#);
        after.add("/api/v1/pods", &pod("same", "a", &same));
        after
    };
    let (lines, compared) = with_server(&location, after()).await;
    assert_eq!(lines, ["Changed pods own .spec.containers[c].image"]);
    assert_eq!((compared.different, compared.controlled), (1, 4));
    let all = [
        "Added pods new",
        "Changed pods changed .spec.containers[c].image",
        "Changed pods moved .metadata.ownerReferences",
        "Changed pods own .spec.containers[c].image",
        "Removed pods gone",
    ];
    let asked = |kind: &str, controlled: bool| DiffOptions {
        backup: "b".parse().unwrap(),
        filter: Filter {
            resources: vec![kind.to_owned()],
            ..Filter::default()
        },
        namespace_mappings: BTreeMap::new(),
        controlled,
        spool_dir: std::env::temp_dir(),
    };
    for options in [asked("pods", false), asked("*", true)] {
        let (cluster, _) = after().start();
        let other = Other::Cluster(&cluster);
        let (lines, compared) = compared_so(&location, &options, other).await.unwrap();
        assert_eq!(lines, all);
        assert_eq!(compared.controlled, 0);
    }
}

#[tokio::test]
async fn a_namespace_is_compared_with_the_one_it_was_restored_as() {
    let in_namespace = |name: &str, namespace: &str| {
        config_map(name, "").replace("\"default\"", &format!("{namespace:?}"))
    };
    let mut before = Server::new();
    for name in ["same", "gone", "changed"] {
        before.add(CONFIG_MAPS, &config_map(name, ""));
    }
    let location = saved("b", before).await;
    let mut after = Server::new();
    after.add(CONFIG_MAPS, &in_namespace("same", "copy"));
    let changed = in_namespace("changed", "copy").replace(r#""k":"v""#, r#""k":"w""#);
    after.add(CONFIG_MAPS, &changed);
    after.add(CONFIG_MAPS, &in_namespace("new", "copy"));
    // The original is not what is asked about.
    after.add(CONFIG_MAPS, &config_map("original", ""));
    let options = DiffOptions {
        backup: "b".parse().unwrap(),
        filter: Filter {
            resources: vec!["configmaps".into()],
            ..Filter::default()
        },
        namespace_mappings: BTreeMap::from([("default".into(), "copy".into())]),
        controlled: false,
        spool_dir: std::env::temp_dir(),
    };
    let (cluster, _) = after.start();
    let other = || Other::Cluster(&cluster);
    let (lines, compared) = compared_so(&location, &options, other()).await.unwrap();
    assert_eq!(
        lines,
        [
            "Added configmaps new",
            "Changed configmaps changed .data.k",
            "Removed configmaps gone",
        ]
    );
    assert_eq!(compared.same, 1);
    let wrong = DiffOptions {
        namespace_mappings: BTreeMap::from([("default".into(), "No Name".into())]),
        ..options
    };
    assert!(compared_so(&location, &wrong, other()).await.is_err());
}

#[tokio::test]
async fn what_no_restore_brings_is_no_difference() {
    let pod = |name: &str, status: &str, more: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"default"}},"spec":{{"nodeName":"n"{more}}},"status":{{"phase":"{status}"}}}}"#
        )
    };
    let mut before = Server::new();
    before.add("/api/v1/pods", &pod("ended", "Succeeded", ""));
    before.add("/api/v1/pods", &pod("runs", "Running", ""));
    before.add("/api/v1/pods", &pod("gone", "Running", ""));
    let location = saved("b", before).await;
    let mut after = Server::new();
    after.add("/api/v1/pods", &pod("runs", "Failed", r#","priority":3"#));
    after.add("/api/v1/pods", &pod("ended-later", "Failed", ""));
    after.add("/api/v1/events", &config_map("event", ""));
    let (lines, _) = with_server(&location, after).await;
    assert_eq!(lines, ["Removed pods gone"]);
}

#[tokio::test]
async fn kinds_that_can_not_be_compared_are_named_and_those_that_are_gone_are_differences() {
    let mut before = Server::new();
    before.add(WIDGETS, &widget("w"));
    let location = saved("b", before).await;
    let serving = |change: fn(&mut Vec<crate::backup::server::Group>)| {
        let mut groups = resources();
        change(&mut groups);
        let mut server = Server::new();
        server.discovery(&groups);
        server
    };
    let newer = serving(|groups| {
        let widgets = groups
            .iter_mut()
            .find(|(group, ..)| *group == "example.com");
        widgets.unwrap().1 = "v2";
    });
    let (lines, compared) = with_server(&location, newer).await;
    assert_eq!(lines, Vec::<String>::new());
    assert_eq!(
        compared.missed,
        ["widgets.example.com: the backup holds v1, the cluster serves v2"]
    );
    let gone = serving(|groups| groups.retain(|(group, ..)| *group != "example.com"));
    let (lines, compared) = with_server(&location, gone).await;
    assert_eq!(lines, ["Removed widgets.example.com w"]);
    assert!(compared.missed.is_empty(), "{compared:?}");
    let dead = serving(|groups| {
        let widgets = groups
            .iter_mut()
            .find(|(group, ..)| *group == "example.com");
        let widgets = widgets.unwrap();
        widgets.2 = "Stale";
        widgets.3.clear();
    });
    let (lines, compared) = with_server(&location, dead).await;
    assert_eq!(lines, Vec::<String>::new());
    assert!(
        compared
            .missed
            .iter()
            .any(|why| why.contains("example.com")),
        "{compared:?}"
    );
}

#[tokio::test]
async fn a_part_is_compared_alone_and_what_is_on_neither_side_is_an_error() {
    let mut before = Server::new();
    before.add(CONFIG_MAPS, &config_map("a", ""));
    before.add(WIDGETS, &widget("w"));
    let location = saved("b", before).await;
    let (cluster, _) = Server::new().start();
    let other = || Other::Cluster(&cluster);
    let kinds = |kind: &str, object: Option<&str>| Filter {
        resources: vec![kind.to_owned()],
        objects: object.into_iter().map(str::to_owned).collect(),
        ..Filter::default()
    };
    let (lines, _) = compared(&location, kinds("widget", None), other())
        .await
        .unwrap();
    assert_eq!(lines, ["Removed widgets.example.com w"]);
    let one = kinds("configmaps", Some("default/a"));
    let (lines, _) = compared(&location, one, other()).await.unwrap();
    assert_eq!(lines, ["Removed configmaps a"]);
    for refused in [
        kinds("configmaps", Some("default/none")),
        kinds("nonsense", None),
        kinds("nodes", None),
    ] {
        assert!(compared(&location, refused, other()).await.is_err());
    }
    let same: Name = "b".parse().unwrap();
    let itself = Other::Backup(&location, &same);
    let (lines, compared) = compared(&location, Filter::default(), itself)
        .await
        .unwrap();
    assert_eq!(lines, Vec::<String>::new());
    assert!(compared.same >= 4, "{compared:?}");
}
