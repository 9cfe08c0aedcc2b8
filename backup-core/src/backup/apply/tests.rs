use std::io::Read as _;
use std::time::{Duration, Instant};

use super::*;
use crate::backup::server::{Answer, Asked, Server, refuse};
use crate::backup::{BackupOptions, gather, plan};
use crate::error::Kind;
use crate::filter::Filter;
use crate::progress::Silent;

/// What came out: paths and bodies of the archive (unversioned copies), rows by resource.
struct Out {
    files: BTreeMap<String, Vec<u8>>,
    rows: BTreeMap<String, ResourceRow>,
    revision: Option<u64>,
}

impl Out {
    fn names(&self, folder: &str) -> Vec<&str> {
        self.files
            .keys()
            .filter_map(|path| path.strip_prefix(folder))
            .collect()
    }
}

fn options(filter: Filter) -> BackupOptions {
    BackupOptions {
        filter,
        ..BackupOptions::of_everything("b")
    }
}

async fn try_run(server: Server, options: BackupOptions) -> Result<(Out, Arc<Server>)> {
    let (cluster, server) = server.start();
    let gathered = gather::gather(&cluster, &options).await?;
    let plan = plan::plan(&gathered, options.single_namespace);
    let (_sender, cancel) = watch::channel(false);
    let brackets = Brackets::idle(cluster.clone());
    let apply = Apply {
        cluster: &cluster,
        brackets: &brackets,
        copying: None,
        gathered: Arc::new(gathered),
        exact: options.exact,
        mtime: 0,
        cancel,
        patience: Patience {
            cache: Duration::from_millis(200),
            absence: Duration::ZERO,
        },
        progress: &Silent,
    };
    let applied = apply.run(plan, "b", Vec::new(), Vec::new(), None).await?;
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(
        applied.archive.as_slice(),
    ));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        if !path.contains("-preferredversion/") {
            assert!(files.insert(path, body).is_none(), "an object came twice");
        }
    }
    let rows = applied.rows.into_iter();
    let out = Out {
        files,
        rows: rows.map(|row| (row.resource.clone(), row)).collect(),
        revision: applied.revision,
    };
    Ok((out, server))
}

async fn run(server: Server) -> Out {
    let out = try_run(server, options(Filter::default())).await;
    out.unwrap().0
}

fn config_map(n: usize, size: usize) -> String {
    let data = "x".repeat(size);
    format!(r#"{{"metadata":{{"name":"c{n:05}","namespace":"default"}},"data":{{"d":"{data}"}}}}"#)
}

fn with_config_maps(count: usize, size: usize) -> Server {
    let mut server = Server::new();
    for n in 0..count {
        server.add("/api/v1/configmaps", &config_map(n, size));
    }
    server
}

const FOLDER: &str = "resources/configmaps/namespaces/default/";

fn is_config_maps(asked: &Asked) -> bool {
    asked.path == "/api/v1/configmaps"
}

#[tokio::test]
async fn every_object_is_saved_once_at_one_revision() {
    let out = run(with_config_maps(700, 10)).await;
    assert_eq!(out.names(FOLDER).len(), 700);
    let row = &out.rows["configmaps"];
    assert_eq!(
        (row.count, row.resource_version.as_str(), row.exact),
        (700, "100", true)
    );
    assert_eq!(out.revision, Some(100));
    assert!(out.rows.values().all(|row| row.outcome != Outcome::Failed));
    assert_eq!(out.rows["namespaces"].count, 2);
    let events = &out.rows["events.events.k8s.io"];
    assert_eq!(
        (events.outcome, events.why.as_str()),
        (Outcome::Excluded, "served-twice (saved as events)")
    );
    assert!(!out.rows["events"].exact);
}

#[tokio::test]
async fn odd_numbers_and_key_orders_are_saved_byte_for_byte() {
    let odd = r#"{"zz":1e2,"apiVersion":"example.com/v1","n":123456789012345678901234567890,"kind":"Widget","metadata":{"namespace":"default","name":"w:1","x":-0},"a":[1.0, 2]}"#;
    let mut server = Server::new();
    server.add("/apis/example.com/v1/widgets", odd);
    let out = run(server).await;
    assert_eq!(
        out.files["resources/widgets.example.com/namespaces/default/w:1.json"],
        odd.as_bytes()
    );
}

#[tokio::test]
async fn a_revision_that_is_gone_before_the_first_page_is_replaced_for_all_that_follow() {
    let mut server = with_config_maps(20, 10);
    server.add("/api/v1/secrets", &config_map(1, 10));
    server.fault = Box::new(|asked| {
        if asked.get("resourceVersion") == Some("100") {
            return Some(refuse(410, "Expired", "too old resource version"));
        }
        // The clock goes on once the first lists have been refused.
        let anchor = is_config_maps(asked) && asked.get("limit") == Some("1");
        (anchor && asked.before >= 3).then(|| Answer {
            status: 200,
            body: r#"{"metadata":{"resourceVersion":"150"},"items":[]}"#.into(),
        })
    });
    let out = run(server).await;
    assert_eq!(out.names(FOLDER).len(), 20);
    assert_eq!(out.rows["configmaps"].resource_version, "150");
    assert_eq!(out.rows["secrets"].resource_version, "150");
    assert!(!out.rows["configmaps"].exact);
    assert_eq!(out.rows["configmaps"].outcome, Outcome::Saved);
}

#[tokio::test]
async fn a_list_that_expires_half_way_goes_on_with_the_token_of_the_refusal() {
    let mut server = with_config_maps(100, 10);
    server.fault = Box::new(|asked| {
        let token = asked.get("continue")?;
        (is_config_maps(asked) && token.starts_with("100:")).then(|| {
            let at = token.rsplit(':').next().unwrap();
            let mut answer = refuse(410, "Expired", "The provided continue parameter is too old");
            answer.body = answer.body.replace(
                r#""metadata":{}"#,
                &format!(r#""metadata":{{"continue":"120:{at}"}}"#),
            );
            answer
        })
    });
    let out = run(server).await;
    let row = &out.rows["configmaps"];
    assert_eq!(out.names(FOLDER).len(), 100);
    assert_eq!(
        (
            row.resource_version.as_str(),
            row.second_resource_version.as_str()
        ),
        ("100", "120")
    );
    assert!(!row.exact);
    assert_eq!(row.outcome, Outcome::Saved);
}

#[tokio::test]
async fn a_list_that_expires_half_way_without_a_token_is_a_failed_row_and_not_begun_again() {
    let mut server = with_config_maps(100, 10);
    server.fault = Box::new(|asked| {
        (is_config_maps(asked) && asked.get("continue").is_some())
            .then(|| refuse(410, "Expired", "too old"))
    });
    let out = run(server).await;
    let row = &out.rows["configmaps"];
    assert_eq!((row.outcome, row.count), (Outcome::Failed, 8));
    assert!(row.why.contains("half-way"), "{}", row.why);
}

#[tokio::test]
async fn a_cache_that_does_not_come_to_the_revision_is_read_at_its_own() {
    let mut server = with_config_maps(20, 10);
    server.fault = Box::new(|asked| {
        (is_config_maps(asked) && asked.get("resourceVersion").is_some()).then(|| {
            refuse(
                504,
                "Timeout",
                "Too large resource version: 100, current: 90",
            )
        })
    });
    let began = Instant::now();
    let (out, server) = try_run(server, options(Filter::default())).await.unwrap();
    assert_eq!(out.names(FOLDER).len(), 20);
    assert!(!out.rows["configmaps"].exact);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "the client's own retries were used"
    );
    let log = server.log.lock().unwrap();
    let asked = log
        .iter()
        .filter(|a| is_config_maps(a) && a.get("resourceVersion").is_some());
    assert!(asked.count() < 8);
}

#[tokio::test]
async fn storms_of_429_are_sat_out() {
    let mut server = with_config_maps(300, 10);
    server.fault = Box::new(|asked| {
        (asked.get("limit").is_some() && asked.before < 3)
            .then(|| refuse(429, "TooManyRequests", "slow down"))
    });
    let out = run(server).await;
    assert_eq!(out.names(FOLDER).len(), 300);
    assert!(out.rows.values().all(|row| row.outcome != Outcome::Failed));
}

#[tokio::test]
async fn what_may_not_be_listed_and_what_does_not_answer_are_failed_rows_with_the_reason() {
    let mut server = with_config_maps(3, 10);
    let mut groups = crate::backup::server::resources();
    groups.push(("metrics.k8s.io", "v1beta1", "Stale", vec![]));
    server.discovery(&groups);
    server.fault = Box::new(|asked| match asked.path.as_str() {
        "/api/v1/secrets" => Some(refuse(403, "Forbidden", "secrets is forbidden: no")),
        "/apis/example.com/v1/widgets" => {
            Some(refuse(500, "InternalError", "conversion webhook failed"))
        }
        _ => None,
    });
    let out = run(server).await;
    let failed: Vec<_> = out
        .rows
        .values()
        .filter(|row| row.outcome == Outcome::Failed)
        .map(|row| row.resource.as_str())
        .collect();
    assert_eq!(
        failed,
        ["*.metrics.k8s.io", "secrets", "widgets.example.com"]
    );
    assert!(out.rows["secrets"].why.contains("forbidden"));
    assert!(out.rows["widgets.example.com"].why.contains("webhook"));
    assert_eq!(out.rows["configmaps"].count, 3);
}

#[tokio::test]
async fn a_page_that_grows_a_hundredfold_is_read_in_smaller_pieces() {
    let mut server = with_config_maps(80, 1 << 10);
    for n in 80..300 {
        server.add("/api/v1/configmaps", &config_map(n, 150 << 10));
    }
    server.add("/api/v1/configmaps", &config_map(300, 20 << 20));
    let (out, server) = try_run(server, options(Filter::default())).await.unwrap();
    assert_eq!(out.names(FOLDER).len(), 301);
    assert_eq!(out.rows["configmaps"].outcome, Outcome::Saved);
    let log = server.log.lock().unwrap();
    assert!(
        log.iter().any(|a| is_config_maps(a)
            && a.get("limit") == Some("1")
            && a.get("continue").is_some())
    );
}

#[tokio::test]
async fn an_object_beyond_all_bounds_fails_its_type_alone() {
    let mut server = with_config_maps(1, (64 << 20) + 1);
    server.add(
        "/api/v1/pods",
        r#"{"metadata":{"name":"p","namespace":"default"}}"#,
    );
    let out = run(server).await;
    assert_eq!(out.rows["configmaps"].outcome, Outcome::Failed);
    assert!(
        out.rows["configmaps"].why.contains("64 MiB"),
        "{}",
        out.rows["configmaps"].why
    );
    assert_eq!(out.rows["pods"].count, 1);
}

#[tokio::test]
async fn a_server_that_serves_the_same_page_for_ever_is_a_failed_row() {
    let mut server = Server::new();
    server.fault = Box::new(|asked| {
        (is_config_maps(asked) && asked.get("limit") != Some("1")).then(|| Answer {
            status: 200,
            body: format!(
                r#"{{"metadata":{{"resourceVersion":"100","continue":"again"}},"items":[{}]}}"#,
                config_map(1, 1)
            ),
        })
    });
    let (cluster, _) = server.start();
    let gathered = gather::gather(&cluster, &options(Filter::default()))
        .await
        .unwrap();
    let plan = plan::plan(&gathered, false);
    let (_sender, cancel) = watch::channel(false);
    let brackets = Brackets::idle(cluster.clone());
    let apply = Apply {
        cluster: &cluster,
        brackets: &brackets,
        copying: None,
        gathered: Arc::new(gathered),
        exact: true,
        mtime: 0,
        cancel,
        patience: Patience::default(),
        progress: &Silent,
    };
    let applied = apply
        .run(plan, "b", Vec::new(), Vec::new(), None)
        .await
        .unwrap();
    let row = applied
        .rows
        .iter()
        .find(|r| r.resource == "configmaps")
        .unwrap();
    assert_eq!(row.outcome, Outcome::Failed);
}

#[tokio::test]
async fn a_user_of_one_namespace_backs_that_namespace_up() {
    let mut server = with_config_maps(20, 10);
    server.add(
        "/api/v1/configmaps",
        r#"{"metadata":{"name":"other","namespace":"kube-system"}}"#,
    );
    server.add(
        "/api/v1/serviceaccounts",
        r#"{"metadata":{"name":"robot","namespace":"default"}}"#,
    );
    server.fault = Box::new(|asked| {
        let open = asked.path.contains("/namespaces/default")
            || asked.path.starts_with("/version")
            || asked.path == "/api"
            || asked.path == "/apis";
        (!open).then(|| refuse(403, "Forbidden", "only in default"))
    });
    let mut options = options(Filter {
        namespaces: vec!["default".into()],
        ..Filter::default()
    });
    options.single_namespace = true;
    let (out, _) = try_run(server, options).await.unwrap();
    assert_eq!(out.names(FOLDER).len(), 20);
    assert!(
        out.rows.values().all(|row| row.outcome != Outcome::Failed),
        "{:?}",
        out.rows
    );
    assert!(out.rows["configmaps"].exact);
    assert_eq!(out.rows["namespaces"].count, 1);
    let bindings = &out.rows["clusterrolebindings.rbac.authorization.k8s.io"];
    assert_eq!(
        (bindings.outcome, bindings.why.as_str()),
        (Outcome::Excluded, "scope (related: not readable)")
    );
    assert_eq!(out.rows["persistentvolumes"].why, "scope");
}

#[tokio::test]
async fn who_may_list_nothing_is_told_so_before_anything_is_written() {
    let mut server = Server::new();
    server.fault = Box::new(|asked| {
        asked
            .path
            .starts_with("/api/v1/namespaces")
            .then(|| refuse(403, "Forbidden", "no"))
    });
    let error = try_run(server, options(Filter::default()))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Forbidden);
    assert!(error.hint_text().unwrap().contains("-n NAMESPACE"));
}

#[tokio::test]
async fn five_namespaces_that_may_not_be_listed_together_are_listed_one_by_one() {
    let mut server = Server::new();
    for ns in ["a", "b", "c", "d", "e", "f"] {
        server.namespace(ns, "{}");
        server.add(
            "/api/v1/pods",
            &format!(r#"{{"metadata":{{"name":"p","namespace":"{ns}"}}}}"#),
        );
    }
    server.fault = Box::new(|asked| {
        (asked.path == "/api/v1/pods" || asked.path == "/api/v1/namespaces/c/pods")
            .then(|| refuse(403, "Forbidden", "no"))
    });
    let filter = Filter {
        namespaces: ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(),
        ..Filter::default()
    };
    let (out, _) = try_run(server, options(filter)).await.unwrap();
    let row = &out.rows["pods"];
    assert_eq!((row.outcome, row.count), (Outcome::Failed, 4));
    assert_eq!(out.rows["namespaces"].count, 5);
}

#[tokio::test]
async fn what_saved_objects_refer_to_comes_along() {
    let mut server = Server::new();
    server.namespace("a", "{}");
    server.namespace("b", "{}");
    let claim = |name: &str, volume: &str, label: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"a","labels":{{"app":"{label}"}}}},"spec":{{"volumeName":"{volume}"}}}}"#
        )
    };
    server.add(
        "/api/v1/persistentvolumeclaims",
        &claim("data", "pv-1", "none"),
    );
    server.fix(
        "/api/v1/namespaces/a/persistentvolumeclaims/data",
        200,
        &claim("data", "pv-1", "none"),
    );
    server.add("/api/v1/pods", r#"{"metadata":{"name":"p","namespace":"a","labels":{"app":"web"}},"spec":{"volumes":[{"persistentVolumeClaim":{"claimName":"data"}}]}}"#);
    server.add(
        "/api/v1/serviceaccounts",
        r#"{"metadata":{"name":"robot","namespace":"a","labels":{"app":"web"}}}"#,
    );
    server.add("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", r#"{"metadata":{"name":"crb"},"roleRef":{"kind":"ClusterRole","name":"reader"},"subjects":[{"kind":"ServiceAccount","name":"robot","namespace":"a"}]}"#);
    server.add(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        r#"{"metadata":{"name":"other"},"roleRef":{"kind":"ClusterRole","name":"admin"}}"#,
    );
    server.fix("/apis/rbac.authorization.k8s.io/v1/clusterroles/reader", 200, r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"reader"}}"#);
    server.fix("/api/v1/persistentvolumes/pv-1", 200, r#"{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"pv-1"},"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#);
    // The mock does not select: several selectors are matched by us.
    let filter = Filter {
        namespaces: vec!["a".into()],
        selectors: crate::filter::Selector::parse_any("app=web or app=api").unwrap(),
        ..Filter::default()
    };
    let (out, _) = try_run(server, options(filter)).await.unwrap();
    let mut files: Vec<_> = out.files.keys().map(String::as_str).collect();
    files.retain(|f| *f != "metadata/version");
    assert_eq!(
        files,
        [
            "resources/clusterrolebindings.rbac.authorization.k8s.io/cluster/crb.json",
            "resources/clusterroles.rbac.authorization.k8s.io/cluster/reader.json",
            "resources/namespaces/cluster/a.json",
            "resources/persistentvolumeclaims/namespaces/a/data.json",
            "resources/persistentvolumes/cluster/pv-1.json",
            "resources/pods/namespaces/a/p.json",
            "resources/serviceaccounts/namespaces/a/robot.json",
        ]
    );
    assert!(
        out.rows["persistentvolumes"]
            .why
            .starts_with("related-only")
    );
    assert_eq!(out.rows["persistentvolumeclaims"].count, 1);
}

#[tokio::test]
async fn a_type_of_another_store_is_read_at_its_own_revision() {
    let mut server = with_config_maps(2, 1);
    server.fault = Box::new(|asked| {
        (asked.path == "/apis/example.com/v1/widgets").then(|| Answer {
            status: 200,
            body: r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"w","namespace":"default"}}]}"#.into(),
        })
    });
    let (out, server) = try_run(server, options(Filter::default())).await.unwrap();
    let row = &out.rows["widgets.example.com"];
    assert_eq!(
        (row.resource_version.as_str(), row.exact, row.count),
        ("7", false, 1)
    );
    let log = server.log.lock().unwrap();
    assert!(
        log.iter()
            .all(|a| !a.path.contains("widgets") || a.get("resourceVersion").is_none())
    );
}
