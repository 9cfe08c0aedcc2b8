//! Backups and restores of objects, beside Velero and beside bare requests.

use harness::cluster::{Cluster, Controllers};
use harness::http_client::Endpoint;
use harness::load::Load;
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;
use harness::velero::Velero;
use serde_json::Value;

use super::bare::{bare_creates, get_everything};
use super::memory::{measured, peak_of, peak_of_family};
use super::table::{AtLeast, AtMost, Shown, Table};
use super::{BUCKET, RUNS, mebibytes, median, say, seconds, timed, times};

/// The harness tunes its Velero; these are the server's own defaults.
pub(super) const DEFAULTS: [&str; 2] = ["--client-qps=100", "--client-burst=100"];
/// Limits that a Velero server on two cores never reaches.
pub(super) const TUNED: [&str; 3] = [
    "--client-qps=1000",
    "--client-burst=1000",
    "--item-block-worker-count=4",
];

/// 1,300 objects a namespace: as many of each kind as the budgets say.
pub(super) fn usual(prefix: &str, namespaces: usize) -> Load {
    Load {
        prefix: prefix.to_owned(),
        namespaces,
        config_maps: 1000,
        config_map_bytes: 1024,
        secrets: 200,
        secret_bytes: 1024,
        deployments: 100,
        half_random: true,
        ..Load::default()
    }
}

/// 26,000 objects backed up, 2,600 restored.
pub(super) fn objects(minio: &Minio, table: &mut Table) {
    let cluster = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let big = usual("load", 20);
    say(&format!("{:?} made", big.fill(&cluster.endpoint()).by_kind));
    let small = usual("small", 2);
    let velero = Velero::start(&cluster, minio, BUCKET, "velero", &DEFAULTS, None);

    let mut peak = 0;
    let (mut ours, mut gets) = (Vec::new(), Vec::new());
    // In turns, for what a machine does besides changes with time.
    for run in 0..RUNS {
        let (time, memory, _) = measured(
            plugin(&cluster, minio).args(&["create", &format!("ours-{run}")]),
            peak_of,
        );
        peak = peak.max(memory);
        ours.push(time);
        gets.push(get_everything(&cluster.endpoint()));
    }
    say(&format!("ours {ours:?}, GETs {gets:?}"));
    let [ours, gets] = [ours, gets].map(median);
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
    velero.back_up(
        "small-theirs",
        &["--include-namespaces", "small-000,small-001"],
    );
    let mut peak = 0;
    let ours = times(RUNS, |run| {
        let (time, memory, _) = measured(
            plugin(&cluster, minio).args(&[
                "restore",
                "create",
                &format!("ours-{run}"),
                "--from-backup",
                "small",
                "--namespace-mappings",
                &format!("small-000:ours-{run}-a,small-001:ours-{run}-b"),
            ]),
            peak_of,
        );
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
            velero.restore(name, "small-theirs", &["--namespace-mappings", &mapping]);
        })
    };
    let theirs = restore(&velero, "velero-default");
    let velero_peak = velero.pid().map_or(0, peak_of_family);
    drop(velero);
    let tuned = Velero::start(&cluster, minio, BUCKET, "velero", &TUNED, None);
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
pub(super) fn large_objects(minio: &Minio, table: &mut Table) {
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
        let (time, memory, _) = measured(
            plugin(&cluster, minio).args(&["create", &format!("large-{run}")]),
            peak_of,
        );
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

/// The plugin on a cluster, with a prefix of that cluster's own in MinIO.
pub(super) fn plugin(cluster: &Cluster, minio: &Minio) -> Backup {
    kubectl_backup::<&str>(&[])
        .kubeconfig(cluster.kubeconfig())
        .credentials_of(minio)
        .env("KUBECTL_BACKUP_LOCATION", place_of(cluster, minio))
}

/// Where the backups of a cluster are.
pub(super) fn place_of(cluster: &Cluster, minio: &Minio) -> String {
    let port = cluster.api_url();
    let port = port.rsplit(':').next().unwrap();
    format!("s3://{BUCKET}/{port}?endpoint={}", minio.endpoint())
}
