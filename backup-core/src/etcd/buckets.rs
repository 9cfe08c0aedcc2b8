//! What the small buckets of etcd say: `meta`, `members`, `cluster`, `alarm`, `auth`. Pure: entries in, [`Facts`] out.

use serde::Deserialize;

use super::entry::{self, Revision};
use super::facts::{Alarm, Facts, Member};

/// What is wrong with an entry, as the end of a sentence about it.
pub(super) type Told = Result<(), String>;

/// A bucket that is read whole.
pub(super) struct Small {
    /// Its name in the database.
    pub name: &'static str,
    /// Takes one entry.
    pub take: fn(&mut Facts, &[u8], &[u8]) -> Told,
}

/// Entries of such a bucket; hundreds of members are none.
pub(super) const MOST_ENTRIES: usize = 1024;

/// Those that facts come from.
pub(super) const SMALL: [Small; 5] = [
    Small {
        name: "meta",
        take: meta,
    },
    Small {
        name: "members",
        take: member,
    },
    Small {
        name: "cluster",
        take: cluster,
    },
    Small {
        name: "alarm",
        take: alarm,
    },
    Small {
        name: "auth",
        take: auth,
    },
];

/// Puts what came in any order into the order of the ids.
pub(super) fn settle(facts: &mut Facts) {
    facts.members.sort_by(|a, b| a.id.cmp(&b.id));
    facts
        .alarms
        .sort_by(|a, b| (&a.member, &a.kind).cmp(&(&b.member, &b.kind)));
    // etcd begins with 1, and does not fall behind what it compacts.
    facts.revision = facts
        .revision
        .max(1)
        .max(facts.compact_revision)
        .max(facts.scheduled_compact_revision);
}

fn meta(facts: &mut Facts, key: &[u8], value: &[u8]) -> Told {
    let number = || {
        let bytes = value.try_into().map_err(|_| "is no number of 8 bytes")?;
        Ok::<_, String>(u64::from_be_bytes(bytes))
    };
    let revision = || {
        let revision = Revision::parse(value).ok_or("is no revision")?;
        Ok::<_, String>(revision.main)
    };
    match key {
        b"consistent_index" => facts.consistent_index = number()?,
        b"term" => facts.term = number()?,
        b"finishedCompactRev" => facts.compact_revision = revision()?,
        b"scheduledCompactRev" => facts.scheduled_compact_revision = revision()?,
        b"storageVersion" => facts.storage_version = Some(version(value)?),
        // confState, and what later versions add.
        _ => {}
    }
    Ok(())
}

fn cluster(facts: &mut Facts, key: &[u8], value: &[u8]) -> Told {
    if key == b"clusterVersion" {
        facts.cluster_version = Some(version(value)?);
    }
    Ok(())
}

fn version(value: &[u8]) -> Result<String, String> {
    let is_version = (1..=64).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    is_version
        .then(|| String::from_utf8_lossy(value).into_owned())
        .ok_or_else(|| "is no version".to_owned())
}

fn member(facts: &mut Facts, key: &[u8], value: &[u8]) -> Told {
    /// As etcd writes it.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stored {
        id: u64,
        #[serde(default)]
        name: String,
        #[serde(default, rename = "peerURLs")]
        peer_urls: Option<Vec<String>>,
        #[serde(default, rename = "clientURLs")]
        client_urls: Option<Vec<String>>,
        #[serde(default)]
        is_learner: bool,
    }
    let stored: Stored =
        serde_json::from_slice(value).map_err(|error| format!("is no member: {error}"))?;
    let id = format!("{:x}", stored.id);
    if key != id.as_bytes() {
        return Err(format!("holds the member {id}"));
    }
    facts.members.push(Member {
        id,
        name: stored.name,
        peer_urls: stored.peer_urls.unwrap_or_default(),
        client_urls: stored.client_urls.unwrap_or_default(),
        is_learner: stored.is_learner,
    });
    Ok(())
}

fn alarm(facts: &mut Facts, key: &[u8], _value: &[u8]) -> Told {
    let (member, kind) = entry::alarm(key).ok_or("is no alarm")?;
    facts.alarms.push(Alarm {
        member: format!("{member:x}"),
        kind: match kind {
            1 => "NOSPACE".to_owned(),
            2 => "CORRUPT".to_owned(),
            other => other.to_string(),
        },
    });
    Ok(())
}

fn auth(facts: &mut Facts, key: &[u8], value: &[u8]) -> Told {
    if key == b"authEnabled" {
        facts.auth_enabled = value == [1];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buckets_become_facts() {
        let mut facts = Facts::default();
        let revision = [&9_i64.to_be_bytes()[..], b"_", &0_i64.to_be_bytes()].concat();
        for (key, value) in [
            (&b"consistent_index"[..], &7_u64.to_be_bytes()[..]),
            (b"term", &2_u64.to_be_bytes()),
            (b"finishedCompactRev", &revision),
            (b"storageVersion", b"3.6.0"),
            (b"confState", b"{}"),
        ] {
            meta(&mut facts, key, value).unwrap();
        }
        member(&mut facts, b"ff", br#"{"id":255,"peerURLs":["http://a:2380"],"name":"a","clientURLs":["http://a:2379"],"isLearner":true,"later":1}"#).unwrap();
        member(&mut facts, b"2", br#"{"id":2,"peerURLs":null}"#).unwrap();
        alarm(&mut facts, &[0x08, 0xff, 0x01, 0x10, 0x01], b"").unwrap();
        auth(&mut facts, b"authEnabled", &[1]).unwrap();
        cluster(&mut facts, b"clusterVersion", b"3.6.0").unwrap();
        settle(&mut facts);
        assert_eq!((facts.consistent_index, facts.term), (7, 2));
        assert_eq!((facts.compact_revision, facts.revision), (9, 9));
        assert_eq!(facts.storage_version.as_deref(), Some("3.6.0"));
        assert_eq!(facts.members[0].id, "2");
        assert!(facts.members[1].is_learner);
        assert_eq!(facts.members[1].client_urls, ["http://a:2379"]);
        assert_eq!(
            (
                facts.alarms[0].member.as_str(),
                facts.alarms[0].kind.as_str()
            ),
            ("ff", "NOSPACE")
        );
        assert!(facts.auth_enabled);
    }

    #[test]
    fn what_is_no_fact_is_told() {
        let mut facts = Facts::default();
        assert!(meta(&mut facts, b"term", b"abc").is_err());
        assert!(meta(&mut facts, b"finishedCompactRev", b"abc").is_err());
        assert!(meta(&mut facts, b"storageVersion", b"\x1b[2J").is_err());
        assert!(member(&mut facts, b"1", b"[").is_err());
        assert!(member(&mut facts, b"1", br#"{"id":2}"#).is_err());
        assert!(alarm(&mut facts, b"\xff", b"").is_err());
        assert_eq!(facts, Facts::default());
    }
}
