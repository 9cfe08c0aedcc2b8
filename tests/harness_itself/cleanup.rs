//! Nothing is left behind, however a test ends.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::store::Minio;
use harness::wait_for;

const DOOMED: &str = "harness_itself::cleanup::doomed";

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn two_clusters_run_side_by_side_and_leave_nothing() {
    let first = Cluster::start();
    let second = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let name = first.create_namespace("mine");
    first.kubectl(&[
        "-n",
        &name,
        "create",
        "configmap",
        "c",
        "--from-literal=a=b",
    ]);
    let answer = second.try_kubectl(&["get", "namespace", &name]).code(1);
    assert!(answer.stderr.contains("NotFound"), "{}", answer.stderr);

    let pids = [first.pids(), second.pids()].concat();
    let folders = [
        first.folder().path().to_owned(),
        second.folder().path().to_owned(),
    ];
    assert_eq!(pids.len(), 6);
    assert!(pids.iter().all(|pid| is_there(*pid)));
    drop(first);
    drop(second);
    assert!(!pids.iter().any(|pid| is_there(*pid)), "{pids:?}");
    assert!(!folders.iter().any(|folder| folder.exists()), "{folders:?}");
}

#[test]
fn an_api_server_can_be_stopped_and_started_again() {
    let cluster = Cluster::builder().controllers(Controllers::None).start();
    let name = cluster.create_namespace("kept");
    cluster.stop_api_server();
    assert!(cluster.client().get("/readyz").is_err());
    cluster.start_api_server();
    cluster.get_raw(&format!("/api/v1/namespaces/{name}"));
}

#[test]
fn the_guardian_cleans_up_after_a_killed_test_process() {
    let mut doomed = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", DOOMED])
        .env("HARNESS_DOOMED", "yes")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(doomed.stdout.take().unwrap());
    let mut pids = Vec::new();
    let mut folders = Vec::new();
    for line in output.lines().map(Result::unwrap) {
        // The test runner writes the name of a test without a line end.
        if let Some((_, pid)) = line.split_once("doomed-pid ") {
            pids.push(pid.parse::<u32>().unwrap());
        } else if let Some((_, folder)) = line.split_once("doomed-folder ") {
            folders.push(PathBuf::from(folder));
        } else if line.contains("doomed-ready") {
            break;
        }
    }
    assert_eq!((pids.len(), folders.len()), (3, 2));
    assert!(pids.iter().all(|pid| is_there(*pid)));
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    wait_for(
        "the end of what it had started",
        Duration::from_secs(10),
        || {
            let is_gone = !pids.iter().any(|pid| is_there(*pid))
                && !folders.iter().any(|folder| folder.exists());
            is_gone.then_some(())
        },
    );
}

/// Runs only inside the test above, which kills it.
#[test]
#[ignore = "the other half of the_guardian_cleans_up_after_a_killed_test_process"]
fn doomed() {
    if env::var_os("HARNESS_DOOMED").is_none() {
        return;
    }
    let cluster = Cluster::builder().controllers(Controllers::None).start();
    let minio = Minio::start();
    let mut report = String::new();
    for pid in cluster.pids().into_iter().chain(minio.pid()) {
        report += &format!("doomed-pid {pid}\n");
    }
    for folder in [cluster.folder(), minio.folder()] {
        report += &format!("doomed-folder {}\n", folder.path().display());
    }
    let report = format!("\n{report}doomed-ready\n");
    std::io::stdout().write_all(report.as_bytes()).unwrap();
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}
