//! The restore as it is meant to go, with a real API server on the restored etcd.

use harness::hosted::{CLUSTER, Hosted, HostedBuilder};
use harness::informer::{Informer, Objects};
use harness::wait_for;
use serde_json::Value;

use super::place::{LONG, STEPS, condition};

/// KKP's example, as it stands in its documentation.
const RESTORE: &str = include_str!("../../../manifests/examples/etcdrestore.yaml");
const SNAPSHOT: &str = "daily-backup-2021-03-02t15-24-00";

fn put_config_map(hosted: &Hosted, name: &str) {
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"a":"b"}}}}"#
    );
    let answer = hosted
        .api()
        .client()
        .post_json("/api/v1/namespaces/default/configmaps", body)
        .unwrap();
    assert!(answer.is_success(), "{}", answer.text());
}

fn config_map(hosted: &Hosted, name: &str) -> u16 {
    let path = format!("/api/v1/namespaces/default/configmaps/{name}");
    hosted.api().client().get(&path).unwrap().status
}

fn list_version(hosted: &Hosted) -> String {
    let answer = hosted
        .api()
        .client()
        .get("/api/v1/namespaces/default/configmaps")
        .unwrap();
    answer.json()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What a watch from this version gets first.
fn watch_from(hosted: &Hosted, version: &str) -> Value {
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=5&resourceVersion={version}"
    );
    let answer = hosted.api().client().get(&path).unwrap();
    let text = answer.text();
    serde_json::from_str(text.lines().next().unwrap_or("null")).unwrap()
}

/// What is there, by a list that was made now.
fn listed(hosted: &Hosted) -> Objects {
    let answer = hosted.api().client().get("/api/v1/configmaps").unwrap();
    let list = answer.json();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            let text = |field: &str| item["metadata"][field].as_str().unwrap();
            let name = format!("{}/{}", text("namespace"), text("name"));
            let version = text("resourceVersion").to_owned();
            (name, (version, item["data"].clone()))
        })
        .collect()
}

/// Waits until an informer holds what a list shows. Where a restore raised no revision, or compacted nothing, its watch would go on without a 410, and
/// what was written later would stay with it for ever.
#[track_caller]
fn wait_until_right(hosted: &Hosted, informer: &Informer, there: &str, gone: &str) {
    let names = wait_for("the informer to hold what is there", LONG, || {
        let known = informer.objects();
        (known == listed(hosted)).then_some(known)
    });
    assert!(names.contains_key(&format!("default/{there}")), "{names:?}");
    assert!(!names.contains_key(&format!("default/{gone}")), "{names:?}");
}

fn is_gone(event: &Value) -> bool {
    event["code"] == 410 || event["object"]["code"] == 410
}

/// Waits for the end, and gives the steps and phases that were seen on the way.
#[track_caller]
fn follow(hosted: &Hosted, name: &str) -> (Value, Vec<String>, Vec<String>) {
    let (mut steps, mut phases) = (Vec::new(), Vec::new());
    let restore = hosted.relaunch_until("the end", LONG, || {
        let restore = hosted.restore(name)?;
        for (seen, now) in [
            (&mut steps, &restore["status"]["attempt"]["step"]),
            (&mut phases, &restore["status"]["phase"]),
        ] {
            let now = now.as_str()?.to_owned();
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        (phases.last()? == "Completed").then_some(restore)
    });
    (restore, steps, phases)
}

fn restored(builder: HostedBuilder, first: &str) {
    let hosted = builder.with_api_server().start();
    put_config_map(&hosted, "earlier");
    hosted.save_snapshot(SNAPSHOT);
    put_config_map(&hosted, "later");
    let before = list_version(&hosted);
    let informer = Informer::start(&hosted.api_kubeconfig());
    wait_until_right(&hosted, &informer, "later", "in-between");
    let lists = informer.lists();

    if hosted.name == CLUSTER {
        hosted.hosting.apply(RESTORE);
    } else {
        hosted.apply_restore(first, SNAPSHOT);
    }
    let (restore, steps, phases) = follow(&hosted, first);
    let places: Vec<_> = steps
        .iter()
        .map(|step| STEPS.iter().position(|known| known == step))
        .collect();
    assert!(places.is_sorted() && !places.contains(&None), "{steps:?}");
    assert_eq!(phases, ["Started", "StsRebuilding", "Completed"]);
    assert!(restore["status"]["restoreTime"].is_string(), "{restore}");
    let told = condition(&restore, "Restored").unwrap();
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&"True".into(), &"Completed".into())
    );
    let events = hosted.kubectl(&[
        "get",
        "events",
        &format!("--field-selector=involvedObject.name={first}"),
        "-o=jsonpath={.items[*].reason}",
    ]);
    for step in &STEPS[1..] {
        assert!(events.stdout.contains(step), "{step}: {}", events.stdout);
    }
    hosted.wait_for_api();
    assert_eq!(config_map(&hosted, "earlier"), 200);
    assert_eq!(config_map(&hosted, "later"), 404);
    let event = watch_from(&hosted, &before);
    assert!(is_gone(&event), "a watch from before goes on: {event}");
    wait_until_right(&hosted, &informer, "earlier", "later");
    let again = informer.lists();
    assert!(again > lists, "it was right without listing again");
    assert_eq!(hosted.replicas("apiserver"), 2);
    assert_eq!(hosted.replicas("scheduler"), 1);
    hosted.wait_until_settled();
    assert_ne!(hosted.cluster()["spec"]["pause"], true);
    let set = hosted.stateful_set();
    let new = &restore["status"]["attempt"]["newClusterId"];
    assert_eq!(
        &set["metadata"]["annotations"]["etcd-launcher/cluster-id"],
        new
    );

    // The same old snapshot again: what was seen of the first restore is history as well.
    put_config_map(&hosted, "in-between");
    let between = list_version(&hosted);
    wait_until_right(&hosted, &informer, "in-between", "later");
    assert_eq!(informer.lists(), again, "its watch goes on by itself");
    hosted.apply_restore("again", SNAPSHOT);
    hosted.wait_for_phase("again", "Completed");
    hosted.wait_for_api();
    assert_eq!(config_map(&hosted, "earlier"), 200);
    assert_eq!(config_map(&hosted, "in-between"), 404);
    assert!(is_gone(&watch_from(&hosted, &between)));
    wait_until_right(&hosted, &informer, "earlier", "in-between");
    assert!(informer.lists() > again);
    put_config_map(&hosted, "afterwards");
    wait_until_right(&hosted, &informer, "afterwards", "in-between");
    hosted.wait_until_settled();
    hosted.kubectl(&["delete", "etcdrestore", "--all", "--timeout=30s"]);
}

#[test]
fn the_example_of_the_documentation_is_restored_as_it_stands_there_and_again() {
    restored(
        Hosted::builder().members(3).with_own_hosting(),
        "cluster-restore",
    );
}

#[test]
fn a_hosted_cluster_that_speaks_tls_goes_back_to_its_snapshot_and_again() {
    restored(Hosted::builder().with_tls(), "restored");
}
