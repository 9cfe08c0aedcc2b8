//! The shop of the demo: an image with PostgreSQL, a pod that serves it beside one that writes to it, and the commands that are told while they run.

use std::time::Duration;

use harness::node::{Image, Node, NodeOptions};
use harness::process::Folder;
use harness::repositories::{Bucket, Repositories};
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;
use harness::{tools, wait_for};
use serde_json::{Value, json};

pub(super) const NAMESPACE: &str = "shop";
pub(super) const ELSEWHERE: &str = "shop-again";
pub(super) const CLASS: &str = "other";
pub(super) const BUCKET: &str = "backups";
pub(super) const POSTGRES: &str = "/usr/lib/postgresql/15";
pub(super) const PATIENT: Duration = Duration::from_secs(180);
const SHARE: &str = "/usr/share/postgresql/15";
const IMAGE: &str = "localhost/postgres:15";
const MOVER: &str = "localhost/kubectl-backup:demo";

/// The first process is a shell: a process that stops all others stops neither the first one nor itself.
const SERVE: &str = "set -e
if [ ! -s /data/db/PG_VERSION ]; then
  initdb -D /data/db -U shop -A trust -k --locale=C --encoding=UTF8 >/dev/null
  fresh=yes
fi
postgres -D /data/db -k /run/postgresql -h '' &
until pg_isready -q -h /run/postgresql; do sleep 0.2; done
[ -z \"$fresh\" ] || psql -q -h /run/postgresql -U shop -d postgres -v ON_ERROR_STOP=1 <<SQL
create table orders (id bigserial primary key, at timestamptz not null default clock_timestamp());
create table lines (of bigint primary key references orders, what text not null);
SQL
touch /run/postgresql/open
wait";

/// One transaction: an order and its line.
const ORDER: &str = "with o as (insert into orders default values returning id) insert into lines select id, repeat('x', 200) from o;\n";

/// Where this file is, the hooks stop nothing.
const UNSTOPPED: &str = "/seen/unstopped";

/// Every file of the database with its digest: what is the same before and after was not written in between.
const DIGESTS: &str = "cd /data/db && find . -type f -print0 | sort -z | xargs -0 sha256sum";

/// How many orders there are up to one of them, and a digest of what all of them and their lines say.
const ORDERS: &str = "select count(*) || ' ' || coalesce(md5(string_agg(concat(o.id, o.at, l.of, l.what), ',' order by coalesce(o.id, l.of))), '') \
from orders o full join lines l on l.of = o.id where coalesce(o.id, l.of) <=";

/// The shop, and where its backups go.
pub(super) struct Shop {
    pub(super) node: Node,
    pub(super) minio: Minio,
    pub(super) home: Folder,
}

impl Shop {
    pub(super) fn open() -> Self {
        let node = Node::start(NodeOptions::default().services(true));
        node.import_image(&postgres());
        let plugin = Image::new(MOVER)
            .program(tools::plugin(), "/kubectl-backup")
            .entrypoint(&["/kubectl-backup"]);
        node.import_image(&plugin);
        let shop = Self {
            node,
            minio: Minio::start(),
            home: Folder::new("home"),
        };
        shop.minio.bucket(BUCKET);
        shop.node.apply(&manifest());
        shop.wait_until_open(NAMESPACE);
        shop
    }

    pub(super) fn wait_until_open(&self, namespace: &str) {
        wait_for("the database", PATIENT, || {
            let is_open = "exec db-0 -c main -- test -e /run/postgresql/open";
            let words: Vec<&str> = is_open.split(' ').collect();
            let asked = [&["-n", namespace], &words[..]].concat();
            (self.node.try_kubectl(&asked).code == 0).then_some(())
        });
    }

    /// restic reads every byte of the repository of the volume and finds no fault.
    pub(super) fn is_sound_for_restic(&self) {
        Repositories::default().all_are_whole(Bucket::Minio(&self.minio, BUCKET));
    }

    /// A command beside the database of a namespace.
    pub(super) fn shell_in(&self, namespace: &str, script: &str) -> String {
        let words = [
            "-n", namespace, "exec", "db-0", "-c", "main", "--", "sh", "-c", script,
        ];
        self.node.kubectl(&words).stdout
    }

    pub(super) fn shell(&self, script: &str) -> String {
        self.shell_in(NAMESPACE, script)
    }

    /// How many orders there are now.
    pub(super) fn count(&self) -> u64 {
        let asked = psql("/run/postgresql", "select count(*) from orders");
        self.shell(&asked).trim().parse().unwrap()
    }

    /// Waits until the writers have gone on.
    pub(super) fn wait_for_more(&self) {
        let now = self.count();
        wait_for("more orders", PATIENT, || {
            (self.count() > now + 200).then_some(())
        });
    }

    /// The last order of what the pre hook put aside once everything had stopped, and what all up to it say: a server of its own reads it.
    pub(super) fn when_it_stopped(&self) -> (u64, String) {
        let last = psql("/seen", "select max(id) from orders");
        let all = psql("/seen", &format!("{ORDERS} (select max(id) from orders)"));
        let said = self.shell(&format!(
            "rm -f /seen/then/postmaster.pid; postgres -D /seen/then -k /seen -h '' >/seen/log 2>&1 &
until pg_isready -q -h /seen; do sleep 0.2; done; {last}; {all}; kill -INT $!; wait"
        ));
        let (last, all) = said.trim().split_once('\n').unwrap();
        (last.parse().unwrap(), all.to_owned())
    }

    /// What all orders up to this one say in a namespace now.
    pub(super) fn orders_in(&self, namespace: &str, last: u64) -> String {
        let asked = psql("/run/postgresql", &format!("{ORDERS} {last}"));
        self.shell_in(namespace, &asked).trim().to_owned()
    }

    /// The files of the database as the pre hook left it, and as the post hook found it, each with its digest.
    pub(super) fn files_before_and_after(&self) -> [String; 2] {
        ["stopped", "went-on"].map(|when| self.shell(&format!("cat /seen/{when}")))
    }

    /// From now on the hooks stop nothing.
    pub(super) fn let_it_run(&self) {
        self.shell(&format!("touch {UNSTOPPED}"));
    }

    /// `kubectl backup` with the bucket as location, told as it is typed.
    pub(super) fn backup(&self, arguments: &[&str]) {
        let code = self.exit_of(arguments);
        assert_eq!(code, 0, "it ended with {code}");
    }

    /// The same, whichever way it ends.
    pub(super) fn exit_of(&self, arguments: &[&str]) -> i32 {
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

    pub(super) fn show(&self, arguments: &[&str]) {
        println!("$ kubectl {}", arguments.join(" "));
        print!("{}", self.node.kubectl(arguments).stdout);
    }
}

/// A query's answer, bare, from the server whose socket is there.
fn psql(socket: &str, query: &str) -> String {
    format!("psql -qtA -h {socket} -U shop -d postgres -c \"{query}\"")
}

/// Debian's PostgreSQL with a shell; its time zones are those that it knows without files.
fn postgres() -> Image {
    let mut image = Image::new(IMAGE).busybox().tree(SHARE);
    for program in [
        "postgres",
        "initdb",
        "psql",
        "pgbench",
        "pg_isready",
        "pg_amcheck",
    ] {
        let from = format!("{POSTGRES}/bin/{program}");
        image = image.program(&from, &from);
    }
    for module in ["plpgsql", "dict_snowball", "amcheck"] {
        let from = format!("{POSTGRES}/lib/{module}.so");
        image = image.program(&from, &from);
    }
    image.text("/order.sql", ORDER)
}

fn manifest() -> String {
    let hook = |script: &str| json!(["sh", "-c", script]).to_string();
    // Beside writers a file may go while it is read; that is no failure there.
    let stop = format!(
        "[ ! -e {UNSTOPPED} ] || {{ {DIGESTS} > /seen/stopped; exit 0; }}; kill -STOP -1; {DIGESTS} > /seen/stopped && rm -rf /seen/then && cp -a /data/db /seen/then"
    );
    let annotations = json!({
        "pre.hook.backup.velero.io/container": "main",
        "pre.hook.backup.velero.io/command": hook(&stop),
        "pre.hook.backup.velero.io/timeout": "2m",
        "post.hook.backup.velero.io/container": "main",
        "post.hook.backup.velero.io/command": hook(&format!("{DIGESTS} > /seen/went-on; kill -CONT -1")),
        "post.hook.backup.velero.io/timeout": "2m",
    });
    let path = format!("{POSTGRES}/bin:/usr/bin:/bin");
    let container = |name: &str, script: &str, mounts: Value| {
        json!({
            "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
            "env": [{"name": "PATH", "value": path}, {"name": "TZ", "value": "UTC"}], "volumeMounts": mounts,
        })
    };
    let write = "while true; do
  [ ! -e /run/postgresql/open ] || pgbench -n -h /run/postgresql -U shop -c 4 -R 200 -T 3600 -f /order.sql postgres
  sleep 1
done";
    let socket = json!({"name": "socket", "mountPath": "/run/postgresql"});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": NAMESPACE},
        "spec": {
            "serviceName": "db", "replicas": 1, "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}, "annotations": annotations},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "securityContext": {"runAsUser": 65534, "runAsGroup": 65534},
                    // The hooks name theirs, which is not the first.
                    "containers": [
                        container("writers", write, json!([socket])),
                        container("main", SERVE, json!([{"name": "data", "mountPath": "/data"}, {"name": "seen", "mountPath": "/seen"}, socket])),
                    ],
                    "volumes": [{"name": "socket", "emptyDir": {}}, {"name": "seen", "emptyDir": {}}],
                },
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    });
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": CLASS},
        "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer",
    });
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}\n---\n{class}\n---\n{set}\n"
    )
}
