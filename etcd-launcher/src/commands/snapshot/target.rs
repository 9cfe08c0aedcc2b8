//! Where a snapshot goes, from what the user named: a file, the URL of an object, or a location with the names in it.

use std::path::PathBuf;

use backup_cli::error::Result;
use backup_cli::locations::{self, Choice, LocationArgs, file, same};
use backup_cli::paths::Paths;
use backup_core::Error;
use backup_core::api::BackupStorageLocation;
use backup_core::crypt::Recipients;
use backup_core::error::Kind;
use backup_core::etcd::Manifest;
use backup_core::etcd::take::Target;
use backup_core::layout::SnapshotKeys;
use backup_core::location::{Location, guard, url};
use backup_core::name::Name;
use jiff::Timestamp;

use super::{SnapshotArgs, usage};

/// What the name of an encrypted file ends with.
const AGE: &str = ".age";

/// Where it goes, and how that is shown.
pub(super) struct Place {
    pub(super) target: Target,
    /// As a URL, or as the path of the file.
    url: String,
    /// Whether the user left the name to us.
    generated: bool,
    /// Those of the location.
    pub(super) recipients: Recipients,
    /// Where the mark may lie that lets nothing plain in.
    marked: Vec<Location>,
    /// What is remembered of the place, where a URL leads into it.
    pub(super) notes: Vec<String>,
}

impl Place {
    /// Opens what the arguments mean; nothing is sent yet.
    ///
    /// # Errors
    /// Usage errors, and locations that can not be used.
    pub(super) fn of(args: &SnapshotArgs, location: &LocationArgs, now: Timestamp) -> Result<Self> {
        let Some(text) = &args.target else {
            return Self::in_location(args, location, now);
        };
        for (flag, given) in [("--name", &args.name)] {
            if given.is_some() {
                return Err(usage(
                    Error::invalid(format!("{flag} is of a snapshot in a location, and {text} is none"))
                        .hint("leave the file or URL away and name a location with --location, or leave the flag away"),
                ));
            }
        }
        match url::parse(text).map_err(usage)? {
            None => Ok(Self::file(PathBuf::from(text), args.force)),
            Some(spec) if spec.spec.provider == "local" => {
                let path = PathBuf::from(&spec.spec.object_storage.bucket);
                if text.ends_with('/') {
                    return Err(folder(text));
                }
                Ok(Self::file(path, args.force))
            }
            Some(spec) => Self::object(text, spec, location, args.force),
        }
    }

    fn file(path: PathBuf, replace: bool) -> Self {
        Self {
            url: path.display().to_string(),
            target: Target::File { path, replace },
            generated: false,
            recipients: Recipients::default(),
            marked: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn object(
        text: &str,
        mut spec: BackupStorageLocation,
        location: &LocationArgs,
        force: bool,
    ) -> Result<Self> {
        if force {
            return Err(usage(
                Error::invalid("--force replaces files; an object is never replaced")
                    .hint("name another object"),
            ));
        }
        let path = text.split_once('?').map_or(text, |(path, _)| path);
        let prefix = spec.spec.object_storage.prefix.take();
        let prefix = prefix.filter(|_| !path.ends_with('/'));
        let Some(prefix) = prefix else {
            return Err(folder(text));
        };
        let (folder, key) = match prefix.rsplit_once('/') {
            Some((folder, key)) => (Some(folder.to_owned()), key.to_owned()),
            None => (None, prefix),
        };
        spec.spec.object_storage.prefix = folder;
        let notes = heed(&mut spec, &remembered()?.locations);
        let opened = location.open(&spec)?;
        // The place may be any folder on the way.
        let mut marked = vec![opened.clone()];
        let mut above = spec.clone();
        while let Some(folder) = above.spec.object_storage.prefix.take()
            && marked.len() < DEEPEST
        {
            let up = folder.rsplit_once('/').map(|(up, _)| up.to_owned());
            above.spec.object_storage.prefix = up;
            marked.push(location.open(&above)?);
        }
        Ok(Self {
            url: format!("{}/{key}", locations::place(&spec)),
            target: Target::Object {
                store: opened.store,
                key,
            },
            generated: false,
            recipients: Recipients::of_location(&spec)?,
            marked,
            notes,
        })
    }

    fn in_location(args: &SnapshotArgs, location: &LocationArgs, now: Timestamp) -> Result<Self> {
        if args.force {
            return Err(usage(
                Error::invalid(
                    "--force replaces files; a snapshot in a location is never replaced",
                )
                .hint("take it under another name"),
            ));
        }
        let sources = [remembered()?];
        let mut spec = match locations::choose(location.location.as_deref(), &sources)? {
            Choice::One(spec) | Choice::Object(spec) => *spec,
            Choice::PerCluster => {
                return Err(usage(
                    Error::invalid("it is not said where the snapshot goes").hint(
                        "name a file or URL, or a location with --location and the cluster with --cluster",
                    ),
                ));
            }
        };
        let Some(cluster) = &args.cluster else {
            return Err(usage(
                Error::invalid("a snapshot in a location needs the cluster's name")
                    .hint("give it with --cluster"),
            ));
        };
        let of_flag = |flag: &str, name: Result<Name, Error>| {
            name.map_err(|e| usage(e.context(format!("{flag} can not be used"))))
        };
        let cluster: Name = of_flag("--cluster", cluster.parse())?;
        let (name, generated) = match &args.name {
            // With the time behind it, a configuration's name makes longer ones than a label takes.
            Some(name) => (of_flag("--name", Name::foreign(name))?, false),
            None => (of_flag("--name", Name::foreign(&generated(now)))?, true),
        };
        let notes = match spec.metadata.name.contains("://") {
            true => heed(&mut spec, &sources[0].locations),
            false => Vec::new(),
        };
        let opened = location.open(&spec)?;
        Ok(Self {
            marked: vec![opened.clone()],
            notes,
            recipients: Recipients::of_location(&spec)?,
            url: locations::place(&spec),
            target: Target::Snapshot {
                store: opened.store,
                keys: SnapshotKeys::new(&cluster, &name),
            },
            generated,
        })
    }

    /// The name of its file, where it was the user who gave one.
    fn given_name(&self) -> Option<&str> {
        match &self.target {
            Target::Snapshot { .. } => None,
            Target::Object { key, .. } => Some(key),
            Target::File { path, .. } => path.file_name().and_then(|name| name.to_str()),
        }
    }

    /// Whether it is compressed when nothing is said about it.
    pub(super) fn is_packed(&self) -> bool {
        self.given_name()
            .is_none_or(|name| name.strip_suffix(AGE).unwrap_or(name).ends_with(".zst"))
    }

    /// Refuses a plain snapshot where the bucket says that only what is encrypted is to be; who may not read that is not told by it.
    ///
    /// # Errors
    /// `Forbidden`; the store's.
    pub(super) async fn takes_plain(&self) -> Result<()> {
        for location in &self.marked {
            match guard::is_sealed(location).await {
                Ok(false) => {}
                Err(e) if matches!(e.kind(), Kind::Forbidden | Kind::Unauthorized) => {}
                Err(e) => return Err(e.into()),
                Ok(true) => {
                    return Err(Error::new(
                        Kind::Forbidden,
                        format!(
                            "{} takes what is encrypted alone: .kubectl-backup.json says so",
                            location.store.place()
                        ),
                    )
                    .hint("give --recipient, or name the location that has its recipients; `kubectl backup location adopt --plain` lets plain ones in")
                    .into());
                }
            }
        }
        Ok(())
    }

    /// Refuses a name that says something else of encryption than what is asked for.
    ///
    /// # Errors
    /// A usage error.
    pub(super) fn suits(&self, encrypted: bool) -> Result<()> {
        let Some(name) = self.given_name() else {
            return Ok(());
        };
        let (url, error) = (&self.url, |text: String| usage(Error::invalid(text)));
        match (name.ends_with(AGE), encrypted) {
            (true, false) => Err(error(format!(
                "{url} is to be a file of age, and it is not said for whom: give --recipient or --recipients-file, or another name"
            ))),
            (false, true) => Err(error(format!(
                "{url} is to be encrypted, and its name does not say so: end it with {AGE}"
            ))),
            _ => Ok(()),
        }
    }

    /// Another name for the same second, where the name was ours.
    pub(super) fn rename(&mut self) -> bool {
        use std::hash::{BuildHasher as _, Hasher as _};
        if !std::mem::take(&mut self.generated) {
            return false;
        }
        let Target::Snapshot { keys, .. } = &mut self.target else {
            return false;
        };
        let random = std::hash::RandomState::new().build_hasher().finish();
        let Ok(name) = Name::foreign(&format!("{}-{:04x}", keys.name(), random & 0xffff)) else {
            return false;
        };
        *keys = SnapshotKeys::new(keys.cluster(), &name);
        true
    }

    /// `snapshot/nightly`, or the file's path or the object's URL.
    pub(super) fn name(&self) -> String {
        match &self.target {
            Target::Snapshot { keys, .. } => format!("snapshot/{}", keys.name()),
            Target::Object { .. } | Target::File { .. } => self.url.clone(),
        }
    }

    /// Where the data is.
    pub(super) fn shown(&self, manifest: &Manifest) -> String {
        match &self.target {
            Target::Snapshot { keys, .. } => {
                format!("{}/{}", self.url, keys.file(&manifest.data.file))
            }
            Target::Object { .. } | Target::File { .. } => self.url.clone(),
        }
    }
}

/// So many folders above an object are looked at for a mark.
const DEEPEST: usize = 8;

/// This user's locations.
fn remembered() -> Result<locations::Source> {
    let paths = Paths::new(|name| std::env::var_os(name));
    file::read(&paths.locations())
}

/// Gives a URL what is remembered of its place; what that was.
fn heed(spec: &mut BackupStorageLocation, known: &[BackupStorageLocation]) -> Vec<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let place = locations::place(spec);
    let taken = same::heed(spec, known, &variable).into_iter();
    taken
        .map(|(name, what)| format!("{place} is the place of location {name:?}: its {what} count"))
        .collect()
}

fn folder(text: &str) -> backup_cli::error::CommandError {
    usage(
        Error::invalid(format!("{text} names no file"))
            .hint("add the file's name; or take it into a location with --location and --cluster"),
    )
}

/// A name for a snapshot that nobody named.
fn generated(now: Timestamp) -> String {
    now.strftime("snapshot-%Y-%m-%dt%H-%M-%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_can_be_one() {
        let now = "2026-11-28T05:24:07Z".parse().unwrap();
        assert_eq!(generated(now), "snapshot-2026-11-28t05-24-07");
        assert!(generated(now).parse::<Name>().is_ok());
    }
}
