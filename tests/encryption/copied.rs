//! Copies of encrypted backups: the same bytes, which the same keys open.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use harness::process::Folder;
use harness::run::{Backup, kubectl_backup};

use super::{Vault, fixture, key};

/// The files of an encrypted backup, by their names in its folder.
fn of_folder(root: &Path, backup: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = root.join("plugins/kubectl-backup/backups").join(backup);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn of_bucket(vault: &Vault, backup: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = format!("p/plugins/kubectl-backup/backups/{backup}/");
    let keys = vault.minio.list(&vault.bucket, &folder);
    keys.iter()
        .map(|key| {
            let name = key.strip_prefix(&folder).unwrap().to_owned();
            (name, vault.minio.get(&vault.bucket, key).to_vec())
        })
        .collect()
}

#[test]
fn an_encrypted_backup_is_copied_as_it_is_without_a_key_and_the_same_keys_open_the_copy() {
    let vault = Vault::new("vault-copied");
    let namespace = &vault.namespace;
    let folder = Folder::new("copies");
    let root = |name: &str| folder.join(name);
    let location = |name: &str, recipient: &[&str]| {
        let bucket = root(name).display().to_string();
        let words = [
            "location",
            "create",
            name,
            "--provider=local",
            "--bucket",
            &bucket,
        ];
        vault.own(&words).args(recipient).ok();
    };
    let (first, second) = (key("first.pub"), key("second.pub"));
    location("plain", &[]);
    location("sealed", &["--recipient", &first]);
    location("others", &["--recipient", &second]);
    vault
        .run(&["create", "b", "-n", namespace, "--recipient", &first])
        .ok();
    let wanted = of_bucket(&vault, "b");
    assert!(wanted.len() > 8, "{:?}", wanted.keys());
    for (target, says) in [
        ("plain", None),
        ("sealed", None),
        ("others", Some("kubectl backup rekey b --location others")),
    ] {
        let copied = vault.run(&["copy", "b", "--to", target]).ok();
        assert_eq!(of_folder(&root(target), "b"), wanted, "{target}");
        assert_eq!(
            copied.stderr.contains("rekey"),
            says.is_some(),
            "{}",
            copied.stderr
        );
        assert!(
            says.is_none_or(|says| copied.stderr.contains(says)),
            "{}",
            copied.stderr
        );
        let again = vault.run(&["copy", "b", "--to", target]).ok();
        assert!(again.stdout.contains("stands already"), "{}", again.stdout);
        assert_eq!(
            vault
                .in_location(target, "first.key", &["verify", "b"])
                .run()
                .code,
            0
        );
        assert_eq!(
            vault
                .in_location(target, "second.key", &["verify", "b"])
                .run()
                .code,
            1
        );
        // No plain one comes to stand beside it.
        assert!(!root(target).join("backups/b").exists());
    }
    vault
        .in_location("others", "first.key", &["rekey", "b"])
        .ok();
    vault
        .in_location("others", "second.key", &["verify", "b"])
        .ok();
    // It is the same backup all the same.
    let again = vault.run(&["copy", "b", "--to", "others"]).ok();
    assert!(again.stdout.contains("stands already"), "{}", again.stdout);
    vault
        .in_location(
            "sealed",
            "first.key",
            &["restore", "create", "--from-backup", "b", "--yes"],
        )
        .args(&[
            "--namespace-mappings",
            &format!("{namespace}:{namespace}-again"),
        ])
        .ok();
    assert_eq!(vault.secret(&format!("{namespace}-again")), super::VALUE);

    // Of each backup that is made, too; what is cut on its way is no copy.
    let set = ["location", "set", "sealed", "--replicate-to", "plain"];
    vault.own(&set).ok();
    vault
        .own(&["create", "c", "-n", namespace, "--location", "sealed"])
        .ok();
    assert_eq!(
        of_folder(&root("plain"), "c"),
        of_folder(&root("sealed"), "c")
    );
    assert!(of_folder(&root("plain"), "c").contains_key("manifest.json"));
    fs::remove_file(root("sealed").join("plugins/kubectl-backup/backups/c/key.age")).unwrap();
    let words = ["copy", "c", "--location", "sealed", "--to", "others"];
    let refused = vault.own(&words).code(1);
    assert!(
        refused.stderr.contains("key.age is missing"),
        "{}",
        refused.stderr
    );
    assert!(of_folder(&root("others"), "c").is_empty());
}

#[test]
fn plain_and_encrypted_backups_of_a_schedule_are_kept_together() {
    let vault = Vault::new("vault-kept");
    let recipient = key("first.pub");
    let create = |name: &str, recipient: &[&str]| {
        let label = "velero.io/schedule-name=nightly";
        vault
            .run(&["create", name, "-n", &vault.namespace, "--labels", label])
            .args(recipient)
            .ok();
    };
    let sealed = ["--recipient", recipient.as_str()];
    create("a", &[]);
    create("b", &sealed);
    create("c", &[]);
    create("d", &sealed);
    vault.run(&["prune", "--keep", "2", "--yes"]).ok();
    let left = vault.run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(left, "backup/c\nbackup/d\n");
}

impl Vault {
    /// A call with the locations that this home remembers.
    fn own(&self, arguments: &[&str]) -> Backup {
        kubectl_backup(arguments)
            .kubeconfig(self.cluster.kubeconfig())
            .home(self.home.path())
    }

    fn in_location(&self, location: &str, identity: &str, arguments: &[&str]) -> Backup {
        let path = fixture(identity);
        self.own(arguments)
            .location(location)
            .args(&["--identity".as_ref(), path.as_os_str()])
    }
}
