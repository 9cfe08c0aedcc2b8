//! The folder of static pods and the fence beside it: which manifests lie where, and moving them. Each move is one rename, durable before
//! the next; what lies where is read anew each time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backup_core::{Error, Kind, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, Part};
use crate::restore::fence::is_mount_point;
use crate::restore::files::{Disk, Files as _};
use crate::restore::plan::AttemptId;

/// What the fence's name adds to that of the folder of static pods.
const SUFFIX: &str = ".etcd-launcher";

/// The fence's record.
const RECORD: &str = "fence.json";

/// A larger one is no manifest of a control plane.
const LARGEST: u64 = 1 << 20;

/// Where a manifest lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Place {
    /// In the folder of static pods: the kubelet runs it.
    In,
    /// Behind the fence.
    Out,
}

/// Why the fence stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// When it was made.
    pub(crate) begun: Timestamp,
    /// For which attempt; none: it was asked for by itself.
    pub(crate) attempt: Option<AttemptId>,
}

/// Both folders.
#[derive(Debug)]
pub(crate) struct Folders {
    pods: PathBuf,
    fence: PathBuf,
}

/// What lies in them.
#[derive(Debug)]
pub(crate) struct Found {
    /// The manifests of the control plane, in the order in which they are stopped.
    pub(crate) manifests: Vec<(Manifest, Place)>,
    /// The fence's record, where there is a fence.
    pub(crate) record: Option<Record>,
    /// Files that could not be read as manifests.
    pub(crate) unread: Vec<Error>,
}

impl Found {
    /// etcd's manifest.
    ///
    /// # Errors
    /// Kind `NotFound` where there is none, kind `Invalid` where there are several.
    pub(crate) fn etcd(&self) -> Result<&Manifest> {
        let mut all = self.of(Part::Etcd);
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Error::not_found("no static pod here starts etcd").hint(
                "on a node whose etcd is no static pod stop it yourself, then use `etcd-launcher restore`",
            )),
            (Some(one), Some(other)) => Err(Error::invalid(format!(
                "two static pods start etcd: {} and {}",
                one.file.display(),
                other.file.display()
            ))
            .hint("the kubelet runs every file in its folder, whatever it is called: move the one that is not in use elsewhere")),
        }
    }

    /// The manifests of a part.
    pub(crate) fn of(&self, part: Part) -> impl Iterator<Item = &Manifest> {
        let manifests = self.manifests.iter();
        manifests.filter_map(move |(m, _)| (m.part == part).then_some(m))
    }

    /// Those that lie there.
    pub(crate) fn lying(&self, place: Place) -> impl Iterator<Item = &Manifest> {
        let manifests = self.manifests.iter();
        manifests.filter_map(move |(m, lies)| (*lies == place).then_some(m))
    }

    /// Where etcd's lies.
    pub(crate) fn etcd_place(&self) -> Option<Place> {
        let etcd = self.manifests.iter().find(|(m, _)| m.part == Part::Etcd);
        etcd.map(|(_, place)| *place)
    }
}

impl Folders {
    /// The folder of static pods, with no link in it, and the fence beside it.
    ///
    /// # Errors
    /// Kind `Invalid` where nothing can be moved between the two.
    pub(crate) fn new(pods: PathBuf) -> Result<Self> {
        let told = |e: io::Error| failed("look at", &pods, e);
        let (Some(above), Some(name)) = (pods.parent(), pods.file_name()) else {
            return Err(Error::invalid(format!(
                "{} has no folder above it",
                pods.display()
            )));
        };
        let found = fs::symlink_metadata(&pods).map_err(told)?;
        let other = fs::symlink_metadata(above).map_err(told)?.dev() != found.dev();
        if other || is_mount_point(&pods, &found)? {
            return Err(Error::invalid(format!(
                "{} is a mount point: no manifest can be moved out of it in one step",
                pods.display()
            ))
            .hint("move the manifests away by hand, wait until their processes are gone, then use `etcd-launcher restore`"));
        }
        let mut fence = name.to_owned();
        fence.push(SUFFIX);
        Ok(Self {
            fence: above.join(fence),
            pods,
        })
    }

    /// The folder of static pods.
    pub(crate) fn pods(&self) -> &Path {
        &self.pods
    }

    /// The fence.
    pub(crate) fn fence(&self) -> &Path {
        &self.fence
    }

    /// Reads both.
    ///
    /// # Errors
    /// When they can not be read, or one name stands in both.
    pub(crate) fn find(&self) -> Result<Found> {
        let mut found = Found {
            manifests: Vec::new(),
            record: self.record()?,
            unread: Vec::new(),
        };
        let mut names = BTreeSet::new();
        for (folder, place) in [(&self.pods, Place::In), (&self.fence, Place::Out)] {
            let entries = match fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound && place == Place::Out => continue,
                Err(e) => return Err(failed("read", folder, e)),
            };
            for entry in entries {
                let name = entry.map_err(|e| failed("read", folder, e))?.file_name();
                let path = folder.join(&name);
                // As the kubelet has it: no hidden files, no folders, links followed.
                let is_ours = place == Place::Out && *name == *RECORD;
                let is_hidden = name.as_encoded_bytes().starts_with(b".");
                let is_file = fs::metadata(&path).is_ok_and(|about| about.is_file());
                if is_ours || is_hidden || !is_file {
                    continue;
                }
                let text = match read_text(&path, LARGEST) {
                    Ok(text) => text,
                    Err(e) => {
                        found.unread.push(e);
                        continue;
                    }
                };
                match Manifest::parse(name.clone(), &text) {
                    Ok(Some(manifest)) => found.manifests.push((manifest, place)),
                    Ok(None) => continue,
                    Err(e) => {
                        found
                            .unread
                            .push(e.context(format!("{} is left where it is", path.display())));
                        continue;
                    }
                }
                if !names.insert(name.clone()) {
                    return Err(Error::invalid(format!(
                        "{} lies in {} and in {}: somebody wrote it anew while the fence stood",
                        name.display(),
                        self.pods.display(),
                        self.fence.display()
                    ))
                    .hint("keep the right one of the two, and move the other elsewhere"));
                }
            }
        }
        found
            .manifests
            .sort_by(|(a, _), (b, _)| (a.part, &a.file).cmp(&(b.part, &b.file)));
        Ok(found)
    }

    fn record(&self) -> Result<Option<Record>> {
        if !self.fence.exists() {
            return Ok(None);
        }
        let path = self.fence.join(RECORD);
        match read_text(&path, LARGEST) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| {
                Error::corrupt(format!("{} can not be read", path.display()))
                    .because(e)
                    .hint(format!(
                        "move the manifests in {} back to {} by hand, etcd's first, and remove the folder",
                        self.fence.display(),
                        self.pods.display()
                    ))
            }),
            // Made, and nothing moved yet; or emptied, and not removed yet.
            Err(e) if e.kind() == Kind::NotFound => Ok(Some(Record {
                begun: Timestamp::now(),
                attempt: None,
            })),
            Err(e) => Err(e),
        }
    }

    /// Makes the fence where there is none, and says for which attempt it stands.
    ///
    /// # Errors
    /// When it can not be written.
    pub(crate) fn raise(&self, attempt: Option<&AttemptId>) -> Result<()> {
        let told = |e: io::Error| failed("write", &self.fence, e);
        let begun = match self.record()? {
            Some(stands)
                if stands.attempt.as_ref() == attempt && self.fence.join(RECORD).exists() =>
            {
                return Ok(());
            }
            Some(stands) => stands.begun,
            None => {
                Disk.create_folder(&self.fence).map_err(told)?;
                Timestamp::now()
            }
        };
        let record = Record {
            begun,
            attempt: attempt.cloned(),
        };
        let text = serde_json::to_string(&record)
            .map_err(|e| Error::other("can not write a record as JSON").because(e))?;
        let (path, part) = (self.fence.join(RECORD), self.fence.join(".fence.part"));
        Disk.write_at(&part, 0, format!("{text}\n").as_bytes())
            .and_then(|()| Disk.sync(&part))
            .and_then(|()| fs::rename(&part, &path))
            .and_then(|()| Disk.sync(&self.fence))
            .and_then(|()| self.sync_above())
            .map_err(told)
    }

    /// Removes the fence; no manifest may lie behind it.
    ///
    /// # Errors
    /// Where something else lies there: it is left.
    pub(crate) fn lower(&self) -> Result<()> {
        if !self.fence.exists() {
            return Ok(());
        }
        let told = |e: io::Error| failed("remove", &self.fence, e);
        for name in [RECORD, ".fence.part"] {
            match fs::remove_file(self.fence.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(told(e)),
                _ => {}
            }
        }
        fs::remove_dir(&self.fence)
            .and_then(|()| self.sync_above())
            .map_err(told)
    }

    fn sync_above(&self) -> io::Result<()> {
        self.fence.parent().map_or(Ok(()), |above| Disk.sync(above))
    }

    /// Moves a manifest there; fine where it lies there already.
    ///
    /// # Errors
    /// When it can not be moved: it lies where it lay.
    pub(crate) fn move_to(&self, manifest: &Manifest, place: Place) -> Result<()> {
        let (from, to) = match place {
            Place::Out => (&self.pods, &self.fence),
            Place::In => (&self.fence, &self.pods),
        };
        let (path, new) = (from.join(&manifest.file), to.join(&manifest.file));
        let lies_there = !path.exists() && new.exists();
        let moved = if lies_there {
            Ok(())
        } else {
            Disk.rename(&path, &new)
        };
        moved
            .and_then(|()| Disk.sync(to))
            .and_then(|()| Disk.sync(from))
            .map_err(|e| {
                Error::other(format!(
                    "can not move {} to {}",
                    path.display(),
                    to.display()
                ))
                .because(e)
            })
    }
}

fn failed(what: &str, path: &Path, e: io::Error) -> Error {
    Error::other(format!("can not {what} {}", path.display())).because(e)
}

/// A text file of at most so many bytes.
///
/// # Errors
/// Kinds `NotFound`, `Forbidden`; kind `Invalid` for one that is too large or no text.
pub(super) fn read_text(path: &Path, largest: u64) -> Result<String> {
    let told = |e: io::Error| {
        let kind = match e.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Forbidden,
            io::ErrorKind::InvalidData => Kind::Invalid,
            _ => Kind::Other,
        };
        Error::new(kind, format!("can not read {}", path.display())).because(e)
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(largest + 1).read_to_string(&mut text))
        .map_err(told)?;
    if text.len() as u64 > largest {
        return Err(Error::invalid(format!(
            "{} is larger than {largest} bytes",
            path.display()
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, Folders) {
        let folder = tempfile::tempdir().unwrap();
        let pods = folder.path().canonicalize().unwrap().join("manifests");
        fs::create_dir(&pods).unwrap();
        for program in ["etcd", "kube-apiserver", "kube-scheduler", "something"] {
            let text = format!("kind: Pod\nspec: {{containers: [{{command: [{program}]}}]}}");
            fs::write(pods.join(format!("{program}.yaml")), text).unwrap();
        }
        fs::write(
            pods.join(".hidden.yaml"),
            "kind: Pod\nspec: {containers: [{command: [etcd]}]}",
        )
        .unwrap();
        fs::write(pods.join("notes.txt"), "call me").unwrap();
        (folder, Folders::new(pods).unwrap())
    }

    fn lying(folders: &Folders, place: Place) -> Vec<&'static str> {
        let found = folders.find().unwrap();
        found.lying(place).map(|m| m.part.program()).collect()
    }

    #[test]
    fn the_control_planes_manifests_are_found_moved_and_brought_back() {
        let (_folder, folders) = folders();
        let found = folders.find().unwrap();
        assert_eq!(found.record, None);
        assert_eq!(found.unread.len(), 1, "the notes");
        assert_eq!(
            lying(&folders, Place::In),
            ["kube-apiserver", "kube-scheduler", "etcd"]
        );
        let id = AttemptId::random();
        folders.raise(None).unwrap();
        folders.raise(Some(&id)).unwrap();
        folders.raise(Some(&id)).unwrap();
        assert!(folders.lower().is_ok(), "nothing was moved yet");
        folders.raise(Some(&id)).unwrap();
        for (manifest, _) in &found.manifests {
            folders.move_to(manifest, Place::Out).unwrap();
            folders.move_to(manifest, Place::Out).unwrap();
        }
        assert_eq!(lying(&folders, Place::In), [""; 0]);
        assert_eq!(lying(&folders, Place::Out).len(), 3);
        assert_eq!(folders.find().unwrap().record.unwrap().attempt, Some(id));
        assert!(folders.pods().join("something.yaml").exists());
        for (manifest, _) in &found.manifests {
            folders.move_to(manifest, Place::In).unwrap();
        }
        folders.lower().unwrap();
        folders.lower().unwrap();
        assert!(!folders.fence().exists());
        assert_eq!(lying(&folders, Place::In).len(), 3);
    }

    #[test]
    fn a_fence_with_manifests_behind_it_is_not_removed() {
        let (_folder, folders) = folders();
        folders.raise(None).unwrap();
        let found = folders.find().unwrap();
        folders.move_to(found.etcd().unwrap(), Place::Out).unwrap();
        assert!(folders.lower().is_err());
        assert_eq!(lying(&folders, Place::Out), ["etcd"]);
        assert!(folders.find().unwrap().record.is_some());
    }

    #[test]
    fn a_second_etcd_and_a_name_on_both_sides_are_refused() {
        let (_folder, folders) = folders();
        folders.raise(None).unwrap();
        let etcd = folders.pods().join("etcd.yaml");
        let found = folders.find().unwrap();
        fs::copy(&etcd, folders.pods().join("etcd.yaml.bak")).unwrap();
        let twice = folders.find().unwrap();
        let refused = twice.etcd().unwrap_err();
        assert!(refused.to_string().contains("etcd.yaml.bak"), "{refused}");
        fs::remove_file(folders.pods().join("etcd.yaml.bak")).unwrap();
        fs::copy(&etcd, folders.fence().join("etcd.yaml")).unwrap();
        let refused = folders.find().unwrap_err();
        assert!(refused.to_string().contains("etcd.yaml"), "{refused}");
        // Neither is replaced by the other.
        assert!(folders.move_to(found.etcd().unwrap(), Place::Out).is_err());
    }
}
