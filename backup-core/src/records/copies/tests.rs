use serde_json::{Value, json};

use super::*;
use crate::error::Kind;
use crate::location::Location;

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn row(claim: &str, outcome: Outcome) -> Row {
    Row {
        namespace: "shop".into(),
        claim: claim.into(),
        uid: format!("uid-{claim}"),
        volume: "pv-1".into(),
        volume_mode: "Filesystem".into(),
        storage_class: "fast".into(),
        driver: "d.example".into(),
        request: "9Gi".into(),
        capacity: "10Gi".into(),
        access_modes: vec!["ReadWriteOnce".into()],
        outcome,
    }
}

fn saved() -> Saved {
    Saved {
        hooks: Some(Hooks::Failed),
        pod: Some(Pod {
            namespace: "shop".into(),
            name: "db-0".into(),
            uid: "u".into(),
            volume: "data".into(),
        }),
        node: Some("n1".into()),
        copy: FileCopy {
            repository: 2,
            snapshot: DIGEST.into(),
            base: Some(DIGEST.replace('0', "f")),
            run: "0123".into(),
            began: "2026-11-30T10:00:00Z".parse().unwrap(),
            ended: "2026-11-30T10:00:09Z".parse().unwrap(),
            entries: 12,
            files: 10,
            bytes: 1 << 40,
            allocated: Some(1 << 41),
            added: 5,
            changed: 2,
            vanished: 1,
            way: Some(Way::Straight),
            exec_because: None,
        },
    }
}

fn copies(rows: Vec<Row>) -> Copies {
    Copies {
        cluster: Some("4b5c".into()),
        backup_uid: "b".into(),
        run: "0123".into(),
        rows,
    }
}

fn all() -> Copies {
    copies(vec![
        row("data", Outcome::Saved(Box::new(saved()))),
        row("a", Outcome::Failed("no node".into())),
        row("b", Outcome::LeftOut("policy".into())),
        row("c", Outcome::NotAsked("nobody".into())),
        row("d", Outcome::Nothing("not bound".into())),
    ])
}

fn object() -> Value {
    serde_json::from_slice(&all().write().unwrap()).unwrap()
}

/// What is said of a file in which this was set.
fn refused(pointer: &str, value: Value) -> String {
    let mut object = object();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    match key.parse::<usize>() {
        Ok(at) => parent[at] = value,
        Err(_) => parent[key] = value,
    }
    let e = parse(object.to_string().as_bytes()).unwrap_err();
    assert!(matches!(e.kind(), Kind::Corrupt | Kind::Invalid), "{e}");
    format!("{} {}", e.sentence(), e.hint_text().unwrap_or_default())
}

#[tokio::test]
async fn what_is_written_is_read_and_stands_where_the_page_says() {
    let location = Location::in_memory("mem");
    let name: Name = "nightly".parse().unwrap();
    assert_eq!(super::copies(&location.store, &name).await.unwrap(), None);
    let bytes = all().write().unwrap();
    location
        .store
        .put("backups/nightly/volumes.json", bytes)
        .await
        .unwrap();
    let read = super::copies(&location.store, &name)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read, all());
    let place = read.place(&read.rows[0]).unwrap();
    assert_eq!(place.repository(), "restic/4b5c/shop/uid-data.2/");
    assert!(read.place(&read.rows[1]).is_err());
    let object = object();
    assert_eq!(object["format"], "kubectl-backup/volumes/1");
    let first = &object["volumes"][0];
    assert_eq!(first["result"], "saved");
    assert_eq!(first["hooks"], "failed");
    assert_eq!(first["claimUid"], "uid-data");
    assert_eq!(first["data"][0]["method"], "files");
    assert_eq!(first["data"][0]["source"], "live");
    assert_eq!(first["data"][0]["began"], "2026-11-30T10:00:00Z");
    assert_eq!(
        object["volumes"][4],
        json!({"namespace": "shop", "claim": "d", "claimUid": "uid-d", "volume": "pv-1", "result": "nothing",
        "why": "not bound", "volumeMode": "Filesystem", "storageClass": "fast", "driver": "d.example", "request": "9Gi", "capacity": "10Gi", "accessModes": ["ReadWriteOnce"]})
    );
}

/// Why a row of this file is not understood.
fn not_understood(copies: &Copies, at: usize) -> &str {
    match &copies.rows[at].outcome {
        Outcome::NotUnderstood(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_newer_file_is_refused_as_newer_and_a_newer_row_by_itself() {
    assert!(refused("/format", json!("kubectl-backup/volumes/2")).contains("newer"));
    assert!(refused("/needs", json!(["chunks"])).contains("needs \"chunks\""));
    for format in [
        "kubectl-backup/volumes/0",
        "kubectl-backup/volumes/",
        "somebody/volumes/1",
    ] {
        assert!(
            refused("/format", json!(format)).contains("no known format"),
            "{format}"
        );
    }
    let mut object = object();
    object["later"] = json!({"any": [1]});
    object["volumes"][0]["later"] = json!(true);
    let mut other = object["volumes"][0].clone();
    other["claim"] = json!("other");
    other["claimUid"] = json!("uid-other");
    other["data"] = json!([{"method": "csi", "source": "snapshot", "snapshot": "snap-1"}, {"method": "files", "source": "moon"}]);
    object["volumes"][4] = other.clone();
    other["claim"] = json!("both");
    other["claimUid"] = json!("uid-both");
    other["hooks"] = json!("later");
    other["data"] = json!([{"method": "csi"}, object["volumes"][0]["data"][0]]);
    object["volumes"][3] = other;
    object["volumes"][1]["result"] = json!("moved\u{1b}[2J");
    object["volumes"][2]["needs"] = json!(["more"]);
    let read = parse(object.to_string().as_bytes()).unwrap();
    assert_eq!(read.rows[0], all().rows[0]);
    assert!(not_understood(&read, 1).contains("moved[2J"));
    assert!(not_understood(&read, 2).contains("needs \"more\""));
    let both = read.rows[3].saved().unwrap();
    assert_eq!((both.hooks, &both.copy), (None, &saved().copy));
    assert!(not_understood(&read, 4).contains("\"csi\" of \"snapshot\""));
    assert!(read.place(&read.rows[4]).is_err());
    // What is needed to understand a copy is needed of it alone.
    object["volumes"][3]["data"][1]["needs"] = json!(["chunks"]);
    let read = parse(object.to_string().as_bytes()).unwrap();
    assert!(not_understood(&read, 3).contains("csi"));
}

#[test]
fn what_could_lead_out_of_its_place_or_to_another_copy_is_refused() {
    for (pointer, bad) in [
        ("/cluster", json!("../x")),
        ("/cluster", json!("")),
        ("/cluster", json!("a/b")),
        ("/cluster", Value::Null),
        ("/backupUid", json!("a b")),
        ("/run", json!("x".repeat(65))),
        ("/volumes/0/namespace", json!("..")),
        ("/volumes/0/namespace", json!("a/b")),
        ("/volumes/0/namespace", json!("Shop")),
        ("/volumes/0/claim", json!("a/../b")),
        ("/volumes/0/claim", json!("")),
        ("/volumes/0/claimUid", json!("uid.2")),
        ("/volumes/0/claimUid", json!("..")),
        ("/volumes/0/claimUid", json!("")),
        ("/volumes/0/data/0/snapshot", json!("latest")),
        ("/volumes/0/data/0/snapshot", json!(DIGEST.to_uppercase())),
        ("/volumes/0/data/0/snapshot", json!(&DIGEST[1..])),
        ("/volumes/0/data/0/snapshot", Value::Null),
        ("/volumes/0/data/0/base", json!("x")),
        ("/volumes/0/data/0/repository", json!(0)),
        ("/volumes/0/data/0/repository", json!(10_001)),
        ("/volumes/0/data/0/repository", json!(-1)),
        ("/volumes/0/data/0/repository", json!("1")),
        ("/volumes/0/data/0/repository", Value::Null),
        ("/volumes/0/data/0/began", json!("yesterday")),
        ("/volumes/0/data/0/ended", Value::Null),
        ("/volumes/0/data/0/bytes", json!(1e300)),
        ("/volumes/0/data/0/run", json!("a=b")),
        ("/volumes/0/data", json!([])),
        ("/volumes/0/data", json!(vec![json!({}); 21])),
        ("/volumes/0/pod/name", json!("a/b")),
        ("/volumes/0/pod/uid", json!("../a")),
        ("/volumes/0/accessModes", json!(vec!["x"; 21])),
        ("/volumes/1/claim", json!("data")),
        ("/volumes", json!({})),
        ("/volumes/0", json!(7)),
    ] {
        let why = refused(pointer, bad.clone());
        assert!(!why.is_empty(), "{pointer} {bad}");
    }
    assert!(refused("/volumes/1/claim", json!("data")).contains("shop/data twice"));
    assert!(refused("/volumes/1/claimUid", json!("uid-data")).contains("another claim's"));
}

#[test]
fn texts_of_a_row_are_bounded_and_stay_on_their_line() {
    let mut object = object();
    object["volumes"][1]["why"] = json!(format!("a\n\u{1b}[31mb{}", "x".repeat(10_000)));
    object["volumes"][1]["claimUid"] = json!("../..\n");
    object["volumes"][0]["node"] = json!("n\r1");
    let read = parse(object.to_string().as_bytes()).unwrap();
    let Outcome::Failed(why) = &read.rows[1].outcome else {
        panic!("{:?}", read.rows[1]);
    };
    assert!(why.starts_with("a[31mb") && why.len() == LONGEST, "{why}");
    assert_eq!(read.rows[0].saved().unwrap().node.as_deref(), Some("n1"));
}

#[test]
fn a_file_without_end_or_without_sense_is_refused() {
    let deep = format!(
        "{}{}",
        r#"{"format":"kubectl-backup/volumes/1","volumes":"#,
        "[".repeat(100_000)
    );
    let many = format!(
        r#"{{"format":"kubectl-backup/volumes/1","volumes":[{}{{}}]}}"#,
        "{},".repeat(bounded::MOST)
    );
    // Held, these would be a hundred times as large.
    let inner = format!(
        r#"{{"format":"kubectl-backup/volumes/1","volumes":[{{"data":[{}5]}}]}}"#,
        "{},".repeat(21)
    );
    let lacks = format!(
        r#"{{"format":"kubectl-backup/volumes/1","needs":[{}5],"volumes":[]}}"#,
        r#""","#.repeat(21)
    );
    let large = vec![b' '; usize::try_from(LARGEST).unwrap() + 1];
    for bad in [
        b"".as_slice(),
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        br#"{"format":"kubectl-backup/volumes/1"}"#,
        br#"{"format":"kubectl-backup/volumes/1","format":"kubectl-backup/volumes/1","volumes":[]}"#,
        deep.as_bytes(),
        many.as_bytes(),
        &large,
    ] {
        let e = parse(bad).unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    }
    // What stands behind the bound, and is of another type, is not come to.
    for bounded in [inner, lacks] {
        let e = parse(bounded.as_bytes()).unwrap_err();
        let said = format!("{e:?}");
        assert!(said.contains("more than 20 entries"), "{said}");
    }
}

#[test]
fn what_nobody_would_read_again_is_not_written() {
    let twice = copies(vec![all().rows[1].clone(), all().rows[1].clone()]);
    assert_eq!(twice.write().unwrap_err().kind(), Kind::Invalid);
    let mut nowhere = all();
    nowhere.cluster = None;
    assert_eq!(nowhere.write().unwrap_err().kind(), Kind::Invalid);
}

fn csi() -> CsiSnapshot {
    CsiSnapshot {
        hooks: Some(Hooks::Done),
        driver: "d.example.com".into(),
        handle: "snap-0/1 \u{e4}".into(),
        size: 1 << 30,
        class: "fast".into(),
        run: "0123".into(),
        began: "2026-11-30T10:00:00Z".parse().unwrap(),
        cut: "2026-11-30T10:00:01Z".parse().unwrap(),
        ended: "2026-11-30T10:00:09Z".parse().unwrap(),
    }
}

#[test]
fn a_snapshot_is_written_and_read_and_has_nothing_of_a_copy() {
    let made = copies(vec![row("data", Outcome::Snapshot(Box::new(csi())))]);
    let bytes = made.write().unwrap();
    assert_eq!(parse(&bytes).unwrap(), made);
    let object: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        object["volumes"][0]["data"],
        json!([{"method": "snapshot", "source": "csi", "driver": "d.example.com", "handle": "snap-0/1 \u{e4}", "size": 1 << 30, "class": "fast",
            "run": "0123", "began": "2026-11-30T10:00:00Z", "cut": "2026-11-30T10:00:01Z", "ended": "2026-11-30T10:00:09Z"}])
    );
    assert!(made.place(&made.rows[0]).is_err());
    for (key, value) in [
        ("driver", json!("../d")),
        ("handle", json!("")),
        ("handle", json!("a\nb")),
        ("handle", json!("x".repeat(3000))),
        ("class", json!("a/b")),
        ("run", json!("a/b")),
        ("cut", Value::Null),
    ] {
        let mut odd = object.clone();
        odd["volumes"][0]["data"][0][key] = value;
        let e = parse(odd.to_string().as_bytes()).unwrap_err();
        assert!(e.sentence().contains(key), "{key}: {}", e.sentence());
    }
    let mut nowhere = object;
    nowhere.as_object_mut().unwrap().remove("cluster");
    assert!(parse(nowhere.to_string().as_bytes()).is_err());
}
