use super::*;

#[test]
fn messages_are_bounded_and_counted() {
    let mut messages = Messages::default();
    for n in 0..MOST_MESSAGES + 5 {
        messages.add(About::Namespace("a".into()), n.to_string());
    }
    assert_eq!(messages.count(), MOST_MESSAGES as u64 + 5);
    assert_eq!(messages.sentences().last().unwrap(), "and 5 more");
    let results = messages.results();
    assert_eq!(results.namespaces["a"].len(), MOST_MESSAGES);
    assert_eq!(results.velero, ["and 5 more"]);
}

#[test]
fn a_location_given_by_url_does_not_become_a_label() {
    assert_eq!(label_value("minio"), "minio");
    assert_eq!(label_value("s3://bucket/x?y=z"), "default");
    assert_eq!(label_value("-x"), "default");
}

#[test]
fn log_lines_stay_lines() {
    let log = Log::new("2026-11-21T02:00:00.75Z".parse().unwrap());
    log.line("info", "two\nlines \"quoted\"");
    let mut text = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::MultiGzDecoder::new(log.finish().as_ref()),
        &mut text,
    )
    .unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.starts_with("time=\"2026-11-21T02:00:0"), "{text}");
    assert!(
        text.contains(r#"level=info msg="two\nlines \"quoted\"""#),
        "{text}"
    );
}
