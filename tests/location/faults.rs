//! Google's and Azure's stores fail as MinIO does: what passes is waited for and the backup is whole, what does not is named and leaves nothing, and
//! tokens that end under way are replaced.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use harness::azurite::{self, Azurite};
use harness::cluster::Cluster;
use harness::gcs::Gcs;
use harness::http_client::Endpoint;
use harness::load::Load;
use harness::process::Folder;
use harness::proxy::{Action, Match, Proxy};
use harness::run::Backup;
use serde_json::Value;

use crate::emulated::Bucket;
use crate::place::on;

/// Bytes of the body after which a read breaks off: several times within an archive.
const SHORT: usize = 3_000_000;

/// A namespace whose archive is uploaded in several parts.
fn large() -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| {
        let cluster = Cluster::shared();
        let load = Load {
            prefix: cluster.create_namespace("faults"),
            config_maps: 40,
            config_map_bytes: 900_000,
            half_random: true,
            ..Load::default()
        };
        load.fill(&cluster.endpoint());
        load.namespace(0)
    })
}

fn create(name: &str) -> Vec<&str> {
    vec!["create", name, "--include-namespaces", large()]
}

fn phase(marker: &[u8]) -> Value {
    let marker: Value = serde_json::from_slice(marker).unwrap();
    marker["status"]["phase"].clone()
}

#[test]
fn faults_of_google_and_azure_that_pass_are_waited_for_and_the_backup_is_whole() {
    let cluster = Cluster::shared();
    for bucket in Bucket::of_each("faults-that-pass") {
        let provider = bucket.provider();
        let proxy = bucket.proxy();
        let location = bucket.url_at(&proxy.url(), "x");
        let call = |arguments: &[&str]| bucket.signed_in(on(cluster, &location, arguments));

        // A part is refused for a while, broken off in the middle, and taken with its answer lost; so is what makes an object of them.
        proxy.nth(1, bucket.part(), bucket.is_busy());
        proxy.nth(3, bucket.part(), Action::Cut);
        proxy.nth(4, bucket.part(), Action::CutAfterForward);
        proxy.nth(1, bucket.complete(), Action::CutAfterForward);
        proxy.nth(1, bucket.listing(), bucket.is_busy());
        let side_file = bucket.about("PUT", ".json.gz");
        proxy.nth(1, side_file, bucket.throttles());
        let slow = Action::Delay(Duration::from_secs(2));
        proxy.nth(2, Match::method("GET"), slow);
        let marker = bucket.about("PUT", "velero-backup.json");
        proxy.nth(1, marker, Action::CutAfterForward);
        call(&create("patient")).ok();
        let calls = proxy.calls();
        let cut = calls.iter().filter(|call| call.status.is_none()).count();
        let busy = calls.iter().filter(|call| call.status >= Some(429)).count();
        assert!(cut >= 4 && busy >= 3, "{provider}: {calls:#?}");
        assert_eq!(
            phase(&bucket.get("x/backups/patient/velero-backup.json")),
            "Completed",
            "{provider}"
        );

        // What is read breaks off again and again, after a silence and a refusal.
        proxy.clear_rules();
        proxy.clear_calls();
        let archive = || bucket.about("GET", "patient.tar.gz");
        proxy.nth(1, archive(), bucket.is_busy());
        proxy.nth(2, archive(), Action::Delay(Duration::from_secs(2)));
        proxy.nth(3, archive(), Action::Cut);
        proxy.every(archive(), Action::CutBody(SHORT));
        let verified = call(&["verify", "patient"]).ok();
        assert!(!verified.stdout.is_empty(), "{provider}");
        let folder = Folder::new("downloads");
        let file = folder.join("patient.tar.gz");
        call(&["download", "patient", "--output"]).arg(&file).ok();
        let whole = bucket.get("x/backups/patient/patient.tar.gz");
        assert!(whole.len() > 2 * SHORT, "{provider}: {}", whole.len());
        assert!(std::fs::read(&file).unwrap() == whole, "{provider}");
        let calls = proxy.calls();
        let broken = calls.iter().filter(|call| call.status >= Some(206)).count();
        assert!(broken >= 6, "{provider}: {calls:#?}");

        // All parts of the upload came to an end.
        call(&["delete", "patient", "--yes"]).ok();
        bucket.assert_is_empty("x/backups/");
    }
}

#[test]
fn faults_of_google_and_azure_that_stay_are_named_and_leave_nothing() {
    let cluster = Cluster::shared();
    for bucket in Bucket::of_each("faults-that-stay") {
        let provider = bucket.provider();
        let proxy = bucket.proxy();
        let location = bucket.url_at(&proxy.url(), "x");
        let call = |arguments: &[&str]| bucket.signed_in(on(cluster, &location, arguments));
        let (code, name) = (bucket.refusal(), format!("{:?}", bucket.name));
        let archive = bucket.about("PUT", "hopeless.tar.gz");
        let late = Match::when({
            let part = bucket.part();
            let seen = Mutex::new(0);
            move |parts| {
                let mut seen = seen.lock().unwrap();
                *seen += usize::from(part.fits(parts));
                *seen > 1 && part.fits(parts)
            }
        });
        for (what, when, says) in [
            ("the archive", archive, "hopeless.tar.gz"),
            ("from the second part on", late, "part "),
            ("its completion", bucket.complete(), "complete the upload"),
        ] {
            proxy.every(when, bucket.refuses());
            let told = call(&create("hopeless")).code(1).stderr;
            for word in [says, code, &name, "hint:"] {
                assert!(told.contains(word), "{provider}, {what}: {word}\n{told}");
            }
            proxy.clear_rules();
            bucket.assert_is_empty("x/backups/hopeless/");
            let listed = call(&["get", "-o", "name"]).ok().stdout;
            assert_eq!(listed, "", "{provider}, {what}");
        }

        // From its marker on nothing is taken back: it does not stand, and its claim tells `prune` of what is left.
        let marker = bucket.about("PUT", "velero-backup.json");
        proxy.every(marker, bucket.refuses());
        let told = call(&create("unmarked")).code(1).stderr;
        for word in ["does not stand", "velero-backup.json", code, &name] {
            assert!(told.contains(word), "{provider}: {word}\n{told}");
        }
        proxy.clear_rules();
        let left = bucket.list("x/backups/unmarked/");
        let has = |word: &str| left.iter().any(|key| key.contains(word));
        assert!(has("/claim-") && !has("velero-backup.json"), "{left:?}");
        let listed = call(&["get", "-o", "name"]).ok().stdout;
        assert_eq!(listed, "", "{provider}");

        // Nobody is there.
        proxy.every(Match::any(), Action::Cut);
        let told = call(&create("hopeless")).code(1).stderr;
        let address = proxy.url();
        for word in [address.as_str(), &name, "hint:"] {
            assert!(told.contains(word), "{provider}: {word}\n{told}");
        }
        proxy.clear_rules();
        bucket.assert_is_empty("x/backups/hopeless/");

        // The name is free, and all is well again.
        call(&create("hopeless")).ok();
        call(&["verify", "hopeless"]).ok();
    }
}

/// The tokens that requests were sent with, in order.
#[derive(Clone, Default)]
struct Bearers(Arc<Mutex<Vec<String>>>);

impl Bearers {
    /// Those of requests that fit, which are noted and left alone.
    fn of(proxy: &Proxy, which: Match) -> Self {
        let bearers = Self::default();
        let kept = Arc::clone(&bearers.0);
        let note = Match::when(move |parts| {
            if let Some(bearer) = parts
                .headers
                .get("authorization")
                .filter(|_| which.fits(parts))
            {
                kept.lock()
                    .unwrap()
                    .push(bearer.to_str().unwrap().to_owned());
            }
            false
        });
        proxy.every(note, Action::Cut);
        bearers
    }

    fn first(&self) -> String {
        self.0.lock().unwrap().first().expect("a token").clone()
    }

    fn last(&self) -> String {
        self.0.lock().unwrap().last().expect("a token").clone()
    }
}

const LASTS: Duration = Duration::from_secs(20);
/// An answer that waits so long leaves no token that was good when it was asked for.
const OUTLIVES: Duration = Duration::from_secs(26);

/// A store whose tokens end soon.
struct Ending<'s> {
    proxy: &'s Proxy,
    part: Match,
    complete: Match,
    call: &'s dyn Fn(&[&str]) -> Backup,
    /// What the store itself is asked, to see whether a token is good.
    store: &'s Endpoint,
    listing: String,
    last: &'s dyn Fn(Duration),
}

impl Ending<'_> {
    fn answers(&self, bearer: &str) -> u16 {
        let headers = [("authorization", bearer), ("x-ms-version", "2023-11-03")];
        let mut client = self.store.client();
        let answer = client.send(http::Method::GET, &self.listing, &headers, "");
        answer.unwrap().status
    }

    /// Makes a backup whose upload takes longer than the tokens last that it began with.
    fn is_outlived(&self) {
        let (proxy, call) = (self.proxy, self.call);
        (self.last)(LASTS);
        let sent = Bearers::of(proxy, self.part.clone());
        let completed = Bearers::of(proxy, self.complete.clone());
        proxy.nth(2, self.part.clone(), Action::DelayAnswer(OUTLIVES));
        call(&create("long")).ok();
        let (first, last) = (sent.first(), completed.last());
        assert_ne!(first, last);
        let ended = self.answers(&first);
        assert!([401, 403].contains(&ended), "{ended}");
        proxy.clear_rules();
        (self.last)(Duration::from_secs(3600));
        let read = Bearers::of(proxy, Match::method("GET"));
        call(&["verify", "long"]).ok();
        assert_eq!(self.answers(&read.last()), 200);
    }
}

#[test]
fn tokens_of_google_that_end_while_a_backup_is_uploaded_are_replaced() {
    // A store of its own: how long its tokens last is a part of the test.
    let gcs = Gcs::start();
    let bucket = gcs.bucket("outlived");
    let proxy = Proxy::start(&gcs.upstream());
    let file = gcs.user_file(gcs.refresh_token());
    let location = format!("gs://{bucket}/x?endpoint={}", proxy.url());
    let call = |arguments: &[&str]| {
        on(Cluster::shared(), &location, arguments).env("KUBECTL_BACKUP_CREDENTIALS_FILE", &file)
    };
    let ending = Ending {
        proxy: &proxy,
        part: Match::method("PUT").and_path("partNumber="),
        complete: Match::method("POST").and_path("uploadId="),
        call: &call,
        store: &gcs.upstream(),
        listing: format!("/{bucket}?list-type=2"),
        last: &|time| gcs.tokens_last(time),
    };
    ending.is_outlived();
    // Every upload that was begun came to its end.
    assert_eq!(gcs.uploads(bucket), Vec::<String>::new());
}

/// The credentials file of an identity with a client secret.
fn identity(azurite: &Azurite) -> PathBuf {
    let lines = format!(
        "AZURE_TENANT_ID={}\nAZURE_CLIENT_ID={}\nAZURE_CLIENT_SECRET={}\n",
        azurite::TENANT,
        azurite::CLIENT,
        azurite::CLIENT_SECRET
    );
    azurite.credentials("identity.env", &lines)
}

/// A location of Azure's by way of a proxy, with credentials of this file.
fn azure<'c>(
    azurite: &'c Azurite,
    container: &str,
    proxy: &Proxy,
    file: &'c Path,
) -> impl Fn(&[&str]) -> Backup + use<'c> {
    let account = azurite.account();
    let location = format!(
        "az://{container}/x?storage-account={account}&endpoint={}/{account}&authority={}",
        proxy.url(),
        azurite.authority()
    );
    move |arguments| {
        on(Cluster::shared(), &location, arguments)
            .env("KUBECTL_BACKUP_CREDENTIALS_FILE", file)
            .env("KUBECTL_BACKUP_CACERT", azurite.ca_file())
    }
}

#[test]
fn tokens_of_azure_that_end_while_a_backup_is_uploaded_are_replaced() {
    let Some(azurite) = Azurite::start() else {
        harness::skip!("Azurite needs Node.js");
    };
    let container = azurite.container("outlived");
    let proxy = azurite.proxy();
    let file = identity(&azurite);
    let call = azure(&azurite, container, &proxy, &file);
    let account = azurite.account();
    let ending = Ending {
        proxy: &proxy,
        part: Match::method("PUT").and_path("blockid="),
        complete: Match::method("PUT").and_path("comp=blocklist"),
        call: &call,
        store: azurite.upstream(),
        listing: format!("/{account}/{container}?restype=container&comp=list"),
        last: &|time| azurite.tokens_last(time),
    };
    ending.is_outlived();
}

#[test]
fn a_listing_of_azure_is_gone_through_to_its_last_page() {
    let Some(azurite) = Azurite::shared() else {
        harness::skip!("Azurite needs Node.js");
    };
    let cluster = Cluster::shared();
    let namespace = cluster.create_namespace("pages");
    let container = azurite.container("pages");
    let proxy = azurite.proxy();
    // Azure's own pages have 5,000 entries; the signature of a SAS covers no parameter, so shorter ones can be asked for on the way.
    let sas = azurite.sas(container, "racwdl", 3600);
    let lines = format!("AZURE_STORAGE_SAS_TOKEN={sas}\n");
    let file = azurite.credentials("pages.env", &lines);
    let pages = Match::method("GET").and_path("comp=list");
    let short = Action::retarget(|target| format!("{target}&maxresults=20"));
    proxy.every(pages, short);
    let call = azure(azurite, container, &proxy, &file);
    let others = (0..90).map(|number| format!("x/backups/other-{number:02}/left.gz"));
    azurite.put_all(container, others.map(|key| (key, "x".to_owned())));
    for name in ["aa-first", "zz-last"] {
        call(&["create", name, "-n", &namespace]).ok();
    }
    proxy.clear_calls();
    let listed = call(&["get", "-o", "name"]).ok().stdout;
    let mut names: Vec<_> = listed.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["backup/aa-first", "backup/zz-last"]);
    let calls = proxy.calls();
    let next = calls.iter().filter(|call| {
        call.target.contains("comp=list")
            && call.target.contains("marker=")
            && call.status == Some(200)
    });
    assert!(next.count() >= 4, "{calls:#?}");
    call(&["verify", "zz-last"]).ok();
    call(&["delete", "zz-last", "--yes"]).ok();
    call(&["prune", "--yes"]).ok();
    let left = azurite.list(container, "x/backups/zz-last/");
    assert_eq!(left, Vec::<String>::new());
}
