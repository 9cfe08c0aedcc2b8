//! Fills a cluster with objects, quickly and always with the same ones.
//!
//! The content depends on the seed alone, so that two runs can be compared.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::http_client::{Client, Endpoint};

const WORKERS: usize = 16;
const GROUP: &str = "load.example.com";

/// What to fill a cluster with; counts are per namespace, but for the definitions.
#[derive(Debug, Clone)]
pub struct Load {
    pub seed: u64,
    /// Namespaces are named after this and a number.
    pub prefix: String,
    pub namespaces: usize,
    pub config_maps: usize,
    pub config_map_bytes: usize,
    pub secrets: usize,
    pub secret_bytes: usize,
    /// Without replicas, so that no controller makes pods of them.
    pub deployments: usize,
    /// Custom resource definitions, in the whole cluster.
    pub definitions: usize,
    /// Objects of each definition.
    pub custom_resources: usize,
    /// Half of the bytes of ConfigMaps and Secrets random, the other half text that compresses well; else all text.
    pub half_random: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            seed: 1,
            prefix: "load".to_owned(),
            namespaces: 1,
            config_maps: 0,
            config_map_bytes: 1000,
            secrets: 0,
            secret_bytes: 500,
            deployments: 0,
            definitions: 0,
            custom_resources: 0,
            half_random: false,
        }
    }
}

/// What was made, by kind.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub by_kind: BTreeMap<String, usize>,
    pub total: usize,
    pub elapsed: Duration,
}

/// One object to make: its kind, where to post it, and its JSON.
type Item = (String, String, Value);

impl Load {
    pub fn namespace(&self, number: usize) -> String {
        format!("{}-{number:03}", self.prefix)
    }

    /// Makes all of it; what is there already is left alone and counted. Fails the test where the API refuses.
    pub fn fill(&self, endpoint: &Endpoint) -> Counts {
        let start = Instant::now();
        let mut counts = Counts::default();
        post_all(endpoint, self.definitions, &|n| definition(n), &mut counts);
        let mut client = endpoint.client();
        for number in 0..self.definitions {
            let path = format!("/apis/{GROUP}/v1/{}", plural(number));
            crate::wait_for(&path, Duration::from_secs(60), || {
                client.get(&path).ok().filter(|answer| answer.status == 200)
            });
        }
        post_all(
            endpoint,
            self.namespaces,
            &|n| self.namespace_item(n),
            &mut counts,
        );
        let per_namespace = self.per_namespace();
        let total = self.namespaces * per_namespace;
        let item = |n| self.item(n / per_namespace, n % per_namespace);
        post_all(endpoint, total, &item, &mut counts);
        counts.total = counts.by_kind.values().sum();
        counts.elapsed = start.elapsed();
        counts
    }

    fn per_namespace(&self) -> usize {
        self.config_maps
            + self.secrets
            + self.deployments
            + self.definitions * self.custom_resources
    }

    fn namespace_item(&self, number: usize) -> Item {
        let metadata = json!({"name": self.namespace(number), "labels": {"load": self.prefix}});
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        (
            "Namespace".to_owned(),
            "/api/v1/namespaces".to_owned(),
            body,
        )
    }

    /// The object with this number in its namespace: one kind after the other.
    fn item(&self, namespace: usize, number: usize) -> Item {
        let in_namespace = self.namespace(namespace);
        let mut random = Random::new(self.seed, (namespace as u64) << 32 | number as u64);
        let mut index = number;
        if index < self.config_maps {
            let data = self.data(&mut random, self.config_map_bytes);
            let body = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": metadata("config", index), "data": data,
            });
            return (
                "ConfigMap".to_owned(),
                format!("/api/v1/namespaces/{in_namespace}/configmaps"),
                body,
            );
        }
        index -= self.config_maps;
        if index < self.secrets {
            let data = self.data(&mut random, self.secret_bytes);
            let body = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": metadata("secret", index), "stringData": data,
            });
            return (
                "Secret".to_owned(),
                format!("/api/v1/namespaces/{in_namespace}/secrets"),
                body,
            );
        }
        index -= self.secrets;
        if index < self.deployments {
            let body = deployment(index);
            let path = format!("/apis/apps/v1/namespaces/{in_namespace}/deployments");
            return ("Deployment".to_owned(), path, body);
        }
        index -= self.deployments;
        let (definition, index) = (index / self.custom_resources, index % self.custom_resources);
        let kind = kind(definition);
        let body = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": metadata("item", index),
            "spec": {"size": random.next() % 1000, "text": text(&mut random, 200), "tags": ["a", "b"]},
        });
        let path = format!(
            "/apis/{GROUP}/v1/namespaces/{in_namespace}/{}",
            plural(definition)
        );
        (kind, path, body)
    }

    fn data(&self, random: &mut Random, bytes: usize) -> Value {
        let random_bytes = if self.half_random { bytes / 2 } else { 0 };
        let mut data = json!({"settings.json": text(random, bytes - random_bytes)});
        if random_bytes > 0 {
            // Base64 needs four letters for three bytes.
            let noise: Vec<u8> = (0..random_bytes * 3 / 4)
                .map(|_| random.next() as u8)
                .collect();
            data["noise"] = json!(BASE64_STANDARD.encode(noise));
        }
        data
    }
}

fn metadata(name: &str, number: usize) -> Value {
    json!({
        "name": format!("{name}-{number:05}"),
        "labels": {"app": format!("app-{}", number % 20), "tier": "load"},
        "annotations": {"load.example.com/number": number.to_string()},
    })
}

fn deployment(number: usize) -> Value {
    let labels = json!({"app": format!("deployment-{number}")});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata("deployment", number),
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{
                    "name": "main", "image": format!("registry.example.com/app:{number}"),
                    "env": [{"name": "NUMBER", "value": number.to_string()}],
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                }]},
            },
        },
    })
}

fn kind(number: usize) -> String {
    format!("Load{number}")
}

fn plural(number: usize) -> String {
    format!("load{number}s")
}

fn definition(number: usize) -> Item {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let body = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{GROUP}", plural(number))},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"kind": kind(number), "plural": plural(number), "singular": format!("load{number}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned();
    ("CustomResourceDefinition".to_owned(), path, body)
}

/// Posts `count` items over so many connections as there are workers.
fn post_all(
    endpoint: &Endpoint,
    count: usize,
    item: &(dyn Fn(usize) -> Item + Sync),
    counts: &mut Counts,
) {
    let next = AtomicUsize::new(0);
    let made = Mutex::new(&mut counts.by_kind);
    thread::scope(|scope| {
        for _ in 0..WORKERS.min(count) {
            scope.spawn(|| {
                let mut client = endpoint.client();
                let mut mine: BTreeMap<String, usize> = BTreeMap::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let (kind, path, body) = item(number);
                    post(&mut client, &path, &body);
                    *mine.entry(kind).or_default() += 1;
                }
                let mut made = made.lock().unwrap();
                for (kind, number) in mine {
                    *made.entry(kind).or_default() += number;
                }
            });
        }
    });
}

/// A busy server says 429 or hangs up: that is no reason to fail.
fn post(client: &mut Client, path: &str, body: &Value) {
    let body = body.to_string();
    for _ in 0..20 {
        match client.post_json(path, body.clone()) {
            Ok(answer) if answer.is_success() || answer.status == 409 => return,
            Ok(answer) if answer.status == 429 || answer.status >= 500 => {}
            Ok(answer) => panic!("{path}: {} {}", answer.status, answer.text()),
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{path} is refused again and again");
}

/// Lines of JSON, as configuration is: it compresses to about a quarter.
pub(crate) fn text(random: &mut Random, length: usize) -> String {
    const WORDS: [&str; 8] = [
        "timeout", "endpoint", "replicas", "enabled", "region", "level", "owner", "limit",
    ];
    let mut text = String::with_capacity(length + 40);
    while text.len() < length {
        let word = WORDS[(random.next() % 8) as usize];
        text += &format!(
            "{{\"{word}\": {}, \"unit\": \"{}\"}}\n",
            random.next() % 10_000,
            random.next() % 64
        );
    }
    text.truncate(length);
    text
}

/// SplitMix64: small, quick, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream);
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
