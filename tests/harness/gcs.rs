//! Google Cloud Storage: fake-gcs-server, behind a front that speaks the XML API and signs in.
//!
//! fake-gcs-server has the JSON API; of the XML API it lacks writing, uploads in parts, the condition of a create and pages of listings. The front adds
//! them as Google's documentation has them, by means of the JSON API. Objects are read and written here by the JSON API too, past the front.

mod front;
mod itself;
mod sign_in;

pub(crate) use sign_in::form;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::http_client::{Answer, Endpoint};
use crate::http_server::Server;
use crate::ports::Port;
use crate::process::{Folder, Process};
use crate::store::form_encoded;
use crate::tools;
pub use front::Asked;
use front::Front;
pub use itself::Itself;

const STARTS: usize = 4;

/// A running store; dropping it stops it and removes its data.
pub struct Gcs {
    _process: Process,
    _port: Port,
    json: Endpoint,
    front: Arc<Front>,
    server: Server,
    folder: Folder,
}

impl Gcs {
    pub fn start() -> Self {
        let folder = Folder::new("gcs");
        for _ in 0..STARTS {
            let port = Port::lease();
            let json = Endpoint::plain(format!("http://127.0.0.1:{}", port.number));
            let mut command = Command::new(tools::path("fake-gcs-server"));
            command
                .args([
                    "-scheme",
                    "http",
                    "-host",
                    "127.0.0.1",
                    "-backend",
                    "memory",
                ])
                .args(["-log-level", "warn"])
                .arg("-port")
                .arg(port.number.to_string())
                .arg("-public-host")
                .arg(format!("127.0.0.1:{}", port.number));
            let process = Process::start("fake-gcs-server", &folder, &command);
            let deadline = Instant::now() + Duration::from_secs(60);
            while !process.has_ended() && Instant::now() < deadline {
                let answer = json.client().get("/storage/v1/b?project=test");
                if answer.is_ok_and(|answer| answer.is_success()) {
                    let front = Arc::new(Front::new(json.connector()));
                    return Self {
                        _process: process,
                        _port: port,
                        json,
                        server: front::serve(&front),
                        front,
                        folder,
                    };
                }
                thread::sleep(Duration::from_millis(30));
            }
            let log = process.log_tail();
            assert!(log.contains("already in use"), "no fake-gcs-server:\n{log}");
        }
        panic!("no fake-gcs-server: every port was taken {STARTS} times");
    }

    /// One store for all tests of this process that keep to their own buckets.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Gcs> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The address of its XML API.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    /// How to reach it, for a proxy in front of it.
    pub fn upstream(&self) -> Endpoint {
        Endpoint::plain(self.server.url())
    }

    /// The same store at Google's own address, behind a proxy.
    pub fn itself(&self) -> Itself {
        Itself::start(&self.front, &self.folder)
    }

    /// A credentials file with the key of the service account that it knows.
    pub fn credentials_file(&self) -> PathBuf {
        self.write("key.json", &self.front.accounts.service_account())
    }

    /// The same, with the key of somebody else.
    pub fn foreign_credentials_file(&self) -> PathBuf {
        self.write("foreign.json", &sign_in::Accounts::new().service_account())
    }

    /// The file that a person's sign-in leaves.
    pub fn user_file(&self, refresh_token: &str) -> PathBuf {
        let file = json!({
            "type": "authorized_user", "client_id": sign_in::CLIENT, "client_secret": sign_in::CLIENT_SECRET,
            "refresh_token": refresh_token, "token_uri": format!("{}/sign-in/token", self.endpoint()),
        });
        self.write(&format!("user-{refresh_token}.json"), &file)
    }

    /// The refresh token that is good.
    pub fn refresh_token(&self) -> &'static str {
        sign_in::REFRESH_TOKEN
    }

    /// A file of workload identity federation, whose foreign token lies in a file, or comes from an address as a field of JSON; with a service account to
    /// become where `impersonates`.
    pub fn federated_file(&self, from_file: bool, impersonates: bool) -> PathBuf {
        let source = if from_file {
            let path = self.folder.write("subject-token", sign_in::SUBJECT);
            json!({"file": path})
        } else {
            json!({
                "url": format!("{}/sign-in/subject", self.endpoint()), "headers": {"x-who": "me"},
                "format": {"type": "json", "subject_token_field_name": "token"},
            })
        };
        let mut file = json!({
            "type": "external_account", "audience": sign_in::AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/sign-in/exchange", self.endpoint()), "credential_source": source,
        });
        if impersonates {
            file["service_account_impersonation_url"] =
                format!("{}/sign-in/impersonate", self.endpoint()).into();
        }
        self.write(&format!("federated-{from_file}-{impersonates}.json"), &file)
    }

    fn write(&self, name: &str, file: &Value) -> PathBuf {
        self.folder.write(name, file.to_string())
    }

    /// Where a machine of Google's would ask for its tokens, as `GCE_METADATA_HOST` names it.
    pub fn metadata_host(&self) -> String {
        self.server.address.to_string()
    }

    /// How often tokens were handed out.
    pub fn tokens_given(&self) -> usize {
        self.front.accounts.given()
    }

    /// Tokens that are handed out from now on last so long.
    pub fn tokens_last(&self, time: Duration) {
        self.front.accounts.last(time);
    }

    /// What was asked of the front so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.front.asked()
    }

    /// Every token that it was shown so far, good or not.
    pub fn bearers(&self) -> BTreeSet<String> {
        let asked = self.asked();
        let shown = asked
            .iter()
            .filter_map(|one| one.headers.get("authorization")?.to_str().ok());
        shown
            .map(|bearer| bearer.trim_start_matches("Bearer ").to_owned())
            .collect()
    }

    fn json(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let headers = [("content-type", "application/json")];
        let answer = self.json.client().send(method, path, &headers, body);
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Makes a bucket and returns its name; nothing happens when it is there.
    pub fn bucket<'a>(&self, name: &'a str) -> &'a str {
        let body = json!({"name": name}).to_string();
        let answer = self.json(Method::POST, "/storage/v1/b?project=test", body.into());
        assert!(
            answer.is_success() || answer.status == 409,
            "bucket {name}: {}",
            answer.text()
        );
        name
    }

    /// Stores many objects.
    pub fn put_all(&self, bucket: &str, objects: impl IntoIterator<Item = (String, String)>) {
        let mut client = self.json.client();
        for (key, content) in objects {
            let key = form_encoded(&key);
            let path = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={key}");
            let answer = client.send(Method::POST, &path, &[], content);
            let answer = answer.unwrap_or_else(|error| panic!("put {key}: {error}"));
            assert!(answer.is_success(), "put {key}: {}", answer.text());
        }
    }

    /// Every key under a prefix, sorted.
    pub fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut token = String::new();
        loop {
            let path = format!(
                "/storage/v1/b/{bucket}/o?prefix={}&pageToken={token}",
                form_encoded(prefix)
            );
            let page = self.json(Method::GET, &path, Bytes::new()).json();
            let items = page["items"].as_array().cloned().unwrap_or_default();
            keys.extend(
                items
                    .iter()
                    .filter_map(|item| item["name"].as_str().map(str::to_owned)),
            );
            match page["nextPageToken"].as_str() {
                Some(next) if !next.is_empty() => token = form_encoded(next),
                _ => break,
            }
        }
        keys.sort();
        keys
    }

    /// What is stored at a key; fails the test where there is nothing.
    pub fn get(&self, bucket: &str, key: &str) -> Bytes {
        let path = format!("/storage/v1/b/{bucket}/o/{}?alt=media", form_encoded(key));
        let answer = self.json(Method::GET, &path, Bytes::new());
        assert!(answer.is_success(), "get {bucket}/{key}: {}", answer.text());
        answer.body
    }

    /// Keys of the bucket whose upload in parts was begun and neither completed nor aborted.
    pub fn uploads(&self, bucket: &str) -> Vec<String> {
        self.front.uploads(bucket)
    }

    /// The folder with its log and files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
