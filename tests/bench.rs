//! The budgets of object backups and restores, beside Velero and beside bare requests, in one run on one machine.
//!
//! Prints a table and keeps it in BENCH.md. It judges by ratios; a row that does not hold says so. Nothing here is a test.
//! With arguments (`objects`, `large-objects`, `etcd`) only those parts are measured, and BENCH.md stays as it is.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers that reports and ends"
)]

// Beside this program there is a module of the tests of the same name.
#[path = "bench/etcd.rs"]
mod etcd;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use harness::cluster::{Cluster, Controllers};
use harness::http_client::Endpoint;
use harness::load::Load;
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;
use harness::velero::Velero;
use serde_json::Value;

const RUNS: usize = 5;
const BUCKET: &str = "bench";

fn main() {
    let minio = Minio::start();
    minio.bucket(BUCKET);
    let mut table = Table::default();
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, Part); 3] = [
        ("objects", objects),
        ("large-objects", large_objects),
        ("etcd", etcd::snapshots),
    ];
    for part in &asked {
        let known = parts.map(|(name, _)| name);
        assert!(
            known.contains(&part.as_str()),
            "{part} is none of {known:?}"
        );
    }
    for (name, measure) in parts {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            measure(&minio, &mut table);
        }
    }
    let report = table.report();
    println!("{report}");
    if !asked.is_empty() {
        return;
    }
    fs::write(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../BENCH.md"),
        report,
    )
    .unwrap();
}

/// Measures something and writes its rows.
type Part = fn(&Minio, &mut Table);

/// 26,000 objects backed up, 2,600 restored.
fn objects(minio: &Minio, table: &mut Table) {
    let cluster = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let big = Load {
        prefix: "load".to_owned(),
        namespaces: 20,
        config_maps: 1000,
        config_map_bytes: 1024,
        secrets: 200,
        secret_bytes: 1024,
        deployments: 100,
        half_random: true,
        ..Load::default()
    };
    say(&format!("{:?} made", big.fill(&cluster.endpoint()).by_kind));
    let small = Load {
        prefix: "small".to_owned(),
        namespaces: 2,
        ..big.clone()
    };
    // The harness tunes its Velero; these are the server's own defaults.
    let defaults = ["--client-qps=100", "--client-burst=100"];
    let velero = Velero::start(&cluster, minio, BUCKET, "velero", &defaults, None);

    let mut peak = 0;
    let ours = times(RUNS, |run| {
        let (time, memory) =
            measured(plugin(&cluster, minio).args(&["create", &format!("ours-{run}")]));
        peak = peak.max(memory);
        time
    });
    let gets = times(RUNS, |_| get_everything(&cluster.endpoint()));
    let theirs = times(RUNS, |run| {
        let name = format!("theirs-{run}");
        timed(|| {
            let create = [
                "backup",
                "create",
                &name,
                "--snapshot-volumes=false",
                "--include-cluster-resources=true",
                "--wait",
            ];
            velero.cli(&create).ok();
        })
    });
    let velero_peak = velero.pid().map_or(0, peak_of_family);
    table.row(
        "back up 26,000 objects to MinIO",
        ours,
        &format!("Velero, its defaults: {}", seconds(theirs)),
        theirs.as_secs_f64() / ours.as_secs_f64(),
        AtLeast(10.0),
    );
    table.row(
        "the same",
        ours,
        &format!(
            "GETs of every listable type, 8 at a time: {}",
            seconds(gets)
        ),
        ours.as_secs_f64() / gets.as_secs_f64(),
        AtMost(2.5),
    );
    table.memory(
        "peak memory of that backup",
        peak,
        &format!("Velero: {}", mebibytes(velero_peak)),
        96 << 20,
    );

    say(&format!(
        "{:?} made",
        small.fill(&cluster.endpoint()).by_kind
    ));
    plugin(&cluster, minio)
        .args(&[
            "create",
            "small",
            "--include-namespaces",
            "small-000,small-001",
        ])
        .ok();
    velero
        .cli(&[
            "backup",
            "create",
            "small-theirs",
            "--snapshot-volumes=false",
            "--include-namespaces",
            "small-000,small-001",
            "--wait",
        ])
        .ok();
    let mut peak = 0;
    let ours = times(RUNS, |run| {
        let (time, memory) = measured(plugin(&cluster, minio).args(&[
            "restore",
            "create",
            &format!("ours-{run}"),
            "--from-backup",
            "small",
            "--namespace-mappings",
            &format!("small-000:ours-{run}-a,small-001:ours-{run}-b"),
        ]));
        peak = peak.max(memory);
        time
    });
    let bare = times(RUNS, |run| {
        bare_creates(
            &cluster.endpoint(),
            &["small-000", "small-001"],
            &format!("bare-{run}"),
        )
    });
    let restore = |velero: &Velero<'_>, name: &str| {
        timed(|| {
            let mapping = format!("small-000:{name}-a,small-001:{name}-b");
            drop(
                velero
                    .cli(&[
                        "restore",
                        "create",
                        name,
                        "--from-backup",
                        "small-theirs",
                        "--namespace-mappings",
                        &mapping,
                        "--wait",
                    ])
                    .ok(),
            );
        })
    };
    let theirs = restore(&velero, "velero-default");
    let velero_peak = velero.pid().map_or(0, peak_of_family);
    drop(velero);
    let tuned = Velero::start(
        &cluster,
        minio,
        BUCKET,
        "velero",
        &[
            "--client-qps=1000",
            "--client-burst=1000",
            "--item-block-worker-count=4",
        ],
        None,
    );
    let tuned_time = restore(&tuned, "velero-tuned");
    table.row(
        "restore 2,600 objects into new namespaces",
        ours,
        &format!("Velero, its defaults, once: {}", seconds(theirs)),
        theirs.as_secs_f64() / ours.as_secs_f64(),
        AtLeast(12.0),
    );
    table.row(
        "the same",
        ours,
        &format!("Velero tuned (QPS 1000), once: {}", seconds(tuned_time)),
        tuned_time.as_secs_f64() / ours.as_secs_f64(),
        Shown,
    );
    table.row(
        "the same",
        ours,
        &format!("bare concurrent creates: {}", seconds(bare)),
        bare.as_secs_f64() / ours.as_secs_f64(),
        AtLeast(0.75),
    );
    table.memory(
        "peak memory of that restore",
        peak,
        &format!("Velero: {}", mebibytes(velero_peak)),
        128 << 20,
    );
}

/// 300 Secrets of 1 MiB and 100 definitions of 500 KiB.
fn large_objects(minio: &Minio, table: &mut Table) {
    let cluster = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let load = Load {
        prefix: "large".to_owned(),
        namespaces: 1,
        secrets: 300,
        // Base64 and the rest of the object bring it to the server's limit of 1 MiB of data.
        secret_bytes: 1_040_000,
        half_random: true,
        ..Load::default()
    };
    load.fill(&cluster.endpoint());
    large_definitions(&cluster.endpoint(), 100, 500 << 10);
    let mut peak = 0;
    let time = times(RUNS, |run| {
        let (time, memory) =
            measured(plugin(&cluster, minio).args(&["create", &format!("large-{run}")]));
        peak = peak.max(memory);
        time
    });
    table.row(
        "back up 300 Secrets of 1 MiB and 100 CRDs of 500 KiB",
        time,
        "",
        0.0,
        Shown,
    );
    table.memory("peak memory of that backup", peak, "", 96 << 20);
}

fn large_definitions(endpoint: &Endpoint, count: usize, bytes: usize) {
    let mut client = endpoint.client();
    for number in 0..count {
        let properties: serde_json::Map<String, Value> = (0..bytes / 5000)
            .map(|field| {
                (
                    format!("field{field:04}"),
                    serde_json::json!({"type": "string", "description": "d".repeat(4900)}),
                )
            })
            .collect();
        let definition = serde_json::json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("larges{number}.large.example.com")},
            "spec": {
                "group": "large.example.com", "scope": "Namespaced",
                "names": {"plural": format!("larges{number}"), "singular": format!("large{number}"), "kind": format!("Large{number}"), "listKind": format!("Large{number}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}],
            },
        });
        let answer = client
            .post_json(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                definition.to_string(),
            )
            .unwrap();
        assert!(answer.is_success(), "{}", answer.text());
    }
}

fn plugin(cluster: &Cluster, minio: &Minio) -> Backup {
    kubectl_backup::<&str>(&[])
        .kubeconfig(cluster.kubeconfig())
        .credentials_of(minio)
        .env(
            "KUBECTL_BACKUP_LOCATION",
            format!(
                "s3://{BUCKET}/{}?endpoint={}",
                cluster.api_url().rsplit(':').next().unwrap(),
                minio.endpoint()
            ),
        )
}

/// Wall-clock time and peak resident memory of one call.
fn measured(call: Backup) -> (Duration, u64) {
    let start = Instant::now();
    let running = call.spawn();
    let pid = running.pid();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(peak_of(pid));
                thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let run = running.wait(Duration::from_secs(600));
        let time = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        run.ok();
        (time, watch.join().unwrap())
    })
}

/// The most memory a process ever had resident, in bytes; 0 when it is gone.
fn peak_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib << 10)
}

/// The same of a process and its children, summed.
fn peak_of_family(pid: u32) -> u64 {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    peak_of(pid)
        + children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .map(peak_of_family)
            .sum::<u64>()
}

/// Every listable type read with the pages a backup uses, 8 types at a time, and thrown away.
fn get_everything(endpoint: &Endpoint) -> Duration {
    let mut client = endpoint.client();
    let mut paths = Vec::new();
    for (root, list) in [("/api/v1".to_owned(), client.get("/api/v1").unwrap().json())]
        .into_iter()
        .chain(groups(&mut client))
    {
        for resource in list["resources"].as_array().unwrap() {
            let verbs = resource["verbs"].as_array().unwrap();
            if verbs.iter().any(|verb| verb == "list") && verbs.iter().any(|verb| verb == "create")
            {
                paths.push(format!("{root}/{}", resource["name"].as_str().unwrap()));
            }
        }
    }
    // The longest first, or one of them would run alone at the end.
    paths.sort_by_key(|path| {
        !["configmaps", "secrets", "deployments"]
            .iter()
            .any(|name| path.ends_with(name))
    });
    let next = AtomicUsize::new(0);
    timed(|| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = endpoint.client();
                    while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let (mut limit, mut token) = (8, String::new());
                        loop {
                            let answer =
                                client.get(&format!("{path}?limit={limit}{token}")).unwrap();
                            assert!(answer.is_success(), "{path}: {}", answer.text());
                            let Some(next) = continue_token(&answer.body) else {
                                break;
                            };
                            (limit, token) = (2500, format!("&continue={next}"));
                        }
                    }
                });
            }
        });
    })
}

/// The token stands in the first bytes of a page; decoding all of it would measure the decoder.
fn continue_token(page: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&page[..page.len().min(4096)]).into_owned();
    let start = head.find("\"continue\":\"")? + 12;
    let token = &head[start..start + head[start..].find('"')?];
    (!token.is_empty()).then(|| token.replace('=', "%3D").replace('+', "%2B"))
}

fn groups(client: &mut harness::http_client::Client) -> Vec<(String, Value)> {
    let groups = client.get("/apis").unwrap().json();
    let paths: Vec<String> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            format!(
                "/apis/{}",
                group["preferredVersion"]["groupVersion"].as_str().unwrap()
            )
        })
        .collect();
    paths
        .into_iter()
        .map(|path| {
            let list = client.get(&path).unwrap().json();
            (path, list)
        })
        .collect()
}

/// The same objects created by bare requests, 16 at a time, in new namespaces.
fn bare_creates(endpoint: &Endpoint, from: &[&str], to: &str) -> Duration {
    let mut client = endpoint.client();
    let mut bodies = Vec::new();
    for (number, namespace) in from.iter().enumerate() {
        let target = format!("{to}-{number}");
        let made = client.post_json("/api/v1/namespaces", serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": target}}).to_string()).unwrap();
        assert!(made.is_success(), "{}", made.text());
        for (root, plural, version, kind) in [
            ("/api/v1", "configmaps", "v1", "ConfigMap"),
            ("/api/v1", "secrets", "v1", "Secret"),
            ("/apis/apps/v1", "deployments", "apps/v1", "Deployment"),
        ] {
            let list = client
                .get(&format!("{root}/namespaces/{namespace}/{plural}"))
                .unwrap()
                .json();
            for mut object in list["items"].as_array().unwrap().clone() {
                if object["metadata"]["name"] == "kube-root-ca.crt" {
                    continue;
                }
                for key in [
                    "uid",
                    "resourceVersion",
                    "creationTimestamp",
                    "generation",
                    "managedFields",
                ] {
                    object["metadata"].as_object_mut().unwrap().remove(key);
                }
                object.as_object_mut().unwrap().remove("status");
                object["metadata"]["namespace"] = Value::from(target.as_str());
                object["apiVersion"] = Value::from(version);
                object["kind"] = Value::from(kind);
                bodies.push((
                    format!("{root}/namespaces/{target}/{plural}"),
                    object.to_string(),
                ));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let refused = Mutex::new(None);
    let time = timed(|| {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = endpoint.client();
                    while let Some((path, body)) = bodies.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let answer = client.post_json(path, body.clone()).unwrap();
                        if !answer.is_success() {
                            *refused.lock().unwrap() = Some(answer.text());
                        }
                    }
                });
            }
        });
    });
    assert_eq!(*refused.lock().unwrap(), None);
    time
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The median of some runs.
fn times(runs: usize, mut work: impl FnMut(usize) -> Duration) -> Duration {
    let mut all: Vec<Duration> = (0..runs).map(&mut work).collect();
    all.sort();
    say(&format!("{all:?}"));
    all[all.len() / 2]
}

fn say(text: &str) {
    println!("bench: {text}");
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// What a row has to hold.
enum Budget {
    AtLeast(f64),
    AtMost(f64),
    Shown,
}
use Budget::{AtLeast, AtMost, Shown};

#[derive(Default)]
struct Table {
    rows: Vec<String>,
    misses: HashMap<String, ()>,
}

impl Table {
    fn row(&mut self, work: &str, ours: Duration, peer: &str, ratio: f64, budget: Budget) {
        let (text, holds) = match budget {
            AtLeast(least) => (
                format!("at least {least} times as fast"),
                Some(ratio >= least),
            ),
            AtMost(most) => (format!("at most {most} times"), Some(ratio <= most)),
            Shown => (String::new(), None),
        };
        let ratio = if ratio > 0.0 {
            format!("{ratio:.2}")
        } else {
            String::new()
        };
        self.push(work, &seconds(ours), peer, &ratio, &text, holds);
    }

    fn memory(&mut self, work: &str, ours: u64, peer: &str, most: u64) {
        self.push(
            work,
            &mebibytes(ours),
            peer,
            "",
            &format!("at most {}", mebibytes(most)),
            Some(ours <= most),
        );
    }

    fn push(
        &mut self,
        work: &str,
        ours: &str,
        peer: &str,
        ratio: &str,
        budget: &str,
        holds: Option<bool>,
    ) {
        let verdict = match holds {
            Some(true) => "holds",
            Some(false) => {
                self.misses.insert(work.to_owned(), ());
                "**does not hold**"
            }
            None => "",
        };
        let row = format!("| {work} | {ours} | {peer} | {ratio} | {budget} | {verdict} |");
        say(&row);
        self.rows.push(row);
    }

    fn report(&self) -> String {
        let mut text = String::from(
            "# Measured\n\nWritten by `make bench`, everything in one run on one machine: a control plane of etcd and kube-apiserver, MinIO and\n",
        );
        let cores = thread::available_parallelism().map_or(0, usize::from);
        writeln!(text, "Velero 1.18.3 share its {cores} cores with the plugin. Objects are half text, half random bytes. Medians of {RUNS}, unless \"once\".\n").unwrap();
        text.push_str(
            "| work | ours | beside it | ratio | budget | |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            writeln!(text, "{row}").unwrap();
        }
        text
    }
}
