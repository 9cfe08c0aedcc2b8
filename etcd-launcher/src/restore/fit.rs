//! Whether a snapshot can be restored here: its versions, its size, whose it is, what it carries along. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use backup_core::etcd::Facts;
use backup_core::{Error, Result};

use super::dir::DataDir;
use super::ids::{self, Id};
use super::plan::{By, Carried};
use super::version::{Line, Version};

/// A segment of a write-ahead log, as etcd allocates it.
const SEGMENT: u64 = 64_000_000;

/// What is left over in any case.
const SPARE: u64 = 16 << 20;

/// What a user of `run` can do with a snapshot of another cluster.
pub(crate) const ANOTHER_CLUSTER_HERE: &str = "name a snapshot of this cluster; one of another is restored with every member stopped, by `etcd-launcher restore --another-cluster`";

/// What the data dir knows of its own past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lineage {
    clusters: BTreeSet<Id>,
    members: BTreeSet<Id>,
    peer_urls: BTreeSet<String>,
}

impl Lineage {
    /// From what `member` carries, its database where it could be read, and every attempt that was ever made here: a restore gives a
    /// cluster a new id, and snapshots from before it are still its own.
    pub(crate) fn of(dir: &DataDir, old: &Carried, facts: Option<&Facts>) -> Self {
        let mut known = Self::default();
        known.add(old);
        for attempt in dir.attempts() {
            known.add(&attempt.plan.old);
            known
                .members
                .extend(attempt.former.iter().flat_map(|f| &f.members));
            if attempt.may_be_exchanged {
                known.clusters.insert(attempt.plan.cluster_id);
                let token = &attempt.plan.token;
                let members = attempt.plan.members.iter().map(|peer| peer.id(token));
                known.members.extend(members);
                // What was restored here became this cluster, and snapshots from before that are its own as well.
                if let Some(snapshot) = &attempt.snapshot {
                    known.clusters.extend(snapshot.cluster);
                    known.members.extend(&snapshot.members);
                }
            }
        }
        if let Some(facts) = facts {
            known.members.extend(member_ids(facts));
            known.peer_urls.extend(distinct_urls(facts));
        }
        known
    }

    /// Peer URLs that etcd is started with here.
    pub(crate) fn add_urls(&mut self, urls: &[String]) {
        let urls = urls.iter().filter(|url| is_distinct(url));
        self.peer_urls.extend(urls.cloned());
    }

    fn add(&mut self, carried: &Carried) {
        if let Carried::Cluster {
            cluster_id,
            member_id,
        } = carried
        {
            self.clusters.insert(*cluster_id);
            self.members.insert(*member_id);
        }
    }

    /// Whether a snapshot is of this cluster; `None` where nothing can be compared. `cluster` is what its manifest says.
    fn knows(&self, facts: &Facts, cluster: Option<Id>) -> Option<bool> {
        let members: Vec<Id> = member_ids(facts).collect();
        let of_members = (!members.is_empty()).then(|| ids::of_members(members.clone()));
        let is_known = cluster.iter().any(|id| self.clusters.contains(id))
            || of_members.iter().any(|id| self.clusters.contains(id))
            || members.iter().any(|id| self.members.contains(id))
            || distinct_urls(facts).any(|url| self.peer_urls.contains(&url));
        if is_known {
            return Some(true);
        }
        let can_compare = !(self.members.is_empty() && self.peer_urls.is_empty())
            && (cluster.is_some() || !members.is_empty());
        can_compare.then_some(false)
    }
}

/// Ids of the members that a database names.
pub(crate) fn member_ids(facts: &Facts) -> impl Iterator<Item = Id> + '_ {
    facts.members.iter().filter_map(|m| m.id.parse().ok())
}

/// Peer URLs that are one cluster's only: those of the loopback are everybody's, and a name such as `etcd-0.etcd` is one in each namespace.
fn distinct_urls(facts: &Facts) -> impl Iterator<Item = String> + '_ {
    let urls = facts.members.iter().flat_map(|m| &m.peer_urls);
    urls.filter(|url| is_distinct(url)).cloned()
}

fn is_distinct(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    if scheme.starts_with("unix") {
        return false;
    }
    let place = rest.split('/').next().unwrap_or_default();
    let host = match place.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => place.split(':').next(),
    };
    let host = host.unwrap_or_default();
    match host.parse::<IpAddr>() {
        Ok(address) => !address.is_loopback() && !address.is_unspecified(),
        Err(_) => host.split('.').filter(|label| !label.is_empty()).count() >= 3,
    }
}

/// What a snapshot has to fit.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The release line of the etcd that will run on it, where known.
    pub(crate) line: Option<Line>,
    /// Its `--quota-backend-bytes`.
    pub(crate) quota: u64,
    /// What the data dir knows of itself.
    pub(crate) lineage: Lineage,
    /// Whether the snapshot may be of another cluster.
    pub(crate) another_cluster: bool,
    /// Who restores, for what is said to them.
    pub(crate) by: By,
}

/// The release line that a database was served by.
pub(crate) fn line_of(facts: &Facts) -> Line {
    let parsed = [&facts.storage_version, &facts.cluster_version]
        .into_iter()
        .flatten()
        .filter_map(|text| Some(text.parse::<Version>().ok()?.line));
    parsed.max().unwrap_or(Line::V3_5)
}

/// Checks a snapshot; returns what its user should know.
///
/// # Errors
/// Kind `Invalid` or `Corrupt`: it can not be restored here, and why.
pub(crate) fn check(facts: &Facts, cluster: Option<Id>, target: &Target) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let line = line_of(facts);
    if let Some(etcd) = target.line
        && line > etcd
    {
        return Err(Error::invalid(format!(
            "the snapshot is of etcd {line}, newer than the etcd {etcd} that is to run on it"
        ))
        .hint(match target.by {
            By::Run => "etcd itself would start on it and break: upgrade etcd first",
            By::Offline | By::Node => {
                "etcd itself would start on it and break: upgrade etcd first, and name it with --etcd"
            }
        }));
    }
    if facts.bytes > target.quota {
        return Err(Error::invalid(format!(
            "the snapshot's database of {} bytes is larger than etcd's quota of {} bytes",
            facts.bytes, target.quota
        ))
        .hint(match target.by {
            By::Run => "etcd would refuse writes: start it with a larger --quota-backend-bytes",
            By::Offline | By::Node => {
                "etcd would refuse writes: start it with a larger --quota-backend-bytes, and give the same number here"
            }
        }));
    }
    match target.lineage.knows(facts, cluster) {
        Some(true) => {}
        Some(false) if target.another_cluster => {
            notes.push("the snapshot is of another cluster, as was allowed".to_owned());
        }
        Some(false) => {
            let whose: Vec<String> = facts
                .members
                .iter()
                .map(|m| format!("{} at {}", m.name, m.peer_urls.join(",")))
                .collect();
            return Err(Error::invalid(format!(
                "the snapshot is of another cluster: its members are {}",
                whose.join("; ")
            ))
            .hint(match target.by {
                By::Run => ANOTHER_CLUSTER_HERE,
                By::Offline | By::Node => "add --another-cluster where this is what you want",
            }));
        }
        None => notes.push(
            "nothing here says which cluster this was: make sure that the snapshot is of it"
                .to_owned(),
        ),
    }
    if facts.alarms.iter().any(|alarm| alarm.kind == "CORRUPT") {
        return Err(Error::corrupt(
            "the snapshot carries etcd's own alarm CORRUPT: its member found its data to differ from the others'",
        )
        .hint("take another snapshot, of another member or from before"));
    }
    for alarm in &facts.alarms {
        notes.push(format!(
            "alarm {} comes along: etcd refuses writes until `etcdctl alarm disarm`",
            alarm.kind
        ));
    }
    if facts.auth_enabled {
        notes.push(
            "authentication is on: users, roles and passwords will be those of the snapshot"
                .to_owned(),
        );
    }
    if !facts.encryption_keys.is_empty() {
        notes.push(format!(
            "values are encrypted with {}: the API server needs these keys",
            facts.encryption_keys.join(", ")
        ));
    }
    Ok(notes)
}

/// Bytes that the new state needs beside the old one: the database, and the log that is built and the one etcd allocates when it starts.
pub(crate) fn needed(database: u64) -> u64 {
    database.saturating_add(2 * SEGMENT).saturating_add(SPARE)
}

/// Checks that a data dir has room; `more_room` says how its user makes some.
///
/// # Errors
/// Kind `Invalid`, with numbers.
pub(crate) fn check_space(
    database: u64,
    free: u64,
    place: &std::path::Path,
    more_room: &str,
) -> Result<()> {
    let needed = needed(database);
    if free >= needed {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "not enough space at {}: {needed} bytes are needed beside the old state (database {database}, two segments of the log {}), {free} are free",
        place.display(),
        2 * SEGMENT
    ))
    .hint(format!("{more_room}; nothing was changed")))
}

#[cfg(test)]
mod tests {
    use backup_core::etcd::{Alarm, Member};

    use super::*;

    fn facts() -> Facts {
        Facts {
            storage_version: Some("3.6.0".into()),
            cluster_version: Some("3.6.0".into()),
            bytes: 1000,
            members: vec![Member {
                id: "a".into(),
                name: "n1".into(),
                peer_urls: vec!["https://10.0.0.1:2380".into()],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn target() -> Target {
        Target {
            line: Some("3.6.0".parse::<Version>().unwrap().line),
            quota: 1000,
            lineage: Lineage {
                members: [Id(10)].into(),
                ..Default::default()
            },
            another_cluster: false,
            by: By::Offline,
        }
    }

    #[test]
    fn a_snapshot_of_this_cluster_fits() {
        assert_eq!(check(&facts(), None, &target()).unwrap(), [""; 0]);
    }

    #[test]
    fn a_newer_snapshot_is_refused_and_an_older_one_is_not() {
        let mut target = target();
        target.line = Some(Line::V3_5);
        let refused = check(&facts(), None, &target).unwrap_err();
        assert!(refused.to_string().contains("newer"), "{refused}");
        let mut old = facts();
        (old.storage_version, old.cluster_version) = (None, None);
        assert!(check(&old, None, &target).is_ok());
        old.cluster_version = Some("3.6.0".into());
        assert!(
            check(&old, None, &target).is_err(),
            "etcd 3.5 refuses it too"
        );
    }

    #[test]
    fn a_database_above_the_quota_is_refused() {
        let mut large = facts();
        large.bytes = 1001;
        let refused = check(&large, None, &target()).unwrap_err();
        assert!(refused.to_string().contains("1001"), "{refused}");
    }

    #[test]
    fn another_cluster_is_refused_by_its_members_and_not_by_a_new_cluster_id() {
        let mut other = facts();
        other.members[0].id = "b".into();
        assert!(check(&other, None, &target()).is_err());
        let mut allowed = target();
        allowed.another_cluster = true;
        assert_eq!(check(&other, None, &allowed).unwrap().len(), 1);
        let mut moved = target();
        moved.lineage.peer_urls = ["https://10.0.0.1:2380".to_owned()].into();
        assert!(check(&other, None, &moved).is_ok(), "the same host");
        let mut known = target();
        known.lineage.clusters = [Id(7)].into();
        assert!(check(&other, Some(Id(7)), &known).is_ok(), "its manifest");
        let mut fresh = target();
        fresh.lineage = Lineage::default();
        assert_eq!(check(&other, None, &fresh).unwrap().len(), 1, "a note");
    }

    #[test]
    fn who_asks_with_an_object_is_told_of_no_flag_of_a_command() {
        let (mut newer, mut large, mut other) = (facts(), facts(), facts());
        newer.storage_version = Some("3.7.0".into());
        large.bytes = 1001;
        other.members[0].id = "b".into();
        for (facts, flag) in [
            (newer, "--etcd"),
            (large, "same number here"),
            (other, "add --another-cluster"),
        ] {
            for (by, is_told) in [(By::Run, false), (By::Offline, true)] {
                let target = Target { by, ..target() };
                let refused = check(&facts, None, &target).unwrap_err();
                let hint = refused.hint_text().unwrap();
                assert_eq!(hint.contains(flag), is_told, "{hint}");
            }
        }
    }

    #[test]
    fn a_name_that_every_namespace_has_tells_no_cluster_from_another() {
        for everybodys in [
            "https://etcd-0.etcd:2380",
            "http://localhost:2380",
            "http://127.0.0.1:2380",
            "http://[::1]:2380",
            "http://0.0.0.0:2380",
            "unix://member:0",
            "nonsense",
            "http://",
        ] {
            assert!(!is_distinct(everybodys), "{everybodys}");
        }
        for own in [
            "https://etcd-0.etcd.cluster-xyz.svc:2380",
            "http://etcd-0.etcd.cluster-xyz.svc.cluster.local.:2380",
            "https://10.0.0.1:2380",
            "https://[fd00::1]:2380",
        ] {
            assert!(is_distinct(own), "{own}");
        }
        let mut target = target();
        target
            .lineage
            .add_urls(&["https://etcd-0.etcd:2380".to_owned()]);
        let mut other = facts();
        other.members[0].id = "b".into();
        other.members[0].peer_urls = vec!["https://etcd-0.etcd:2380".into()];
        assert!(check(&other, None, &target).is_err());
    }

    #[test]
    fn alarms_and_authentication_are_told_and_corruption_is_refused() {
        let mut armed = facts();
        armed.auth_enabled = true;
        armed.alarms.push(Alarm {
            member: "a".into(),
            kind: "NOSPACE".into(),
        });
        assert_eq!(check(&armed, None, &target()).unwrap().len(), 2);
        armed.alarms[0].kind = "CORRUPT".into();
        assert!(check(&armed, None, &target()).is_err());
    }

    #[test]
    fn too_little_space_is_told_in_numbers() {
        let place = std::path::Path::new("/d");
        assert!(check_space(1000, needed(1000), place, "").is_ok());
        let refused = check_space(1000, needed(1000) - 1, place, "free some").unwrap_err();
        assert!(refused.to_string().contains("144778216"), "{refused}");
        assert_eq!(refused.hint_text(), Some("free some; nothing was changed"));
    }
}
