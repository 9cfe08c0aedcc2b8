//! MinIO, on loopback as a rule: an object store that speaks S3, plain or with TLS.
//!
//! Objects are read and written here by another path than the plugin's own, so that a test can see what is really
//! in the bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request};
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use object_store::path::Path as Key;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};

use crate::http_client::{Answer, Client, Endpoint, Failure};
use crate::pki::Authority;
use crate::ports::Port;
use crate::process::{Folder, Process};
use crate::{tools, wait_for};

const LOOPBACK: &str = "127.0.0.1";
const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "harness-access";
const SECRET_KEY: &str = "harness-secret-key";
const STARTS: usize = 4;
/// The one key of its key management, by which an object is encrypted where that is asked for.
pub const KMS_KEY: &str = "harness-kms-key";
const KMS_SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A running MinIO; dropping it stops it and removes its data.
pub struct Minio {
    process: Mutex<Option<Process>>,
    port: Port,
    endpoint: Endpoint,
    credentials: PathBuf,
    ca: Option<PathBuf>,
    runtime: Runtime,
    folder: Folder,
}

/// Keys of a user who may do less than the owner of the store.
#[derive(Debug, Clone)]
pub struct LimitedUser {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: String,
    /// The same in a file, as Velero's and Amazon's tools read it.
    pub credentials_file: PathBuf,
}

impl Minio {
    pub fn start() -> Self {
        Self::start_with(LOOPBACK, None)
    }

    /// On an address of this machine that others than this machine reach, such as the one a node has on its outside.
    pub fn start_on(address: &str) -> Self {
        Self::start_with(address, None)
    }

    /// With TLS, trusted only through [`Self::ca_file`].
    pub fn start_tls() -> Self {
        Self::start_with(LOOPBACK, Some(&Authority::new("store-ca")))
    }

    /// One store for all tests of this process that keep to their own buckets.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Minio> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start_with(address: &str, authority: Option<&Authority>) -> Self {
        let folder = Folder::new("minio");
        let ca = authority.map(|authority| {
            let server = authority.server("minio", &[address, "localhost"]);
            folder.write("certs/public.crt", &server.certificate);
            folder.write("certs/private.key", &server.key);
            folder.write("ca.crt", authority.certificate())
        });
        let mut minio = Self {
            process: Mutex::default(),
            port: Port::lease(),
            endpoint: Endpoint::plain(""),
            credentials: folder.write("credentials", ini(ACCESS_KEY, SECRET_KEY, None)),
            ca,
            runtime: Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            folder,
        };
        minio.endpoint.ca = authority.map(|authority| authority.certificate().to_owned());
        for _ in 0..STARTS {
            minio.port = Port::lease();
            let scheme = if authority.is_some() { "https" } else { "http" };
            minio.endpoint.url = format!("{scheme}://{address}:{}", minio.port.number);
            match minio.try_start(address) {
                Ok(()) => return minio,
                Err(log) => assert!(log.contains("already in use"), "no MinIO:\n{log}"),
            }
        }
        panic!("no MinIO: every port was taken {STARTS} times");
    }

    /// Kills it: whoever asks it is refused a connection, and what is stored stays.
    pub fn stop(&self) {
        if let Some(process) = self.process.lock().unwrap().take() {
            process.kill();
        }
    }

    /// Starts it again after a stop, at its address and with what it had.
    pub fn start_again(&self) {
        let (_, authority) = self.endpoint.url.split_once("://").unwrap();
        let (address, _) = authority.rsplit_once(':').unwrap();
        let started = self.try_start(address);
        started.unwrap_or_else(|log| panic!("MinIO does not come back:\n{log}"));
    }

    fn try_start(&self, address: &str) -> Result<(), String> {
        let mut command = Command::new(tools::path("minio"));
        command
            .arg("server")
            .arg(self.folder.join("data"))
            .arg(format!("--address={address}:{}", self.port.number))
            .arg(format!(
                "--certs-dir={}",
                self.folder.join("certs").display()
            ))
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .env("MINIO_KMS_SECRET_KEY", format!("{KMS_KEY}:{KMS_SECRET}"))
            .env("MINIO_BROWSER", "off")
            .env("MINIO_PROMETHEUS_AUTH_TYPE", "public")
            .env("MINIO_UPDATE", "off");
        let process = Process::start("minio", &self.folder, &command);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // Its own health check says yes before it can tell who somebody is.
            let answer = self.try_signed(Method::GET, "/", "s3", "", &[]);
            if answer.is_ok_and(|answer| answer.status == 200) {
                *self.process.lock().unwrap() = Some(process);
                return Ok(());
            }
            if process.has_ended() || Instant::now() > deadline {
                return Err(process.log_tail());
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// Its address, with the scheme.
    pub fn endpoint(&self) -> &str {
        &self.endpoint.url
    }

    pub fn region(&self) -> &'static str {
        REGION
    }

    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// The certificate to trust, when it speaks TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    pub fn ca_pem(&self) -> Option<&str> {
        self.endpoint.ca.as_deref()
    }

    /// Both keys in a file, as Velero's and Amazon's tools read it.
    pub fn credentials_file(&self) -> &Path {
        &self.credentials
    }

    /// A client for its raw HTTP interface; it signs nothing.
    pub fn client(&self) -> Client {
        self.endpoint.client()
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.lock().unwrap().as_ref().map(Process::pid)
    }

    /// The folder with its log and files.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// How to reach its raw HTTP interface, for a proxy in front of it.
    pub fn upstream(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes a bucket and returns its name; nothing happens when it is there.
    pub fn bucket<'a>(&self, name: &'a str) -> &'a str {
        let answer = self.signed(Method::PUT, &format!("/{name}"), "s3", "", &[]);
        let is_there = answer.is_success() || answer.status == 409;
        assert!(
            is_there,
            "bucket {name}: {} {}",
            answer.status,
            answer.text()
        );
        name
    }

    /// Makes a bucket that keeps every version of an object and in which objects can be locked.
    pub fn locked_bucket<'a>(&self, name: &'a str) -> &'a str {
        let headers = [("x-amz-bucket-object-lock-enabled", "true")];
        let answer = self.signed(Method::PUT, &format!("/{name}"), "s3", "", &headers);
        assert!(
            answer.is_success(),
            "bucket {name}: {} {}",
            answer.status,
            answer.text()
        );
        name
    }

    /// Sends any request, signed by the owner; for what [`ObjectStore`] has no word for.
    pub fn signed(
        &self,
        method: Method,
        path_and_query: &str,
        service: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.try_signed(method, path_and_query, service, body, headers)
            .unwrap_or_else(|error| panic!("{path_and_query}: {error}"))
    }

    fn try_signed(
        &self,
        method: Method,
        path_and_query: &str,
        service: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let credential = AwsCredential {
            key_id: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            token: None,
        };
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("{}{path_and_query}", self.endpoint.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request
            .body(HttpRequestBody::from(body.to_owned()))
            .unwrap();
        AwsAuthorizer::new(&credential, service, REGION)
            .try_authorize(&mut request, None)
            .unwrap();
        let signed: Vec<_> = request
            .headers()
            .iter()
            .filter(|(name, _)| *name != "host")
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        self.client()
            .send(method, path_and_query, &signed, body.to_owned())
    }

    /// How many bytes of requests it has received from the beginning, by its own count.
    pub fn received(&self) -> u64 {
        let count = || {
            let told = self
                .client()
                .send(Method::GET, "/minio/metrics/v3/api/requests", &[], "")
                .unwrap();
            let line = told
                .text()
                .lines()
                .find(|line| line.starts_with("minio_api_requests_traffic_received_bytes{"))
                .unwrap_or_else(|| panic!("{}", told.text()))
                .to_owned();
            let number = line.rsplit(' ').next().unwrap();
            number.parse::<f64>().unwrap() as u64
        };
        // It renews its counts every few seconds.
        let mut before = count();
        wait_for("a count that stands", Duration::from_secs(60), || {
            thread::sleep(Duration::from_secs(3));
            let now = count();
            (std::mem::replace(&mut before, now) == now).then_some(now)
        })
    }

    /// Temporary keys that may do what `policy` (JSON, as Amazon's) allows, and nothing else.
    pub fn limited_user(&self, policy: &str) -> LimitedUser {
        let body = format!(
            "Action=AssumeRole&Version=2011-06-15&DurationSeconds=3600&Policy={}",
            form_encoded(policy)
        );
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = self.signed(Method::POST, "/", "sts", &body, &headers);
        assert!(
            answer.is_success(),
            "a limited user: {} {}",
            answer.status,
            answer.text()
        );
        let text = answer.text();
        let between = |tag: &str| {
            let (_, rest) = text.split_once(&format!("<{tag}>")).expect(tag);
            rest.split_once('<').expect(tag).0.to_owned()
        };
        let access_key = between("AccessKeyId");
        let secret_key = between("SecretAccessKey");
        let session_token = between("SessionToken");
        let file = ini(&access_key, &secret_key, Some(&session_token));
        LimitedUser {
            credentials_file: self.folder.write(format!("credentials-{access_key}"), file),
            access_key,
            secret_key,
            session_token,
        }
    }

    fn open(&self, bucket: &str) -> Arc<dyn ObjectStore> {
        let mut options = ClientOptions::new().with_allow_http(true);
        if let Some(ca) = self.ca_pem() {
            options = options.with_root_certificate(Certificate::from_pem(ca.as_bytes()).unwrap());
        }
        let store = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_region(REGION)
            .with_bucket_name(bucket)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_client_options(options)
            .build();
        Arc::new(store.expect("an S3 client"))
    }

    /// What these keys may do at an object: `read`, `write`, `delete` it, and `list` its folder. What may be done is done.
    pub fn allowed(
        &self,
        (access_key, secret_key, token): (&str, &str, &str),
        bucket: &str,
        key: &str,
    ) -> Vec<&'static str> {
        let store = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_region(REGION)
            .with_bucket_name(bucket)
            .with_access_key_id(access_key)
            .with_secret_access_key(secret_key)
            .with_token(token)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()
            .expect("an S3 client");
        let (folder, _) = key.rsplit_once('/').unwrap();
        let (key, folder) = (Key::from(key), Key::from(folder));
        let tried = async {
            [
                ("read", store.get(&key).await.map(drop)),
                (
                    "list",
                    store
                        .list(Some(&folder))
                        .try_collect::<Vec<_>>()
                        .await
                        .map(drop),
                ),
                ("write", store.put(&key, "x".into()).await.map(drop)),
                ("delete", store.delete(&key).await),
            ]
        };
        let tried = self.runtime.block_on(tried).into_iter();
        tried
            .filter_map(|(verb, done)| match done {
                Ok(()) => Some(verb),
                Err(object_store::Error::NotFound { .. }) => Some(verb),
                Err(object_store::Error::PermissionDenied { .. }) => None,
                Err(error) if error.to_string().contains("AccessDenied") => None,
                Err(error) => panic!("{verb} {key}: {error}"),
            })
            .collect()
    }

    /// Every key under a prefix (a folder; empty for the whole bucket), sorted.
    pub fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let store = self.open(bucket);
        let listed = store.list(Some(&Key::from(prefix)));
        let found: Vec<_> = self
            .runtime
            .block_on(listed.try_collect())
            .unwrap_or_else(|error| panic!("list {bucket}/{prefix}: {error}"));
        let mut keys: Vec<_> = found
            .iter()
            .map(|object| object.location.to_string())
            .collect();
        keys.sort();
        keys
    }

    /// The default location of a namespace: a bucket, below `main`.
    pub fn default_location(&self, namespace: &str, bucket: &str) -> String {
        format!(
            r#"
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: default, namespace: {namespace}}}
spec:
  provider: aws
  default: true
  objectStorage: {{bucket: {bucket}, prefix: main}}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{}"}}
"#,
            self.endpoint()
        )
    }

    /// Every object under a prefix by its key: how large it is, and the SHA-256 of what it holds. What goes between the list and the look is not there.
    pub fn contents(&self, bucket: &str, prefix: &str) -> BTreeMap<String, (usize, String)> {
        let all = self.list(bucket, prefix).into_iter();
        all.filter_map(|key| {
            let content = self.try_get(bucket, &key)?;
            let digest = digest(&SHA256, &content);
            let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
            Some((key, (content.len(), hex.collect())))
        })
        .collect()
    }

    /// What is stored at a key; fails the test where there is nothing.
    #[track_caller]
    pub fn get(&self, bucket: &str, key: &str) -> Bytes {
        self.try_get(bucket, key)
            .unwrap_or_else(|| panic!("nothing at {bucket}/{key}"))
    }

    pub fn try_get(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let store = self.open(bucket);
        let read = async { store.get(&Key::from(key)).await?.bytes().await };
        match self.runtime.block_on(read) {
            Ok(bytes) => Some(bytes),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => panic!("get {bucket}/{key}: {error}"),
        }
    }

    pub fn put(&self, bucket: &str, key: &str, content: impl Into<Bytes>) {
        let store = self.open(bucket);
        let content: Bytes = content.into();
        self.runtime
            .block_on(store.put(&Key::from(key), content.into()))
            .unwrap_or_else(|error| panic!("put {bucket}/{key}: {error}"));
    }

    /// Stores many objects at once.
    pub fn put_all(&self, bucket: &str, objects: impl IntoIterator<Item = (String, String)>) {
        let store = self.open(bucket);
        self.runtime.block_on(put_all(&*store, objects));
    }

    pub fn delete(&self, bucket: &str, key: &str) {
        let store = self.open(bucket);
        self.runtime
            .block_on(store.delete(&Key::from(key)))
            .unwrap_or_else(|error| panic!("delete {bucket}/{key}: {error}"));
    }
}

/// Stores many objects, several at a time.
pub(crate) async fn put_all(
    store: &dyn ObjectStore,
    objects: impl IntoIterator<Item = (String, String)>,
) {
    let puts = objects.into_iter().map(|(key, content)| async move {
        let key = Key::from(key);
        store.put(&key, content.into()).await.map(drop)
    });
    futures::stream::iter(puts)
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await
        .unwrap_or_else(|error| panic!("put many objects: {error}"));
}

fn ini(access_key: &str, secret_key: &str, session_token: Option<&str>) -> String {
    let token = session_token.map(|token| format!("aws_session_token={token}\n"));
    format!(
        "[default]\naws_access_key_id={access_key}\naws_secret_access_key={secret_key}\n{}",
        token.unwrap_or_default()
    )
}

/// What may stand in a query or a form.
pub(crate) fn form_encoded(text: &str) -> String {
    text.bytes()
        .fold(String::new(), |encoded, byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded + &char::from(byte).to_string(),
            _ => encoded + &format!("%{byte:02X}"),
        })
}
