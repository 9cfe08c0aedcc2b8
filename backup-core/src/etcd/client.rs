//! One member of a live etcd: status, members, HashKV and the snapshot stream. A connection is to one endpoint and never to another behind
//! its back, for what is asked here is asked of that member. Writes nothing to etcd; which member to ask is [`choice`]'s.

pub mod choice;
mod failure;
mod handshake;
pub mod survey;

use std::fmt;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, SnapshotStreaming, TlsOptions};

use super::facts::Member;
use super::hashkv::HashKv;
use crate::error::{Error, Kind, Result};
use failure::refusal;

/// How members are reached and who asks them.
#[derive(Clone, Default)]
pub struct Access {
    /// PEM of the CAs whose certificates members may have; needed for `https`.
    pub ca_pem: Option<Vec<u8>>,
    /// PEM of the client's certificate and of its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name and password, where etcd has auth on.
    pub user: Option<(String, String)>,
}

/// Tells what was given, never what it is.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("ca", &self.ca_pem.is_some())
            .field("identity", &self.identity.is_some())
            .field("user", &self.user.is_some())
            .finish()
    }
}

/// How long a member may take for a connection, and for an answer that costs it nothing.
pub const SOON: Duration = Duration::from_secs(5);

/// A member that is silent for so long, in the middle of a stream, is gone: HTTP/2 pings tell, and they pass however slowly the stream is read.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(20);

/// A connection to one member.
#[derive(Clone)]
pub struct Connection {
    endpoint: String,
    client: Client,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.endpoint).finish()
    }
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The endpoint that was asked.
    pub endpoint: String,
    /// Its cluster's id.
    pub cluster_id: u64,
    /// Its own id.
    pub member_id: u64,
    /// The leader it follows, 0 where it sees none.
    pub leader: u64,
    /// Whether it is a learner.
    pub learner: bool,
    /// Raft's term.
    pub term: u64,
    /// The last entry of Raft's log that it knows to be committed.
    pub committed: u64,
    /// The last one it has applied.
    pub applied: u64,
    /// The store's revision.
    pub revision: i64,
    /// Version of its etcd.
    pub version: String,
    /// Size of its database file in bytes.
    pub bytes: u64,
    /// How much of it is in use.
    pub bytes_in_use: u64,
    /// Alarms that are on in the cluster: member's id and kind (`NOSPACE`, `CORRUPT`).
    pub alarms: Vec<(u64, String)>,
}

impl Status {
    /// Whether it leads the cluster.
    pub fn leads(&self) -> bool {
        self.leader != 0 && self.leader == self.member_id
    }
}

/// The endpoint as a URL: without a scheme it is `https` where certificates are given, as etcdctl has it.
pub fn url(endpoint: &str, access: &Access) -> String {
    let endpoint = endpoint.trim().trim_end_matches('/');
    if endpoint.contains("://") {
        return endpoint.to_owned();
    }
    let tls = access.ca_pem.is_some() || access.identity.is_some();
    format!("{}://{endpoint}", if tls { "https" } else { "http" })
}

fn options(url: &str, access: &Access) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(SOON)
        .with_keep_alive(PING, PONG)
        // etcd takes pings without a call for an attack.
        .with_keep_alive_while_idle(false)
        .with_auto_token_refresh(true);
    if let Some((user, password)) = &access.user {
        options = options.with_user(user, password);
    }
    if url.starts_with("http://") {
        return Ok(options);
    }
    let Some(ca) = &access.ca_pem else {
        return Err(Error::invalid(format!(
            "there is no CA to know the member at {url} by"
        ))
        .hint("give etcd's CA with --cacert; on a kubeadm node it is /etc/kubernetes/pki/etcd/ca.crt"));
    };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = &access.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    // The host of `https://[::1]:2379` is no name without its brackets off.
    if let Some(host) = url
        .split_once("://[")
        .and_then(|(_, rest)| rest.split_once(']'))
    {
        tls = tls.domain_name(host.0);
    }
    Ok(options.with_tls(tls))
}

async fn soon<T>(
    endpoint: &str,
    doing: &str,
    patience: Duration,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map_err(|e| refusal(doing, endpoint, &e)),
        Err(_) => Err(Error::new(
            Kind::Unreachable,
            format!(
                "can not {doing} {endpoint}: no answer within {} s",
                patience.as_secs()
            ),
        )
        .hint("look at the member's log and load")),
    }
}

impl Connection {
    /// A connection to this endpoint; nothing is sent yet, but for the user's name and password where they are given.
    ///
    /// # Errors
    /// `Invalid` for an endpoint or certificates that can not be, `Unauthorized` for a wrong password.
    pub async fn open(endpoint: &str, access: &Access) -> Result<Self> {
        let endpoint = url(endpoint, access);
        let known = ["http://", "https://"]
            .iter()
            .any(|scheme| endpoint.starts_with(scheme));
        if !known {
            return Err(
                Error::invalid(format!("endpoint {endpoint:?} is not one of etcd"))
                    .hint("an endpoint looks like https://127.0.0.1:2379"),
            );
        }
        let options = options(&endpoint, access)?;
        let connect = async {
            let client = Client::connect([&endpoint], Some(options)).await?;
            Ok(Self {
                endpoint: endpoint.clone(),
                client,
            })
        };
        soon(&endpoint, "reach the member at", SOON, connect).await
    }

    /// The same, and the member's status: the first thing that it has to answer, so that it is known to be reached.
    ///
    /// # Errors
    /// As [`Connection::open`] and [`Connection::status`].
    pub async fn reach(endpoint: &str, access: &Access) -> Result<(Self, Status)> {
        let reached = async {
            let connection = Self::open(endpoint, access).await?;
            let status = connection.status().await?;
            Ok::<_, Error>((connection, status))
        };
        let error = match reached.await {
            Err(error) if error.kind() == Kind::Unreachable => error,
            reached => return reached,
        };
        // A client's certificate that is not taken looks like a connection that breaks.
        let endpoint = url(endpoint, access);
        Err(match handshake::complaint(&endpoint, access).await {
            Some(complaint) => failure::refused_handshake(&endpoint, &complaint),
            None => error,
        })
    }

    /// The endpoint's URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the member says of itself.
    ///
    /// # Errors
    /// `Unreachable`, `Unauthorized`, `Forbidden`.
    pub async fn status(&self) -> Result<Status> {
        let mut client = self.client.maintenance_client();
        let doing = "reach the member at";
        let status = soon(&self.endpoint, doing, SOON, client.status()).await?;
        let header = status.header();
        let size = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        Ok(Status {
            endpoint: self.endpoint.clone(),
            cluster_id: header.map_or(0, etcd_client::ResponseHeader::cluster_id),
            member_id: header.map_or(0, etcd_client::ResponseHeader::member_id),
            leader: status.leader(),
            learner: status.is_learner(),
            term: status.raft_term(),
            committed: status.raft_index(),
            applied: status.raft_applied_index(),
            revision: header.map_or(0, etcd_client::ResponseHeader::revision),
            version: status.version().chars().take(100).collect(),
            bytes: size(status.db_size()),
            bytes_in_use: size(status.raft_used_db_size()),
            alarms: status.errors().iter().filter_map(|e| alarm(e)).collect(),
        })
    }

    /// The cluster's members as this one knows them; needs no quorum.
    ///
    /// # Errors
    /// As [`Connection::status`].
    pub async fn members(&self) -> Result<Vec<Member>> {
        let mut client = self.client.cluster_client();
        let doing = "list the members known to";
        let answer = soon(&self.endpoint, doing, SOON, client.member_list()).await?;
        Ok(answer
            .members()
            .iter()
            .map(|member| Member {
                id: format!("{:x}", member.id()),
                name: member.name().to_owned(),
                peer_urls: member.peer_urls().to_vec(),
                client_urls: member.client_urls().to_vec(),
                is_learner: member.is_learner(),
            })
            .collect())
    }

    /// HashKV at a revision. The member reads its whole history for it, and can not commit meanwhile.
    ///
    /// # Errors
    /// As [`Connection::status`]; and where the revision is compacted.
    pub async fn hash_kv(&self, revision: i64, patience: Duration) -> Result<HashKv> {
        let mut client = self.client.maintenance_client();
        let doing = "count HashKV at";
        let answer = soon(&self.endpoint, doing, patience, client.hash_kv(revision)).await?;
        Ok(HashKv {
            hash: answer.hash(),
            revision,
            // etcd has -1 where nothing was compacted yet.
            compact_revision: answer.compact_version().max(0),
        })
    }

    /// Begins a snapshot: from the first message on, the member holds a read transaction until the last one is taken.
    ///
    /// # Errors
    /// As [`Connection::status`].
    pub async fn snapshot(&self) -> Result<Messages> {
        let mut client = self.client.maintenance_client();
        let doing = "take a snapshot of the member at";
        // The member first commits what it has in hand, which on a slow disk takes its time.
        let patience = Duration::from_secs(60);
        let stream = soon(&self.endpoint, doing, patience, client.snapshot()).await?;
        Ok(Messages {
            endpoint: self.endpoint.clone(),
            stream,
        })
    }
}

/// A snapshot on its way: the database in pieces, and its SHA-256 at the end.
pub struct Messages {
    endpoint: String,
    stream: SnapshotStreaming,
}

/// One piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many bytes of the database come after it.
    pub remaining: u64,
}

impl Messages {
    /// The next piece, nothing at the end. Waits as long as the member answers pings.
    ///
    /// # Errors
    /// Where the member fails or goes away.
    pub async fn next(&mut self) -> Result<Option<Message>> {
        match self.stream.message().await {
            Ok(Some(message)) => Ok(Some(Message {
                bytes: message.blob().to_vec(),
                remaining: message.remaining_bytes(),
            })),
            Ok(None) => Ok(None),
            Err(e) => Err(refusal("read on from the member at", &self.endpoint, &e)),
        }
    }
}

/// An alarm among a status' errors: `memberID:1234 alarm:NOSPACE`, with spaces as protobuf's text form happens to put them.
fn alarm(text: &str) -> Option<(u64, String)> {
    let value = |name: &str| {
        text.split_whitespace()
            .find_map(|word| word.strip_prefix(name))
    };
    let kind = value("alarm:")?;
    let plain = |b: u8| b.is_ascii_uppercase() || b == b'_';
    if kind.is_empty() || kind.len() > 40 || !kind.bytes().all(plain) {
        return None;
    }
    // A member's id of 0 is left out by protobuf.
    let member = value("memberID:").map_or(Some(0), |id| id.parse().ok())?;
    Some((member, kind.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_scheme_is_https_where_certificates_are_given() {
        let plain = Access::default();
        let tls = Access {
            ca_pem: Some(Vec::new()),
            ..Access::default()
        };
        assert_eq!(url("127.0.0.1:2379", &plain), "http://127.0.0.1:2379");
        assert_eq!(url(" [::1]:2379/ ", &tls), "https://[::1]:2379");
        assert_eq!(url("http://a:1", &tls), "http://a:1");
    }

    #[tokio::test]
    async fn https_without_a_ca_and_other_schemes_are_refused_before_anything_is_sent() {
        let refused = Connection::open("https://127.0.0.1:1", &Access::default()).await;
        let refused = refused.unwrap_err();
        assert!(refused.hint_text().unwrap().contains("--cacert"));
        let refused = Connection::open("unix://x", &Access::default()).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn alarms_are_read_from_a_status_however_protobuf_spaces_them() {
        assert_eq!(
            alarm("memberID:10501334649042878790  alarm:NOSPACE "),
            Some((10_501_334_649_042_878_790, "NOSPACE".to_owned()))
        );
        assert_eq!(alarm("alarm:CORRUPT"), Some((0, "CORRUPT".to_owned())));
        for no in [
            "etcdserver: no leader",
            "memberID:x alarm:NOSPACE",
            "alarm:",
            "alarm:\u{1b}[2J",
        ] {
            assert_eq!(alarm(no), None, "{no:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let access = Access {
            identity: Some((b"certificate".to_vec(), b"hidden".to_vec())),
            user: Some(("root".to_owned(), "hidden".to_owned())),
            ..Access::default()
        };
        assert!(!format!("{access:?}").contains("hidden"));
    }
}
