//! What runs left that died: found by the inventories of this location. Only objects of these runs are touched, by their names, labels and what they say of each other; and once an inventory is
//! sealed no snapshot that it has goes.

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::drive::{Api, GOES, Place, never};
use super::inventory::{self, Inventory, State};
use super::objects::{At, Content, LOCATION, RUN, Whose};
use super::step::Goal;
use crate::catalog::store_time;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::location::claim::may_write;
use crate::location::store::is_absent;
use crate::name::Name;

/// Snapshots that are seen to beside each other.
const AT_A_TIME: usize = 8;

/// Sees to what dead runs left in this cluster; what could not be done comes back, a sentence each.
///
/// # Errors
/// The store's and the cluster's, where nothing can be done at all.
pub(crate) async fn clear(cluster: &Cluster, store: &Store, identity: &str) -> Result<Vec<String>> {
    let place = inventory::place(store);
    // Those that can not be read are told by whoever looks for orphans.
    let mut open = inventory::list(store).await?.all;
    open.retain(|one| {
        let is_open = matches!(one.state, State::Noted | State::Removing | State::Sealed);
        is_open && one.cluster == identity && one.place == place
    });
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let now = store_time(&store.outside()).await?;
    let api = Api::new(cluster);
    let mut told = Vec::new();
    for one in open {
        if is_alive(store, &one, now).await? {
            continue;
        }
        let backup = one.backup.clone();
        if let Err(e) = clear_one(&api, store, one).await {
            told.push(format!(
                "what a run of backup {backup} left of snapshots could not be seen to: {}",
                e.sentence()
            ));
        }
    }
    Ok(told)
}

/// Whether the run may still write: its fence falls before its claim counts as dead.
pub(super) async fn is_alive(store: &Store, one: &Inventory, now: Timestamp) -> Result<bool> {
    let Ok(name) = Name::foreign(&one.backup) else {
        return Ok(false);
    };
    let claim = BackupKeys::new(&name).claim(&one.run);
    // The same backup, encrypted or not.
    for place in [store.outside(), store.vault(None)] {
        match place.head(&claim).await {
            Ok(claim) if may_write(&claim, now) => return Ok(true),
            Ok(_) => {}
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

async fn clear_one(api: &Api, store: &Store, mut one: Inventory) -> Result<()> {
    if one.state == State::Noted {
        // Before the first is taken away: whoever seals it from now on has lost it.
        one.state = State::Removing;
        one.put(store).await?;
    }
    objects(api, &one).await?;
    match one.state {
        State::Sealed => {
            one.state = State::Left;
            one.put(store).await
        }
        _ => one.remove(store).await,
    }
}

/// Takes away all objects of a run that is dead.
///
/// # Errors
/// Why one is there still.
pub(super) async fn objects(api: &Api, of: &Inventory) -> Result<()> {
    let whose = Whose {
        run: of.run.clone(),
        place: of.place.clone(),
    };
    let places = places(api, &whose).await?;
    let all = stream::iter(places).map(|place| see_to(api, of, place));
    let all: Vec<Result<()>> = all.buffer_unordered(AT_A_TIME).collect().await;
    all.into_iter().collect()
}

/// Takes away the objects of one; its snapshot stays where the inventory is sealed and has it.
async fn see_to(api: &Api, of: &Inventory, mut place: Place) -> Result<()> {
    let live = api.look(&mut place).await?;
    let is_kept = |content: &Content| {
        let handle = content.handle.as_deref();
        let is_known = matches!(of.state, State::Sealed | State::Expiring);
        is_known && handle.is_some_and(|handle| of.has(&content.driver, handle))
    };
    let goal = match live.content.as_ref().is_some_and(is_kept) {
        true => Goal::Left,
        false => Goal::Removed,
    };
    let until = Instant::now() + GOES;
    api.drive(&mut place, &goal, until, &never())
        .await
        .map(drop)
}

/// Where the objects of a run are: its VolumeSnapshots, and contents of such whose VolumeSnapshot is not there any more.
async fn places(api: &Api, whose: &Whose) -> Result<Vec<Place>> {
    let prefix = whose.prefix();
    let mut places = Vec::new();
    for object in api.labelled(RUN).await? {
        let at = At {
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        };
        let labels = &object["metadata"]["labels"];
        let is_own = labels[RUN] == whose.run.as_str() && labels[LOCATION] == whose.place.as_str();
        // A label alone is anybody's.
        let is_made = object["spec"]["source"]["persistentVolumeClaimName"].is_string();
        if is_own && is_made && at.name.starts_with(&prefix) {
            let uid = text(&object["metadata"]["uid"]);
            // It may be gone at the next look.
            places.push(Place {
                at: Some(at),
                content: Some(format!("snapcontent-{uid}")),
                uid: Some(uid),
            });
        }
    }
    // One that was killed before its label was written is known by whom it is of.
    let of_run = |content: &Content| {
        let of = content
            .of
            .as_ref()
            .filter(|of| of.name.starts_with(&prefix));
        let made = content
            .of_uid
            .as_ref()
            .map(|uid| format!("snapcontent-{uid}"));
        let is_ours = content.whose.as_ref().is_none_or(|its| its == whose);
        of.is_some() && made.as_ref() == Some(&content.name) && is_ours
    };
    for content in api.contents(of_run).await? {
        if places.iter().all(|place| place.at != content.of) {
            places.push(Place {
                at: content.of,
                uid: content.of_uid,
                content: Some(content.name),
            });
        }
    }
    Ok(places)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
