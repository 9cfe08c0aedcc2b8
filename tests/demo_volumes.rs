//! A database in a volume, shown: PostgreSQL under steady writers on a real node is backed up to MinIO with hooks that stop its processes and let them go on, its namespace is
//! deleted, and a restore brings back its files under another name and another storage class, on which it starts and has exactly the orders that it had when it stopped.
//!
//! The image is made of this machine's PostgreSQL. Leaves nothing behind.

#![expect(clippy::print_stdout, reason = "the demo is a printed story")]
#![allow(clippy::unwrap_used, reason = "what is missing ends the demo")]

use std::collections::BTreeMap;
use std::time::Instant;

use harness::node::{Image, Node, NodeOptions};
use harness::process::Folder;
use harness::repositories::{Bucket, Repositories};
use harness::run::{Backup, kubectl_backup};
use harness::shop::{CLASS, NAMESPACE, Shop};
use harness::store::Minio;
use harness::tools;

const ELSEWHERE: &str = "shop-again";
const BUCKET: &str = "backups";
const MOVER: &str = "localhost/kubectl-backup:demo";

/// What a backup may send beside the files that are others now, in bytes: lists, indexes, the objects of the namespace.
const BESIDE: u64 = 5 << 20;

fn main() {
    let began = Instant::now();
    if let Err(lacking) = Node::available().and_then(|()| Shop::available()) {
        println!("{lacking}");
        std::process::exit(1);
    }
    tell(
        "A node comes up, and a shop opens: PostgreSQL with a volume, and four writers beside it.",
    );
    let demo = Demo::begin();
    let shop = Shop::open(&demo.node);
    shop.wait_for_more();
    demo.show(&["get", "pods,pvc", "-n", NAMESPACE]);

    tell(
        "A backup. Hooks stop the database's processes before the copy, and let them go on after it.",
    );
    let before = back_up(&demo, "monday");

    tell("The writers go on, and the next backup sends what they changed.");
    shop.wait_for_more();
    let sent = demo.minio.received();
    let now = back_up(&demo, "tuesday");
    let sent = demo.minio.received() - sent;
    demo.backup(&["describe", "tuesday"]);
    let changed = changed(shop, &files(&before), &files(&now));
    println!("The store received {sent} bytes for {changed} bytes of files that are others now.");
    assert!(sent > 0 && sent <= changed + BESIDE, "{sent} for {changed}");
    let (last, orders) = shop.when_it_stopped();
    shop.wait_for_more();

    tell("The same where hooks stop nothing: what a copy finds then is of no one moment.");
    shop.let_it_run();
    // A file may be gone before it is read: then this backup says so, and has none of the volume.
    let code = demo.exit_of(&create("careless"));
    assert!([0, 3].contains(&code), "it ended with {code}");
    let [before, after] = shop.files_before_and_after();
    let written = differences(&files(&before), &files(&after));
    println!("While it was copied, {written} files were written to.");
    assert!(written > 0, "nothing was written beside a copy");

    tell("Disaster: the namespace is deleted, and the volume with it.");
    demo.show(&[
        "delete",
        "namespace",
        NAMESPACE,
        "--wait=true",
        "--timeout=180s",
    ]);

    tell(
        "The restore, under another name and in another class of storage: no claim is bound to less than its data, and PostgreSQL waits for it.",
    );
    let restoring = Instant::now();
    let (names, classes) = (
        format!("{NAMESPACE}:{ELSEWHERE}"),
        format!("local-path:{CLASS}"),
    );
    demo.backup(&[
        "restore",
        "create",
        "--from-backup",
        "tuesday",
        "--namespace-mappings",
        &names,
        "--storage-class-mappings",
        &classes,
    ]);
    shop.wait_until_open(ELSEWHERE);
    let took = restoring.elapsed();
    let class = "jsonpath={.items[*].spec.storageClassName}";
    let asked = ["get", "pvc", "-n", ELSEWHERE, "-o", class];
    assert_eq!(demo.node.kubectl(&asked).stdout, CLASS);
    let back = shop.orders_in(ELSEWHERE, last);
    println!(
        "orders when it stopped, and a digest of them: {orders}\nthe same in what came back:                   {back}"
    );
    assert_eq!(back, orders);
    shop.is_sound_in(ELSEWHERE);
    println!("pg_amcheck finds no fault in tables and indexes");
    demo.is_sound_for_restic();
    println!("restic finds no fault in any byte of the volume's repository");
    println!(
        "\nThe database is whole: 0 missing, 0 different. Backup to open shop: {:.1} s; all of it: {:.0} s.",
        took.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
}

/// The node that the shop is on, and where its backups go.
struct Demo {
    node: Node,
    minio: Minio,
    home: Folder,
}

impl Demo {
    fn begin() -> Self {
        let node = Node::start(NodeOptions::default().services(true));
        let plugin = Image::new(MOVER)
            .program(tools::plugin(), "/kubectl-backup")
            .entrypoint(&["/kubectl-backup"]);
        node.import_image(&plugin);
        let minio = Minio::start();
        minio.bucket(BUCKET);
        let home = Folder::new("home");
        Self { node, minio, home }
    }

    /// `kubectl backup` with the bucket as location, told as it is typed.
    fn backup(&self, arguments: &[&str]) {
        let code = self.exit_of(arguments);
        assert_eq!(code, 0, "it ended with {code}");
    }

    /// The same, whichever way it ends.
    fn exit_of(&self, arguments: &[&str]) -> i32 {
        println!("$ kubectl backup {}", arguments.join(" "));
        let run = self.call(arguments).run();
        print!("{}{}", run.stderr, run.stdout);
        run.code
    }

    fn call(&self, arguments: &[&str]) -> Backup {
        let location = format!("s3://{BUCKET}/shop?endpoint={}", self.minio.endpoint());
        let call = kubectl_backup(arguments)
            .home(self.home.path())
            .kubeconfig(self.node.kubeconfig())
            .credentials_of(&self.minio)
            .location(&location);
        match arguments[0] {
            "create" | "restore" => call.arg("--mover-image").arg(MOVER),
            _ => call,
        }
    }

    /// restic reads every byte of the repository of the volume and finds no fault.
    fn is_sound_for_restic(&self) {
        Repositories::default().all_are_whole(Bucket::Minio(&self.minio, BUCKET));
    }

    fn show(&self, arguments: &[&str]) {
        println!("$ kubectl {}", arguments.join(" "));
        print!("{}", self.node.kubectl(arguments).stdout);
    }
}

/// The files of all volumes, too.
fn create(name: &str) -> [&str; 5] {
    [
        "create",
        name,
        "-n",
        NAMESPACE,
        "--default-volumes-to-fs-backup",
    ]
}

/// A backup during which nothing is written; gives the files of the database in that time.
fn back_up(demo: &Demo, name: &str) -> String {
    demo.backup(&create(name));
    let shop = Shop::of(&demo.node);
    let [before, after] = shop.files_before_and_after();
    let count = before.lines().count();
    assert!(count > 500, "{before}");
    assert_eq!(
        differences(&files(&before), &files(&after)),
        0,
        "something was written while the copy was made"
    );
    println!("While it was copied nothing was written to its {count} files.");
    before
}

/// Name and digest of each file.
fn files(listed: &str) -> BTreeMap<&str, &str> {
    let pair = |line| str::split_once(line, "  ").map(|(digest, name)| (name, digest));
    listed.lines().filter_map(pair).collect()
}

fn differences(before: &BTreeMap<&str, &str>, after: &BTreeMap<&str, &str>) -> usize {
    let is_other = |(name, digest): &(&&str, &&str)| after.get(**name) != Some(*digest);
    before.iter().filter(is_other).count()
        + after
            .keys()
            .filter(|name| !before.contains_key(**name))
            .count()
}

/// How large the files are together that were others before, or absent, in bytes.
fn changed(shop: Shop<'_>, before: &BTreeMap<&str, &str>, now: &BTreeMap<&str, &str>) -> u64 {
    let sizes = shop.shell("cd /seen/then && find . -type f -exec stat -c '%s  %n' {} +");
    let sizes = files(&sizes);
    now.iter()
        .filter(|(name, digest)| before.get(*name) != Some(*digest))
        .map(|(name, _)| sizes[name].parse::<u64>().unwrap())
        .sum()
}

fn tell(text: &str) {
    println!("\n=== {text}");
}
