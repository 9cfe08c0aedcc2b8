//! Azure Blob Storage: Azurite with TLS, and beside it who signs identities in. Azurite checks keys, shared signatures, and of a token its times, issuer and
//! audience; that it was signed it does not check, and rights it does not know.

mod entra;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{Method, Request};
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder,
};
use object_store::client::HttpRequestBody;
use object_store::path::Path as Key;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};

use crate::http_client::Endpoint;
use crate::http_server::Server;
use crate::pki::{Authority, Identity};
use crate::ports::Port;
use crate::process::{Folder, Process};
use crate::proxy::Proxy;
use crate::store::{form_encoded, put_all};
use crate::tools;
use entra::Entra;
pub use entra::{CLIENT, CLIENT_SECRET, TENANT};

const ACCOUNT: &str = "harness1";
const STARTS: usize = 4;

/// A running store; dropping it stops it, and its data with it.
pub struct Azurite {
    _process: Process,
    _port: Port,
    endpoint: Endpoint,
    key: String,
    ca: PathBuf,
    entra: Arc<Entra>,
    sign_in: Server,
    identity: Identity,
    runtime: Runtime,
    folder: Folder,
}

impl Azurite {
    /// One store for all tests of this process that keep to their own containers; nothing where Node.js is missing.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Azurite>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// The same for one test alone.
    pub fn start() -> Option<Self> {
        let main = tools::azurite()?;
        let folder = Folder::new("azurite");
        let authority = Authority::new("azurite-ca");
        let server = authority.server("azurite", &["127.0.0.1", "localhost"]);
        let certificate = folder.write("server.crt", &server.certificate);
        let private = folder.write("server.key", &server.key);
        let ca = folder.write("ca.crt", authority.certificate());
        let key = STANDARD.encode("a key that only this harness knows");
        for _ in 0..STARTS {
            let port = Port::lease();
            let mut command = Command::new("node");
            command
                .arg(&main)
                .args(["--blobHost", "127.0.0.1", "--silent", "--disableTelemetry"])
                .args([
                    "--skipApiVersionCheck",
                    "--inMemoryPersistence",
                    "--oauth",
                    "basic",
                ])
                .arg("--blobPort")
                .arg(port.number.to_string())
                .arg("--cert")
                .arg(&certificate)
                .arg("--key")
                .arg(&private)
                .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"))
                .current_dir(folder.path());
            let process = Process::start("azurite", &folder, &command);
            let endpoint = Endpoint {
                ca: Some(authority.certificate().to_owned()),
                ..Endpoint::plain(format!("https://127.0.0.1:{}", port.number))
            };
            let deadline = Instant::now() + Duration::from_secs(300);
            while !process.has_ended() && Instant::now() < deadline {
                if endpoint.client().get("/").is_ok() {
                    let entra = Arc::new(Entra::default());
                    return Some(Self {
                        _process: process,
                        _port: port,
                        endpoint,
                        key,
                        ca,
                        sign_in: entra::serve(&entra, &server),
                        entra,
                        identity: server,
                        runtime: Builder::new_multi_thread()
                            .worker_threads(1)
                            .enable_all()
                            .build()
                            .unwrap(),
                        folder,
                    });
                }
                thread::sleep(Duration::from_millis(50));
            }
            let log = process.log_tail();
            assert!(log.contains("EADDRINUSE"), "no Azurite:\n{log}");
        }
        panic!("no Azurite: every port was taken {STARTS} times");
    }

    pub fn account(&self) -> &'static str {
        ACCOUNT
    }

    /// The address of the account, for `storageAccountURI`.
    pub fn endpoint(&self) -> String {
        format!("{}/{ACCOUNT}", self.endpoint.url)
    }

    /// How to reach it, for a proxy in front of it.
    pub fn upstream(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A proxy in front of it that is trusted as it is itself.
    pub fn proxy(&self) -> Proxy {
        Proxy::start_tls(&self.endpoint, &self.identity)
    }

    /// The address of who signs identities in, for `activeDirectoryAuthorityURI`.
    pub fn authority(&self) -> String {
        self.sign_in.url()
    }

    /// Where a machine's own identity is asked for, for `IDENTITY_ENDPOINT`.
    pub fn identity_endpoint(&self) -> String {
        format!("{}/identity", self.sign_in.url())
    }

    /// The certificate to trust.
    pub fn ca_file(&self) -> &Path {
        &self.ca
    }

    /// How often tokens were handed out.
    pub fn tokens_given(&self) -> usize {
        self.entra.given()
    }

    /// Tokens that are handed out from now on last so long.
    pub fn tokens_last(&self, time: Duration) {
        self.entra.last(time);
    }

    /// A credentials file of these lines.
    pub fn credentials(&self, name: &str, lines: &str) -> PathBuf {
        self.folder.write(name, lines)
    }

    /// The access key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A credentials file with the access key.
    pub fn credentials_file(&self) -> PathBuf {
        let line = format!("AZURE_STORAGE_ACCOUNT_ACCESS_KEY={}\n", self.key);
        self.credentials("key.env", &line)
    }

    /// The foreign token of a workload identity, in a file.
    pub fn federated_token_file(&self) -> PathBuf {
        self.folder.write("federated", entra::ASSERTION)
    }

    /// A shared signature for a container with these permissions that ends in so many seconds.
    /// <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>
    pub fn sas(&self, container: &str, permissions: &str, seconds: i64) -> String {
        let time = |seconds: i64| {
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
            format!("{at:.0}")
        };
        let (start, end) = (time(-600), time(seconds));
        let version = "2020-12-06";
        let resource = format!("/blob/{ACCOUNT}/{container}");
        let text = [
            permissions,
            &start,
            &end,
            &resource,
            "",
            "",
            "",
            version,
            "c",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
        ]
        .join("\n");
        let key = STANDARD.decode(&self.key).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        format!(
            "sp={permissions}&st={}&se={}&sv={version}&sr=c&sig={}",
            form_encoded(&start),
            form_encoded(&end),
            form_encoded(&signature)
        )
    }

    /// Makes a container and returns its name; nothing happens when it is there.
    pub fn container<'a>(&self, name: &'a str) -> &'a str {
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(&self.key).unwrap());
        let path = format!("/{ACCOUNT}/{name}?restype=container");
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(format!("{}{path}", self.endpoint.url))
            .header("content-length", "0")
            .body(HttpRequestBody::empty())
            .unwrap();
        AzureAuthorizer::new(&credential, ACCOUNT)
            .try_authorize(&mut request)
            .unwrap();
        let headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let mut client = self.endpoint.client();
        let answer = client.send(Method::PUT, &path, &headers, Bytes::new());
        let answer = answer.unwrap_or_else(|error| panic!("container {name}: {error}"));
        assert!(
            answer.is_success() || answer.status == 409,
            "container {name}: {}",
            answer.text()
        );
        name
    }

    fn open(&self, container: &str) -> MicrosoftAzure {
        let ca = self.endpoint.ca.as_deref().unwrap_or_default();
        let ca = Certificate::from_pem(ca.as_bytes()).unwrap();
        MicrosoftAzureBuilder::new()
            .with_account(ACCOUNT)
            .with_access_key(&self.key)
            .with_endpoint(self.endpoint())
            .with_container_name(container)
            .with_client_options(ClientOptions::new().with_root_certificate(ca))
            .build()
            .expect("a client of Azure")
    }

    /// Every key under a prefix (a folder; empty for the whole container), sorted.
    pub fn list(&self, container: &str, prefix: &str) -> Vec<String> {
        let store = self.open(container);
        let listed = store.list(Some(&Key::from(prefix)));
        let found: Vec<_> = self.runtime.block_on(listed.try_collect()).unwrap();
        let mut keys: Vec<_> = found.iter().map(|one| one.location.to_string()).collect();
        keys.sort();
        keys
    }

    /// What is stored at a key; fails the test where there is nothing.
    pub fn get(&self, container: &str, key: &str) -> Bytes {
        let store = self.open(container);
        let read = async { store.get(&Key::from(key)).await?.bytes().await };
        let read = self.runtime.block_on(read);
        read.unwrap_or_else(|error| panic!("get {container}/{key}: {error}"))
    }

    /// Stores many objects at once.
    pub fn put_all(&self, container: &str, objects: impl IntoIterator<Item = (String, String)>) {
        let store = self.open(container);
        self.runtime.block_on(put_all(&store, objects));
    }
}
