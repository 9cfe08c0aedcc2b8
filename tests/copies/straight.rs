//! Files that a mover writes straight to the store, and those that it can not.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::http_client::Endpoint;
use harness::proxy::{Action, Match, Proxy};
use harness::run::{Backup, kubectl_backup};
use harness::sts::{Sts, signer};
use harness::wait_for;

use super::{IMAGE, PATIENT, World, bare, claim, pod};

/// So long keys live that a mover is lent, and so long the store holds the end of a copy up.
const LIFE: Duration = Duration::from_secs(16);
const HELD: Duration = Duration::from_secs(22);

const ROLE: &str = "arn:aws:iam::123456789012:role/backup";
const BASE: &str = "BASEKEY-of-the-run";
const SECRET: &str = "s3cr3t/of+the=base";

/// The same bucket as a location whose movers get credentials, at this address of the store.
fn location(world: &World, name: &str, endpoint: &str, credentials: &Path) -> Backup {
    let config = format!("region=us-east-1,s3Url={endpoint},s3ForcePathStyle=true");
    kubectl_backup(&[
        "location",
        "create",
        name,
        "--provider=aws",
        "--bucket=backups",
        "--prefix=p",
    ])
    .args(&[
        "--config",
        &config,
        "--mover-credentials",
        "sts",
        "--credentials-file",
    ])
    .arg(credentials)
    .home(world.home.path())
}

/// With credentials of its own a mover archives by itself; where it does not reach the store, its files go the other way, and that is said.
pub(super) fn both_ways(world: &World, folder: &Path) {
    let keys = world.minio.credentials_file();
    location(world, "near", world.minio.endpoint(), keys).ok();
    // This machine's own address, which means another place in a pod.
    let here = Proxy::start(&Endpoint::plain(world.minio.endpoint()));
    location(world, "far", &here.url(), keys).ok();
    let create = |name: &str, location: &str| {
        world.at(&["create", name, "-n", "shop"], location).args(&[
            "--default-volumes-to-fs-backup",
            "--mover-image",
            IMAGE,
        ])
    };

    let running = create("straight", "near").spawn();
    let seen = bare::seen(world, "shop", "archive");
    let run = running.wait(Duration::from_secs(180));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let row = world.row("straight", "data");
    assert_eq!(row["data"][0]["way"], "straight", "{row:#}");
    world.is_in(&row, folder);
    let (_, password) = world.repository(&row);
    let password = fs::read_to_string(password).unwrap();
    let keys = [world.minio.access_key(), world.minio.secret_key()];
    let secrets = [keys[0], keys[1], &password];
    seen.has_none_of(&secrets, &[&run.stderr, &run.stdout]);
    world.nothing_is_at_work();

    let run = create("around", "far").ok();
    let row = world.row("around", "data");
    assert_eq!(row["data"][0]["way"], "exec", "{row:#}");
    let why = row["data"][0]["execBecause"].as_str().unwrap();
    assert!(why.contains(&here.url()), "{why}");
    assert!(
        run.stderr
            .contains("over exec, and not straight to the store"),
        "{}",
        run.stderr
    );
    let said = world
        .at(&["describe", "around", "--details"], "far")
        .ok()
        .stdout;
    assert!(said.contains("over exec: "), "{said}");
    assert!(said.contains("in the clear beside it"), "{said}");
    world.is_in(&row, folder);
    world.nothing_is_at_work();
}

/// Keys that end in the midst of a copy: the mover goes on with newer ones, which come to it over its exec.
pub(super) fn renewed(world: &World) {
    world.namespace("short");
    world
        .node
        .apply(&(claim("short", "data", "") + &pod("short", "db", &["data"], &[])));
    world.wait("short", &["db"]);
    let write =
        "dd if=/dev/urandom of=/data/large bs=1M count=9 2>/dev/null; echo text > /data/file";
    world.shell("short", "db", write);

    let sts = Sts::of(Arc::clone(&world.minio), LIFE)
        .signer(BASE, SECRET)
        .role(ROLE, None)
        .start();
    let store = sts.store_on(&world.node.host_address());
    let writes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&writes);
    let note = Match::when(move |parts| {
        if parts.method == "PUT" {
            let write = (signer(&parts.headers), parts.target.clone());
            noted.lock().unwrap().push(write);
        }
        false
    });
    store.every(note, Action::Cut);
    store.every(
        Match::method("PUT").and_path("/index/"),
        Action::Delay(HELD),
    );
    let keys = format!(
        "[default]\nrole_arn = {ROLE}\nsource_profile = base\n[base]\naws_access_key_id = {BASE}\naws_secret_access_key = {SECRET}\n"
    );
    let keys = world.home.write("keys-of-a-role", keys);
    let of_role = |call: Backup| call.env("AWS_ENDPOINT_URL_STS", sts.url());
    of_role(location(world, "short", &store.url(), &keys)).ok();
    let create = world.at(&["create", "renewed", "-n", "short"], "short");
    let create = create.args(&["--default-volumes-to-fs-backup", "--mover-image", IMAGE]);
    let running = of_role(create).spawn();
    let lent = || {
        let all = sts.asked().into_iter();
        let narrowed = all.filter(|one| !one.policy.is_empty());
        narrowed.map(|one| one.given).collect::<Vec<_>>()
    };
    let first = bare::seen(world, "short", "archive");
    wait_for("newer keys", PATIENT, || (lent().len() > 1).then_some(()));
    let then = bare::seen(world, "short", "archive");
    let run = running.wait(Duration::from_secs(180));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let row = world.row("renewed", "data");
    assert_eq!(row["data"][0]["way"], "straight", "{row:#}");
    world.is_in(&row, &world.folder("short", "data"));

    // Its packs came with the first keys, and its snapshot, when these had ended, with others of its own.
    let lent = lent();
    let by = |part: &str| {
        let writes = writes.lock().unwrap();
        let write = writes.iter().find(|(_, target)| target.contains(part));
        write
            .unwrap_or_else(|| panic!("{part}: {writes:?}"))
            .0
            .clone()
    };
    assert_eq!(by("/data/"), lent[0]);
    assert!(lent[1..].contains(&by("/snapshots/")), "{lent:?}");
    let (_, password) = world.repository(&row);
    let mut secrets = vec![
        fs::read_to_string(password).unwrap(),
        BASE.to_owned(),
        SECRET.to_owned(),
    ];
    for key in lent {
        let (secret, token) = sts.secrets(&key);
        secrets.extend([key, secret, token]);
    }
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    for seen in [first, then] {
        seen.has_none_of(&secrets, &[&run.stderr, &run.stdout]);
    }
    world.nothing_is_at_work();
}
