//! One restore from its beginning, or from where its journal stopped, to its end.

use std::sync::Arc;

use backup_core::Kind;
use backup_core::api::Restore;
use backup_core::crypt::Identities;
use backup_core::error::{Error, Result};
use backup_core::filter::{Filter, Selector, one_selector};
use backup_core::name::Name;
use backup_core::restore::rewriting::{self, Rewriting, StatusKinds};
use backup_core::restore::{self, ExistingPolicy, RestoreOptions, VolumeOptions};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{ATTEMPTS, RUN, Step, WAITS, attempts, failed, give_up, hindered, refuse, wait};
use crate::controller::desk::Desk;
use crate::controller::locations;
use crate::controller::objects::{Written, bounded, decode, name, phase, time, uid};
use crate::controller::telling::{Count, Telling, end};
use crate::copies::CopyArgs;

/// Requests at a time.
const CONCURRENCY: usize = 32;

/// Annotation of a Restore: whether volumes are made on disks that they had in another cluster.
const ADOPT_VOLUMES: &str = "kubectl-backup/adopt-volumes";

/// The options that an object asks for.
///
/// # Errors
/// What can not be understood.
pub(super) fn options(
    restore: &Restore,
    backup: &str,
    rewriting: Rewriting,
    now: Timestamp,
) -> Result<RestoreOptions> {
    let spec = &restore.spec;
    one_selector(spec.label_selector.as_ref(), &spec.or_label_selectors)?;
    let selectors = spec.label_selector.iter().chain(&spec.or_label_selectors);
    let existing = match spec.existing_resource_policy.as_deref() {
        None | Some("" | "none") => ExistingPolicy::None,
        Some("update") => ExistingPolicy::Update,
        Some(other) => {
            return Err(Error::invalid(format!(
                "spec.existingResourcePolicy {other:?} is neither none nor update"
            )));
        }
    };
    Ok(RestoreOptions {
        name: Some(Name::foreign(&restore.metadata.name)?),
        backup: Name::foreign(backup)?,
        filter: Filter {
            namespaces: spec.included_namespaces.clone(),
            not_namespaces: spec.excluded_namespaces.clone(),
            resources: spec.included_resources.clone(),
            not_resources: spec.excluded_resources.clone(),
            include_cluster_resources: spec.include_cluster_resources,
            selectors: selectors.cloned().map(Selector).collect(),
            ..Filter::default()
        },
        namespace_mappings: spec.namespace_mapping.clone(),
        existing,
        preserve_node_ports: spec.preserve_node_ports == Some(true),
        adopt_volumes: adopt(restore)?,
        rewriting,
        of_target: Rewriting::default(),
        hooks: spec.rest.get("hooks").cloned().unwrap_or_default(),
        restore_volumes: spec.rest.get("restorePVs").and_then(Value::as_bool),
        // Who has no identity opens the keys of locations without recipients.
        volumes: VolumeOptions {
            mover: CopyArgs::default().movers(),
            identities: Identities::default(),
        },
        spool_dir: std::path::PathBuf::new(),
        state_dir: std::path::PathBuf::new(),
        concurrency: CONCURRENCY,
        now,
    })
}

/// Velero's definition has no field for it.
fn adopt(restore: &Restore) -> Result<Option<bool>> {
    let said = restore.metadata.annotations.get(ADOPT_VOLUMES);
    said.map(|word| {
        word.parse().map_err(|_| {
            Error::invalid(format!(
                "annotation {ADOPT_VOLUMES} {word:?} is neither true nor false"
            ))
        })
    })
    .transpose()
}

/// What is changed on the way, as the spec says.
async fn rewriting(desk: &Desk, restore: &Restore) -> Result<Rewriting> {
    let rest = &restore.spec.rest;
    let mut asked = Rewriting::default();
    if let Some(modifier) = rest
        .get("resourceModifier")
        .filter(|modifier| !modifier.is_null())
    {
        let name = modifier["name"].as_str().unwrap_or_default();
        let found = rewriting::modifiers_of_cluster(&desk.cluster, &desk.settings.namespace, name);
        asked = found.await?.rewriting;
    }
    if let Some(status) = rest.get("restoreStatus").filter(|status| !status.is_null()) {
        let list = |key: &str| {
            let list = status[key].as_array().into_iter().flatten();
            list.filter_map(|kind| kind.as_str().map(str::to_owned))
                .collect()
        };
        asked.status = Some(StatusKinds {
            included: list("includedResources"),
            excluded: list("excludedResources"),
        });
    }
    Ok(asked)
}

/// Restores, or goes on with it.
pub(super) async fn begin(
    desk: Arc<Desk>,
    object: Arc<Value>,
    backup: String,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let wanted: Restore = decode(&object).map_err(Error::invalid)?;
    let changed = match rewriting(&desk, &wanted).await {
        Ok(changed) => changed,
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Invalid) => {
            let why = bounded(&e.sentence());
            if phase(&object) != "InProgress" {
                return refuse(desk, object, vec![why]).await;
            }
            return match hindered(&object, why, desk.now()) {
                Some(Step::GiveUp(why)) => give_up(desk, object, why).await,
                Some(Step::Wait(why)) => wait(desk, object, why).await,
                _ => Err(e),
            };
        }
        Err(e) => return Err(e),
    };
    // An equal time makes an equal restore, whoever goes on with it.
    let began = time(&object, "/status/startTimestamp").unwrap_or_else(|| desk.now());
    let asked = RestoreOptions {
        of_target: rewriting::of_cluster(&desk.cluster, &desk.settings.namespace)
            .await?
            .rewriting,
        volumes: VolumeOptions {
            mover: desk.settings.copies.movers(),
            identities: Identities::default(),
        },
        spool_dir: desk.settings.spool_dir.clone(),
        state_dir: desk.settings.state_dir.clone(),
        ..options(&wanted, &backup, changed, began)?
    };
    let attempt = format!("{}.{}", desk.run, uid(&object));
    let patch = json!({
        "metadata": {"annotations": {
            RUN: attempt, ATTEMPTS: (attempts(&object) + 1).to_string(), WAITS: null,
        }},
        "spec": {"backupName": backup},
        "status": {"phase": "InProgress", "startTimestamp": format!("{began:.0}")},
    });
    if desk.restores.decide(&object, patch).await? == Written::Changed {
        return Ok(());
    }
    desk.ui.note(&format!(
        "restore {} begins, of backup {backup}",
        name(&object)
    ));
    let count = Arc::new(Count::default());
    let telling = Telling::begin(
        &desk,
        |desk| &desk.restores,
        &object,
        &count,
        "itemsRestored",
    );
    let done = carry_out(&desk, &asked, stopped, &count).await;
    telling.end().await;
    let patch = match done {
        Ok(restored) => {
            desk.ui.note(&format!(
                "restore {}: {}",
                name(&object),
                restored.status.phase
            ));
            json!({"status": restored.status})
        }
        // The next controller goes on with it, and this was no failure of it.
        Err(e) if e.kind() == Kind::Interrupted => {
            json!({"metadata": {"annotations": {ATTEMPTS: attempts(&object).to_string()}}})
        }
        Err(e) => {
            desk.ui
                .warn(&format!("restore {}: {}", name(&object), e.sentence()));
            failed(&desk, &e.sentence())
        }
    };
    end(&desk, |desk| &desk.restores, &object, &attempt, &patch).await
}

async fn carry_out(
    desk: &Desk,
    asked: &RestoreOptions,
    stopped: watch::Receiver<bool>,
    count: &Count,
) -> Result<Restore> {
    let place = desk.backups.get(asked.backup.as_str());
    let place =
        place.ok_or_else(|| Error::not_found(format!("backup {} is gone", asked.backup)))?;
    let place = place["spec"]["storageLocation"]
        .as_str()
        .unwrap_or_default();
    let location = locations::open_named(desk, place).await?;
    let (title, _) = restore::decide_name(&desk.cluster, &location, asked).await?;
    let mut consent = |lacks: &[restore::Lack]| {
        for lack in lacks.iter().take(20) {
            desk.ui
                .warn(&format!("restore {title}: the target lacks {lack}"));
        }
        Ok(stopped.clone())
    };
    let report = restore::restore(&desk.cluster, &location, &title, asked, &mut consent, count);
    Ok(report.await?.restore)
}
