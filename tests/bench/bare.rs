//! What the API server alone takes: the same reads and the same creates, with nothing around them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use harness::http_client::{Client, Endpoint};
use serde_json::Value;

use super::timed;

/// Every listable type read with the pages a backup uses, 8 types at a time, and thrown away.
pub(super) fn get_everything(endpoint: &Endpoint) -> Duration {
    let mut client = endpoint.client();
    let mut paths = Vec::new();
    for (root, list) in [("/api/v1".to_owned(), client.get("/api/v1").unwrap().json())]
        .into_iter()
        .chain(groups(&mut client))
    {
        for resource in list["resources"].as_array().unwrap() {
            let verbs = resource["verbs"].as_array().unwrap();
            if verbs.iter().any(|verb| verb == "list") && verbs.iter().any(|verb| verb == "create")
            {
                paths.push(format!("{root}/{}", resource["name"].as_str().unwrap()));
            }
        }
    }
    // The longest first, or one of them would run alone at the end.
    paths.sort_by_key(|path| {
        !["configmaps", "secrets", "deployments"]
            .iter()
            .any(|name| path.ends_with(name))
    });
    let next = AtomicUsize::new(0);
    timed(|| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = endpoint.client();
                    while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let (mut limit, mut token) = (8, String::new());
                        loop {
                            let answer =
                                client.get(&format!("{path}?limit={limit}{token}")).unwrap();
                            assert!(answer.is_success(), "{path}: {}", answer.text());
                            let Some(next) = continue_token(&answer.body) else {
                                break;
                            };
                            (limit, token) = (2500, format!("&continue={next}"));
                        }
                    }
                });
            }
        });
    })
}

/// The token stands in the first bytes of a page; decoding all of it would measure the decoder.
fn continue_token(page: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&page[..page.len().min(4096)]).into_owned();
    let start = head.find("\"continue\":\"")? + 12;
    let token = &head[start..start + head[start..].find('"')?];
    (!token.is_empty()).then(|| token.replace('=', "%3D").replace('+', "%2B"))
}

fn groups(client: &mut Client) -> Vec<(String, Value)> {
    let groups = client.get("/apis").unwrap().json();
    let paths: Vec<String> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            format!(
                "/apis/{}",
                group["preferredVersion"]["groupVersion"].as_str().unwrap()
            )
        })
        .collect();
    paths
        .into_iter()
        .map(|path| {
            let list = client.get(&path).unwrap().json();
            (path, list)
        })
        .collect()
}

/// The same objects created by bare requests, 16 at a time, in new namespaces.
pub(super) fn bare_creates(endpoint: &Endpoint, from: &[&str], to: &str) -> Duration {
    let mut client = endpoint.client();
    let mut bodies = Vec::new();
    for (number, namespace) in from.iter().enumerate() {
        let target = format!("{to}-{number}");
        let made = client.post_json("/api/v1/namespaces", serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": target}}).to_string()).unwrap();
        assert!(made.is_success(), "{}", made.text());
        for (root, plural, version, kind) in [
            ("/api/v1", "configmaps", "v1", "ConfigMap"),
            ("/api/v1", "secrets", "v1", "Secret"),
            ("/apis/apps/v1", "deployments", "apps/v1", "Deployment"),
        ] {
            let list = client
                .get(&format!("{root}/namespaces/{namespace}/{plural}"))
                .unwrap()
                .json();
            for mut object in list["items"].as_array().unwrap().clone() {
                if object["metadata"]["name"] == "kube-root-ca.crt" {
                    continue;
                }
                for key in [
                    "uid",
                    "resourceVersion",
                    "creationTimestamp",
                    "generation",
                    "managedFields",
                ] {
                    object["metadata"].as_object_mut().unwrap().remove(key);
                }
                object.as_object_mut().unwrap().remove("status");
                object["metadata"]["namespace"] = Value::from(target.as_str());
                object["apiVersion"] = Value::from(version);
                object["kind"] = Value::from(kind);
                bodies.push((
                    format!("{root}/namespaces/{target}/{plural}"),
                    object.to_string(),
                ));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let refused = Mutex::new(None);
    let time = timed(|| {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = endpoint.client();
                    while let Some((path, body)) = bodies.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let answer = client.post_json(path, body.clone()).unwrap();
                        if !answer.is_success() {
                            *refused.lock().unwrap() = Some(answer.text());
                        }
                    }
                });
            }
        });
    });
    assert_eq!(*refused.lock().unwrap(), None);
    time
}
