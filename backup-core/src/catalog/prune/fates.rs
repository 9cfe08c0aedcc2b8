//! Which backups go and for whose sake, by one reading of the bucket: the rule is [`keep`]'s; here is what it is told, and what is lost counts for nobody. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::super::keep::{self, Fate, Group, Id, Keep, Row};
use super::super::{AT_A_TIME, find_one, is_ours, is_there, read_all};
use super::{Longer, Stores};
use crate::error::{Kind, Result};
use crate::layout::BackupKeys;
use crate::retention::State;
use crate::snapshot::known::Known;

/// A row with the later one of two expirations.
pub(super) fn lengthened(row: &Row, longer: Option<Longer<'_>>) -> Row {
    let longer = longer.and_then(|Longer(asked)| asked(&row.id.name));
    Row {
        expiration: row
            .expiration
            .map(|end| longer.map_or(end, |longer| end.max(longer))),
        ..row.clone()
    }
}

/// The fates, and whose files are lost: such a one is counted as one that is not finished, for it can not be restored.
pub(in crate::catalog) async fn fates(
    stores: &Stores,
    rows: &[Row],
    cuts: &Known,
    keep: Keep<'_>,
    schedule: Option<&str>,
    now: Timestamp,
) -> Result<(BTreeMap<Id, Fate>, BTreeSet<Id>)> {
    let mut counted = rows.to_vec();
    let mut seen = BTreeSet::new();
    let torn: Vec<_> = rows
        .iter()
        .filter(|row| cuts.is_torn(&row.id.name, row.started))
        .collect();
    let mut lost: BTreeSet<Id> = torn.iter().map(|row| row.id.clone()).collect();
    for row in counted.iter_mut().filter(|row| lost.contains(&row.id)) {
        row.state = State::Open;
    }
    loop {
        let mut fates = keep::fates(&counted, keep, schedule, now);
        // It counts for no other, and what began with it goes on: as if it alone of its like counted.
        for row in &torn {
            let with_it: Vec<_> = counted
                .iter()
                .map(|other| match other.id == row.id {
                    true => (*row).clone(),
                    false => other.clone(),
                })
                .collect();
            if let Some(fate) = keep::fates(&with_it, keep, schedule, now).get(&row.id) {
                fates.insert(row.id.clone(), *fate);
            }
        }
        let mut leaned = keep::leaned_on(&counted, &fates);
        leaned.retain(|id| seen.insert(id.clone()));
        if leaned.is_empty() {
            return Ok((fates, lost));
        }
        let leaned = counted.iter().filter(|row| leaned.contains(&row.id));
        let leaned: Vec<_> = leaned.map(|row| (row.id.clone(), row.apart)).collect();
        let whole = read_all(leaned, |(id, apart)| async move {
            let (store, keys) = (stores.of(id.encrypted), BackupKeys::new(&id.name));
            let whole = is_there(store, &keys.archive()).await?
                && is_there(store, &keys.index()).await?
                && has_key(stores, &id, apart).await?;
            Ok((id, whole))
        });
        for (id, whole) in whole.await? {
            if !whole {
                lost.insert(id);
            }
        }
        for row in counted.iter_mut().filter(|row| lost.contains(&row.id)) {
            row.state = State::Open;
        }
    }
}

/// What is known of the backups that stand and are ours. A marker that can not be read is of none.
pub(in crate::catalog) async fn rows(stores: &Stores, ids: &[Id]) -> Result<Vec<Row>> {
    let mut read = stream::iter(ids.to_vec())
        .map(|id| async move { find_one(stores.of(id.encrypted), &id.name).await })
        .buffer_unordered(AT_A_TIME);
    let mut rows = Vec::new();
    while let Some(entry) = read.next().await {
        match entry {
            Ok(entry) => rows.extend(entry.as_ref().and_then(Row::of)),
            // One that can not be read is nobody's, and does not keep the others.
            Err(e) if !matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized) => {}
            Err(e) => return Err(e),
        }
    }
    // Of two of one second the name decides, every time alike.
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(rows)
}

/// Of each schedule and cluster as many as are kept, and without such a number the newest, of those that stay: when they are gone, so may not be what went
/// for their sake.
pub(super) fn leaned(
    rows: &[Row],
    counted: &[Row],
    fates: &BTreeMap<Id, Fate>,
    keep: Keep<'_>,
) -> BTreeMap<Group, Vec<Row>> {
    let ids: BTreeSet<_> = keep::leaned_on(counted, fates).into_iter().collect();
    let mut leaned: BTreeMap<Group, Vec<Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| ids.contains(&row.id)) {
        if let Some(of) = &row.of {
            leaned.entry(of.clone()).or_default().push(row.clone());
        }
    }
    for ((schedule, _), group) in &mut leaned {
        // The good ones first, of these the newest.
        group.sort_by_key(|row| (row.state != State::Good, std::cmp::Reverse(row.started)));
        group.truncate(keep.of(schedule).unwrap_or(1).max(1));
    }
    leaned
}

/// Whether the backup is what it was when its fate was decided, and ours with all that makes it so.
pub(super) async fn still_stands(stores: &Stores, row: &Row) -> Result<bool> {
    let store = stores.of(row.id.encrypted);
    let entry = match find_one(store, &row.id.name).await {
        Err(e) if e.kind() == Kind::Corrupt => return Ok(false),
        entry => entry?,
    };
    match entry {
        Some(entry) if Row::of(&entry).as_ref() == Some(row) => is_ours(store, &entry).await,
        _ => Ok(false),
    }
}

/// Whether the files are there without which nobody opens what is encrypted of a backup, whoever has the identity: a lost key is all that is lost with it.
pub(super) async fn has_key(stores: &Stores, id: &Id, apart: bool) -> Result<bool> {
    let (store, keys) = (stores.of(id.encrypted), BackupKeys::new(&id.name));
    if id.encrypted {
        return is_there(store, &keys.key()).await;
    }
    if !apart {
        return Ok(true);
    }
    for key in [
        keys.secrets_key(),
        keys.secrets_archive(),
        keys.secrets_index(),
    ] {
        if !is_there(store, &key).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
