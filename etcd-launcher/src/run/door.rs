//! The way to this member's own etcd: its usual listeners as a client, or the socket while it is fenced. Asks; the only thing it changes is an
//! alarm that came with a snapshot.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::etcd::HashKv;
use backup_core::{Error, Kind, Result};
use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, TlsOptions};
use serde_json::{Value, json};

use super::http;
use super::records::Voter;
use crate::etcd_args::EtcdArgs;

/// What etcd answers where its authentication is on, and who asks has no user or too few rights.
const REFUSALS: [&str; 2] = ["user name is empty", "etcdserver: permission denied"];
const SOON: Duration = Duration::from_secs(5);
/// HashKV reads the whole history: some seconds for gigabytes.
const HASHING: Duration = Duration::from_secs(300);

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) cluster_id: String,
    pub(crate) member_id: String,
    pub(crate) leader: String,
    pub(crate) learner: bool,
    pub(crate) revision: i64,
    pub(crate) version: String,
    pub(crate) alarms: Vec<String>,
}

impl Said {
    pub(crate) fn has_leader(&self) -> bool {
        !self.leader.is_empty() && self.leader != "0"
    }
}

/// A client of the usual listeners.
pub(crate) async fn usual(args: &EtcdArgs) -> Result<Client> {
    let urls = args.client_urls();
    let url = urls
        .first()
        .ok_or_else(|| Error::invalid("etcd listens for no clients"))?
        .replace("0.0.0.0", "127.0.0.1")
        .replace("[::]", "[::1]");
    let mut options = ConnectOptions::new()
        .with_connect_timeout(SOON)
        .with_require_leader(true);
    if url.starts_with("https://") {
        let (ca, certificate, key) = args.client_files();
        let read = |path: &Option<PathBuf>| match path {
            Some(path) => std::fs::read(path)
                .map(Some)
                .map_err(|e| Error::invalid(format!("can not read {}", path.display())).because(e)),
            None => Ok(None),
        };
        let mut tls = TlsOptions::new();
        if let Some(ca) = read(&ca)? {
            tls = tls.ca_certificate(Certificate::from_pem(ca));
        }
        if let (Some(certificate), Some(key)) = (read(&certificate)?, read(&key)?) {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        options = options.with_tls(tls);
    }
    soon("reach etcd", Client::connect([url], Some(options))).await
}

async fn soon<T>(
    doing: &str,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T> {
    match tokio::time::timeout(SOON, call).await {
        Ok(Err(e)) if is_refusal(&e) => Err(Error::new(
            Kind::Forbidden,
            format!(
                "can not {doing}: etcd's authentication is on, and the launcher has no user there"
            ),
        )
        .because(e)
        .hint("turn it off with `etcdctl auth disable`: certificates keep others out as well")),
        Ok(answer) => {
            answer.map_err(|e| Error::new(Kind::Unreachable, format!("can not {doing}")).because(e))
        }
        Err(_) => Err(Error::new(
            Kind::Unreachable,
            format!("can not {doing}: no answer within {} s", SOON.as_secs()),
        )),
    }
}

fn is_refusal(error: &etcd_client::Error) -> bool {
    let said = error.to_string();
    REFUSALS.iter().any(|refusal| said.contains(refusal))
}

/// What the member that serves as usual says of itself.
pub(crate) async fn usual_status(args: &EtcdArgs) -> Result<Said> {
    let mut client = usual(args).await?.maintenance_client();
    let status = soon("ask etcd for its status", client.status()).await?;
    let header = status.header();
    Ok(Said {
        cluster_id: format!(
            "{:x}",
            header.map_or(0, etcd_client::ResponseHeader::cluster_id)
        ),
        member_id: format!(
            "{:x}",
            header.map_or(0, etcd_client::ResponseHeader::member_id)
        ),
        leader: format!("{:x}", status.leader()),
        learner: status.is_learner(),
        revision: header.map_or(0, etcd_client::ResponseHeader::revision),
        version: status.version().chars().take(100).collect(),
        alarms: status.errors().to_vec(),
    })
}

/// Whether it serves: a read that the whole cluster agrees on.
pub(crate) async fn usual_read(args: &EtcdArgs) -> Result<i64> {
    let mut client = usual(args).await?.kv_client();
    let options = GetOptions::new().with_keys_only();
    let read = soon("read from etcd", client.get("etcd-launcher", Some(options))).await?;
    Ok(read
        .header()
        .map_or(0, etcd_client::ResponseHeader::revision))
}

/// Whether it holds an object of an API server: by its key, with this uid in it, or unreadable because it is encrypted.
pub(crate) async fn usual_holds(args: &EtcdArgs, key: &str, uid: &str) -> Result<bool> {
    let mut client = usual(args).await?.kv_client();
    let read = soon("read from etcd", client.get(key, None)).await?;
    Ok(read.kvs().iter().any(|kv| {
        let value = kv.value();
        value.starts_with(b"k8s:enc:")
            || value
                .windows(uid.len().max(1))
                .any(|window| window == uid.as_bytes())
    }))
}

/// The members it knows.
pub(crate) async fn usual_members(args: &EtcdArgs) -> Result<Vec<(Voter, bool)>> {
    let mut client = usual(args).await?.cluster_client();
    let listed = soon("list etcd's members", client.member_list()).await?;
    let members = listed.members().iter().map(|member| {
        let mut peer_urls = member.peer_urls().to_vec();
        peer_urls.sort();
        let voter = Voter {
            id: format!("{:x}", member.id()),
            name: member.name().to_owned(),
            peer_urls,
        };
        (voter, member.is_learner())
    });
    Ok(members.collect())
}

/// The fenced member: JSON on its socket.
pub(crate) struct Socket<'a>(pub(crate) &'a Path);

impl Socket<'_> {
    async fn call(&self, path: &str, body: &Value, patience: Duration) -> Result<Value> {
        let stream = tokio::net::UnixStream::connect(self.0).await.map_err(|e| {
            Error::new(
                Kind::Unreachable,
                format!("can not reach {}", self.0.display()),
            )
            .because(e)
        })?;
        http::ask(stream, path, Some(body), patience).await
    }

    /// What it says of itself.
    pub(crate) async fn status(&self) -> Result<Said> {
        let status = self
            .call("/v3/maintenance/status", &json!({}), SOON)
            .await?;
        let alarms = self
            .call("/v3/maintenance/alarm", &json!({"action": "GET"}), SOON)
            .await?;
        let raised = alarms["alarms"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        Ok(Said {
            cluster_id: hex(&status["header"]["cluster_id"]),
            member_id: hex(&status["header"]["member_id"]),
            leader: hex(&status["leader"]),
            learner: status["isLearner"].as_bool().unwrap_or(false),
            revision: number(&status["header"]["revision"]) as i64,
            version: status["version"].as_str().unwrap_or_default().to_owned(),
            alarms: raised
                .iter()
                .map(|alarm| alarm["alarm"].as_str().unwrap_or("an alarm").to_owned())
                .collect(),
        })
    }

    /// Ids of the members it knows, sorted.
    pub(crate) async fn members(&self) -> Result<Vec<String>> {
        let listed = self
            .call(
                "/v3/cluster/member/list",
                &json!({"linearizable": true}),
                SOON,
            )
            .await?;
        let members = listed["members"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ids: BTreeSet<String> = members.iter().map(|member| hex(&member["ID"])).collect();
        Ok(ids.into_iter().collect())
    }

    /// A read that the whole cluster agrees on.
    pub(crate) async fn read(&self) -> Result<i64> {
        // "etcd-launcher"
        let asked = json!({"key": "ZXRjZC1sYXVuY2hlcg==", "keys_only": true});
        let read = self.call("/v3/kv/range", &asked, SOON).await?;
        Ok(number(&read["header"]["revision"]) as i64)
    }

    /// Takes an alarm for lack of space away.
    pub(crate) async fn disarm(&self) -> Result<()> {
        let asked = json!({"action": "DEACTIVATE", "alarm": "NOSPACE", "memberID": "0"});
        self.call("/v3/maintenance/alarm", &asked, SOON)
            .await
            .map(|_| ())
    }

    /// etcd's hash at a revision.
    pub(crate) async fn hash_kv(&self, revision: i64) -> Result<HashKv> {
        let asked = json!({ "revision": revision.to_string() });
        let hash = self.call("/v3/maintenance/hashkv", &asked, HASHING).await?;
        Ok(HashKv {
            hash: u32::try_from(number(&hash["hash"]))
                .map_err(|e| Error::other("etcd's hash is none").because(e))?,
            revision,
            compact_revision: number(&hash["compact_revision"]) as i64,
        })
    }
}

/// A number as protobuf's JSON has it: 64 bits as text; absent where it is 0.
fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text
            .parse()
            .or_else(|_| text.parse::<i64>().map(i64::cast_unsigned))
            .unwrap_or(0),
        value => value.as_u64().unwrap_or(0),
    }
}

fn hex(value: &Value) -> String {
    format!("{:x}", number(value))
}
