//! Restores of a hosted etcd of 2 GiB below launchers, beside what an administrator does by hand: download, `etcdutl snapshot restore`, start of etcd.
//!
//! All that waits for a disk does so here, and the launchers wait as long as they do for users; the one wait of theirs that is fixed is taken out of
//! the figure that is compared, and printed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::etcd::{Content, Etcd, Fill};
use harness::hosted::{BUCKET, Hosted};
use harness::run::etcd_launcher;
use harness::store::Minio;
use http::Method;
use serde_json::json;

use super::etcd::{ANONYMOUS, PAGE};
use super::memory::{anonymous, children};
use super::table::{AtMost, Shown, Table};
use super::{mebibytes, median, say, seconds, timed};

/// What is compared with three restores in a row.
const RESTORES: usize = 3;

/// How often the objects and the doors are looked at.
const OFTEN: Duration = Duration::from_millis(10);

/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(900);

/// What one restore took.
struct Took {
    /// From the request to an etcd that serves.
    serving: Duration,
    /// The wait for writers that nobody stopped, which is in `serving`.
    watching: Duration,
    /// From the first end of etcd to an API server that is ready.
    outage: Duration,
    /// Anonymous memory of the launcher and of the etcdutl below it, at its peak.
    memory: u64,
}

pub(super) fn restores(_: &Minio, table: &mut Table) {
    let hosted = in_earnest(1);
    let size = database(&hosted);
    let by_hand = ByHand::with(&hosted);
    let (mut ours, mut theirs, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, for what a machine does besides changes with time.
    for run in 0..RESTORES {
        let (all, start) = by_hand.restore();
        theirs.push(all);
        starts.push(start);
        ours.push(restored(&hosted, &format!("run-{run}")));
    }
    let parts = Parts::of(&hosted, median(starts));
    drop(by_hand);
    drop(hosted);
    let theirs = median(theirs);
    let watching = median(ours.iter().map(|took| took.watching).collect());
    let serving = median(ours.iter().map(|took| took.serving).collect()).saturating_sub(watching);
    let outage = median(ours.iter().map(|took| took.outage).collect());
    let memory = ours.iter().map(|took| took.memory).max().unwrap_or(0);
    table.row(
        &format!(
            "etcd restore of {}, one member: request to serving, but for {} of watching for writers",
            mebibytes(size),
            seconds(watching)
        ),
        serving,
        &format!(
            "download, etcdutl snapshot restore, start of etcd: {}",
            seconds(theirs)
        ),
        serving.as_secs_f64() / theirs.as_secs_f64(),
        AtMost(1.5),
    );
    let allowed = parts.etcd * 2 + parts.api + parts.hash + Duration::from_secs(3);
    table.row(
        "the same: first stop of etcd to the first /readyz",
        outage,
        &format!(
            "two starts of etcd ({} each), one of the API server ({}), one HashKV ({}) and 3 s: {}",
            seconds(parts.etcd),
            seconds(parts.api),
            seconds(parts.hash),
            seconds(allowed)
        ),
        outage.as_secs_f64() / allowed.as_secs_f64(),
        AtMost(1.0),
    );
    table.memory(
        "peak anonymous memory of that restore, etcdutl included, etcd not",
        memory,
        "",
        ANONYMOUS + size / PAGE * 24,
    );
    let three = in_earnest(3);
    let took = restored(&three, "three");
    table.row(
        &format!(
            "the same with three members on one machine: request to serving, once, but for {} of watching",
            seconds(took.watching)
        ),
        took.serving.saturating_sub(took.watching),
        &format!("out of service for {}", seconds(took.outage)),
        0.0,
        Shown,
    );
}

/// A cluster with 2 GiB in it, and a snapshot of that, taken by the launcher.
fn in_earnest(members: usize) -> Hosted {
    let hosted = Hosted::builder()
        .members(members)
        .with_api_server()
        .in_earnest()
        .start();
    let fill = Fill {
        value_bytes: 4000,
        content: Content::Half,
        // The API server would read what stands where it keeps its objects.
        root: "/bench".to_owned(),
        ..Fill::of(1800 << 20)
    };
    let began = Instant::now();
    let filled = fill.run(&hosted.members[0].endpoint());
    say(&format!("{filled:?} in {}", seconds(began.elapsed())));
    let location = format!("s3://{BUCKET}?endpoint={}", hosted.minio.endpoint());
    etcd_launcher(&["snapshot", "--cluster", &hosted.name, "--name=before"])
        .env("ETCDCTL_ENDPOINTS", hosted.members[0].client_url())
        .location(&location)
        .credentials_of(&hosted.minio)
        .spawn()
        .wait(PATIENCE)
        .ok();
    hosted
}

fn database(hosted: &Hosted) -> u64 {
    let database = hosted.members[0].data_dir().join("member/snap/db");
    fs::metadata(database).unwrap().len()
}

/// One restore, looked at from outside.
fn restored(hosted: &Hosted, name: &str) -> Took {
    let (ended, memory) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let pid = hosted.members[0].pid().unwrap();
            while !ended.load(Ordering::Relaxed) {
                memory.fetch_max(with_etcdutl(pid), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let took = followed(hosted, name);
        ended.store(true, Ordering::Relaxed);
        Took {
            memory: memory.load(Ordering::Relaxed),
            ..took
        }
    })
}

fn followed(hosted: &Hosted, name: &str) -> Took {
    let requested = Instant::now();
    hosted.apply_restore(name, "before");
    let mut steps: HashMap<String, Instant> = HashMap::new();
    let (mut stopped, mut serving, mut ready) = (None, None, None);
    loop {
        let restore = hosted.restore(name).unwrap();
        let now = Instant::now();
        let step = restore["status"]["attempt"]["step"].as_str();
        let step = step.unwrap_or_default();
        if !steps.contains_key(step) {
            steps.insert(step.to_owned(), now);
            say(&format!(
                "{name}: {step:?} after {}",
                seconds(now - requested)
            ));
        }
        let is_out = steps.contains_key("Stopping");
        if is_out && stopped.is_none() && !hosted.members[0].is_open() {
            stopped = Some(now);
        }
        if stopped.is_some() && serving.is_none() && hosted.is_serving(0) {
            serving = Some(now);
        }
        if serving.is_some() && ready.is_none() && hosted.is_api_ready() {
            ready = Some(now);
        }
        let phase = &restore["status"]["phase"];
        assert!(
            phase != "Failed" && phase != "RolledBack" && requested.elapsed() < PATIENCE,
            "{name}: {restore}"
        );
        if let (true, Some(stopped), Some(serving), Some(ready)) =
            (phase == "Completed", stopped, serving, ready)
        {
            hosted.wait_until_settled();
            let first = |step: &str| steps.get(step).copied().unwrap_or(requested);
            return Took {
                serving: serving - requested,
                watching: first("Stopping").saturating_duration_since(first("Watching")),
                outage: ready - stopped,
                memory: 0,
            };
        }
        thread::sleep(OFTEN);
    }
}

/// What the budget of an outage is made of.
struct Parts {
    etcd: Duration,
    api: Duration,
    hash: Duration,
}

impl Parts {
    /// The API server goes and comes as its Deployment says; etcd's start was measured by hand.
    fn of(hosted: &Hosted, etcd: Duration) -> Self {
        let scale = |replicas: u32| {
            let replicas = format!("--replicas={replicas}");
            hosted.kubectl(&["scale", "deployment", "apiserver", &replicas]);
        };
        scale(0);
        until(|| !hosted.is_api_ready());
        scale(2);
        let api = timed(|| until(|| hosted.is_api_ready()));
        let mut keys = hosted.keys(0);
        let hash = timed(|| drop(keys.call("maintenance/hash", "{}").unwrap()));
        Self { etcd, api, hash }
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain");
        thread::sleep(OFTEN);
    }
}

/// What an administrator does by hand, with etcd's own tools.
struct ByHand {
    etcd: Etcd,
    object: String,
    endpoint: String,
}

impl ByHand {
    /// The plain snapshot lies in the bucket for everybody, so that the download is one request and nothing else.
    fn with(hosted: &Hosted) -> Self {
        let plain = hosted.folder().join("plain.db");
        hosted.save_to(&plain);
        let bytes = fs::read(&plain).unwrap();
        hosted.minio.put(BUCKET, "plain.db", bytes);
        fs::remove_file(&plain).unwrap();
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{BUCKET}/plain.db"),
        }]});
        let path = format!("/{BUCKET}?policy=");
        let answer = hosted
            .minio
            .signed(Method::PUT, &path, "s3", &policy.to_string(), &[]);
        assert!(answer.is_success(), "{}", answer.text());
        let endpoint = hosted.minio.endpoint();
        Self {
            etcd: Etcd::builder().fsync(true).quota(8 << 30).start(),
            object: format!("/{BUCKET}/plain.db"),
            endpoint: endpoint.trim_start_matches("http://").to_owned(),
        }
    }

    /// All of it, and the start of etcd in it.
    fn restore(&self) -> (Duration, Duration) {
        let member = self.etcd.member(0);
        member.stop();
        fs::remove_dir_all(member.data_dir()).unwrap();
        let file = self.etcd.folder().join("downloaded.db");
        let began = Instant::now();
        self.download(&file);
        self.etcd.etcdutl(&[
            "snapshot",
            "restore",
            file.to_str().unwrap(),
            &format!("--data-dir={}", member.data_dir().display()),
            &format!("--name={}", member.name()),
            &format!("--initial-cluster={}", self.etcd.initial_cluster()),
            &format!("--initial-advertise-peer-urls={}", member.peer_url()),
        ]);
        let start = timed(|| {
            member.start();
            member.wait_until_healthy();
        });
        let all = began.elapsed();
        fs::remove_file(file).unwrap();
        say(&format!(
            "by hand {}, etcd's start {}",
            seconds(all),
            seconds(start)
        ));
        (all, start)
    }

    fn download(&self, file: &Path) {
        let mut stream = TcpStream::connect(&self.endpoint).unwrap();
        let (object, endpoint) = (&self.object, &self.endpoint);
        write!(stream, "GET {object} HTTP/1.0\r\nHost: {endpoint}\r\n\r\n").unwrap();
        let mut stream = BufReader::with_capacity(1 << 20, stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
        while line.trim() != "" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        io::copy(&mut stream, &mut File::create(file).unwrap()).unwrap();
    }
}

/// Anonymous memory of a launcher and of the etcdutl below it; etcd is there without a restore as well.
fn with_etcdutl(launcher: u32) -> u64 {
    let is_tool = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|program| program.file_name().is_some_and(|name| name == "etcdutl"))
    };
    let tools = children(launcher)
        .filter(is_tool)
        .map(anonymous)
        .sum::<u64>();
    anonymous(launcher) + tools
}
