//! Which of a volume's repositories a backup adds to, and how another one is begun: its key first, read back, then its configuration, alone. Nothing that stands is
//! written over, whatever a listing says: each key is asked for by its name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use super::key::{Keyring, Password};
use super::repository::{Access, Objects, Open, Unlocked};
use crate::error::{Error, Kind, Result};
use crate::layout::VolumeKeys;
use crate::location::Store;
use crate::location::claim::{Purpose, SharedClaim};
use crate::location::store::is_absent;

/// Nobody loses a cache so often.
const MOST: u32 = 10_000;

/// How often it is looked again where another run begins the same repository, was quicker, or is alone in it: a minute in all.
const TRIES: u32 = 60;
const BETWEEN: Duration = Duration::from_millis(700);

/// Where a backup goes, and its right to be there.
pub(super) struct Chosen {
    pub(super) keys: VolumeKeys,
    pub(super) unlocked: Unlocked,
    pub(super) claim: SharedClaim,
    /// Why another repository than that of before was begun, where one was.
    pub(super) because: Option<String>,
}

async fn is_there(store: &Store, key: &str) -> Result<bool> {
    match store.head(key).await {
        Ok(_) => Ok(true),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

fn config(keys: &VolumeKeys) -> String {
    format!("{}config", keys.repository())
}

/// Whether anything was stored in this repository, whatever became of its configuration.
async fn has_parts(store: &Store, keys: &VolumeKeys) -> Result<bool> {
    for folder in ["keys", "snapshots", "index", "data"] {
        let folder = format!("{}{folder}/", keys.repository());
        if store.list(&folder).next().await.transpose()?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether anything of this repository stands.
pub(super) async fn is_taken(store: &Store, keys: &VolumeKeys) -> Result<bool> {
    for key in [keys.key(), keys.sealed_key(), config(keys)] {
        if is_there(store, &key).await? {
            return Ok(true);
        }
    }
    has_parts(store, keys).await
}

/// Whether this repository has lost its configuration. Another one in its place would have another master key, beside packs of the first. It is looked at
/// alone: one who begins writes the configuration last.
async fn is_headless(store: &Store, keys: &VolumeKeys, host: &str) -> Result<bool> {
    if !has_parts(store, keys).await? {
        return Ok(false);
    }
    let (what, claims) = (what(keys), keys.claims());
    let claim = SharedClaim::take(store, &claims, &what, Purpose::Begin, host).await?;
    let has_config = is_there(store, &config(keys)).await;
    claim.release().await;
    Ok(!has_config?)
}

/// The numbers of the repositories of which anything stands: by a listing, one's own or somebody else's, and, whatever that says, by name up to the first that is not there.
pub(super) async fn numbers(
    store: &Store,
    keys: &VolumeKeys,
    known: Option<&[u32]>,
) -> Result<Vec<u32>> {
    let mut found = match known {
        Some(known) => known.iter().copied().collect(),
        None => listed(store, keys).await?,
    };
    found.retain(|number| (1..=MOST).contains(number));
    let mut next = 1;
    while next <= MOST {
        if !found.contains(&next) {
            if !is_taken(store, &keys.numbered(next)).await? {
                break;
            }
            found.insert(next);
        }
        next += 1;
    }
    Ok(found.into_iter().collect())
}

/// Asks what a backup asks before it writes: for what stands, for what does not, which some stores tell to those alone who may list, and for claims.
pub(super) async fn reach(store: &Store, keys: &VolumeKeys, known: Option<&[u32]>) -> Result<()> {
    is_taken(store, &keys.numbered(1)).await?;
    let numbers = numbers(store, keys, known).await?;
    let next = numbers.last().map_or(1, |last| last + 1);
    is_taken(store, &keys.numbered(next)).await?;
    for number in [1, next] {
        let claims = keys.numbered(number).claims();
        store.list(&claims).next().await.transpose()?;
    }
    Ok(())
}

async fn listed(store: &Store, keys: &VolumeKeys) -> Result<BTreeSet<u32>> {
    let first = keys.numbered(1);
    let repository = first.repository();
    let repository = repository.trim_end_matches('/');
    let (folder, name) = repository.rsplit_once('/').unwrap_or(("", repository));
    let mut found = BTreeSet::new();
    for listed in store.folders(&format!("{folder}/")).await? {
        let Some(rest) = listed.strip_prefix(name) else {
            continue;
        };
        let number = match rest.strip_prefix('.') {
            None if rest.is_empty() => Some(1),
            Some(number) => number.parse().ok().filter(|number| *number > 1),
            None => None,
        };
        found.extend(number);
    }
    Ok(found)
}

/// What is known of one that stands.
enum Standing {
    /// A writer may add to it.
    Open(Password, Unlocked),
    /// Its key stands, and nothing else: a run died when it began it.
    Begun(Password),
    /// Why it can not be added to.
    Closed(String),
}

async fn look(store: &Store, keys: &VolumeKeys, ring: &Keyring<'_>) -> Result<Standing> {
    let Some(password) = ring.of_writer(store, keys).await? else {
        let sealed = is_there(store, &keys.sealed_key()).await?;
        return Ok(Standing::Closed(
            match (sealed, ring.recipients.is_empty()) {
                (true, true) => "its key is encrypted, and the location has no recipients any more",
                (true, false) => "this machine did not keep its key",
                (false, false) if is_there(store, &keys.key()).await? => {
                    "its key stands in the clear, and the location has recipients now"
                }
                _ => "its key is not there",
            }
            .to_owned(),
        ));
    };
    if !is_there(store, &config(keys)).await? {
        return Ok(Standing::Begun(password));
    }
    let objects = Objects::new(store, &keys.repository(), Access::Read);
    let text = password.clone();
    let opened = tokio::task::spawn_blocking(move || {
        Open::by_password(objects, text.text()).map(|open| open.unlocked())
    });
    match opened.await {
        Ok(Ok(unlocked)) => Ok(Standing::Open(password, unlocked)),
        Ok(Err(e)) if e.kind() == Kind::Unauthorized => Ok(Standing::Closed(
            "the password that stands beside it does not open it".to_owned(),
        )),
        Ok(Err(e)) => Err(e),
        Err(e) => Err(Error::other("the repository could not be looked at").because(e)),
    }
}

/// What a look came to.
enum Looked {
    /// The claim of a backup stands on it.
    Chosen(Box<Chosen>),
    /// Somebody else changed something meanwhile.
    Again,
    /// Another one was begun; why, where there was one before.
    Begun(Option<String>),
}

/// Chooses the newest repository that this writer can add to, or begins another one; the claim of a backup stands on it.
pub(super) async fn choose(
    store: &Store,
    keys: &VolumeKeys,
    known: Option<&[u32]>,
    ring: &Keyring<'_>,
    host: &str,
) -> Result<Chosen> {
    let (mut because, mut hindered) = (None, None);
    for _ in 0..TRIES {
        match attempt(store, keys, known, ring, host).await {
            Ok(Looked::Chosen(chosen)) => {
                return Ok(Chosen { because, ..*chosen });
            }
            Ok(Looked::Begun(why)) => {
                because = because.or(why);
                continue;
            }
            Ok(Looked::Again) => {}
            Err(e) if is_beginning(&e) => {}
            Err(e) if is_pruning(&e) => hindered = Some(e),
            Err(e) => return Err(e),
        }
        // Two that withdraw from each other do not come again at the same moment.
        let apart = uuid::Uuid::new_v4().as_bytes()[0];
        tokio::time::sleep(BETWEEN + BETWEEN * u32::from(apart) / 255).await;
    }
    Err(hindered.unwrap_or_else(|| {
        Error::new(
            Kind::AlreadyExists,
            format!(
                "another run begins the repository {}, and does not end",
                keys.repository()
            ),
        )
        .hint("wait for it; a run that died hinders nobody an hour after its last sign of life")
    }))
}

/// Whoever forgets snapshots is done in a second; a prune that goes through the repository may take hours.
fn is_pruning(error: &Error) -> bool {
    error.kind() == Kind::AlreadyExists && error.to_string().starts_with("a prune is at work in")
}

/// One who begins is done in a second.
fn is_beginning(error: &Error) -> bool {
    error.kind() == Kind::AlreadyExists && error.to_string().starts_with("another run begins")
}

async fn attempt(
    store: &Store,
    keys: &VolumeKeys,
    known: Option<&[u32]>,
    ring: &Keyring<'_>,
    host: &str,
) -> Result<Looked> {
    let numbers = numbers(store, keys, known).await?;
    let mut because = None;
    let (mut next, mut left) = (numbers.last().map_or(1, |last| last + 1), None);
    for number in numbers.iter().rev() {
        let keys = keys.numbered(*number);
        match look(store, &keys, ring).await? {
            Standing::Open(password, unlocked) => {
                let (what, claims) = (what(&keys), keys.claims());
                let claim = SharedClaim::take(store, &claims, &what, Purpose::Create, host).await?;
                // It may have been removed before the claim stood.
                let now = store.find(&password.key, password.bytes.len() as u64).await;
                let has_key = now.is_ok_and(|now| now.as_ref() == Some(&password.bytes));
                let has_config = is_there(store, &config(&keys)).await;
                if has_key && has_config.as_ref().is_ok_and(|is_there| *is_there) {
                    return Ok(Looked::Chosen(Box::new(Chosen {
                        keys,
                        unlocked,
                        claim,
                        because: None,
                    })));
                }
                claim.release().await;
                return has_config.map(|_| Looked::Again);
            }
            Standing::Begun(_) if is_headless(store, &keys, host).await? => {
                because.get_or_insert(closed(&keys, "its configuration is gone"));
            }
            Standing::Begun(password) => {
                (next, left) = (*number, Some(password));
                break;
            }
            Standing::Closed(why) => {
                because.get_or_insert(closed(&keys, &why));
            }
        }
    }
    if next > MOST {
        return Err(Error::other(format!(
            "the volume has {MOST} repositories that this machine can not add to"
        ))
        .hint("keep its key cache"));
    }
    begin(store, &keys.numbered(next), ring, left, host).await?;
    Ok(Looked::Begun(because))
}

fn closed(keys: &VolumeKeys, why: &str) -> String {
    let repository = keys.repository();
    let repository = repository.trim_end_matches('/');
    format!("{repository} can not be added to: {why}")
}

fn what(keys: &VolumeKeys) -> String {
    format!("the repository {}", keys.repository().trim_end_matches('/'))
}

/// Begins a repository, alone. One who was quicker is left alone.
async fn begin(
    store: &Store,
    keys: &VolumeKeys,
    ring: &Keyring<'_>,
    left: Option<Password>,
    host: &str,
) -> Result<()> {
    let (what, claims) = (what(keys), keys.claims());
    let claim = SharedClaim::take(store, &claims, &what, Purpose::Begin, host).await?;
    let claim = Arc::new(claim);
    let begun = begin_alone(store, keys, ring, left, &claim).await;
    claim.release().await;
    begun
}

async fn begin_alone(
    store: &Store,
    keys: &VolumeKeys,
    ring: &Keyring<'_>,
    left: Option<Password>,
    claim: &Arc<SharedClaim>,
) -> Result<()> {
    if is_there(store, &config(keys)).await? || has_parts(store, keys).await? {
        return Ok(());
    }
    let password = match left {
        Some(password) => password,
        None => {
            if is_taken(store, keys).await? {
                return Ok(());
            }
            let password = ring.make(keys)?;
            claim.write(&password.key, password.bytes.clone()).await?;
            password
        }
    };
    // Whatever is stored under a key that nobody can read is lost.
    let most = password.bytes.len() as u64;
    let stands = store.get(&password.key, most).await?;
    if stands != password.bytes {
        return Err(Error::corrupt(format!(
            "{} does not hold what was just written to it",
            password.key
        ))
        .hint("nothing was stored under this key; look at who else writes to the location"));
    }
    claim.confirm().await?;
    let access = Access::Begin(Arc::clone(claim));
    let objects = Objects::new(store, &keys.repository(), access);
    let begun =
        tokio::task::spawn_blocking(move || Open::begin(objects, password.text()).map(drop)).await;
    begun.map_err(|e| Error::other("the repository could not be begun").because(e))?
}
