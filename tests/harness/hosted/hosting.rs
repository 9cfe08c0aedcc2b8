//! The hosting API of hosted control planes, and the kinds in it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::kkp;
use crate::cluster::{Cluster, Controllers};

/// The hosting API: one that all stories share, or one of the story's own, which may be stopped.
pub enum HostingApi {
    Shared(&'static Cluster),
    Own(Box<Cluster>),
}

impl std::ops::Deref for HostingApi {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match self {
            Self::Shared(cluster) => cluster,
            Self::Own(cluster) => cluster,
        }
    }
}

/// Whose kinds are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    Ours,
    /// As KKP's reference lists them; what they do not have is dropped.
    Kkp,
}

pub(super) fn new_hosting() -> Cluster {
    Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start()
}

pub(super) fn shared_hosting() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = new_hosting();
        bring_crds(&cluster, Kinds::Ours);
        cluster
    })
}

pub(super) const ESTABLISHED: [&str; 4] = [
    "crd/etcdrestores.kubermatic.k8c.io",
    "crd/etcdbackupconfigs.kubermatic.k8c.io",
    "crd/clusters.kubermatic.k8c.io",
    "crd/backupstoragelocations.velero.io",
];

pub(super) fn crd_files() -> Vec<PathBuf> {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    let mut files: Vec<_> = std::fs::read_dir(crds)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    files
}

pub(super) fn bring_crds(hosting: &Cluster, kinds: Kinds) {
    if kinds == Kinds::Kkp {
        kkp::bring_crds(hosting);
    }
    for file in crd_files() {
        if kinds == Kinds::Ours || file.ends_with("backupstoragelocations.velero.io.yaml") {
            hosting.apply(&std::fs::read_to_string(file).unwrap());
        }
    }
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
    wait.extend(ESTABLISHED);
    hosting.kubectl(&wait);
}
