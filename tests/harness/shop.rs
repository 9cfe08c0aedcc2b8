//! A shop with a database, on a node with services: PostgreSQL of this machine in a set with a volume, four writers beside it, and hooks that stop all of its processes and let them go on. What
//! the hooks saw stays in the pod, so that stories can tell what was quiet. Backs nothing up.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::node::{Image, Node};
use crate::process::Output;
use crate::wait_for;

pub const NAMESPACE: &str = "shop";
/// The claim of the database, whose files are below `db`.
pub const CLAIM: &str = "data-db-0";
/// A class of volumes that it does not use.
pub const CLASS: &str = "other";
const POD: &str = "db-0";
const POSTGRES: &str = "/usr/lib/postgresql/15";
const PATIENT: Duration = Duration::from_secs(180);
const SHARE: &str = "/usr/share/postgresql/15";
const IMAGE: &str = "localhost/postgres:15";

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

/// Where the database is.
const DATABASE: &str = "/data/db";

/// What hooks did.
const SAID: &str = "/seen/said";

/// What the pre hook put aside.
const THEN: &str = "/seen/then";

/// Every file below the folder with its digest: what is the same before and after was not written in between.
const DIGESTS: &str = "find . -type f -print0 | sort -z | xargs -0 sha256sum";

/// How many orders there are up to one of them, and a digest of what all of them and their lines say.
const ORDERS: &str = "select count(*) || ' ' || coalesce(md5(string_agg(concat(o.id, o.at, l.of, l.what), ',' order by coalesce(o.id, l.of))), '') \
from orders o full join lines l on l.of = o.id where coalesce(o.id, l.of) <=";

/// The shop on this node.
#[derive(Clone, Copy)]
pub struct Shop<'a>(&'a Node);

impl<'a> Shop<'a> {
    /// Whether this machine has what it is made of; else what it lacks, to skip a test with.
    pub fn available() -> Result<(), String> {
        match Path::new(POSTGRES).join("bin/postgres").exists() {
            true => Ok(()),
            false => Err("a shop needs Debian's postgresql-15 on this machine".to_owned()),
        }
    }

    /// Makes it, and waits until it is open.
    pub fn open(node: &'a Node) -> Self {
        node.import_image(&postgres());
        node.apply(&manifest());
        let shop = Self(node);
        shop.wait_until_open(NAMESPACE);
        shop
    }

    /// The one that was made there.
    pub fn of(node: &'a Node) -> Self {
        Self(node)
    }

    pub fn wait_until_open(self, namespace: &str) {
        wait_for("the database", PATIENT, || {
            let is_open = "exec db-0 -c main -- test -e /run/postgresql/open";
            let words: Vec<&str> = is_open.split(' ').collect();
            let asked = [&["-n", namespace], &words[..]].concat();
            (self.0.try_kubectl(&asked).code == 0).then_some(())
        });
    }

    /// A command beside the database of a namespace.
    pub fn shell_in(self, namespace: &str, script: &str) -> String {
        let words = [
            "-n", namespace, "exec", POD, "-c", "main", "--", "sh", "-c", script,
        ];
        self.0.kubectl(&words).stdout
    }

    pub fn shell(self, script: &str) -> String {
        self.shell_in(NAMESPACE, script)
    }

    /// How many orders there are now.
    pub fn count(self) -> u64 {
        let asked = psql("/run/postgresql", "select count(*) from orders");
        self.shell(&asked).trim().parse().unwrap()
    }

    /// Waits until the writers have gone on.
    pub fn wait_for_more(self) {
        let now = self.count();
        wait_for("more orders", PATIENT, || {
            (self.count() > now + 200).then_some(())
        });
    }

    /// PostgreSQL finds no fault in the tables and indexes of a namespace.
    pub fn is_sound_in(self, namespace: &str) {
        self.shell_in(namespace, "pg_amcheck -h /run/postgresql -U shop -d postgres --install-missing --heapallindexed --rootdescend");
    }

    /// The last order of what the pre hook put aside once everything had stopped, and what all up to it say: a server of its own reads it.
    pub fn when_it_stopped(self) -> (u64, String) {
        let last = psql("/seen", "select max(id) from orders");
        let all = psql("/seen", &format!("{ORDERS} (select max(id) from orders)"));
        let said = self.shell(&format!(
            "rm -f {THEN}/postmaster.pid; postgres -D {THEN} -k /seen -h '' >/seen/log 2>&1 &
until pg_isready -q -h /seen; do sleep 0.2; done; {last}; {all}; kill -INT $!; wait"
        ));
        let (last, all) = said.trim().split_once('\n').unwrap();
        (last.parse().unwrap(), all.to_owned())
    }

    /// What all orders up to this one say in a namespace now.
    pub fn orders_in(self, namespace: &str, last: u64) -> String {
        let asked = psql("/run/postgresql", &format!("{ORDERS} {last}"));
        self.shell_in(namespace, &asked).trim().to_owned()
    }

    /// The files of the database as the pre hook left it, and as the post hook found it, each with its digest.
    pub fn files_before_and_after(self) -> [String; 2] {
        ["stopped", "went-on"].map(|when| self.shell(&format!("cat /seen/{when}")))
    }

    /// The files of a folder of this machine in the same words.
    pub fn files_in(folder: &Path) -> String {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("cd \"$1\" && {DIGESTS}"), "files"]);
        Output::of(command.arg(folder).env("LC_ALL", "C"))
            .ok()
            .stdout
    }

    /// What the hooks of the pod that is there did, each when it was through, as far as it can be asked.
    pub fn said(self) -> Vec<String> {
        let words = [
            "-n", NAMESPACE, "exec", POD, "-c", "main", "--", "cat", SAID,
        ];
        let said = self.0.try_kubectl(&words).stdout;
        said.lines().map(str::to_owned).collect()
    }

    /// Forgets that.
    pub fn hush(self) {
        self.shell(&format!(": > {SAID}"));
    }

    /// From now on the hooks stop nothing.
    pub fn let_it_run(self) {
        self.shell(&format!("touch {UNSTOPPED}"));
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
    let hook = |script: &str| json!(["sh", "-c", format!("cd {DATABASE}; {script}")]).to_string();
    // Beside writers a file may go while it is read; that is no failure there.
    let stop = format!(
        "[ ! -e {UNSTOPPED} ] || {{ {DIGESTS} > /seen/stopped; exit 0; }}; kill -STOP -1; {DIGESTS} > /seen/stopped && rm -rf {THEN} && cp -a . {THEN} && echo pre >> {SAID}"
    );
    let go_on = format!("{DIGESTS} > /seen/went-on; kill -CONT -1; echo post >> {SAID}");
    let annotations = json!({
        "pre.hook.backup.velero.io/container": "main",
        "pre.hook.backup.velero.io/command": hook(&stop),
        "pre.hook.backup.velero.io/timeout": "2m",
        "post.hook.backup.velero.io/container": "main",
        "post.hook.backup.velero.io/command": hook(&go_on),
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
