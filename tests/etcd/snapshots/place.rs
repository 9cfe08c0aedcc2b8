//! What the stories of snapshots share: the call, a bucket of a story's own, and etcd's own judgement of a file.

use std::fs;
use std::path::{Path, PathBuf};

use harness::etcd::{Etcd, KeyValue, Version, etcdutl};
use harness::process::Folder;
use harness::run::{Backup, etcd_launcher};
use harness::store::Minio;
use serde_json::Value;

/// The cluster's name in every location here.
pub(super) const CLUSTER: &str = "zvc78xnnz7";

/// A call of `snapshot` for this etcd with more arguments.
pub(super) fn of(etcd: &Etcd, arguments: &[&str]) -> Backup {
    etcd_launcher(&["snapshot"])
        .env("ETCDCTL_ENDPOINTS", etcd.endpoints().join(","))
        .args(&etcd.client_flags())
        .args(arguments)
}

/// A bucket in the shared store.
pub(super) struct Bucket {
    pub(super) name: &'static str,
    pub(super) folder: Folder,
}

impl Bucket {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name: Minio::shared().bucket(name),
            folder: Folder::new(name),
        }
    }

    /// A call that saves a snapshot of this name.
    pub(super) fn snapshot(&self, etcd: &Etcd, name: &str) -> Backup {
        self.through(Minio::shared().endpoint(), etcd, name)
    }

    /// The same by way of a proxy.
    pub(super) fn through(&self, endpoint: &str, etcd: &Etcd, name: &str) -> Backup {
        let location = format!("s3://{}/pre/fix?endpoint={endpoint}", self.name);
        of(
            etcd,
            &[&format!("--cluster={CLUSTER}"), &format!("--name={name}")],
        )
        .location(&location)
        .credentials_of(Minio::shared())
        .env("AWS_ENDPOINT_URL", endpoint)
    }

    /// Every key below the prefix.
    pub(super) fn keys(&self) -> Vec<String> {
        Minio::shared().list(self.name, "")
    }

    /// The manifest and the data of a snapshot: the only two files of its folder.
    pub(super) fn saved(&self, name: &str) -> (Value, Vec<u8>) {
        let folder = format!("pre/fix/plugins/etcd-launcher/{CLUSTER}/{name}");
        let minio = Minio::shared();
        let manifest = minio.get(self.name, &format!("{folder}/manifest.json"));
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let data = format!("{folder}/{}", manifest["data"]["file"].as_str().unwrap());
        let mut expected = vec![data.clone(), format!("{folder}/manifest.json")];
        expected.sort();
        assert_eq!(minio.list(self.name, &folder), expected);
        assert_eq!(
            (&manifest["cluster"], &manifest["name"]),
            (&CLUSTER.into(), &name.into())
        );
        (manifest, minio.get(self.name, &data).to_vec())
    }

    /// Fails the test where the bucket has anything at all, parts of uploads among it.
    #[track_caller]
    pub(super) fn assert_is_empty(&self) {
        assert_eq!(self.keys(), Vec::<String>::new());
        let path = format!("/{}?uploads=", self.name);
        let uploads = Minio::shared().signed(http::Method::GET, &path, "s3", "", &[]);
        assert!(uploads.is_success(), "{}", uploads.text());
        assert!(!uploads.text().contains("<Upload>"), "{}", uploads.text());
    }
}

/// The file that `zstd -d` makes of it.
pub(super) fn unpacked(folder: &Folder, packed: &[u8]) -> PathBuf {
    let file = folder.join("unpacked.db");
    fs::write(&file, zstd::decode_all(packed).unwrap()).unwrap();
    file
}

/// `etcdutl snapshot status` of a file.
pub(super) fn status(version: Version, file: &Path) -> Value {
    let file = file.to_str().unwrap();
    etcdutl(version, &["snapshot", "status", "-w=json", file])
        .ok()
        .json()
}

/// An etcd that runs on what etcdutl restored from a file.
pub(super) fn restored(version: Version, file: &Path) -> Etcd {
    let etcd = Etcd::builder().version(version).start();
    let member = etcd.member(0);
    member.stop();
    fs::remove_dir_all(member.data_dir()).unwrap();
    etcd.etcdutl(&[
        "snapshot",
        "restore",
        file.to_str().unwrap(),
        &format!("--data-dir={}", member.data_dir().display()),
        &format!("--name={}", member.name()),
        &format!("--initial-cluster={}", etcd.initial_cluster()),
        &format!("--initial-advertise-peer-urls={}", member.peer_url()),
    ]);
    member.start();
    member.wait_until_healthy();
    etcd
}

/// All keys, with their revisions.
pub(super) fn contents(etcd: &Etcd) -> Vec<KeyValue> {
    etcd.keys().list("/")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
