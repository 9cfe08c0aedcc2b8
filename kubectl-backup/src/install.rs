//! What an installed controller consists of: its namespace, its account and rights, its Deployment, and the roles of its users. Pure: `install` applies
//! these objects, `uninstall` finds them again, and manifests/controller has them as files.
//!
//! Each object bears the label [`PART`]: one without it is somebody else's, and is neither changed nor removed. Names of cluster-wide objects hold the
//! namespace, so that controllers of several namespaces do not meet; the users' roles are the same for all of them.

pub(crate) mod place;

use jiff::SignedDuration;
use serde_json::{Value, json};

/// The label of our objects, and its values.
pub(crate) const PART: &str = "kubectl-backup/part";
pub(crate) const CONTROLLER: &str = "controller";
const USERS: &str = "users";

/// Of account, Deployment and the rights in the namespace.
pub(crate) const NAME: &str = "kubectl-backup";

/// Its holder works; of several controllers it is one.
pub(crate) const LEASE: &str = "kubectl-backup-controller";

/// The Secret with the keys of volumes' repositories that the controller made.
pub(crate) const VOLUME_KEYS: &str = "kubectl-backup-volume-keys";

/// The Lease is renewed every few seconds; clocks differ.
pub(crate) const SILENT: SignedDuration = SignedDuration::from_secs(60);

/// The namespace where none is named.
pub(crate) const NAMESPACE: &str = "kubectl-backup";

/// Probes and metrics.
const PORT: u16 = 8085;

/// How it is to be installed.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where.
    pub(crate) namespace: String,
    /// The image, as nodes pull it.
    pub(crate) image: String,
    /// Whether it may write what restores write.
    pub(crate) restores: bool,
    /// More arguments of the controller.
    pub(crate) flags: Vec<String>,
}

/// One object, and the path of its kind.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// What is applied.
    pub(crate) object: Value,
    collection: String,
}

impl Piece {
    /// An object of the kind at this path.
    pub(crate) fn new(collection: String, object: Value) -> Self {
        Self { object, collection }
    }

    /// Its path.
    pub(crate) fn path(&self) -> String {
        let name = self.object["metadata"]["name"].as_str();
        format!("{}/{}", self.collection, name.unwrap_or_default())
    }

    /// `deployment/kubectl-backup`
    pub(crate) fn title(&self) -> String {
        title(&self.object)
    }

    /// Whether it is a namespace: one that others made is used as it stands.
    pub(crate) fn is_namespace(&self) -> bool {
        self.object["kind"] == "Namespace"
    }

    /// Whether what it holds may not be shown.
    pub(crate) fn is_secret(&self) -> bool {
        self.object["kind"] == "Secret"
    }
}

/// `deployment/kubectl-backup`
pub(crate) fn title(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    format!("{kind}/{name}")
}

/// Whether an object is one of ours.
pub(crate) fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][PART].is_string()
}

/// The labels of an object of ours.
pub(crate) fn labels(part: &str) -> Value {
    json!({"app.kubernetes.io/name": NAME, PART: part})
}

fn rbac(kind: &str) -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/{kind}")
}

fn rbac_in(namespace: &str, kind: &str) -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{kind}")
}

/// The name of what is cluster-wide and of one installation.
pub(crate) fn cluster_name(namespace: &str) -> String {
    format!("{NAME}:{namespace}")
}

/// Namespace, account and Deployment.
pub(crate) fn controller(wanted: &Wanted) -> Vec<Piece> {
    let namespace = &wanted.namespace;
    let labels = labels(CONTROLLER);
    let meta = json!({"name": NAME, "namespace": namespace, "labels": labels});
    let mut of_namespace = labels.clone();
    of_namespace["pod-security.kubernetes.io/enforce"] = "restricted".into();
    vec![
        Piece::new(
            "/api/v1/namespaces".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": of_namespace}}),
        ),
        Piece::new(
            format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        ),
        Piece::new(
            format!("/apis/apps/v1/namespaces/{namespace}/deployments"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment(wanted, &labels)}),
        ),
    ]
}

fn deployment(wanted: &Wanted, labels: &Value) -> Value {
    let mut args = vec![
        "controller".to_owned(),
        format!("--namespace={}", wanted.namespace),
        format!("--metrics-address=:{PORT}"),
    ];
    if !wanted.restores {
        args.push("--no-restores".to_owned());
    }
    args.extend(wanted.flags.iter().cloned());
    let probe = |path: &str, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "http"},
            "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": failures,
        })
    };
    let selector = json!({"app.kubernetes.io/name": NAME, PART: CONTROLLER});
    json!({
        "replicas": 1,
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {
                "labels": labels,
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": PORT.to_string(), "prometheus.io/path": "/metrics"},
            },
            "spec": {
                "serviceAccountName": NAME,
                // Work that is stopped takes its files away.
                "terminationGracePeriodSeconds": 40,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": CONTROLLER,
                    "image": wanted.image,
                    "command": ["/kubectl-backup"],
                    "args": args,
                    // Archives of other tools are rewritten there for a restore, and journals of read-only locations kept.
                    "env": [{"name": "HOME", "value": "/scratch"}, {"name": "TMPDIR", "value": "/scratch"}],
                    "ports": [{"name": "http", "containerPort": PORT}],
                    "livenessProbe": probe("/healthz", 12),
                    "readinessProbe": probe("/readyz", 1),
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                }],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        },
    })
}

/// What the account may do. A backup reads everything, so the account reads everything, Secrets too; it writes only what it serves, in its namespace,
/// and, where restores are wanted, what these bring back: any kind, and roles with rights that it does not have itself.
pub(crate) fn rights(wanted: &Wanted) -> Vec<Piece> {
    let namespace = &wanted.namespace;
    let name = cluster_name(namespace);
    let labels = labels(CONTROLLER);
    let mut everywhere =
        vec![json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]})];
    if wanted.restores {
        everywhere.push(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["create", "update", "patch", "delete"]}));
        everywhere.push(json!({
            "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["roles", "clusterroles"],
            "verbs": ["escalate", "bind"],
        }));
    }
    if !wanted.restores {
        // Through which the files of volumes are read.
        everywhere
            .push(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete"]}));
        everywhere
            .push(json!({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}));
        // Where one pod alone may have a volume, and it is asked for; who may exec could as much before.
        everywhere.push(
            json!({"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["patch"]}),
        );
    }
    let here = [
        json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}),
        json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [VOLUME_KEYS], "verbs": ["patch"]}),
        json!({"apiGroups": ["velero.io"], "resources": ["*"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]}),
        json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}),
        // Whose turn it is. What is created can not be named beforehand.
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}),
        json!({
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": [LEASE], "verbs": ["get", "update"],
        }),
    ];
    let account = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]);
    let to = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let api = "rbac.authorization.k8s.io/v1";
    let wide = json!({"name": name, "labels": labels});
    let meta = json!({"name": NAME, "namespace": namespace, "labels": labels});
    vec![
        Piece::new(
            rbac("clusterroles"),
            json!({"apiVersion": api, "kind": "ClusterRole", "metadata": wide, "rules": everywhere}),
        ),
        Piece::new(
            rbac("clusterrolebindings"),
            json!({"apiVersion": api, "kind": "ClusterRoleBinding", "metadata": wide, "roleRef": to("ClusterRole", &name), "subjects": account}),
        ),
        Piece::new(
            rbac_in(namespace, "roles"),
            json!({"apiVersion": api, "kind": "Role", "metadata": meta, "rules": here}),
        ),
        Piece::new(
            rbac_in(namespace, "rolebindings"),
            json!({"apiVersion": api, "kind": "RoleBinding", "metadata": meta, "roleRef": to("Role", NAME), "subjects": account}),
        ),
    ]
}

/// Roles that add these kinds to Kubernetes' own view, edit and admin. An address of a DownloadRequest opens a backup, Secrets and all, so that `view` has none;
/// a location says where all of it goes, so that only `admin` makes one.
pub(crate) fn users() -> Vec<Piece> {
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "patch", "update"];
    let rule = |resources: &[&str], verbs: &[&str]| json!({"apiGroups": ["velero.io"], "resources": resources, "verbs": verbs});
    let questions = ["downloadrequests", "serverstatusrequests"];
    let asked = ["backups", "deletebackuprequests", "restores", "schedules"];
    let places = ["backupstoragelocations", "volumesnapshotlocations"];
    [
        ("view", vec![rule(&asked, &read), rule(&places, &read)]),
        (
            "edit",
            vec![
                rule(&questions, &read),
                rule(&asked, &write),
                rule(&questions, &write),
            ],
        ),
        ("admin", vec![rule(&places, &write)]),
    ]
    .into_iter()
    .map(|(name, rules)| {
        let mut labels = labels(USERS);
        labels[format!("rbac.authorization.k8s.io/aggregate-to-{name}")] = "true".into();
        Piece::new(
            rbac("clusterroles"),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": format!("{NAME}-{name}"), "labels": labels}, "rules": rules,
            }),
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use backup_cli::output;
    use backup_core::api::crds;

    use super::*;

    fn wanted(restores: bool) -> Wanted {
        let image = crate::commands::install::image();
        Wanted {
            namespace: NAMESPACE.to_owned(),
            restores,
            flags: crate::copies::CopyArgs::default().words(&image),
            image,
        }
    }

    fn documents(command: &str, objects: impl IntoIterator<Item = Value>) -> String {
        let mut text = format!("# Generated by `kubectl backup {command}`.\n");
        for object in objects {
            text += &format!("---\n{}", output::yaml(&object).unwrap());
        }
        text
    }

    /// `UPDATE_MANIFESTS=1 cargo test --workspace --bin kubectl-backup manifests` writes them anew.
    #[test]
    fn the_manifests_of_the_controller_are_what_install_applies() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/controller");
        let objects = |pieces: Vec<Piece>| pieces.into_iter().map(|piece| piece.object);
        let of = "install --dry-run -o yaml";
        let crds = crds::velero().unwrap();
        let crds = crds.iter().map(|crd| serde_json::to_value(crd).unwrap());
        let files = [
            ("crds.yaml", documents(of, crds)),
            (
                "controller.yaml",
                documents(of, objects(controller(&wanted(true)))),
            ),
            ("rbac.yaml", documents(of, objects(rights(&wanted(true))))),
            (
                "no-restores.yaml",
                documents(
                    &format!("{of} --no-restores"),
                    objects(controller(&wanted(false)))
                        .filter(|object| object["kind"] == "Deployment")
                        .chain(objects(rights(&wanted(false)))),
                ),
            ),
            ("users.yaml", documents(of, objects(users()))),
        ];
        for (name, text) in &files {
            let path = folder.join(name);
            if std::env::var_os("UPDATE_MANIFESTS").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, text).unwrap();
            }
            let there = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                there == *text,
                "{name} is stale: write it anew with UPDATE_MANIFESTS=1"
            );
        }
    }

    #[test]
    fn without_restores_nothing_is_written_outside_of_the_namespace_but_the_pods_that_read_volumes()
    {
        let writes = |restores| {
            let pieces = rights(&wanted(restores));
            let role = pieces
                .iter()
                .find(|piece| piece.object["kind"] == "ClusterRole");
            let rules = role.unwrap().object["rules"].to_string();
            [
                "create",
                "update",
                "patch",
                "delete",
                "watch",
                "escalate",
                "bind",
                "\"verbs\":[\"*\"]",
            ]
            .into_iter()
            .filter(|verb| rules.contains(verb))
            .collect::<Vec<_>>()
        };
        assert_eq!(writes(false), ["create", "patch", "delete"]);
        let pieces = rights(&wanted(false));
        let wide = pieces
            .iter()
            .find(|piece| piece.object["kind"] == "ClusterRole");
        let rules = wide.unwrap().object["rules"].as_array().unwrap().clone();
        let of_pods = rules
            .iter()
            .filter(|rule| rule["verbs"] != json!(["get", "list"]));
        assert!(
            of_pods
                .into_iter()
                .all(|rule| rule["resources"][0].as_str().unwrap().starts_with("pods"))
        );
        assert_eq!(
            writes(true),
            ["create", "update", "patch", "delete", "escalate", "bind"]
        );
    }

    #[test]
    fn installations_of_two_namespaces_share_the_roles_of_users_alone() {
        let paths = |namespace: &str| {
            let wanted = Wanted {
                namespace: namespace.to_owned(),
                ..wanted(true)
            };
            let all = [controller(&wanted), rights(&wanted)].concat();
            assert!(all.iter().all(|piece| is_ours(&piece.object)));
            all.iter().map(Piece::path).collect::<Vec<_>>()
        };
        let (one, other) = (paths("one"), paths("other"));
        assert!(one.iter().all(|path| !other.contains(path)), "{one:?}");
    }

    /// Whoever may view a namespace does not see Secrets there, and must not see them through a backup.
    #[test]
    fn who_may_view_gets_no_address_of_a_backup() {
        let view = users().remove(0).object;
        assert_eq!(view["metadata"]["name"], "kubectl-backup-view");
        assert!(!view["rules"].to_string().contains("downloadrequests"));
        assert!(!view["rules"].to_string().contains("create"));
    }
}
