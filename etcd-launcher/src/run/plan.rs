//! The plan: who takes part, with which ids, token and target revision. Pure; written into the attempt by compare-and-swap.

use std::collections::BTreeMap;

use backup_core::{Error, Result};

use super::records::{Attempt, Data, Former, PlannedMember, Report, Step, Voter};
use crate::restore::ids::{self, Peer};
use crate::restore::revision;

/// The old membership, once it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// All voters.
    pub(crate) voters: Vec<Voter>,
    /// What [`places`] gives.
    pub(crate) places: Vec<Voter>,
}

/// The voters on which all fit members agree, and whether etcd or a database named them (or only arguments did).
pub(crate) fn voters(fit: &BTreeMap<&str, &Report>) -> Result<(Vec<Voter>, bool), String> {
    let lists = |known: bool| {
        fit.iter().filter_map(move |(name, row)| {
            let fit = row.fit.as_ref()?;
            (fit.voters_known == known).then_some((*name, &fit.voters))
        })
    };
    let known = lists(true).next().is_some();
    let mut agreed: Option<(&str, Vec<Voter>)> = None;
    for (name, list) in lists(known) {
        let mut list = list.clone();
        list.sort();
        // A member that never started has no name, and others may know it already.
        let ids = |list: &[Voter]| {
            let mut ids: Vec<_> = list
                .iter()
                .map(|voter| (voter.id.clone(), voter.peer_urls.clone()))
                .collect();
            ids.sort();
            ids
        };
        match &agreed {
            Some((first, other)) if ids(other) != ids(&list) => {
                return Err(format!(
                    "members {first} and {name} know different memberships"
                ));
            }
            _ => agreed = Some((name, list)),
        }
    }
    Ok((agreed.map(|(_, list)| list).unwrap_or_default(), known))
}

/// The row of a voter, with its name: they share a peer URL.
pub(crate) fn row_of<'a>(
    voter: &Voter,
    fit: &BTreeMap<&'a str, &'a Report>,
) -> Option<(&'a str, &'a Report)> {
    fit.iter()
        .find(|(_, row)| {
            let urls = row.fit.as_ref().map(|fit| &fit.peer_urls);
            urls.is_some_and(|urls| urls.iter().any(|url| voter.peer_urls.contains(url)))
        })
        .map(|(name, row)| (*name, *row))
}

/// The places of the StatefulSet that no voter has: of members that an earlier restore left out, or that never started. Known where the arguments
/// of all fit members name the same members, as many as there are to be, and every voter among them.
///
/// # Errors
/// Where they do not: somebody scales it.
pub(crate) fn places(
    voters: &[Voter],
    fit: &BTreeMap<&str, &Report>,
    replicas: usize,
) -> Result<Vec<Voter>, String> {
    if voters.len() == replicas {
        return Ok(Vec::new());
    }
    let is_at = |voter: &Voter, place: &Voter| {
        let mut urls = voter.peer_urls.iter();
        urls.any(|url| place.peer_urls.contains(url))
    };
    let mut lists = fit
        .values()
        .filter_map(|row| Some(&row.fit.as_ref()?.named));
    let named = lists.next().cloned().unwrap_or_default();
    let open: Vec<Voter> = named
        .iter()
        .filter(|place| !voters.iter().any(|voter| is_at(voter, place)))
        .cloned()
        .collect();
    let agreed = lists.all(|list| *list == named)
        && named.len() == replicas
        && voters.len() + open.len() == replicas;
    agreed.then_some(open).ok_or_else(|| {
        format!(
            "etcd has {} members, and its StatefulSet is to have {replicas} (wait until it is scaled, then apply the restore again)",
            voters.len()
        )
    })
}

/// Whether the member of such a place takes part: it has no data, so there is no promise of it that it could break.
pub(crate) fn joins(place: &Voter, fit: &BTreeMap<&str, &Report>) -> bool {
    row_of(place, fit).is_some_and(|(_, row)| {
        let fit = row.fit.as_ref();
        fit.is_some_and(|fit| fit.before.data == Data::None)
    })
}

/// What a plan needs besides the rows.
pub(crate) struct Inputs<'a> {
    /// The attempt as it stands.
    pub(crate) attempt: &'a Attempt,
    /// Who votes.
    pub(crate) membership: &'a Membership,
    /// All rows that are fit at the decision that stands.
    pub(crate) fit: &'a BTreeMap<&'a str, &'a Report>,
    /// A new one, random.
    pub(crate) token: String,
    /// Greatest target revision of earlier attempts, and other marks.
    pub(crate) marks: Vec<i64>,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// Plans: the attempt with all that is fixed for good.
///
/// # Errors
/// Where the members do not agree on the snapshot or on etcd's version, or no target revision is left.
pub(crate) fn plan(inputs: &Inputs<'_>) -> Result<Attempt> {
    let Inputs {
        attempt,
        membership,
        fit,
        ..
    } = inputs;
    let mut members = Vec::new();
    let mut absent = Vec::new();
    let (mut leader, mut version) = (None, None);
    let mut snapshot = None;
    let mut old_cluster: Option<(&str, &str)> = None;
    let mut marks = inputs.marks.clone();
    let places = membership.places.iter();
    let all = membership.voters.iter().map(|voter| (voter, true));
    for (voter, votes) in all.chain(places.map(|place| (place, false))) {
        let row = row_of(voter, fit).filter(|_| votes || joins(voter, fit));
        let Some((name, row)) = row else {
            absent.push(if voter.name.is_empty() {
                voter.peer_urls.join(",")
            } else {
                voter.name.clone()
            });
            continue;
        };
        let Some(found) = &row.fit else { continue };
        same(
            &mut version,
            &found.etcd_version,
            "different versions of etcd",
        )?;
        same(
            &mut snapshot,
            &found.snapshot,
            "different snapshots under one name",
        )?;
        if !row.cluster_id.is_empty() {
            match old_cluster {
                Some((first, id)) if id != row.cluster_id => {
                    return Err(Error::invalid(format!(
                        "members {first} and {name} hold different clusters"
                    )));
                }
                _ => old_cluster = Some((name, &row.cluster_id)),
            }
        }
        if found.leads {
            leader = Some(name.to_owned());
        }
        marks.extend([found.mark, found.snapshot.revision]);
        members.push(PlannedMember {
            name: name.to_owned(),
            peer_urls: found.peer_urls.clone(),
            old_member_id: found.member_id.clone(),
            new_member_id: String::new(),
            before: found.before,
        });
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let peers: Vec<Peer> = members
        .iter()
        .map(|member| Peer {
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
        })
        .collect();
    for (member, peer) in members.iter_mut().zip(&peers) {
        member.new_member_id = peer.id(&inputs.token).to_string();
    }
    let last = leader.or_else(|| members.last().map(|member| member.name.clone()));
    let mut order: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
    if let Some(last) = last {
        order.retain(|name| *name != last);
        order.push(last);
    }
    let snapshot = snapshot
        .cloned()
        .ok_or_else(|| Error::other("no member takes part"))?;
    let target_revision = revision::target(&marks, inputs.now_ms)?;
    revision::bump(target_revision, snapshot.revision)?;
    Ok(Attempt {
        step: Some(Step::Planned),
        snapshot: Some(snapshot),
        voters: membership.voters.clone(),
        absent,
        etcd_version: version.cloned().unwrap_or_default(),
        old_cluster_id: old_cluster.map(|(_, id)| id.to_owned()).unwrap_or_default(),
        new_cluster_id: ids::cluster_id(&peers, &inputs.token).to_string(),
        token: inputs.token.clone(),
        target_revision,
        order,
        members,
        former: None::<Former>,
        ..(*attempt).clone()
    })
}

fn same<'a, T: PartialEq>(seen: &mut Option<&'a T>, value: &'a T, what: &str) -> Result<()> {
    match seen {
        Some(seen) if *seen != value => Err(Error::invalid(format!("the members have {what}"))),
        _ => {
            *seen = Some(value);
            Ok(())
        }
    }
}
