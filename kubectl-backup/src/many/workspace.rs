//! A workspace: the clusters that somebody looks after together, written down once. Pure but for reading the one file.
//!
//! ```yaml
//! apiVersion: kubectl-backup/v1
//! kind: Workspace
//! metadata: {name: production}      # of no meaning, for people
//! spec:
//!   location: offsite               # as --location; each cluster has the folder of its name in it
//!   namespaces: [shop, "team-*"]    # as --include-namespaces, of `create` and `restore create`; absent: all
//!   schedule: {name: nightly, ttl: 30d}
//!   clusters:
//!   - context: prod-eu              # of the kubeconfig
//!     name: eu                      # in tables, and its folder; absent: the context's name
//!     namespaces: [shop]            # in the place of spec.namespaces
//!   - context: prod-us
//! ```
//! It is named by its path, or by its name where it is `workspaces/<name>.yaml` beside the file of locations. A field that is not known is refused:
//! a word that is mistyped may not widen what a restore touches. Without `location` each cluster's own is used, that of its Velero or the folder
//! of this machine, and without `schedule` backups belong to none. The schedule names the backups that `create` makes (`<name>-<time>`), is
//! their label `velero.io/schedule-name`, and says how long they are kept; it starts nothing.

use std::io::Read;
use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::layout::TOP_FOLDERS;
use backup_core::name::Name;
use serde::Deserialize;

use backup_cli::error::{CommandError, Result};

/// A larger file is none.
const LARGEST: u64 = 1 << 20;

/// More clusters than that are several workspaces.
const MOST: usize = 500;

/// The clusters that are meant, and what holds for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workspace {
    /// As `--location`.
    pub(crate) location: Option<String>,
    /// What `create` makes belongs to it.
    pub(crate) schedule: Option<Schedule>,
    /// At least one.
    pub(crate) clusters: Vec<Cluster>,
}

/// One of the clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// In tables.
    pub(crate) name: String,
    /// Its folder in the location.
    pub(crate) folder: String,
    /// In the kubeconfig.
    pub(crate) context: String,
    /// As `--include-namespaces`.
    pub(crate) namespaces: Vec<String>,
}

/// What backups belong to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Its name.
    pub(crate) name: String,
    /// As `--ttl`.
    #[serde(default)]
    pub(crate) ttl: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    schedule: Option<Schedule>,
    clusters: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    context: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespaces: Option<Vec<String>>,
}

impl Workspace {
    /// Contexts that are named on the command line.
    ///
    /// # Errors
    /// One that is named twice; two that would have one folder.
    pub(crate) fn of_contexts(contexts: &[String]) -> Result<Self> {
        let clusters = contexts.iter().map(|context| Cluster {
            name: context.clone(),
            folder: folder(context),
            context: context.clone(),
            namespaces: Vec::new(),
        });
        Self {
            clusters: clusters.collect(),
            ..Self::default()
        }
        .checked("--contexts")
    }

    /// Reads one; `named` is a path, or a name in `folder`.
    ///
    /// # Errors
    /// A file that is not there or is no workspace.
    pub(crate) fn read(named: &str, folder: &Path) -> Result<Self> {
        let is_path = named.contains('/') || named.ends_with(".yaml") || named.ends_with(".yml");
        let path = match is_path {
            true => PathBuf::from(named),
            false => folder.join(format!("{named}.yaml")),
        };
        let mut text = String::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
            .map_err(|e| {
                let error =
                    Error::invalid(format!("can not read the workspace {}", path.display()));
                CommandError::usage(
                    error
                        .because(e)
                        .hint("name its file, or a NAME.yaml in that folder"),
                )
            })?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, title: &str) -> Result<Self> {
        let bad = |e: Error| CommandError::usage(e.context(format!("{title} is no workspace")));
        let file: File = serde_saphyr::from_str(text)
            .map_err(|e| bad(Error::invalid("it does not have the fields of one").because(e)))?;
        if file.kind != "Workspace" || file.api_version != "kubectl-backup/v1" {
            let found = format!("it is a {:?} of {:?}", file.kind, file.api_version);
            let hint = "it begins with `apiVersion: kubectl-backup/v1` and `kind: Workspace`";
            return Err(bad(Error::invalid(found).hint(hint)));
        }
        let mut clusters = Vec::new();
        for entry in file.spec.clusters {
            if let Some(name) = entry.name.as_ref().filter(|name| folder(name) != **name) {
                let why = format!("{name:?} can be no name of a cluster");
                let hint =
                    "a name has letters, digits, dots, dashes and underscores, for it is a folder";
                return Err(bad(Error::invalid(why).hint(hint)));
            }
            let name = entry.name.unwrap_or_else(|| entry.context.clone());
            clusters.push(Cluster {
                folder: folder(&name),
                name,
                context: entry.context,
                namespaces: entry
                    .namespaces
                    .unwrap_or_else(|| file.spec.namespaces.clone()),
            });
        }
        if let Some(schedule) = &file.spec.schedule {
            schedule.name.parse::<Name>().map_err(bad)?;
        }
        Self {
            location: file.spec.location.filter(|location| !location.is_empty()),
            schedule: file.spec.schedule,
            clusters,
        }
        .checked(title)
    }

    /// No cluster is meant twice, and none has another one's folder.
    fn checked(self, title: &str) -> Result<Self> {
        let bad = |why: String| {
            Err(CommandError::usage(Error::invalid(format!(
                "{title}: {why}"
            ))))
        };
        if self.clusters.is_empty() || self.clusters.len() > MOST {
            return bad(format!(
                "it names {} clusters, of 1 to {MOST}",
                self.clusters.len()
            ));
        }
        for (at, one) in self.clusters.iter().enumerate() {
            if one.context.is_empty() || one.folder.is_empty() {
                return bad("a context without a name".to_owned());
            }
            if TOP_FOLDERS.contains(&one.folder.as_str()) {
                return bad(format!(
                    "{:?} can be no folder of a cluster: choose another name",
                    one.folder
                ));
            }
            for other in &self.clusters[..at] {
                if other.context == one.context {
                    return bad(format!("the context {:?} stands there twice", one.context));
                }
                if other.folder.eq_ignore_ascii_case(&one.folder) {
                    return bad(format!(
                        "{:?} and {:?} would have one folder, {}: give one of them another name in a workspace file",
                        other.name, one.name, one.folder
                    ));
                }
            }
        }
        Ok(self)
    }
}

/// A context's name as a folder of a bucket: what a key or a shell could stumble on becomes a dash.
fn folder(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .collect();
    name.trim_matches(['.', '-']).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use backup_cli::error::Exit;

    use super::*;

    const TWO: &str = "
apiVersion: kubectl-backup/v1
kind: Workspace
metadata: {name: production}
spec:
  location: offsite
  namespaces: [shop]
  schedule: {name: nightly, ttl: 30d}
  clusters:
  - {context: prod-eu, name: eu, namespaces: [a, b]}
  - context: admin@us
";

    #[test]
    fn a_file_names_clusters_namespaces_location_and_schedule_once() {
        let found = Workspace::parse(TWO, "f").unwrap();
        assert_eq!(found.location.as_deref(), Some("offsite"));
        assert_eq!(found.schedule.unwrap().ttl.as_deref(), Some("30d"));
        let [eu, us] = &found.clusters[..] else {
            panic!("{:?}", found.clusters)
        };
        assert_eq!(
            (eu.name.as_str(), eu.folder.as_str(), eu.context.as_str()),
            ("eu", "eu", "prod-eu")
        );
        assert_eq!(eu.namespaces, ["a", "b"]);
        assert_eq!(
            (us.name.as_str(), us.folder.as_str()),
            ("admin@us", "admin-us")
        );
        assert_eq!(us.namespaces, ["shop"]);
    }

    #[test]
    fn what_could_be_meant_in_two_ways_is_refused() {
        for (from, to) in [
            ("namespaces: [shop]", "namespace: [shop]"),
            ("kind: Workspace", "kind: Workspaces"),
            ("kubectl-backup/v1", "kubectl-backup/v2"),
            ("admin@us", "prod-eu"),
            ("admin@us", "eu"),
            ("name: eu,", "name: ../x,"),
            ("name: eu,", "name: backups,"),
            ("name: nightly", "name: Night/ly"),
            ("- context: admin@us", "- contxt: admin@us"),
            ("context: admin@us", "context: ''"),
        ] {
            let text = TWO.replace(from, to);
            assert_ne!(text, TWO);
            let refused = Workspace::parse(&text, "f").unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage, "{to}");
        }
        let none = Workspace::parse(
            "apiVersion: kubectl-backup/v1\nkind: Workspace\nspec: {clusters: []}",
            "f",
        );
        assert!(none.is_err());
        let of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            Workspace::of_contexts(&names)
        };
        assert_eq!(
            of(&["arn:aws:eks:eu:1:cluster/x"]).unwrap().clusters[0].folder,
            "arn-aws-eks-eu-1-cluster-x"
        );
        for names in [
            &["a", "a"][..],
            &["a:b", "a/b"],
            &[""],
            &["restores"],
            &["..."],
        ] {
            assert!(of(names).is_err(), "{names:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Workspace::read("absent", folder.path()).unwrap_err();
        assert!(
            refused.error().to_string().contains("absent.yaml"),
            "{}",
            refused.error()
        );
        std::fs::write(folder.path().join("w.yaml"), TWO).unwrap();
        let found = Workspace::read("w", folder.path()).unwrap();
        assert_eq!(found.clusters.len(), 2);
        let path = folder.path().join("w.yaml").display().to_string();
        assert_eq!(Workspace::read(&path, Path::new("/x")).unwrap(), found);
    }
}
