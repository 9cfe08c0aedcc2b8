//! Keys by way of etcd's gRPC gateway: JSON over HTTP, on the same port.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::http_client::{Client, Endpoint, Failure};

/// A key as etcd has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

/// The keys of one member, over one connection.
pub struct Keys {
    client: Client,
}

impl Keys {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        Self {
            client: endpoint.client(),
        }
    }

    /// Keys of a member that somebody else started.
    pub fn of(endpoint: &Endpoint) -> Self {
        Self::new(endpoint)
    }

    /// Puts one key and returns the revision of that.
    pub fn put(&mut self, key: &str, value: &[u8]) -> i64 {
        self.try_put(key, value)
            .unwrap_or_else(|error| panic!("put {key}: {error}"))
    }

    /// The same, while etcd may be away.
    pub fn try_put(&mut self, key: &str, value: &[u8]) -> Result<i64, Failure> {
        let body = json!({"key": encoded(key.as_bytes()), "value": encoded(value)});
        self.call("kv/put", &body.to_string())
            .map(|answer| revision(&answer))
    }

    /// Deletes one key and returns the revision of that, or the current one where there was no such key.
    pub fn delete(&mut self, key: &str) -> i64 {
        let body = json!({"key": encoded(key.as_bytes())});
        revision(&self.must("kv/deleterange", &body))
    }

    /// Deletes every key that begins so, and returns their number.
    pub fn delete_prefix(&mut self, prefix: &str) -> u64 {
        let deleted = &self.must("kv/deleterange", &range(prefix))["deleted"];
        deleted.as_str().map_or(0, |count| count.parse().unwrap())
    }

    pub fn get(&mut self, key: &str) -> Option<KeyValue> {
        let body = json!({"key": encoded(key.as_bytes())});
        key_values(&self.must("kv/range", &body)).pop()
    }

    /// Every key that begins so, in order.
    pub fn list(&mut self, prefix: &str) -> Vec<KeyValue> {
        key_values(&self.must("kv/range", &range(prefix)))
    }

    /// The current revision.
    pub fn revision(&mut self) -> i64 {
        let body = json!({"key": encoded(b"\0"), "count_only": true});
        revision(&self.must("kv/range", &body))
    }

    /// Any call of the gateway by the part of its path after `/v3/`; a refusal is an error.
    pub fn call(&mut self, method: &str, body: &str) -> Result<Value, Failure> {
        let answer = self
            .client
            .post_json(&format!("/v3/{method}"), body.to_owned())?;
        if !answer.is_success() {
            return Err(format!("{} {}", answer.status, answer.text()).into());
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }

    fn must(&mut self, method: &str, body: &Value) -> Value {
        self.call(method, &body.to_string())
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

pub(super) fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// All keys that begin so: up to the prefix with its last byte one higher, as etcdctl says it.
fn range(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    json!({"key": encoded(prefix.as_bytes()), "range_end": encoded(&end)})
}

/// Numbers are strings there, and 0 is left out.
fn number(value: &Value) -> i64 {
    value.as_str().map_or(0, |digits| digits.parse().unwrap())
}

pub(super) fn revision(answer: &Value) -> i64 {
    number(&answer["header"]["revision"])
}

fn key_values(answer: &Value) -> Vec<KeyValue> {
    let bytes = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        BASE64_STANDARD.decode(text).unwrap()
    };
    let found = answer["kvs"].as_array().into_iter().flatten();
    found
        .map(|found| KeyValue {
            key: bytes(&found["key"]),
            value: bytes(&found["value"]),
            create_revision: number(&found["create_revision"]),
            mod_revision: number(&found["mod_revision"]),
            version: number(&found["version"]),
            lease: number(&found["lease"]),
        })
        .collect()
}
