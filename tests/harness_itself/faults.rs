//! Every fault of the proxy is the fault it says.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::cluster::Cluster;
use harness::http_client::Endpoint;
use harness::mock::Mock;
use harness::pki::Authority;
use harness::process::PidSlot;
use harness::proxy::{Action, Call, Match, Proxy};
use harness::store::Minio;

/// A mock that knows one path, and a proxy in front of it.
fn proxied(body: &'static str) -> (Mock, Proxy) {
    let mock = Mock::start();
    mock.json("/x", body);
    let proxy = Proxy::start(&Endpoint::plain(mock.url()));
    (mock, proxy)
}

#[test]
fn a_request_is_forwarded_and_logged() {
    let (mock, proxy) = proxied("{}");
    let mut client = Endpoint::plain(proxy.url()).client();
    assert_eq!(client.get("/x?a=b").unwrap().text(), "{}");
    assert_eq!(client.post_json("/y", "body").unwrap().status, 404);
    assert_eq!(mock.seen()[1].body, "body");
    let calls: Vec<_> = proxy
        .calls()
        .into_iter()
        .map(|call| format!("{} {} {}", call.method, call.target, call.status.unwrap()))
        .collect();
    assert_eq!(calls, ["GET /x?a=b 200", "POST /y 404"]);
}

#[test]
fn only_the_nth_matching_request_is_cut() {
    let (mock, proxy) = proxied("{}");
    proxy.nth(2, Match::method("GET").and_path("/x"), Action::Cut);
    let mut client = Endpoint::plain(proxy.url()).client();
    assert_eq!(client.get("/other").unwrap().status, 404);
    assert!(client.get("/x").is_ok());
    assert!(client.get("/x").is_err());
    assert!(client.get("/x").is_ok());
    assert_eq!(mock.seen().len(), 3);
    assert_eq!(proxy.calls()[2].status, None);
}

#[test]
fn a_request_can_be_carried_out_and_its_answer_lost() {
    let (mock, proxy) = proxied("{}");
    proxy.nth(1, Match::any(), Action::CutAfterForward);
    let mut client = Endpoint::plain(proxy.url()).client();
    assert!(client.get("/x").is_err());
    assert_eq!(mock.seen().len(), 1);
}

#[test]
fn a_body_can_end_too_early() {
    let (_mock, proxy) = proxied("0123456789");
    proxy.nth(1, Match::any(), Action::CutBody(4));
    // Curl keeps what it got, which a library throws away.
    let cut = Command::new("curl")
        .args(["-sS", &format!("{}/x", proxy.url())])
        .output();
    let Ok(cut) = cut else {
        harness::skip!("no curl on this machine");
    };
    assert!(!cut.status.success());
    assert_eq!(String::from_utf8_lossy(&cut.stdout), "0123");
}

#[test]
fn an_answer_can_be_invented_replaced_or_late() {
    let (mock, proxy) = proxied("{}");
    let mut client = Endpoint::plain(proxy.url()).client();
    let headers = vec![("retry-after".to_owned(), "1".to_owned())];
    proxy.nth(
        1,
        Match::any(),
        Action::Status(429, headers, "slow down".into()),
    );
    proxy.nth(2, Match::any(), Action::Replace("[1]".into()));
    proxy.nth(3, Match::any(), Action::Delay(Duration::from_millis(300)));
    let busy = client.get("/x").unwrap();
    assert_eq!((busy.status, busy.text().as_str()), (429, "slow down"));
    assert_eq!(busy.headers["retry-after"], "1");
    assert!(mock.seen().is_empty());
    assert_eq!(client.get("/x").unwrap().text(), "[1]");
    let start = Instant::now();
    assert_eq!(client.get("/x").unwrap().text(), "{}");
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn an_answer_can_be_held_back_and_a_request_changed_on_its_way() {
    let (mock, proxy) = proxied("{}");
    let wait = Duration::from_millis(300);
    proxy.nth(1, Match::path("/x"), Action::DelayAnswer(wait));
    let more = Action::retarget(|target| format!("{target}?more"));
    proxy.every(Match::path("/y"), more);
    let mut client = Endpoint::plain(proxy.url()).client();
    let start = Instant::now();
    assert_eq!(client.get("/x").unwrap().text(), "{}");
    assert!(start.elapsed() >= wait);
    client.get("/y").unwrap();
    let seen: Vec<_> = mock.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, ["/x", "/y?more"]);
}

#[test]
fn the_proxy_can_be_asked_through_tls() {
    let mock = Mock::start();
    mock.json("/x", "{}");
    let authority = Authority::new("proxy-ca");
    let identity = authority.server("proxy", &["127.0.0.1"]);
    let proxy = Proxy::start_tls(&Endpoint::plain(mock.url()), &identity);
    let mut trusted = Endpoint::plain(proxy.url());
    assert!(trusted.url.starts_with("https://"));
    assert!(trusted.client().get("/x").is_err());
    trusted.ca = Some(authority.certificate().to_owned());
    assert_eq!(trusted.client().get("/x").unwrap().text(), "{}");
}

#[test]
fn a_hook_runs_before_the_request_and_may_use_the_harness() {
    let (mock, proxy) = proxied("{}");
    let runs = Arc::new(AtomicUsize::new(0));
    let (counted, url) = (Arc::clone(&runs), mock.url());
    proxy.every(
        Match::when(|parts| parts.path() == "/x"),
        Action::hook(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Endpoint::plain(&url).client().get("/hooked").unwrap();
        }),
    );
    let mut client = Endpoint::plain(proxy.url()).client();
    client.get("/y").unwrap();
    client.get("/x").unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let seen: Vec<_> = mock.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, ["/y", "/hooked", "/x"]);
}

#[test]
fn a_process_is_killed_by_its_nth_request() {
    let (mock, proxy) = proxied("{}");
    let slot = Arc::new(PidSlot::default());
    proxy.nth(2, Match::any(), Action::KillAfterForward(Arc::clone(&slot)));
    let mut victim = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    slot.set(victim.id());
    let mut client = Endpoint::plain(proxy.url()).client();
    client.get("/x").unwrap();
    assert!(victim.try_wait().unwrap().is_none());
    assert!(client.get("/x").is_err());
    assert!(!victim.wait().unwrap().success());
    assert_eq!(mock.seen().len(), 2);
}

#[test]
fn kubectl_works_through_the_proxy_as_the_user_the_proxy_is() {
    let cluster = Cluster::shared();
    let proxy = Proxy::start(&cluster.endpoint());
    let kubeconfig = cluster.token_kubeconfig(&proxy.url());
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let name = cluster.create_namespace("proxied");
    cluster.kubectl(&[&kubeconfig, "-n", &name, "create", "configmap", "c"]);
    let path = format!("/api/v1/namespaces/{name}/configmaps");
    let is_made = |call: &Call| call.target.starts_with(&path) && call.status == Some(201);
    assert!(proxy.calls().iter().any(is_made), "{:?}", proxy.calls());
}

#[test]
fn a_token_passes_a_proxy_that_is_nobody() {
    let cluster = Cluster::shared();
    let proxy = Proxy::start(&cluster.endpoint_without_user());
    let mut nobody = Endpoint::plain(proxy.url());
    let path = "/api/v1/namespaces/default/secrets";
    assert_eq!(nobody.client().get(path).unwrap().status, 403);
    nobody.token = Some(cluster.token().to_owned());
    assert_eq!(nobody.client().get(path).unwrap().status, 200);
}

#[test]
fn a_signed_upload_passes_the_proxy() {
    let minio = Minio::start_tls();
    minio.bucket("proxied");
    let proxy = Proxy::start(minio.upstream());
    let store = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(proxy.url())
        .with_region(minio.region())
        .with_bucket_name("proxied")
        .with_access_key_id(minio.access_key())
        .with_secret_access_key(minio.secret_key())
        .with_allow_http(true)
        .build()
        .unwrap();
    let content = vec![7_u8; 3_000_000];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use object_store::ObjectStoreExt;
        let key = object_store::path::Path::from("a/b");
        store.put(&key, content.clone().into()).await.unwrap();
        assert_eq!(
            store.get(&key).await.unwrap().bytes().await.unwrap(),
            content
        );
    });
    assert_eq!(minio.get("proxied", "a/b"), content);
}
