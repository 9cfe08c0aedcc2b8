//! Where a story plays: a cluster, a folder or bucket of its own for backups, and what is in it, read without the plugin.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::{Backup, kubectl_backup};
use serde_json::Value;

/// The shared cluster and a folder of the story's own.
pub(crate) struct Place {
    pub(crate) cluster: &'static Cluster,
    pub(crate) folder: Folder,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            cluster: Cluster::shared(),
            folder: Folder::new("location"),
        }
    }

    /// The location as a URL.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    /// A call on this place.
    pub(crate) fn run(&self, arguments: &[&str]) -> Backup {
        on(self.cluster, &self.url(), arguments)
    }

    /// Where a file of a backup lies.
    pub(crate) fn file(&self, backup: &str, file: &str) -> PathBuf {
        self.folder.join(format!("backups/{backup}/{file}"))
    }

    /// The archive of a backup.
    pub(crate) fn archive(&self, backup: &str) -> Archive {
        Archive::of(&fs::read(self.file(backup, &format!("{backup}.tar.gz"))).unwrap())
    }

    /// A side file, unpacked.
    pub(crate) fn side_file(&self, backup: &str, suffix: &str) -> Value {
        let packed = fs::read(self.file(backup, &format!("{backup}{suffix}"))).unwrap();
        serde_json::from_str(&gunzip(&packed)).unwrap()
    }

    /// The names of files in a backup's folder; none where there is no folder.
    pub(crate) fn files(&self, backup: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.join(format!("backups/{backup}"))) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The marker.
    pub(crate) fn marker(&self, backup: &str) -> Value {
        serde_json::from_slice(&fs::read(self.file(backup, "velero-backup.json")).unwrap()).unwrap()
    }
}

/// A call on a cluster and a location.
pub(crate) fn on(cluster: &Cluster, location: &str, arguments: &[&str]) -> Backup {
    kubectl_backup(arguments)
        .kubeconfig(cluster.kubeconfig())
        .env("KUBECTL_BACKUP_LOCATION", location)
}

pub(crate) fn gunzip(packed: &[u8]) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// An archive as any tar sees it: path to body, the last one where a path comes twice.
pub(crate) struct Archive(pub(crate) BTreeMap<String, Vec<u8>>);

impl Archive {
    pub(crate) fn of(packed: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(MultiGzDecoder::new(packed))
            .entries()
            .unwrap()
        {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut body = Vec::new();
            entry.read_to_end(&mut body).unwrap();
            files.insert(path, body);
        }
        Self(files)
    }

    /// `namespace/name` or `name` of every object of a resource.
    pub(crate) fn names(&self, resource: &str) -> Vec<String> {
        let (namespaced, cluster) = (
            format!("resources/{resource}/namespaces/"),
            format!("resources/{resource}/cluster/"),
        );
        let name = |path: &str| {
            path.strip_prefix(&namespaced)
                .or_else(|| path.strip_prefix(&cluster))?
                .strip_suffix(".json")
                .map(str::to_owned)
        };
        self.0.keys().filter_map(|path| name(path)).collect()
    }

    pub(crate) fn object(&self, resource: &str, namespace: &str, name: &str) -> Value {
        serde_json::from_slice(
            &self.0[&format!("resources/{resource}/namespaces/{namespace}/{name}.json")],
        )
        .unwrap()
    }
}

/// Gives a claim a volume, of which no node makes anything, and waits until it is bound.
pub(crate) fn bind(cluster: &Cluster, namespace: &str, claim: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
    let mode = cluster.get_raw(&path)["spec"]["volumeMode"].take();
    cluster.apply(&format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}-{claim}}}
spec:
  capacity: {{storage: 1Ti}}
  accessModes: [ReadWriteOnce]
  volumeMode: {mode}
  storageClassName: ''
  hostPath: {{path: /nowhere}}
  claimRef: {{apiVersion: v1, kind: PersistentVolumeClaim, namespace: {namespace}, name: {claim}}}
"
    ));
    is_bound(cluster, namespace, claim);
}

/// Waits until a claim is bound.
pub(crate) fn is_bound(cluster: &Cluster, namespace: &str, claim: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
    harness::wait_for("a bound claim", Duration::from_secs(60), || {
        (cluster.get_raw(&path)["status"]["phase"] == "Bound").then_some(())
    });
}
