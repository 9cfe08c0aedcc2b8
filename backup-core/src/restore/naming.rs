//! A restore's name, and the digest of everything that decides what it does: by it an unfinished one is found again.

use serde_json::json;

use super::journal::{self, Earlier};
use super::open::marker;
use super::place::Place;
use super::{ExistingPolicy, RestoreOptions, rewrite};
use crate::api::{LabelSelector, RestoreSpec};
use crate::cluster::Cluster;
use crate::crypt::Encrypt;
use crate::error::{Error, Kind, Result};
use crate::location::{Location, Store};
use crate::name::Name;

/// Decides the restore's name before anything is done: a given one, the unfinished one of equal options, or a new one. Tells whether it goes on.
///
/// # Errors
/// `Invalid`, when the given name belongs to a restore of other options.
pub async fn decide_name(
    cluster: &Cluster,
    location: &Location,
    options: &RestoreOptions,
) -> Result<(Name, bool)> {
    options.validate()?;
    let hash = options_hash(cluster, &location.store, options).await?;
    choose_name(&places(location, options), options, &hash).await
}

pub(super) async fn choose_name(
    places: &[Place],
    options: &RestoreOptions,
    hash: &str,
) -> Result<(Name, bool)> {
    match &options.name {
        Some(name) => match journal::earlier(places, name).await? {
            Some(earlier) if earlier.options_hash != hash => Err(other_options(&earlier)),
            earlier => Ok((name.clone(), earlier.is_some())),
        },
        None => match journal::unfinished(places, hash).await? {
            Some(earlier) => Ok((earlier.name, true)),
            None => Ok((fresh_name(places, options).await?, false)),
        },
    }
}

pub(super) fn other_options(earlier: &Earlier) -> Error {
    Error::invalid(format!(
        "restore {} of {} had other options, another backup or another cluster",
        earlier.name, earlier.started
    ))
    .hint(
        "give this restore another name, or none; to go on with the earlier one repeat its options",
    )
}

/// `<backup>-<time>`, as Velero makes it; with a number where that is taken.
pub(super) async fn fresh_name(places: &[Place], options: &RestoreOptions) -> Result<Name> {
    let time = options.now.strftime("%Y%m%d%H%M%S").to_string();
    let mut stem = options.backup.as_str();
    if stem.len() > 44 {
        stem = stem.get(..44).unwrap_or(stem);
    }
    let stem = stem.trim_end_matches(['-', '.']);
    for number in 1..100 {
        let name = match number {
            1 => format!("{stem}-{time}"),
            n => format!("{stem}-{time}-{n}"),
        };
        let name: Name = name.parse()?;
        match journal::earlier(places, &name).await {
            Ok(None) => return Ok(name),
            Err(e) if e.kind() != Kind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    Err(Error::new(
        Kind::AlreadyExists,
        "no free name was found for this restore",
    )
    .hint("give it a name"))
}

/// Where the journal may be; a new one is begun in the first that takes writes. Whoever may write to a bucket may write a journal there, and what it maps
/// or keeps would be restored: where only what is signed counts, or what was encrypted, none is read from there.
pub(super) fn places(location: &Location, options: &RestoreOptions) -> Vec<Place> {
    let folder = Place::Folder(options.state_dir.clone());
    if in_folder_alone(location, options) {
        return vec![folder];
    }
    vec![Place::Store(location.store.clone()), folder]
}

/// Whether the record of a restore is neither read from the location nor written there, whether or not that takes writes: where only what is signed counts,
/// where what is restored is encrypted there, and where objects that are deleted, Secrets among them, would be kept in the clear in a location that encrypts.
pub(super) fn in_folder_alone(location: &Location, options: &RestoreOptions) -> bool {
    let keeps = matches!(options.existing, ExistingPolicy::Recreate);
    let encrypts = || !matches!(Encrypt::of_location(&location.spec), Ok(None));
    location.asks_for_signatures()
        || location.apart.is_some()
        || location.store.is_vault()
        || (keeps && encrypts())
}

/// What was asked for, as a Restore says it.
pub fn spec(options: &RestoreOptions) -> RestoreSpec {
    let filter = &options.filter;
    let all = |list: &[Vec<String>]| list.concat();
    let mut selectors: Vec<LabelSelector> = filter.selectors.iter().map(|s| s.0.clone()).collect();
    let single = if selectors.len() == 1 {
        selectors.pop()
    } else {
        None
    };
    let mut spec = RestoreSpec {
        backup_name: options.backup.to_string(),
        included_namespaces: filter.namespaces.clone(),
        excluded_namespaces: filter.not_namespaces.clone(),
        included_resources: all(&[
            filter.resources.clone(),
            filter.cluster_resources.clone(),
            filter.namespaced_resources.clone(),
        ]),
        excluded_resources: all(&[
            filter.not_resources.clone(),
            filter.not_cluster_resources.clone(),
            filter.not_namespaced_resources.clone(),
        ]),
        namespace_mapping: options.namespace_mappings.clone(),
        label_selector: single,
        or_label_selectors: selectors,
        include_cluster_resources: filter.include_cluster_resources,
        existing_resource_policy: match options.existing {
            ExistingPolicy::None => None,
            // Velero knows no other word; ours stands in an annotation.
            _ => Some("update".to_owned()),
        },
        preserve_node_ports: options.preserve_node_ports.then_some(true),
        ..RestoreSpec::default()
    };
    if let Some(wanted) = options.restore_volumes {
        spec.rest.insert("restorePVs".into(), json!(wanted));
    }
    if let Some(adopt) = options.adopt_volumes {
        spec.rest.insert("adoptVolumes".into(), json!(adopt));
    }
    if !filter.objects.is_empty() {
        spec.rest.insert("objects".into(), json!(filter.objects));
    }
    if spec.included_namespaces.is_empty() {
        spec.included_namespaces.push("*".to_owned());
    }
    let asks = options.hooks["resources"].as_array();
    if asks.is_some_and(|hooks| !hooks.is_empty()) {
        spec.rest.insert("hooks".into(), options.hooks.clone());
    }
    spec.rest.extend(options.rewriting.record());
    spec
}

/// Digest of everything that decides what is restored, and where. Fields may be added, never renamed: unfinished restores would be forgotten.
pub(super) async fn options_hash(
    cluster: &Cluster,
    store: &Store,
    options: &RestoreOptions,
) -> Result<String> {
    let marker = marker(store, &options.backup).await?;
    let target = match cluster.identity().await? {
        Some(uid) => uid,
        None => cluster.server().to_owned(),
    };
    Ok(hash_of(&marker, &target, options))
}

pub(super) fn hash_of(marker: &[u8], target: &str, options: &RestoreOptions) -> String {
    let filter = &options.filter;
    let mut text = json!({
        "backup": options.backup.as_str(),
        "marker": rewrite::sha256(marker),
        "target": target,
        "spec": spec(options),
        "scoped": [filter.cluster_resources, filter.not_cluster_resources,
            filter.namespaced_resources, filter.not_namespaced_resources],
        "skipNoise": filter.skip_noise,
    });
    // What Velero has no word for, the spec does not tell.
    if let ExistingPolicy::Recreate | ExistingPolicy::Apply { .. } = options.existing {
        text["policy"] = json!(format!("{:?}", options.existing));
    }
    rewrite::sha256(text.to_string().as_bytes())
}
