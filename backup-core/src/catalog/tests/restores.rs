use super::*;
use crate::layout::RestoreKeys;

#[tokio::test]
async fn restores_are_listed_finished_or_not() {
    let store = Store::in_memory();
    let record = r#"{"apiVersion":"velero.io/v1","kind":"Restore","metadata":{"name":"done"},"spec":{"backupName":"b"},"status":{"phase":"Completed","startTimestamp":"2020-01-01T00:00:00Z"}}"#;
    store
        .put("restores/done/velero-restore.json", record.into())
        .await
        .unwrap();
    store
        .put("restores/done/restore-done-logs.gz", gz("log"))
        .await
        .unwrap();
    store
        .put("restores/running/journal-000001.jsonl.zst", "x".into())
        .await
        .unwrap();
    store
        .put("restores/broken/velero-restore.json", "{".into())
        .await
        .unwrap();
    store
        .put("restores/velero/restore-velero-results.gz", "x".into())
        .await
        .unwrap();
    // Ours, killed between its results and its record.
    for file in ["restore-late-results.gz", "journal-000000.jsonl.zst"] {
        let key = format!("restores/late/{file}");
        store.put(&key, "x".into()).await.unwrap();
    }
    let found = list_restores(&store).await.unwrap();
    let phases: Vec<_> = found
        .iter()
        .map(|restore| format!("{} {}", restore.metadata.name, restore.status.phase))
        .collect();
    assert_eq!(phases[0], "done Completed");
    assert!(
        phases.contains(&"running InProgress".to_owned())
            && phases.contains(&"late InProgress".to_owned())
            && phases.contains(&"velero Unknown".to_owned()),
        "{phases:?}"
    );
    assert_eq!(found.len(), 5);
    assert_eq!(
        get_restore(&store, &name("done"))
            .await
            .unwrap()
            .spec
            .backup_name,
        "b"
    );
    let error = get_restore(&store, &name("dome")).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("done"));
    let log = read_restore_file(&store, &name("done"), RestoreFile::Logs)
        .await
        .unwrap();
    assert_eq!(log, gz("log"));
    let error = read_restore_file(&store, &name("running"), RestoreFile::Logs)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_restore_is_deleted_and_its_neighbours_are_not() {
    let store = Store::in_memory();
    for restore in ["one", "one-more"] {
        let keys = RestoreKeys::new(&name(restore));
        for key in [keys.journal(0), keys.journal(1), keys.logs(), keys.marker()] {
            store.put(&key, "x".into()).await.unwrap();
        }
    }
    delete_restore(&store, &name("one")).await.unwrap();
    let left = store.entries("restores/", 100).await.unwrap();
    assert_eq!(left.len(), 4);
    assert!(
        left.iter()
            .all(|file| file.key.starts_with("restores/one-more/"))
    );
}
