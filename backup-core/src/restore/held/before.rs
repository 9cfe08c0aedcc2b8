//! Looked up before anything is made: that every snapshot is there, that its key opens, and that it is the one which the backup made. And who uses the claims.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::choose::{Choice, Data, Key, choose};
use super::users::{Claims, User};
use super::{Item, VolumeOptions};
use crate::archive::read::{Archive, Source};
use crate::crypt::Recipients;
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::location::Store;
use crate::restore::bodies::Bodies;
use crate::restore::gather::{self, Survey};
use crate::restore::rewrite::{Rewrite, Side};
use crate::volume::VolumeStore;
use crate::volume::key::{KeptInMemory, Keyring};

/// Repositories that are looked at, at a time.
const AT_A_TIME: usize = 4;

/// What makes pods, those first that know most of where they run.
const MAKERS: [&str; 8] = [
    "pods",
    "statefulsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "daemonsets.apps",
    "replicationcontrollers",
    "jobs.batch",
    "cronjobs.batch",
];

/// What is known before anything is made.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    /// By namespace and name in the backup.
    pub(in super::super) claims: BTreeMap<Key, Choice>,
    pub(in super::super) users: Vec<User>,
}

impl Found {
    /// The claim of the backup, where its data is to come back.
    pub(in super::super) fn choice(&self, namespace: Option<&str>, name: &str) -> Option<&Choice> {
        if self.claims.is_empty() {
            return None;
        }
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.claims.get(&key)
    }

    /// Jobs that may not take as long as their data takes to come, of these claims.
    pub(in super::super) fn hurried(&self, items: &[Item]) -> Vec<String> {
        let named = items.iter();
        let named = named.map(|item| (item.aim.namespace.as_str(), item.aim.claim.as_str()));
        let claims = Claims::new(named);
        let hurried = self.users.iter().filter_map(|user| {
            let seconds = user.deadline?;
            let (place, _) = claims.of(user).into_iter().next()?;
            let item = items.get(place)?;
            Some(format!(
                "{} ends {seconds} s after it begins (activeDeadlineSeconds), and its claim {} is bound only when its data is there",
                user.name, item.aim.claim
            ))
        });
        hurried.collect()
    }
}

/// Finds out what is to be held, and looks up that it is there.
///
/// # Errors
/// The store's and the archive's; what is wrong with one claim is its [`Choice`].
pub(in super::super) async fn find<S: Source>(
    archive: &Archive<S>,
    filter: &Filter,
    survey: &Survey,
    rewrite: &Rewrite,
    store: &Store,
    options: &VolumeOptions,
) -> Result<Found> {
    let Some(copies) = &survey.volumes.copies else {
        return Ok(Found::default());
    };
    let chosen = choose(copies, &survey.volumes.uids);
    let looking = chosen.into_iter().map(|(key, choice)| async move {
        let choice = match choice {
            Choice::Hold(data) => match look_up(store, options, &data).await {
                Ok(()) => Choice::Hold(data),
                // Nothing can be said of any.
                Err(e) if e.kind() == Kind::Unreachable => return Err(e),
                Err(e) => Choice::Refuse(e.sentence()),
            },
            refused => refused,
        };
        Ok((key, choice))
    });
    let claims: Vec<Result<_>> = stream::iter(looking).buffered(AT_A_TIME).collect().await;
    let claims: BTreeMap<Key, Choice> = claims.into_iter().collect::<Result<_>>()?;
    if claims.is_empty() {
        return Ok(Found::default());
    }
    let named = claims.keys();
    let named = named.map(|(namespace, name)| (rewrite.namespace(namespace), name.as_str()));
    let by_name = Claims::new(named);
    // Of others nothing is kept.
    let uses = |user: &User| !by_name.of(user).is_empty();
    let users = users(archive, filter, survey, rewrite, uses).await?;
    Ok(Found { claims, users })
}

/// Looks up one snapshot.
async fn look_up(store: &Store, options: &VolumeOptions, data: &Data) -> Result<()> {
    let (cache, recipients) = (KeptInMemory::default(), Recipients::default());
    let ring = Keyring {
        recipients: &recipients,
        passphrase: None,
        identities: &options.identities,
        cache: &cache,
    };
    let (number, id) = (data.copy.repository, &data.copy.snapshot);
    let all = VolumeStore::new(store, &data.place)
        .list(number, &ring)
        .await?;
    let at = data.place.repository();
    let snapshot = all.iter().find(|snapshot| snapshot.id == *id);
    let snapshot = snapshot.ok_or_else(|| {
        Error::not_found(format!("snapshot {id} is not in {at}"))
            .hint("somebody removed it; another backup of the claim may have one")
    })?;
    let wanted = [
        format!("backup-uid={}", data.backup_uid),
        format!("run={}", data.copy.run),
    ];
    match wanted.iter().find(|tag| !snapshot.tags.contains(*tag)) {
        None => Ok(()),
        Some(tag) => Err(Error::corrupt(format!(
            "snapshot {id} in {at} is not of this backup: it has no tag {tag}"
        ))),
    }
}

/// Who of the backup uses claims.
async fn users<S: Source>(
    archive: &Archive<S>,
    filter: &Filter,
    survey: &Survey,
    rewrite: &Rewrite,
    wanted: impl Fn(&User) -> bool,
) -> Result<Vec<User>> {
    let mut users = Vec::new();
    for name in MAKERS {
        for resource in survey
            .resources
            .iter()
            .filter(|resource| resource.name == name)
        {
            for frame in &resource.frames {
                let rows = gather::rows(archive, filter, resource, *frame).await?;
                let mut bodies = Bodies::new(archive, rows);
                while let Some((_, object)) = bodies.next().await {
                    let shaped = object.and_then(|object| {
                        let shaped = rewrite.shape(name, &object.body, Side::Backup)?;
                        serde_json::from_slice::<Value>(&shaped.object.to_vec())
                            .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))
                    });
                    match shaped {
                        Ok(object) => users.extend(User::read(&object).filter(&wanted)),
                        // Named when it should be created.
                        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
        }
    }
    Ok(users)
}
