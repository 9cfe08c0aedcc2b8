//! The locations of an installed Velero, as they stand in the cluster: which of them count, and how one is opened from here with its Secret.
//! Reads the cluster and writes nothing.
//!
//! Those of the namespaces kubectl-backup and velero count. Other namespaces hold the destinations of hosted control planes, and who may write there
//! may make his location look like a Velero's: they count only where `--velero-namespace` names them. Where a Velero seems to be
//! (`status.lastValidationTime`) is told, so that its user knows what to add.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use backup_core::api::BackupStorageLocation;
use backup_core::cluster::{ApiError, Cluster};
use backup_core::location::{Location, kkp, leads_elsewhere, object};
use backup_core::{Error, Kind};

use super::Context;
use crate::install::NAMESPACE;
use backup_cli::error::Result;
use backup_cli::locations::{CREDENTIALS_FILE, SIGNING_KEY_FILE, Source, has_keys_in_environment};

/// Looked at in this order: what lies where our own controller has its objects is not Velero's.
const USUAL: [&str; 2] = [NAMESPACE, "velero"];

const KIND: &str = "/apis/velero.io/v1";

/// How long a name may take that only a cluster's own DNS may know.
const DNS: Duration = Duration::from_secs(5);

/// What a cluster has; nothing where it knows no such kind.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The locations that count, in the order in which they are asked.
    pub(super) sources: Vec<Source>,
    /// Other namespaces with locations that a Velero seems to use, sorted.
    elsewhere: Vec<String>,
}

impl Found {
    /// What to tell who named no location and gets none of these.
    pub(super) fn unused(&self) -> Option<String> {
        let elsewhere = Some(self.elsewhere.join(", ")).filter(|names| !names.is_empty())?;
        Some(format!(
            "locations in other namespaces are used only when asked for: --velero-namespace with one of {elsewhere}"
        ))
    }
}

/// Looks for the locations of a cluster.
///
/// # Errors
/// The API server's; a namespace that was named and holds none.
pub(super) async fn find(cluster: &Cluster, asked: Option<&str>) -> Result<Found> {
    let title =
        |namespace: &str| format!("namespace {namespace} of context {:?}", cluster.context());
    if let Some(namespace) = asked {
        let locations = object::list(cluster, Some(namespace)).await;
        let locations = locations.map_err(|e| refused(e, &format!(" in namespace {namespace}")))?;
        return Ok(Found {
            sources: vec![source(title(namespace), held(namespace, locations)?)],
            elsewhere: Vec::new(),
        });
    }
    let all = match object::list(cluster, None).await {
        Ok(all) => all,
        Err(e) if e.is_not_found() => return Ok(Found::default()),
        // Who may not list them is refused whether the kind is there or not; what is served, everybody may know.
        Err(e) if e.is_forbidden() => match cluster.get(KIND).await {
            Err(absent) if absent.is_not_found() => return Ok(Found::default()),
            _ => usual(cluster, e).await?,
        },
        Err(e) => return Err(refused(e, "").into()),
    };
    let (counting, elsewhere) = counting(all);
    Ok(Found {
        sources: counting
            .into_iter()
            .map(|(namespace, locations)| source(title(namespace), locations))
            .collect(),
        elsewhere,
    })
}

/// A mistyped namespace is no cluster without Velero: nobody's backups go to a folder in its place.
fn held(
    namespace: &str,
    locations: Vec<BackupStorageLocation>,
) -> Result<Vec<BackupStorageLocation>, Error> {
    if locations.is_empty() {
        return Err(Error::not_found(format!(
            "namespace {namespace} holds no BackupStorageLocation"
        ))
        .hint("--velero-namespace (or its variable) names it: is it spelled right?"));
    }
    Ok(locations)
}

fn source(title: String, locations: Vec<BackupStorageLocation>) -> Source {
    Source {
        title,
        locations,
        in_cluster: true,
    }
}

fn refused(e: ApiError, place: &str) -> Error {
    let is_forbidden = e.is_forbidden();
    let error = Error::from(e).context(format!("can not list BackupStorageLocations{place}"));
    if is_forbidden {
        return error.hint(
            "this user needs the right to `list` backupstoragelocations.velero.io there; a location of your own needs none: --location",
        );
    }
    error
}

/// For who may look in some namespaces alone.
async fn usual(cluster: &Cluster, of_all: ApiError) -> Result<Vec<BackupStorageLocation>> {
    let mut found = Vec::new();
    let mut forbidden = 0;
    for namespace in USUAL {
        match object::list(cluster, Some(namespace)).await {
            Ok(some) => found.extend(some),
            Err(e) if e.is_forbidden() => forbidden += 1,
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(refused(e, "").into()),
        }
    }
    if is_hidden(&found, forbidden) {
        return Err(refused(of_all, "").into());
    }
    Ok(found)
}

/// Whether a location may be there that this user does not see.
fn is_hidden(found: &[BackupStorageLocation], forbidden: usize) -> bool {
    found.is_empty() && forbidden > 0
}

type Counting = Vec<(&'static str, Vec<BackupStorageLocation>)>;

/// Those that count, by namespace, and where others are that a Velero has looked at. Pure.
fn counting(all: Vec<BackupStorageLocation>) -> (Counting, Vec<String>) {
    let of = |namespace: &str| -> Vec<_> {
        let there =
            |one: &&BackupStorageLocation| one.metadata.namespace.as_deref() == Some(namespace);
        all.iter().filter(there).cloned().collect()
    };
    let found = USUAL
        .iter()
        .map(|namespace| (*namespace, of(namespace)))
        .filter(|(_, locations)| !locations.is_empty())
        .collect();
    let elsewhere: BTreeSet<_> = all
        .iter()
        .filter(|one| !one.status["lastValidationTime"].is_null())
        .filter_map(|one| one.metadata.namespace.clone())
        .filter(|namespace| !USUAL.contains(&namespace.as_str()))
        .collect();
    (found, elsewhere.into_iter().collect())
}

impl Context {
    /// Opens an object of the cluster from here, with what its Secrets hold; nothing is sent to the store yet.
    ///
    /// # Errors
    /// One that only works inside the cluster, with what to do instead; a Secret that is absent, or that this user may not read.
    pub(crate) async fn open_object(&self, mut spec: BackupStorageLocation) -> Result<Location> {
        if spec.kind == kkp::KIND {
            return self.open_kkp(spec).await;
        }
        let namespace = spec.metadata.namespace.clone().unwrap_or_default();
        let title = format!("location {:?} of namespace {namespace}", spec.metadata.name);
        let flags = self.location_args();
        reachable(&mut spec, &title).await?;
        let own = flags.credentials_file.as_deref();
        let cluster = self.cluster().await?;
        let credentials = object::credentials(cluster, &namespace, &mut spec, own.is_some())
            .await
            .map_err(|e| {
                let hint = match e.hint_text() {
                    Some(hint) => {
                        format!("{hint}; or give credentials of your own with --credentials-file")
                    }
                    None => "give credentials of your own with --credentials-file".to_owned(),
                };
                e.context(format!("{title} can not be used")).hint(hint)
            })?;
        let leads_elsewhere = leads_elsewhere(&spec.spec).is_some();
        let ambient = Ambient {
            file: flags.credentials_file_of_environment.as_deref(),
            has_keys: has_keys_in_environment(&spec.spec.provider),
        };
        let file = match own {
            None if credentials.file.is_none() => ambient.file_for(&title, leads_elsewhere)?,
            own => own,
        };
        let mut location = flags.open_with(&spec, file, credentials)?;
        location.shared_with_velero = namespace != NAMESPACE;
        Ok(location)
    }
}

/// What the environment has for locations: this user's own file of credentials, and keys.
struct Ambient<'e> {
    file: Option<&'e Path>,
    has_keys: bool,
}

impl<'e> Ambient<'e> {
    /// The file, where an object of a cluster has no credentials of its own; nothing where the environment's keys are meant. What the environment
    /// has them for is not known to a store that an object names: they go to none but the provider itself.
    fn file_for(&self, title: &str, has_url: bool) -> Result<Option<&'e Path>, Error> {
        match (self.file, has_url) {
            (Some(file), false) => Ok(Some(file)),
            (None, false) if self.has_keys => Ok(None),
            (file, _) => Err(Error::invalid(format!(
                "{title} has no credentials of its own: those of Velero's machine can not be borrowed"
            ))
            .hint(match file {
                Some(_) => "give credentials of your own with --credentials-file: its variable is not taken for an address that an object of a cluster names",
                None => "give credentials of your own with --credentials-file",
            })),
        }
    }
}

/// Makes a location that works inside the cluster one that works from here, where that can be.
pub(super) async fn reachable(location: &mut BackupStorageLocation, title: &str) -> Result<()> {
    // No file of this machine is named by an object of a cluster.
    for key in [CREDENTIALS_FILE, SIGNING_KEY_FILE] {
        location.metadata.annotations.remove(key);
    }
    let spec = &mut location.spec;
    if spec.provider.trim_start_matches("velero.io/") == "local" {
        return Err(Error::invalid(format!(
            "{title} is a folder of the machine on which its writer runs"
        ))
        .hint("where that folder can be seen from here, name it: --location file:///the/folder")
        .into());
    }
    if let Some(file) = spec.config.get("customerKeyEncryptionFile") {
        return Err(Error::invalid(format!(
            "{title} can not be used from here: config.customerKeyEncryptionFile names {file} on Velero's machine"
        ))
        .hint("bring the key here and create a location of your own with that setting, or name the key's Secret with config.customerKeyEncryptionSecret")
        .into());
    }
    let public = spec
        .config
        .remove("publicUrl")
        .filter(|url| !url.is_empty());
    if let Some(public) = public {
        spec.config.insert("s3Url".to_owned(), public);
        return Ok(());
    }
    let Some((host, port)) = spec
        .config
        .get("s3Url")
        .and_then(|url| in_cluster_host(url))
    else {
        return Ok(());
    };
    let known = tokio::time::timeout(DNS, tokio::net::lookup_host((host.as_str(), port))).await;
    if matches!(known, Ok(Ok(_))) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unreachable,
        format!("{title} can not be used from here: {host} is a name inside the cluster"),
    )
    .hint(format!(
        "set config.publicUrl of the BackupStorageLocation to an address that works from outside; or `kubectl port-forward` to the store, and \
         --location 's3://{}/{}?endpoint=http://127.0.0.1:{port}' with --credentials-file",
        spec.object_storage.bucket,
        spec.object_storage.prefix.as_deref().unwrap_or_default()
    ))
    .into())
}

/// Host and port of an address that only a cluster's own DNS knows.
fn in_cluster_host(url: &str) -> Option<(String, u16)> {
    let url: http::Uri = url.parse().ok()?;
    let host = url.host()?.to_ascii_lowercase();
    let inside =
        host.ends_with(".svc") || host.contains(".svc.") || host.ends_with(".cluster.local");
    let port = url.port_u16().unwrap_or(match url.scheme_str() {
        Some("http") => 80,
        _ => 443,
    });
    inside.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(namespace: &str, name: &str, seen: bool) -> BackupStorageLocation {
        let mut location = BackupStorageLocation::default();
        location.metadata.name = name.to_owned();
        location.metadata.namespace = Some(namespace.to_owned());
        if seen {
            location.status = serde_json::json!({"lastValidationTime": "2026-11-21T02:00:00Z"});
        }
        location
    }

    #[test]
    fn the_usual_namespaces_count_and_a_location_elsewhere_is_told_and_never_used_unasked() {
        let of = |all: &[(&str, bool)]| {
            let all = all
                .iter()
                .map(|(namespace, seen)| location(namespace, "default", *seen));
            let (found, elsewhere) = counting(all.collect());
            let found: Vec<_> = found.into_iter().map(|(namespace, _)| namespace).collect();
            (found, elsewhere)
        };
        let (found, elsewhere) =
            of(&[("velero", true), ("other", true), ("kubectl-backup", false)]);
        assert_eq!(found, ["kubectl-backup", "velero"]);
        assert_eq!(elsewhere, ["other"]);
        // Who may write a location in a namespace may write that a Velero has looked at it.
        let (found, elsewhere) = of(&[("cluster-b", true), ("cluster-a", true), ("c", false)]);
        assert!(found.is_empty(), "{found:?}");
        let unused = Found {
            sources: Vec::new(),
            elsewhere,
        }
        .unused();
        assert!(unused.unwrap().ends_with("cluster-a, cluster-b"));
        assert_eq!(Found::default().unused(), None);
    }

    #[test]
    fn a_namespace_that_was_named_holds_locations_and_what_is_hidden_is_not_absent() {
        let one = vec![location("velero", "default", true)];
        let refused = held("vlero", Vec::new()).unwrap_err();
        assert_eq!(refused.kind(), Kind::NotFound);
        assert!(refused.to_string().contains("namespace vlero"));
        assert!(held("velero", one.clone()).is_ok());
        for (found, forbidden, hidden) in [
            (&one[..], 1, false),
            (&[], 0, false),
            (&[], 1, true),
            (&[], 2, true),
        ] {
            assert_eq!(is_hidden(found, forbidden), hidden, "{forbidden}");
        }
    }

    #[test]
    fn the_environments_credentials_go_to_no_store_that_an_object_names() {
        let file = Path::new("/keys");
        let of = |file, has_keys, has_url| {
            Ambient { file, has_keys }
                .file_for("it", has_url)
                .map_err(|e| e.hint_text().unwrap().contains("variable"))
        };
        assert_eq!(of(Some(file), true, false), Ok(Some(file)));
        assert_eq!(of(None, true, false), Ok(None));
        assert_eq!(of(None, false, false), Err(false));
        assert_eq!(of(None, true, true), Err(false));
        assert_eq!(of(Some(file), true, true), Err(true));
    }

    #[tokio::test]
    async fn what_only_works_inside_the_cluster_is_refused_with_what_to_do() {
        let with = |provider: &str, config: &[(&str, &str)]| {
            let mut location = location("velero", "x", true);
            location.spec.provider = provider.to_owned();
            location.spec.object_storage.bucket = "b".to_owned();
            for (key, value) in config {
                location
                    .spec
                    .config
                    .insert((*key).to_owned(), (*value).to_owned());
            }
            location
        };
        for (mut location, says) in [
            (with("velero.io/local", &[]), "file:///"),
            (
                with("aws", &[("customerKeyEncryptionFile", "/k")]),
                "customerKeyEncryptionSecret",
            ),
            (
                with("aws", &[("s3Url", "http://minio.absent.svc:9000")]),
                "publicUrl",
            ),
        ] {
            let refused = reachable(&mut location, "it").await.unwrap_err();
            assert!(
                refused.error().hint_text().unwrap().contains(says),
                "{says}"
            );
        }
        let inside = ("s3Url", "http://minio.absent.svc:9000");
        let mut location = with("aws", &[inside, ("publicUrl", "https://public")]);
        location
            .metadata
            .annotations
            .insert(CREDENTIALS_FILE.into(), "/etc/passwd".into());
        reachable(&mut location, "it").await.unwrap();
        assert_eq!(location.spec.config["s3Url"], "https://public");
        assert!(location.metadata.annotations.is_empty());
        for (url, host) in [
            (
                "http://minio.velero.svc:9000",
                Some(("minio.velero.svc", 9000)),
            ),
            (
                "https://minio.velero.svc.cluster.local",
                Some(("minio.velero.svc.cluster.local", 443)),
            ),
            ("https://s3.example.com", None),
            ("x", None),
        ] {
            let found = in_cluster_host(url);
            assert_eq!(
                found.as_ref().map(|(host, port)| (host.as_str(), *port)),
                host
            );
        }
    }
}
