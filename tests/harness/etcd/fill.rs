//! Fills an etcd with keys, quickly and always with the same ones.
//!
//! Keys and values depend on what is asked for alone; revisions do not, for several connections write at once.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

use super::gateway::{Keys, encoded, revision};
use crate::http_client::Endpoint;
use crate::load::{Random, text};

const WORKERS: usize = 4;
/// A transaction may hold 128 operations and a megabyte and a half.
const PER_TRANSACTION: u64 = 100;
const BYTES_PER_TRANSACTION: usize = 512 * 1024;

/// What values are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Every other value JSON, the others random.
    Half,
    Json,
    Random,
}

/// What to put: keys as an API server has them, `/registry/configmaps/…` with JSON and `/registry/secrets/…` with random bytes.
/// The values are no objects: an API server that is to serve wants another root.
#[derive(Debug, Clone)]
pub struct Fill {
    pub seed: u64,
    /// All values together, about.
    pub bytes: u64,
    /// One value, but that every 63rd is sixteen times as large (at most 256 KiB): larger than a page of the database.
    pub value_bytes: usize,
    pub content: Content,
    /// Part of the keys, so that two fills can stand side by side or one write over the other.
    pub name: String,
    /// What all keys begin with.
    pub root: String,
}

impl Default for Fill {
    fn default() -> Self {
        Self {
            seed: 1,
            bytes: 1 << 20,
            value_bytes: 1000,
            content: Content::Half,
            name: "load".to_owned(),
            root: "/registry".to_owned(),
        }
    }
}

/// What was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    pub keys: u64,
    /// All values together.
    pub bytes: u64,
    /// The revision after the last of them.
    pub revision: i64,
}

impl Fill {
    /// Half JSON, half random, of this size.
    pub fn of(bytes: u64) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// Puts all of it.
    pub fn run(&self, endpoint: &Endpoint) -> Filled {
        let keys = self.keys();
        let (next, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let latest = AtomicI64::new(0);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    let mut etcd = Keys::new(endpoint);
                    let per_transaction = self.per_transaction();
                    loop {
                        let first = next.fetch_add(per_transaction, Ordering::Relaxed);
                        if first >= keys {
                            break;
                        }
                        let last = keys.min(first + per_transaction);
                        let (body, put) = self.transaction(first..last);
                        let answer = etcd
                            .call("kv/txn", &body)
                            .unwrap_or_else(|error| panic!("key {first} and more: {error}"));
                        latest.fetch_max(revision(&answer), Ordering::Relaxed);
                        bytes.fetch_add(put, Ordering::Relaxed);
                    }
                });
            }
        });
        Filled {
            keys,
            bytes: bytes.into_inner(),
            revision: latest.into_inner(),
        }
    }

    /// How many keys it takes.
    pub fn keys(&self) -> u64 {
        let of_63 = 62 * self.value_bytes + self.large();
        (self.bytes * 63).div_ceil(of_63 as u64)
    }

    fn large(&self) -> usize {
        (16 * self.value_bytes)
            .min(256 * 1024)
            .max(self.value_bytes)
    }

    fn per_transaction(&self) -> u64 {
        let fit = (BYTES_PER_TRANSACTION / self.value_bytes.max(1)) as u64;
        fit.clamp(1, PER_TRANSACTION)
    }

    /// One key and its value, by their number.
    pub fn item(&self, number: u64) -> (String, Vec<u8>) {
        let is_json = match self.content {
            Content::Half => number.is_multiple_of(2),
            Content::Json => true,
            Content::Random => false,
        };
        let length = if number % 63 == 62 {
            self.large()
        } else {
            self.value_bytes
        };
        let mut random = Random::new(self.seed, number);
        let value = if is_json {
            text(&mut random, length).into_bytes()
        } else {
            let words = length.div_ceil(8);
            let mut noise: Vec<u8> = (0..words)
                .flat_map(|_| random.next().to_le_bytes())
                .collect();
            noise.truncate(length);
            noise
        };
        let resource = if is_json { "configmaps" } else { "secrets" };
        let (root, name, namespace) = (&self.root, &self.name, number % 16);
        let key = format!("{root}/{resource}/{name}-{namespace:02}/{name}-{number:08}");
        (key, value)
    }

    /// One transaction that puts these, and the bytes of their values.
    fn transaction(&self, numbers: std::ops::Range<u64>) -> (String, u64) {
        let mut body = String::from(r#"{"success":["#);
        let (mut separator, mut bytes) = ("", 0);
        for (key, value) in numbers.map(|number| self.item(number)) {
            bytes += value.len() as u64;
            let (key, value) = (encoded(key.as_bytes()), encoded(&value));
            body += separator;
            body += &format!(r#"{{"requestPut":{{"key":"{key}","value":"{value}"}}}}"#);
            separator = ",";
        }
        (body + "]}", bytes)
    }
}
