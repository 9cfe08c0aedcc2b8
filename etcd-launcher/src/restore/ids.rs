//! Member and cluster ids as etcd computes them when a cluster is made, so that they are known before anything is written. Pure.
//!
//! etcd (server/etcdserver/api/membership): a member's id is the first eight bytes, big-endian, of SHA-1 over its peer URLs, sorted
//! and joined without a separator, then the cluster's token; the cluster's id those of SHA-1 over the sorted member ids, each as eight
//! bytes, big-endian.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// More members than that no cluster has; etcd itself advises seven.
const MOST_MEMBERS: usize = 32;

/// An id, written as etcd prints it: hex without leading zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Id(pub(crate) u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|e| Error::invalid(format!("{text:?} is no id of etcd")).because(e))
    }
}

impl TryFrom<String> for Id {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

/// A member of the new cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) name: String,
    /// Where the others reach it, sorted.
    pub(crate) peer_urls: Vec<String>,
}

impl Peer {
    /// Its id in a cluster of this token.
    pub(crate) fn id(&self, token: &str) -> Id {
        let mut urls = self.peer_urls.clone();
        urls.sort();
        first_eight((urls.concat() + token).as_bytes())
    }
}

/// The cluster's id with these members and this token.
pub(crate) fn cluster_id(members: &[Peer], token: &str) -> Id {
    of_members(members.iter().map(|peer| peer.id(token)).collect())
}

/// The id of a cluster that was made with these members.
pub(crate) fn of_members(mut ids: Vec<Id>) -> Id {
    ids.sort();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.0.to_be_bytes()).collect();
    first_eight(&bytes)
}

fn first_eight(bytes: &[u8]) -> Id {
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let first = sum.as_ref().first_chunk().copied().unwrap_or_default();
    Id(u64::from_be_bytes(first))
}

/// Parses `--initial-cluster`: `name=url,name=url`, a name once for each of its URLs.
///
/// # Errors
/// Kind `Invalid`: an URL that etcd would refuse or write in another way (then the ids would differ), or one that stands twice.
pub(crate) fn parse_cluster(text: &str) -> Result<Vec<Peer>> {
    let mut members: Vec<Peer> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, url) = part
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| {
                Error::invalid(format!("member {part:?} is not written as name=url"))
                    .hint("as etcd's own flag: --initial-cluster n1=https://10.0.0.1:2380")
            })?;
        let url = peer_url(url)?;
        if members.iter().any(|peer| peer.peer_urls.contains(&url)) {
            return Err(Error::invalid(format!(
                "peer URL {url} stands twice in the initial cluster"
            )));
        }
        match members.iter_mut().find(|peer| peer.name == name) {
            Some(peer) => peer.peer_urls.push(url),
            None => members.push(Peer {
                name: name.to_owned(),
                peer_urls: vec![url],
            }),
        }
    }
    if members.is_empty() || members.len() > MOST_MEMBERS {
        return Err(Error::invalid(format!(
            "an initial cluster of {} members can not be made",
            members.len()
        )));
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    for peer in &mut members {
        peer.peer_urls.sort();
    }
    Ok(members)
}

/// Parses a comma-separated list of peer URLs.
///
/// # Errors
/// As [`parse_cluster`].
pub(crate) fn parse_urls(text: &str) -> Result<Vec<String>> {
    let urls = text.split(',').filter(|url| !url.trim().is_empty());
    let mut urls = urls.map(peer_url).collect::<Result<Vec<_>>>()?;
    urls.sort();
    urls.dedup();
    Ok(urls)
}

/// The flag's text for these members.
pub(crate) fn written(members: &[Peer]) -> String {
    let pairs = members.iter().flat_map(|peer| {
        let urls = peer.peer_urls.iter();
        urls.map(|url| format!("{}={url}", peer.name))
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// An URL in the only form that Go's parser gives back unchanged: `http(s)://host:port` and nothing else.
fn peer_url(text: &str) -> Result<String> {
    let text = text.trim();
    let wrong = || {
        Error::invalid(format!("{text:?} is no peer URL"))
            .hint("etcd takes http:// or https:// with a host and a port, and no path")
    };
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or_else(wrong)?;
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let bare = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => "",
        Some(_) => return Err(wrong()),
        None if host.is_empty() => return Err(wrong()),
        None => host,
    };
    if !bare
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcdutl_writes() {
        let members = parse_cluster("n1=http://127.0.0.1:12380").unwrap();
        assert_eq!(members[0].id("tok").to_string(), "d622127685879b3c");
        assert_eq!(cluster_id(&members, "tok").to_string(), "6656feb867e68582");
        assert_eq!(
            members[0].id("etcd-cluster").0,
            15_985_099_378_392_235_387,
            "the default token"
        );
    }

    #[test]
    fn the_order_of_members_and_urls_changes_no_id() {
        let one = parse_cluster("a=http://a:1,b=http://b:1,a=http://a:2").unwrap();
        let two = parse_cluster(" b=http://b:1 ,a=http://a:2,a=http://a:1").unwrap();
        assert_eq!(one, two);
        assert_eq!(cluster_id(&one, "t"), cluster_id(&two, "t"));
        assert_ne!(cluster_id(&one, "t"), cluster_id(&one, "u"));
        assert_eq!(written(&one), "a=http://a:1,a=http://a:2,b=http://b:1");
    }

    #[test]
    fn what_etcd_would_refuse_or_write_differently_is_refused() {
        for text in [
            "",
            "n1",
            "=http://a:1",
            "n1=a:1",
            "n1=http://a",
            "n1=http://a:1/",
            "n1=HTTP://a:1",
            "n1=http://:1",
            "n1=http://u@a:1",
            "n1=http://a:99999",
            "n1=http://[zz]:1",
            "n1=http://a:1?x",
            "a=http://a:1,b=http://a:1",
        ] {
            assert!(parse_cluster(text).is_err(), "{text}");
        }
        assert!(parse_cluster("n1=https://[fd00::1]:2380").is_ok());
    }

    #[test]
    fn an_id_reads_back_as_it_is_written() {
        let id: Id = "0a".parse().unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"a\"");
        assert_eq!(serde_json::from_str::<Id>("\"a\"").unwrap(), id);
        assert!("xyz".parse::<Id>().is_err());
    }
}
