//! A mover that goes straight to the store: with what it is lent, for its volume alone, as long as it takes.

use std::fs;
use std::time::Duration;

use harness::proxy::{Action, Match};
use harness::store::Minio;
use harness::sts::Sts;
use harness::wait_for;

use super::{Place, VOLUME, listed, text};

const ROLE: &str = "arn:aws:iam::123456789012:role/backup";
const BASE: &str = "BASEKEY";
const SECRET: &str = "s3cr3t/of+the=base";

/// So long a store holds the index up: longer than keys live.
const HELD: Duration = Duration::from_secs(14);
const LIFE: Duration = Duration::from_secs(12);

/// The mover's own process: what it was started with, and what it has in its environment.
fn of_mover(folder: &str) -> Option<(String, String)> {
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| {
        let path = entry.ok()?.path();
        let line = fs::read_to_string(path.join("cmdline"))
            .ok()?
            .replace('\0', " ");
        let environment = fs::read_to_string(path.join("environ")).ok()?;
        line.contains(&format!("mover archive {folder}"))
            .then_some((line, environment))
    })
    .next()
}

#[test]
fn a_mover_has_keys_for_its_volume_alone_and_newer_ones_before_they_end() {
    let place = Place::minio("straight");
    let sts = Sts::of(Minio::shared(), LIFE)
        .signer(BASE, SECRET)
        .role(ROLE, None)
        .start();
    let store = sts.store();
    store.every(
        Match::method("PUT").and_path("/index/"),
        Action::Delay(HELD),
    );
    let keys = place.home.write(
        "keys",
        format!(
            "[default]\nrole_arn = {ROLE}\nsource_profile = base\n[base]\naws_access_key_id = {BASE}\naws_secret_access_key = {SECRET}\n"
        ),
    );
    let source = place.home.join("source");
    fs::create_dir_all(source.join("a")).unwrap();
    fs::write(source.join("a/file"), vec![7; 3 << 20]).unwrap();
    let words = [
        "mover",
        "backup",
        text(&source),
        VOLUME,
        "--backup",
        "nightly",
        "--straight",
    ];
    let running = harness::run::kubectl_backup(&words)
        .home(place.home.path())
        .location(&format!("s3://straight/p?endpoint={}", store.url()))
        .args(&["--credentials-file", text(&keys)])
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .spawn();
    let (line, environment) = wait_for("the mover", Duration::from_secs(60), || {
        of_mover(text(&source))
    });
    let run = running.wait(Duration::from_secs(120));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let saved = run.json();

    // What it was given was for its volume, and had to be given again.
    let lent: Vec<_> = sts
        .asked()
        .into_iter()
        .filter(|one| !one.policy.is_empty())
        .collect();
    assert!(lent.len() >= 2, "{lent:?}");
    let key = place.home.write(
        "key",
        Minio::shared().get("straight", "p/restic/cluster/shop/0b5e.key"),
    );
    let target = place.home.join("back");
    place.checked_by_restic(&saved, &key, &target);
    assert_eq!(listed(&source, false), listed(&target.join("data"), false));

    // Nothing of it lies where others look.
    let password = fs::read_to_string(&key).unwrap();
    let mut secrets = vec![
        SECRET.to_owned(),
        BASE.to_owned(),
        password.trim().to_owned(),
    ];
    let mut all = Vec::new();
    for one in &lent {
        let (secret, token) = sts.secrets(&one.given);
        secrets.extend([one.given.clone(), secret.clone(), token.clone()]);
        all.push((one.given.clone(), secret, token));
    }
    for secret in &secrets {
        assert!(
            !line.contains(secret) && !environment.contains(secret),
            "{line} {environment}"
        );
        assert!(
            !run.stdout.contains(secret) && !run.stderr.contains(secret),
            "{}",
            run.stderr
        );
    }

    // These very keys, at the store itself.
    let minio = Minio::shared();
    let may = |key: &str| {
        let (id, secret, token) = &all[0];
        minio.allowed((id, secret, token), "straight", key)
    };
    let own = "p/restic/cluster/shop/0b5e";
    assert_eq!(may(&format!("{own}/data/00/x")), ["read", "list", "write"]);
    assert_eq!(
        may(&format!("{own}.claims/claim-x")),
        ["read", "list", "write", "delete"]
    );
    for other in [
        "p/restic/cluster/shop/0b5f/index/x",
        "p/restic/cluster/shop/0b5ef/index/x",
        "p/restic/cluster/shop/0b5f.key",
        "p/restic/cluster/other/0b5e/index/x",
        "p/backups/nightly/velero-backup.json",
        "x/y",
    ] {
        minio.put("straight", other, "theirs");
        assert_eq!(may(other), [""; 0], "{other}");
        assert_eq!(minio.get("straight", other), "theirs");
    }
}
