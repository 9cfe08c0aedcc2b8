//! What the stories of restores share: a member with an old state and a snapshot from before it, the calls, and what a data dir holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::etcd::{Etcd, EtcdBuilder, KeyValue, Version};
use harness::process::{Folder, Output};
use harness::run::{Backup, etcd_launcher};
use harness::tools;
use serde_json::Value;

/// All live keys of a database, as `verify` counts them: key, value, revisions, version and lease of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) keys: u64,
    sha256: String,
}

/// One member, stopped, whose state is newer than the snapshot.
pub(super) struct Place {
    pub(super) etcd: Etcd,
    pub(super) snapshot: PathBuf,
    /// The keys at the snapshot.
    pub(super) then: Vec<KeyValue>,
    /// The keys of the old state, and their digest.
    pub(super) now: Vec<KeyValue>,
    pub(super) revision: i64,
    pub(super) new: Digest,
    pub(super) old: Digest,
    version: Version,
}

impl Place {
    pub(super) fn new() -> Self {
        Self::of(Version::V3_6, Etcd::builder())
    }

    pub(super) fn of(version: Version, builder: EtcdBuilder) -> Self {
        let etcd = builder.version(version).start();
        for number in 0..40 {
            etcd.put(&format!("/registry/pods/a/p{number}"), "before");
        }
        etcd.keys().delete_prefix("/registry/pods/a/p3");
        let then = etcd.keys().list("/");
        let snapshot = etcd.save_snapshot("snapshot.db");
        for number in 10..60 {
            etcd.put(&format!("/registry/pods/a/p{number}"), "after");
        }
        etcd.delete("/registry/pods/a/p1");
        let (now, revision) = (etcd.keys().list("/"), etcd.revision());
        etcd.member(0).stop();
        let old = digest(&etcd.member(0).database());
        Self {
            new: digest(&snapshot),
            old,
            etcd,
            snapshot,
            then,
            now,
            revision,
            version,
        }
    }

    pub(super) fn data_dir(&self) -> &Path {
        self.etcd.data_dir()
    }

    /// `restore` of a snapshot into the data dir, with more arguments.
    pub(super) fn restore_of(&self, snapshot: &Path, arguments: &[&str]) -> Backup {
        restore(self.version, snapshot, self.data_dir()).args(arguments)
    }

    /// The same of the place's own snapshot.
    pub(super) fn restore(&self) -> Backup {
        self.restore_of(&self.snapshot, &[])
    }

    /// The same where the data dir does not tell who it is the member of.
    pub(super) fn restore_as_member(&self) -> Backup {
        let cluster = self.etcd.initial_cluster();
        let member = ["--name=etcd-0", "--initial-cluster", &cluster];
        self.restore_of(&self.snapshot, &member)
    }

    pub(super) fn rollback(&self) -> Backup {
        with_tools(
            self.version,
            etcd_launcher(&["rollback", "--yes", "--data-dir"]).arg(self.data_dir()),
        )
        .arg("--etcd")
        .arg(tools::path(match self.version {
            Version::V3_5 => "etcd35",
            Version::V3_6 => "etcd",
        }))
    }

    pub(super) fn status(&self) -> Value {
        status(self.data_dir())
    }

    /// What the member holds, while it is stopped.
    pub(super) fn held(&self) -> Digest {
        digest(&self.etcd.member(0).database())
    }

    /// Starts etcd on what is there and returns its keys.
    pub(super) fn started(&self) -> Vec<KeyValue> {
        self.etcd.member(0).start();
        self.etcd.wait_until_healthy();
        self.etcd.keys().list("/")
    }

    pub(super) fn stop(&self) {
        self.etcd.member(0).stop();
    }

    /// A copy of the data dir as it is now.
    pub(super) fn saved(&self) -> Folder {
        let folder = Folder::new("saved");
        copy(self.data_dir(), &folder.join("data"));
        folder
    }

    /// Makes the data dir what it was then.
    pub(super) fn put_back(&self, saved: &Folder) {
        fs::remove_dir_all(self.data_dir()).unwrap();
        copy(&saved.join("data"), self.data_dir());
    }

    /// Fails the test unless the old state is there, and nothing else but the journal.
    #[track_caller]
    pub(super) fn assert_untouched(&self) {
        assert_eq!(self.held(), self.old);
        assert_eq!(self.left(), ["member"]);
    }

    /// Names in the data dir, but the journal.
    pub(super) fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.data_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".restore-journal")
            .collect();
        names.sort();
        names
    }
}

/// `restore` into a data dir, with the tools of this minor.
pub(super) fn restore(version: Version, snapshot: &Path, data_dir: &Path) -> Backup {
    with_tools(
        version,
        etcd_launcher(&["restore", "--yes"])
            .arg(snapshot)
            .arg("--data-dir")
            .arg(data_dir),
    )
}

fn with_tools(version: Version, call: Backup) -> Backup {
    call.arg("--etcdutl").arg(tools::path(match version {
        Version::V3_5 => "etcdutl35",
        Version::V3_6 => "etcdutl",
    }))
}

pub(super) fn status(data_dir: &Path) -> Value {
    etcd_launcher(&["status", "-o", "json", "--data-dir"])
        .arg(data_dir)
        .ok()
        .json()
}

/// The digest of a database, or of a snapshot.
#[track_caller]
pub(super) fn digest(database: &Path) -> Digest {
    let verified = etcd_launcher(&["verify", "-o", "json"])
        .arg(database)
        .ok()
        .json();
    Digest {
        keys: verified["digest"]["keys"].as_u64().unwrap(),
        sha256: verified["digest"]["sha256"].as_str().unwrap().to_owned(),
    }
}

/// Copies a tree, without what was only allocated.
fn copy(from: &Path, to: &Path) {
    Output::of(
        Command::new("cp")
            .args(["-a", "--sparse=always"])
            .args([from, to]),
    )
    .ok();
}
