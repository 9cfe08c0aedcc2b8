//! Files of volumes: what the mover stores, restic reads, and an independent lister finds the same again.

mod damage;
mod keys;
mod listings;
mod live;
mod pruned;
mod races;
mod received;
mod round_trip;
mod space;
mod straight;
mod velero;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::process::{Folder, Output};
use harness::repositories::{Bucket, Repositories};
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;
use serde_json::Value;

use crate::encryption::fixture;

/// The volume that these stories are about.
const VOLUME: &str = "cluster/shop/0b5e";

/// A folder as a location, with a home of its own; or a bucket. At its end restic finds no fault in what stands there.
struct Place {
    home: Folder,
    location: String,
    minio: Option<(&'static Minio, &'static str)>,
    repositories: Repositories,
}

impl Drop for Place {
    fn drop(&mut self) {
        let folder = self.home.join("bucket");
        self.repositories.all_are_whole(self.bucket(&folder));
    }
}

impl Place {
    fn folder() -> Self {
        let home = Folder::new("volumes");
        let bucket = home.join("bucket");
        fs::create_dir(&bucket).unwrap();
        Self {
            location: format!("file://{}", bucket.display()),
            home,
            minio: None,
            repositories: Repositories::opened_by(fixture("first.key")),
        }
    }

    fn minio(bucket: &'static str) -> Self {
        let minio = Minio::shared();
        minio.bucket(bucket);
        Self {
            home: Folder::new("volumes"),
            location: format!("s3://{bucket}/p?endpoint={}", minio.endpoint()),
            minio: Some((minio, bucket)),
            repositories: Repositories::default(),
        }
    }

    /// Where its repositories are; in this folder, if in any.
    fn bucket<'a>(&self, folder: &'a Path) -> Bucket<'a> {
        match self.minio {
            None => Bucket::Folder(folder),
            Some((minio, bucket)) => Bucket::Minio(minio, bucket),
        }
    }

    fn mover(&self, arguments: &[&str]) -> Backup {
        let call = kubectl_backup(&[&["mover"], arguments].concat())
            .home(self.home.path())
            .location(&self.location);
        match self.minio {
            Some((minio, _)) => call.credentials_of(minio),
            None => call,
        }
    }

    fn backup(&self, source: &Path) -> Backup {
        self.mover(&["backup", text(source), VOLUME, "--backup", "nightly"])
    }

    fn restore(&self, saved: &Value, target: &Path) -> Backup {
        let number = saved["repository"].to_string();
        fs::create_dir_all(target).unwrap();
        let snapshot = saved["snapshot"].as_str().unwrap();
        self.mover(&[
            "restore",
            text(target),
            VOLUME,
            "--snapshot",
            snapshot,
            "--repository",
            &number,
        ])
    }

    /// A file of the volume's first repository, in a folder.
    fn path(&self, rest: &str) -> PathBuf {
        self.home.join("bucket/restic/cluster/shop").join(rest)
    }

    fn snapshots(&self) -> Vec<PathBuf> {
        files(&self.path("0b5e/snapshots"))
    }

    /// The key of the repository with this number.
    fn repository(&self, number: u64) -> String {
        let prefix = if self.minio.is_some() { "p/" } else { "" };
        let number = match number {
            1 => String::new(),
            number => format!(".{number}"),
        };
        format!("{prefix}restic/{VOLUME}{number}")
    }

    /// restic, on the repository with this number.
    fn restic(&self, number: u64, password: &Path, arguments: &[&str]) -> Output {
        let folder = self.home.join("bucket");
        let bucket = self.bucket(&folder);
        bucket.restic(&self.repository(number), password, arguments)
    }

    /// restic reads every byte of the repository, and brings this snapshot back; what it brings is in `data` below the target.
    fn checked_by_restic(&self, saved: &Value, password: &Path, target: &Path) {
        let folder = self.home.join("bucket");
        let number = saved["repository"].as_u64().unwrap();
        self.repositories.comes_back(
            self.bucket(&folder),
            (&self.repository(number), password),
            saved["snapshot"].as_str().unwrap(),
            target,
        );
    }

    fn key(&self) -> PathBuf {
        self.path("0b5e.key")
    }
}

/// So many bytes that nothing makes smaller, others for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The files directly in a folder; none where it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(all) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut all: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// The packs of a folder's repository.
fn packs(place: &Place) -> Vec<PathBuf> {
    let folders = files(&place.path("0b5e/data"));
    folders.iter().flat_map(|folder| files(folder)).collect()
}

/// What find, stat, getfattr and sha256sum say of a folder, but for what a restore can not bring back: the time of last access and of change.
fn listed(folder: &Path, without_sockets: bool) -> String {
    let kinds = if without_sockets { "! -type s" } else { "" };
    let script = format!(
        "set -euo pipefail; export LC_ALL=C
         find . {kinds} -print0 | sort -z | xargs -0 stat --printf '%N|%f|%u|%g|%t:%T|%.9Y\\n'
         find . -type f -print0 | sort -z | xargs -0 -r stat --printf '%N|%s|%h\\n'
         find . -type f -links +1 -printf '%i %p\\n' | sort | awk '{{ if ($1 == last) printf \" %s\", $2; else printf \"\\n%s\", $2; last = $1 }} END {{ print \"\" }}' | sort
         find . -type f -print0 | sort -z | xargs -0 -r sha256sum
         getfattr -R -h -P -d -m - -e hex . 2>/dev/null || :"
    );
    let mut command = Command::new("bash");
    Output::of(command.arg("-c").arg(script).current_dir(folder))
        .ok()
        .stdout
}
