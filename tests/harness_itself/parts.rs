//! The parts work: stores, users, calls of the plugin, loads.

use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use harness::cluster::{Cluster, Controllers};
use harness::load::Load;
use harness::mock::{Mock, Reply};
use harness::process::Folder;
use harness::run::{kubectl_backup, through_kubectl};
use harness::store::Minio;

fn stores_and_lists(minio: &Minio) {
    minio.bucket("parts");
    minio.bucket("parts");
    minio.put("parts", "a/b", "one");
    minio.put("parts", "a/c/d", "two");
    minio.put("parts", "e", "three");
    assert_eq!(minio.list("parts", "a"), ["a/b", "a/c/d"]);
    assert_eq!(minio.get("parts", "a/c/d"), "two");
    minio.delete("parts", "a/b");
    assert_eq!(minio.try_get("parts", "a/b"), None);
    assert_eq!(minio.list("parts", ""), ["a/c/d", "e"]);
}

#[test]
fn a_plain_store_stores() {
    stores_and_lists(Minio::shared());
}

#[test]
fn a_store_with_tls_stores_and_is_trusted_through_its_own_authority_only() {
    let minio = Minio::start_tls();
    stores_and_lists(&minio);
    let mut stranger = minio.upstream().clone();
    stranger.ca = None;
    assert!(stranger.client().get("/minio/health/ready").is_err());
}

#[test]
fn a_limited_user_of_the_store_may_do_what_its_policy_says() {
    let minio = Minio::shared();
    minio.bucket("limited");
    minio.put("limited", "x", "content");
    let user = minio.limited_user(
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::limited/*"]}]}"#,
    );
    let store = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(minio.endpoint())
        .with_region(minio.region())
        .with_bucket_name("limited")
        .with_access_key_id(user.access_key)
        .with_secret_access_key(user.secret_key)
        .with_token(user.session_token)
        .with_allow_http(true)
        .build()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use object_store::ObjectStoreExt;
        let key = object_store::path::Path::from("x");
        store.get(&key).await.unwrap();
        let refused = store.put(&key, "other".into()).await.unwrap_err();
        assert!(
            matches!(refused, object_store::Error::PermissionDenied { .. }),
            "{refused}"
        );
    });
}

#[test]
fn users_may_do_what_rbac_says_and_an_expired_one_nothing() {
    let cluster = Cluster::shared();
    let kubectl = |kubeconfig: &std::path::Path| {
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        cluster.try_kubectl(&[&kubeconfig, "get", "namespaces"])
    };
    let alice = cluster.user("alice", &["readers", "writers"]);
    assert!(kubectl(&alice).code(1).stderr.contains("Forbidden"));
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "readers",
        "--clusterrole=view",
        "--group=readers",
    ]);
    harness::wait_for("the right to read", Duration::from_secs(5), || {
        (kubectl(&alice).code == 0).then_some(())
    });
    assert!(
        kubectl(&cluster.expired_user())
            .code(1)
            .stderr
            .contains("Unauthorized")
    );
    kubectl(&cluster.token_kubeconfig(&cluster.api_url())).ok();
}

#[test]
fn a_mock_answers_byte_for_byte() {
    let mock = Mock::start_cluster();
    mock.json("/raw", r#"{"n": 1e2, "m": 123456789012345678901234567890}"#);
    mock.json("/raw?x=1", "{}");
    mock.answer_with("/echo", |seen| {
        Reply::new(201, "text/plain", seen.body.clone())
    });
    let mut client = harness::http_client::Endpoint::plain(mock.url()).client();
    assert_eq!(
        client.get("/raw?y=2").unwrap().text(),
        r#"{"n": 1e2, "m": 123456789012345678901234567890}"#
    );
    assert_eq!(client.get("/raw?x=1").unwrap().text(), "{}");
    let echo = client.post_json("/echo", "hello").unwrap();
    assert_eq!((echo.status, echo.text().as_str()), (201, "hello"));
    assert_eq!(client.get("/unknown").unwrap().status, 404);
    let seen: Vec<_> = mock.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, ["/raw?y=2", "/raw?x=1", "/echo", "/unknown"]);
}

#[test]
fn the_plugin_runs_by_itself_and_through_kubectl() {
    kubectl_backup(&["--help"]).ok();
    through_kubectl(&["--help"]).ok();
    kubectl_backup(&["--help"])
        .spawn()
        .wait(Duration::from_secs(20))
        .ok();
}

#[test]
fn a_load_of_thousands_takes_seconds() {
    let cluster = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let load = Load {
        namespaces: 4,
        config_maps: 300,
        secrets: 50,
        deployments: 25,
        definitions: 2,
        custom_resources: 50,
        ..Load::default()
    };
    let start = Instant::now();
    let counts = load.fill(&cluster.endpoint());
    assert_eq!(counts.total, 2 + 4 + 4 * (300 + 50 + 25 + 2 * 50));
    assert_eq!(counts.by_kind["Load1"], 200);
    let again = load.fill(&cluster.endpoint());
    assert_eq!(again.total, counts.total);
    assert!(start.elapsed() < Duration::from_secs(60), "{counts:?}");
}

#[test]
fn a_skipped_test_is_loud_and_counted() {
    let folder = Folder::new("skips");
    let count = folder.join("skips");
    for _ in 0..2 {
        let run = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "harness_itself::parts::skipped"])
            .env("KUBECTL_BACKUP_SKIPS", &count)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success());
        assert!(
            stderr.contains("SKIPPED harness_itself::parts::skipped: no reason"),
            "{stderr}"
        );
    }
    assert_eq!(fs::read_to_string(count).unwrap().lines().count(), 2);
}

/// Runs only inside the test above.
#[test]
#[ignore = "the other half of a_skipped_test_is_loud_and_counted"]
fn skipped() {
    harness::skip!("no {}", "reason");
}
