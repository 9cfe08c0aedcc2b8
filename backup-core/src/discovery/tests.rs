use super::*;
use crate::backup::server::{Answer, Server, refuse, resources};

#[tokio::test]
async fn aggregated_discovery_keeps_names_and_drops_subresources() {
    let (cluster, server) = Server::new().start();
    let served = discover(&cluster).await.unwrap();
    assert_eq!(server.log.lock().unwrap().len(), 2);
    assert!(served.gaps.is_empty());
    let pods = served.all.iter().find(|r| r.plural == "pods").unwrap();
    assert_eq!((pods.kind.as_str(), pods.singular.as_str()), ("Pod", "pod"));
    assert!(pods.namespaced && pods.can("list"));
    assert_eq!(pods.path(Some("a")), "/api/v1/namespaces/a/pods");
    assert!(served.all.iter().all(|r| !r.plural.contains('/')));
}

#[tokio::test]
async fn a_stale_version_is_a_gap_and_what_is_known_of_it_stays() {
    let mut server = Server::new();
    let mut groups = resources();
    groups.push(("metrics.k8s.io", "v1beta1", "Stale", vec![]));
    groups.push((
        "old.example.com",
        "v1",
        "Stale",
        vec![("things", "Thing", true)],
    ));
    server.discovery(&groups);
    let (cluster, _) = server.start();
    let served = discover(&cluster).await.unwrap();
    let gaps: Vec<_> = served.gaps.iter().map(|g| g.group.as_str()).collect();
    assert_eq!(gaps, ["metrics.k8s.io", "old.example.com"]);
    assert!(served.all.iter().any(|r| r.plural == "things"));
}

#[tokio::test]
async fn a_server_that_answers_in_the_old_form_is_asked_in_the_old_form() {
    let mut server = Server::new();
    server.fix("/api", 200, r#"{"kind":"APIVersions","versions":["v1"]}"#);
    server.fix(
        "/apis",
        200,
        r#"{"kind":"APIGroupList","groups":[
            {"name":"apps","versions":[{"version":"v1beta1"},{"version":"v1"}],"preferredVersion":{"version":"v1"}},
            {"name":"dead.example.com","versions":[{"version":"v1"}],"preferredVersion":{"version":"v1"}}]}"#,
    );
    let list = |plural: &str, kind: &str| {
        format!(
            r#"{{"kind":"APIResourceList","resources":[
                {{"name":"{plural}","singularName":"","namespaced":true,"kind":"{kind}","verbs":["list","get"],"shortNames":["x"]}},
                {{"name":"{plural}/status","singularName":"","namespaced":true,"kind":"{kind}","verbs":["get"]}}]}}"#
        )
    };
    server.fix("/api/v1", 200, &list("pods", "Pod"));
    server.fix("/apis/apps/v1", 200, &list("deployments", "Deployment"));
    server.fix(
        "/apis/apps/v1beta1",
        200,
        &list("deployments", "Deployment"),
    );
    server.fix("/apis/dead.example.com/v1", 404, "gone");
    let (cluster, _) = server.start();
    let served = discover(&cluster).await.unwrap();
    let preferred: Vec<_> = served
        .preferred()
        .iter()
        .map(|r| format!("{} {}", r.group_resource(), r.version))
        .collect();
    assert_eq!(preferred, ["pods v1", "deployments.apps v1"]);
    assert_eq!(served.all.len(), 3);
    assert_eq!(served.gaps.len(), 1);
    assert_eq!(served.gaps[0].group, "dead.example.com");
}

#[tokio::test]
async fn nothing_served_and_nonsense_are_errors_and_not_an_empty_cluster() {
    for answer in [
        refuse(403, "Forbidden", "no"),
        Answer {
            status: 200,
            body: "{}".into(),
        },
        Answer {
            status: 200,
            body: "<html>".into(),
        },
        Answer {
            status: 200,
            body: r#"{"kind":"APIGroupDiscoveryList","items":[{"versions":[{}]}]}"#.into(),
        },
    ] {
        let mut server = Server::new();
        server.fixed.insert("/apis".into(), answer);
        let (cluster, _) = server.start();
        assert!(discover(&cluster).await.is_err());
    }
}

#[tokio::test]
async fn a_resource_whose_name_could_leave_its_path_is_a_gap() {
    let mut server = Server::new();
    let mut groups = resources();
    groups.push((
        "evil.example.com",
        "v1",
        "Current",
        vec![("../secrets", "Evil", true)],
    ));
    server.discovery(&groups);
    let (cluster, _) = server.start();
    let served = discover(&cluster).await.unwrap();
    assert!(served.all.iter().all(|r| r.group != "evil.example.com"));
    assert_eq!(served.gaps[0].group, "evil.example.com");
}

#[test]
fn names_are_one_segment_of_a_path_whatever_they_hold() {
    let resource = ApiResource {
        version: "v1".into(),
        plural: "secrets".into(),
        namespaced: true,
        ..ApiResource::default()
    };
    assert_eq!(
        resource.object_path(Some("a/../b?c"), "x?y#%2f z"),
        "/api/v1/namespaces/a%2F..%2Fb%3Fc/secrets/x%3Fy%23%252f%20z"
    );
}
