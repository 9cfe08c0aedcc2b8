//! Two clusters in one bucket, each with a prefix and the least policy for it: neither sees, reads or touches what is the other's.

use std::collections::BTreeMap;

use bytes::Bytes;
use harness::cluster::{Cluster, Controllers};
use harness::process::Folder;
use harness::proxy::Proxy;
use harness::run::{Backup, kubectl_backup};
use harness::store::{LimitedUser, Minio};

use crate::place::on;

const BUCKET: &str = "two-clusters";

/// A cluster, and what it has of the bucket.
struct Side<'c> {
    cluster: &'c Cluster,
    prefix: &'static str,
    namespace: String,
    user: LimitedUser,
}

impl<'c> Side<'c> {
    /// With a user who may do what is printed for this prefix, and nothing else.
    fn new(cluster: &'c Cluster, prefix: &'static str) -> Self {
        let minio = Minio::shared();
        let home = Folder::new("home");
        let printed = kubectl_backup(&["location", "create", "l", "--provider=aws"])
            .args(&["--bucket", BUCKET, "--prefix", prefix])
            .args(&["--print-trust-policy", "--role-arn"])
            .arg("arn:aws:iam::123456789012:role/backup")
            .home(home.path())
            .ok()
            .json();
        let namespace = cluster.create_namespace("two-clusters");
        let value = format!("--from-literal=of={prefix}");
        cluster.kubectl(&["create", "configmap", "kept", "-n", &namespace, &value]);
        Self {
            cluster,
            prefix,
            namespace,
            user: minio.limited_user(&printed["policy"].to_string()),
        }
    }

    /// A call with this side's keys at a prefix.
    fn at(&self, endpoint: &str, prefix: &str, arguments: &[&str]) -> Backup {
        let location = format!("s3://{BUCKET}/{prefix}?endpoint={endpoint}");
        on(self.cluster, &location, arguments)
            .arg("--credentials-file")
            .arg(&self.user.credentials_file)
    }

    /// The same at its own.
    fn run(&self, arguments: &[&str]) -> Backup {
        self.at(Minio::shared().endpoint(), self.prefix, arguments)
    }

    fn only(&self) -> String {
        format!("only-{}", self.prefix)
    }

    /// What a listing names, sorted.
    fn listed(&self, more: &[&str]) -> Vec<String> {
        let arguments = [&["get", "-o", "name"], more].concat();
        let listed = self.run(&arguments).ok().stdout;
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Every object below its prefix, as the store's owner sees it.
    fn objects(&self) -> BTreeMap<String, Bytes> {
        let minio = Minio::shared();
        let keys = minio.list(BUCKET, self.prefix);
        let read = |key: String| {
            let content = minio.get(BUCKET, &key);
            (key, content)
        };
        keys.into_iter().map(read).collect()
    }
}

/// Whatever is asked for at the other's prefix is refused by the first answer, which is not asked for again, and the settings are named.
fn is_refused(one: &Side<'_>, prefix: &str, name: &str) {
    let proxy = Proxy::start(Minio::shared().upstream());
    let namespace = one.namespace.as_str();
    for arguments in [
        &["get"][..],
        &["get", "--all-clusters"],
        &["get", name],
        &["describe", name],
        &["verify", name],
        &["logs", name],
        &["download", name, "--output", "x.tar.gz"],
        &["restore", "create", "--from-backup", name],
        &["restore", "get"],
        &["create", "mine", "-n", namespace],
        &["delete", name, "--yes"],
        &["prune", "--yes"],
        &["location", "check"],
        &["location", "adopt", "--yes"],
    ] {
        proxy.clear_calls();
        let run = one.at(&proxy.url(), prefix, arguments).code(1);
        let said = run.stdout.clone() + &run.stderr;
        for word in ["403", "s3:ListBucket", "objectStorage.prefix"] {
            assert!(
                said.contains(word),
                "{word}: {prefix} {arguments:?}\n{said}"
            );
        }
        let calls = proxy.calls();
        assert!(!calls.is_empty(), "{arguments:?}");
        for call in &calls {
            assert_eq!(call.status, Some(403), "{arguments:?} {calls:?}");
            let same = calls.iter().filter(|other| *other == call).count();
            assert!(same <= 2, "tried again: {arguments:?} {calls:?}");
        }
    }
}

#[test]
fn two_clusters_in_one_bucket_with_the_least_policies_do_not_see_each_other() {
    let minio = Minio::shared();
    minio.bucket(BUCKET);
    let second = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let sides = [Side::new(Cluster::shared(), "a"), Side::new(&second, "b")];
    let pairs = [(&sides[0], &sides[1]), (&sides[1], &sides[0])];

    // One name is taken twice, and means each one's own.
    for side in &sides {
        side.run(&["location", "check"]).ok();
        for name in ["nightly", &side.only()] {
            side.run(&["create", name, "-n", &side.namespace]).ok();
        }
    }
    for (one, other) in pairs {
        let own = [
            "backup/nightly".to_owned(),
            format!("backup/{}", one.only()),
        ];
        assert_eq!(one.listed(&[]), own);
        assert_eq!(one.listed(&["--all-clusters"]), own);
        one.run(&["verify", "nightly"]).ok();
        let copy = format!("{}-copy", one.namespace);
        let mapping = format!("{}:{copy}", one.namespace);
        let restore = ["restore", "create", "--namespace-mappings", &mapping];
        let from = |name: &str| one.run(&restore).args(&["--from-backup", name]);
        from("nightly").ok();
        let path = format!("/api/v1/namespaces/{copy}/configmaps/kept");
        assert_eq!(one.cluster.get_raw(&path)["data"]["of"], one.prefix);

        // Of the other's it is said that there is no such backup, and not that something is forbidden.
        let name = other.only();
        for call in [
            from(&name),
            one.run(&["describe", &name]),
            one.run(&["verify", &name]),
            one.run(&["delete", &name, "--yes"]),
        ] {
            let told = call.code(1).stderr;
            assert!(told.contains(&name) && !told.contains("403"), "{told}");
        }
    }

    let before = sides.each_ref().map(Side::objects);
    for (one, other) in pairs {
        let roundabout = format!("{}/../{}", one.prefix, other.prefix);
        for prefix in [other.prefix, &roundabout, ""] {
            is_refused(one, prefix, &other.only());
        }
    }
    assert_eq!(sides.each_ref().map(Side::objects), before);
    assert!(before.iter().all(|objects| objects.len() > 4));

    // What one removes is its own.
    let [a, b] = &sides;
    for name in ["nightly", &a.only()] {
        a.run(&["delete", name, "--yes"]).ok();
    }
    a.run(&["prune", "--yes"]).ok();
    assert_eq!(a.listed(&[]), Vec::<String>::new());
    assert_eq!(b.objects(), before[1]);
    assert_eq!(b.listed(&["--all-clusters"]).len(), 2);
    for name in ["nightly", &b.only()] {
        b.run(&["delete", name, "--yes"]).ok();
    }
    assert_eq!(b.listed(&[]), Vec::<String>::new());
    let all = minio.list(BUCKET, "");
    let ours = |key: &String| key.starts_with("a/") || key.starts_with("b/");
    assert!(all.iter().all(ours), "{all:?}");
}
