//! Whether what was started serves: etcd the restored cluster, the API server at all. Asks only; waits as long as a start can take.

use std::path::Path;
use std::time::{Duration, Instant};

use backup_core::etcd::HashKv;
use backup_core::etcd::client::{Access, Connection, Status};
use backup_core::{Error, Kind, Result};
use http::Request;

use super::manifest::Manifest;
use crate::restore::plan::Plan;

/// The kubelet looks into its folder every 20 s where the kernel does not tell it, and lets what failed before wait for up to 5 minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// HashKV reads the whole database.
const HASHING: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(200);

/// etcd's endpoint and the files with which it is asked, as its manifest names them.
#[derive(Debug)]
pub(crate) struct Door {
    endpoint: String,
    access: Access,
}

impl Door {
    /// Reads the certificates. etcd's own are used: it asks itself with them, too.
    ///
    /// # Errors
    /// Where the manifest names none that can be read here.
    pub(crate) fn of(etcd: &Manifest) -> Result<Self> {
        let args = etcd.etcd()?;
        let endpoint = args
            .client_urls()
            .into_iter()
            .find(|url| url.starts_with("http"))
            .ok_or_else(|| Error::invalid("etcd listens for clients on no URL"))?;
        // Listened on by all addresses, it is asked on the machine's own.
        let endpoint = endpoint
            .replace("//0.0.0.0:", "//127.0.0.1:")
            .replace("//[::]:", "//[::1]:");
        let read = |inside: Option<std::path::PathBuf>| {
            inside
                .map(|inside| {
                    let path = etcd.on_host(&inside).unwrap_or(inside);
                    read_file(&path)
                })
                .transpose()
        };
        let (ca, certificate, key) = args.client_files();
        let identity = read(certificate)?.zip(read(key)?);
        Ok(Self {
            endpoint,
            access: Access {
                ca_pem: read(ca)?,
                identity,
                user: None,
            },
        })
    }

    /// Waits until it serves the cluster of the plan at its target revision or above. `hash` is HashKV at that revision, computed
    /// while etcd was stopped; gives what the user should know.
    ///
    /// # Errors
    /// Kind `Corrupt` for another cluster or other keys; kind `Unreachable` where it does not serve in time.
    pub(crate) async fn serves(&self, plan: &Plan, hash: Option<HashKv>) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let (connection, status) = loop {
            match self.reach().await {
                Ok(reached) => break reached,
                Err(e) if Instant::now() > deadline => {
                    return Err(e.context(format!(
                        "etcd does not serve {} s after its manifest was put back",
                        PATIENCE.as_secs()
                    )));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let endpoint = &self.endpoint;
        let wrong = |what: String| Err(Error::corrupt(format!("etcd at {endpoint} {what}")));
        if status.cluster_id != plan.cluster_id.0 {
            return wrong(format!(
                "serves cluster {:x}, not the restored one, {}",
                status.cluster_id, plan.cluster_id
            ));
        }
        if status.revision < plan.target_revision {
            return wrong(format!(
                "is at revision {}, below {}",
                status.revision, plan.target_revision
            ));
        }
        let mut notes = Vec::new();
        for (_, alarm) in &status.alarms {
            if alarm == "CORRUPT" {
                return wrong("has the alarm CORRUPT".into());
            }
            notes.push(format!(
                "etcd has the alarm {alarm}: it refuses writes until `etcdctl alarm disarm`"
            ));
        }
        if let Some(hash) = hash {
            match connection.hash_kv(plan.target_revision, HASHING).await {
                Ok(found) if found.hash != hash.hash => {
                    return wrong(format!(
                        "has HashKV {} at revision {}, and {} was restored",
                        found.hash, plan.target_revision, hash.hash
                    ));
                }
                Ok(_) => {}
                // With authentication on only root may ask; and who compacts makes the question void.
                Err(e) => notes.push(format!("etcd's HashKV was not compared: {e}")),
            }
        }
        Ok(notes)
    }

    /// A member that has a leader: itself, or one that it reaches.
    async fn reach(&self) -> Result<(Connection, Status)> {
        let (connection, status) = Connection::reach(&self.endpoint, &self.access).await?;
        if status.leader == 0 {
            return Err(Error::new(
                Kind::Unreachable,
                format!("the member at {} has no leader", self.endpoint),
            ));
        }
        Ok((connection, status))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::invalid(format!(
            "can not read {}, which etcd's manifest names",
            path.display()
        ))
        .because(e)
        .hint("a restored etcd would not start without it")
    })
}

/// Waits until an API server says that it is ready.
///
/// # Errors
/// Kind `Unreachable` where it does not in time, with its last answer.
pub(crate) async fn ready(url: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = match ask(url).await {
            Ok(()) => return Ok(()),
            Err(answer) => answer,
        };
        if Instant::now() > deadline {
            return Err(Error::new(
                Kind::Unreachable,
                format!(
                    "{url} does not answer \"ok\" within {} s",
                    PATIENCE.as_secs()
                ),
            )
            .because(answer));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(url: &str) -> Result<(), String> {
    let told = |e: &dyn std::error::Error| e.to_string();
    let uri: http::Uri = url.parse().map_err(|e| told(&e))?;
    let path = uri.path().to_owned();
    let mut config = kube::Config::new(uri);
    // As the kubelet's own probe: nothing secret is sent, and a yes is all that is heard.
    config.accept_invalid_certs = true;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(10));
    let client = kube::Client::try_from(config).map_err(|e| told(&e))?;
    let request = Request::get(path).body(Vec::new()).map_err(|e| told(&e))?;
    match client.request_text(request).await {
        Ok(_) => Ok(()),
        // Whoever has no name may not ask here; it serves.
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => Ok(()),
        Err(e) => Err(told(&e)),
    }
}
