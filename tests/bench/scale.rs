//! Ten times the objects, and restores beside a Velero that is tuned: what must not grow, and what takes minutes, once.

use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::load::Load;
use harness::store::Minio;
use harness::velero::Velero;

use super::memory::{measured, peak_of, peak_of_family};
use super::objects::{DEFAULTS, TUNED, place_of, plugin, usual};
use super::table::{AtLeast, Shown, Table};
use super::{BUCKET, mebibytes, say, seconds, timed};

/// 26,000 and 260,000 objects backed up, 260,000 restored into another cluster.
pub(super) fn many_objects(minio: &Minio, table: &mut Table) {
    let cluster = cluster();
    say(&format!(
        "{:?} made",
        usual("few", 20).fill(&cluster.endpoint()).by_kind
    ));
    let (_, few, _) = measured(plugin(&cluster, minio).args(&["create", "few"]), peak_of);
    say(&format!(
        "{:?} made",
        usual("many", 180).fill(&cluster.endpoint()).by_kind
    ));
    let (time, many, _) = measured(plugin(&cluster, minio).args(&["create", "many"]), peak_of);
    say(&format!(
        "peaks: {} of 26,000, {} of 260,000",
        mebibytes(few),
        mebibytes(many)
    ));
    let velero = Velero::start(&cluster, minio, BUCKET, "velero", &DEFAULTS, None);
    let theirs = timed(|| {
        let create = [
            "backup",
            "create",
            "many-theirs",
            "--snapshot-volumes=false",
            "--include-cluster-resources=true",
        ];
        velero.cli(&create).ok();
        // Longer than a call of its client may take here.
        harness::wait_for("Velero's backup", Duration::from_secs(1800), || {
            let backup = "/apis/velero.io/v1/namespaces/velero/backups/many-theirs";
            (cluster.get_raw(backup)["status"]["phase"] == "Completed").then_some(())
        });
    });
    let velero_peak = velero.pid().map_or(0, peak_of_family);
    drop(velero);
    table.row(
        "back up 260,000 objects to MinIO, once",
        time,
        &format!("Velero, its defaults, once: {}", seconds(theirs)),
        theirs.as_secs_f64() / time.as_secs_f64(),
        AtLeast(10.0),
    );
    table.memory(
        "peak memory of that backup",
        many,
        &format!("Velero: {}", mebibytes(velero_peak)),
        96 << 20,
    );
    table.memory(
        "the same",
        many,
        &format!("ours of 26,000 objects: {}, times 1.2", mebibytes(few)),
        few * 6 / 5,
    );

    let place = place_of(&cluster, minio);
    drop(cluster);
    let target = self::cluster();
    let (time, peak, _) = measured(
        plugin(&target, minio)
            .env("KUBECTL_BACKUP_LOCATION", place)
            .args(&["restore", "create", "--from-backup", "many"]),
        peak_of,
    );
    table.row(
        "restore 260,000 objects into an empty cluster, once",
        time,
        "",
        0.0,
        Shown,
    );
    table.memory("peak memory of that restore", peak, "", 128 << 20);
}

/// 10,000 objects restored, beside a Velero that may send as many requests as it can.
pub(super) fn against_tuned(minio: &Minio, table: &mut Table) {
    let cluster = cluster();
    let load = Load {
        config_maps: 1500,
        secrets: 400,
        ..usual("tuned", 5)
    };
    say(&format!(
        "{:?} made",
        load.fill(&cluster.endpoint()).by_kind
    ));
    let namespaces: Vec<String> = (0..load.namespaces).map(|n| load.namespace(n)).collect();
    let included = namespaces.join(",");
    let into = |name: &str| {
        let mapped = namespaces
            .iter()
            .map(|from| format!("{from}:{name}-{from}"));
        mapped.collect::<Vec<_>>().join(",")
    };
    plugin(&cluster, minio)
        .args(&["create", "ten", "--include-namespaces", &included])
        .ok();
    let velero = Velero::start(&cluster, minio, BUCKET, "velero", &TUNED, None);
    velero.back_up("ten-theirs", &["--include-namespaces", &included]);
    let mapping = into("theirs");
    let theirs = timed(|| {
        velero.restore(
            "ten-theirs",
            "ten-theirs",
            &["--namespace-mappings", &mapping],
        );
    });
    drop(velero);
    let mapping = into("ours");
    let (time, peak, _) = measured(
        plugin(&cluster, minio).args(&[
            "restore",
            "create",
            "--from-backup",
            "ten",
            "--namespace-mappings",
            &mapping,
        ]),
        peak_of,
    );
    table.row(
        "restore 10,000 objects into new namespaces, once",
        time,
        &format!("Velero tuned (QPS 1000), once: {}", seconds(theirs)),
        theirs.as_secs_f64() / time.as_secs_f64(),
        Shown,
    );
    table.memory("peak memory of that restore", peak, "", 128 << 20);
}

fn cluster() -> Cluster {
    Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start()
}
