//! Files of volumes: what the mover stores, restic reads, and an independent lister finds the same again.

mod damage;
mod keys;
mod live;
mod races;
mod received;
mod round_trip;
mod velero;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::process::{Folder, Output};
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;
use harness::tools;
use serde_json::Value;

/// The volume that these stories are about.
const VOLUME: &str = "cluster/shop/0b5e";

/// Repositories that restic checked, in this run of the tests.
static CHECKED: AtomicUsize = AtomicUsize::new(0);

/// A folder as a location, with a home of its own.
struct Place {
    home: Folder,
    location: String,
    minio: Option<&'static Minio>,
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
        }
    }

    fn minio(bucket: &str) -> Self {
        let minio = Minio::shared();
        minio.bucket(bucket);
        Self {
            home: Folder::new("volumes"),
            location: format!("s3://{bucket}/p?endpoint={}", minio.endpoint()),
            minio: Some(minio),
        }
    }

    fn mover(&self, arguments: &[&str]) -> Backup {
        let call = kubectl_backup(&[&["mover"], arguments].concat())
            .home(self.home.path())
            .location(&self.location);
        match self.minio {
            Some(minio) => call.credentials_of(minio),
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

    /// restic, on the repository with this number.
    fn restic(&self, number: u64, password: &Path, arguments: &[&str]) -> Output {
        let name = match number {
            1 => "0b5e".to_owned(),
            number => format!("0b5e.{number}"),
        };
        let mut command = Command::new(tools::path("restic"));
        command.env_clear().env("HOME", self.home.path());
        let repository = match self.minio {
            None => text(&self.path(&name)).to_owned(),
            Some(minio) => {
                let url = self.location.strip_prefix("s3://").unwrap();
                let bucket = url.split('?').next().unwrap();
                command
                    .env("AWS_ACCESS_KEY_ID", minio.access_key())
                    .env("AWS_SECRET_ACCESS_KEY", minio.secret_key());
                format!(
                    "s3:{}/{bucket}/restic/cluster/shop/{name}",
                    minio.endpoint()
                )
            }
        };
        command.args(["-r", &repository, "--no-cache", "--no-lock", "-p"]);
        Output::of(command.arg(password).args(arguments))
    }

    /// restic reads every byte of the repository, and brings this snapshot back; what it brings is in `data` below the target.
    fn checked_by_restic(&self, saved: &Value, password: &Path, target: &Path) {
        let number = saved["repository"].as_u64().unwrap();
        let said = self
            .restic(number, password, &["check", "--read-data"])
            .ok();
        assert!(
            said.stdout.contains("no errors were found"),
            "{}",
            said.stdout
        );
        let snapshot = saved["snapshot"].as_str().unwrap();
        self.restic(
            number,
            password,
            &["restore", snapshot, "--target", text(target)],
        )
        .ok();
        let count = CHECKED.fetch_add(1, Ordering::SeqCst) + 1;
        #[expect(clippy::print_stdout, reason = "with --nocapture it says how many")]
        {
            println!("restic checked and restored {count} repositories");
        }
    }

    fn key(&self) -> PathBuf {
        self.path("0b5e.key")
    }
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
