//! Other tools' archives are read, and hostile ones are refused.

use super::*;

fn map(ns: &str, name: &str, length: usize) -> Bytes {
    item(&config_maps(), Some(ns), name, length).body
}

#[test]
fn a_foreign_archive_gives_the_same_objects() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (maps, roles) = (config_maps(), roles());
        let mut foreign = Foreign::new();
        foreign.file("metadata/version", b"1.1.0\n");
        let mut wanted: Vec<(String, Option<String>, String, Bytes)> = Vec::new();
        for n in 0..60 {
            let (resource, ns, item) = if n % 3 == 0 {
                (
                    &roles,
                    None,
                    item(&roles, None, &format!("system:{n}"), 200 + n * 900),
                )
            } else {
                let name = format!("{n}-{}", "x".repeat(n * 4));
                (
                    &maps,
                    Some("team-with-a-name"),
                    item(&maps, Some("team-with-a-name"), &name, n * 900),
                )
            };
            for folder in ["", "v1-preferredversion/"] {
                foreign.file(
                    &super::super::path::object(&resource.group_resource(), folder, ns, &item.name),
                    &item.body,
                );
            }
            wanted.push((
                resource.group_resource(),
                ns.map(str::to_owned),
                item.name,
                item.body,
            ));
        }
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        let archive = foreign.finish();
        assert_eq!(
            verify(&archive, None, &Silent).await.unwrap().problems,
            Vec::<String>::new()
        );
        let (opened, report) = spool(&archive, &folder.path().join("new"), as_stored, &Silent)
            .await
            .unwrap();
        assert!(report.warnings.is_empty(), "{report:?}");
        assert_eq!(everything(&opened).await, wanted);
        assert_eq!(
            std::fs::read_dir(folder.path().join("new"))
                .unwrap()
                .count(),
            0
        );
        let rows = opened.index.resources();
        assert_eq!(
            (
                rows[0].kind.as_str(),
                rows[0].version.as_str(),
                rows[0].namespaced
            ),
            ("ClusterRole", "v1", false)
        );
        assert_eq!(
            (rows[1].kind.as_str(), rows[1].count, rows[1].namespaced),
            ("ConfigMap", 40, true)
        );
        let one = opened
            .index
            .find("configmaps", Some("team-with-a-name"), &wanted[30].2)
            .await
            .unwrap();
        assert!(one.is_some());
    });
}

#[test]
fn of_an_object_that_comes_twice_the_last_one_counts_and_format_1_0_is_read() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("resources/configmaps/namespaces/ns/{name}.json");
        let (first, last) = (map("ns", "twice", 300), map("ns", "twice", 400));
        let mut foreign = Foreign::new();
        foreign
            .file(&path("twice"), &first)
            .file(&path("once"), &map("ns", "once", 0))
            .file(&path("twice"), &map("ns", "twice", 350))
            .file(
                "resources/configmaps/v1-preferredversion/namespaces/ns/only.json",
                &map("ns", "only", 0),
            )
            .file(
                "resources/configmaps/v1beta1/namespaces/ns/old.json",
                b"whatever",
            )
            .file("something/else", b"x")
            .file(&path("twice"), &last);
        let archive = foreign.finish();
        let (opened, report) = spool(&archive, folder.path(), as_stored, &Silent)
            .await
            .unwrap();
        assert_eq!(report.warnings.len(), 2, "{report:?}");
        assert!(report.warnings[0].contains("ns/twice.json"), "{report:?}");
        let all = everything(&opened).await;
        let names: Vec<_> = all.iter().map(|(_, _, name, _)| name.as_str()).collect();
        assert_eq!(names, ["once", "only", "twice"]);
        assert_eq!(all[2].3, last);
        assert_eq!(
            (opened.index.resources()[0].count, opened.index.objects()),
            (3, 3)
        );
        assert_eq!(opened.index.resources()[0].version, "v1");
    });
}

#[test]
fn of_several_versions_of_an_object_the_one_that_suits_best_is_taken_in_whatever_order_they_come() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let body = |version: &str| {
            let api = ApiResource {
                group: "a".into(),
                version: version.into(),
                ..(*config_maps()).clone()
            };
            item(&api, Some("ns"), "one", 0).body
        };
        let files = [
            ("", "v3"),
            ("v3-preferredversion/", "v3"),
            ("v2/", "v2"),
            ("v1/", "v1"),
        ];
        let rank = |good: &'static [&'static str]| {
            move |_: &str, version: &str, preferred: bool| {
                let place = good.iter().position(|other| *other == version);
                place.map_or(0, |place| if preferred { 9 } else { 8 - place as u8 })
            }
        };
        for turn in 0..files.len() {
            let mut foreign = Foreign::new();
            for at in 0..files.len() {
                let (folder, version) = files[(at + turn) % files.len()];
                let path = format!("resources/configmaps.a/{folder}namespaces/ns/one.json");
                foreign.file(&path, &body(version));
            }
            let archive = foreign.finish();
            for (good, taken) in [
                (&[][..], "v3"),
                (&["v1", "v2", "v3"], "v3"),
                (&["v2"], "v2"),
                (&["v1", "v2"], "v1"),
            ] {
                let spooled = spool(&archive, folder.path(), rank(good), &Silent).await;
                let (opened, report) = spooled.unwrap();
                assert!(report.warnings.is_empty(), "{report:?}");
                let all = everything(&opened).await;
                let (row, said) = (&opened.index.resources()[0], format!("{turn} {good:?}"));
                assert_eq!((all.len(), row.count), (1, 1), "{said}");
                assert_eq!(all[0].3, body(taken), "{said}");
                assert_eq!(row.version, taken, "{said}");
                let other = OtherVersion {
                    resource: "configmaps.a".into(),
                    preferred: "v3".into(),
                    taken: taken.into(),
                    count: 1,
                };
                let others: Vec<_> = (taken != "v3").then_some(other).into_iter().collect();
                assert_eq!(report.others, others, "{said}");
            }
        }
    });
}

#[test]
fn hostile_archives_are_refused_with_a_sentence() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let object = "resources/configmaps/namespaces/ns/a.json";
        let body = map("ns", "a", 0);
        let with = |_: &mut Foreign| {};
        let built = |build: &dyn Fn(&mut Foreign)| {
            let mut foreign = Foreign::new();
            foreign
                .file("metadata/version", b"1.1.0\n")
                .file(object, &body);
            build(&mut foreign);
            foreign.finish()
        };
        use tar::EntryType as T;
        let good = built(&|_| {});
        let mut zeros = GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        zeros.write_all(&vec![0; 40 << 20]).unwrap();
        let mut garbage = good.to_vec();
        garbage.extend_from_slice(b"garbage after it");
        let mut two = good.to_vec();
        two.extend_from_slice(&good);
        let mut no_tar = GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        no_tar.write_all(&b"hello ".repeat(500)).unwrap();
        let mut no_end = GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        let mut tar = Vec::new();
        MultiGzDecoder::new(&good[..])
            .read_to_end(&mut tar)
            .unwrap();
        no_end.write_all(&tar[..tar.len() - 1024]).unwrap();
        let mut flipped = good.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 64;
        let cases: Vec<(&str, Bytes)> = vec![
            (
                "leaves its folder",
                built(&|f| with(f.raw(b"resources/../../etc/x.json", T::Regular, 2, b"{}"))),
            ),
            (
                "leaves its folder",
                built(&|f| with(f.raw(b"../x", T::Regular, 2, b"{}"))),
            ),
            (
                "absolute",
                built(&|f| with(f.raw(b"/etc/passwd", T::Regular, 2, b"{}"))),
            ),
            (
                "link",
                built(&|f| with(f.raw(b"resources/l", T::Symlink, 0, b""))),
            ),
            (
                "link",
                built(&|f| with(f.raw(b"resources/l", T::Link, 0, b""))),
            ),
            (
                "neither a file",
                built(&|f| with(f.raw(b"resources/l", T::Fifo, 0, b""))),
            ),
            (
                "2147483648 bytes",
                built(&|f| with(f.raw(b"resources/pods/cluster/x.json", T::Regular, 2 << 30, b""))),
            ),
            (
                "too long a name",
                built(&|f| with(f.raw(b"././@LongLink", T::GNULongName, 2 << 30, b""))),
            ),
            (
                "too long a name",
                built(&|f| {
                    with(
                        f.raw(b"././@LongLink", T::GNULongName, 5000, &[b'a'; 5000])
                            .file("x", b""),
                    );
                }),
            ),
            (
                "without a file",
                built(&|f| with(f.raw(b"././@LongLink", T::GNULongName, 1, b"a"))),
            ),
            (
                "neither a file",
                built(&|f| with(f.raw(b"s", T::GNUSparse, 0, b""))),
            ),
            (
                "UTF-8",
                built(&|f| with(f.raw(b"resources/\xff", T::Regular, 0, b""))),
            ),
            (
                "can not be",
                built(&|f| with(f.raw(b"resources/pods/cluster/...json", T::Regular, 2, b"{}"))),
            ),
            (
                "is no object",
                built(&|f| with(f.file("resources/pods/cluster/x.json", b"{not json"))),
            ),
            (
                "is no object",
                built(&|f| with(f.file("resources/pods/cluster/x.json", b""))),
            ),
            (
                "is no object",
                built(&|f| with(f.file("resources/pods/cluster/x.json", b"[]"))),
            ),
            ("only zeros", zeros.finish().unwrap().into()),
            ("not gzip", garbage.into()),
            ("after the end", two.into()),
            ("is no tar", no_tar.finish().unwrap().into()),
            ("without its end", no_end.finish().unwrap().into()),
            ("", flipped.into()),
            (
                "not gzip",
                Bytes::from_static(b"PK this is something else altogether"),
            ),
            ("empty", Bytes::new()),
            ("truncated", good.slice(..good.len() / 2)),
            ("truncated", good.slice(..good.len() - 1)),
            ("truncated", good.slice(..5)),
        ];
        for (number, (want, archive)) in cases.into_iter().enumerate() {
            let Err(error) = spool(&archive, folder.path(), as_stored, &Silent).await else {
                panic!("{number} {want}: accepted");
            };
            assert_eq!(error.kind(), Kind::Corrupt, "{number} {want}: {error}");
            assert!(error.to_string().contains(want), "{number} {want}: {error}");
            let findings = verify(&archive, None, &Silent).await.unwrap();
            assert!(
                !findings.problems.is_empty() || want == "can not be",
                "{number} {want}"
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(
            spool(&good, folder.path(), as_stored, &Silent)
                .await
                .is_ok()
        );
    });
}

#[test]
fn a_million_tiny_entries_take_seconds_and_little_memory() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        let mut header = tar::Header::new_gnu();
        header.set_path("junk").unwrap();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let block = header.as_bytes().repeat(1000);
        for _ in 0..1000 {
            gzip.write_all(&block).unwrap();
        }
        gzip.write_all(&[0; 1024]).unwrap();
        let archive = Bytes::from(gzip.finish().unwrap());
        let (opened, _) = spool(&archive, folder.path(), as_stored, &Silent)
            .await
            .unwrap();
        assert_eq!(opened.index.objects(), 0);
    });
}

#[test]
fn names_that_could_leave_their_folder_are_not_packed() {
    let maps = config_maps();
    for name in ["", ".", "..", "a/b", "a\0b"] {
        let mut bad = item(&maps, Some("ns"), "x", 0);
        bad.name = name.to_owned();
        assert_eq!(
            pack(&maps, &[bad.clone()], 0, 1).unwrap_err().kind(),
            Kind::Invalid,
            "{name:?}"
        );
        bad.name = "x".into();
        bad.namespace = Some(name.to_owned());
        assert_eq!(
            pack(&maps, &[bad], 0, 1).unwrap_err().kind(),
            Kind::Invalid,
            "{name:?}"
        );
    }
    let bad = Item::read(None, "x".into(), Bytes::from_static(b"nonsense"));
    assert_eq!(bad.unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_namespace_that_can_be_none_is_not_read_from_an_archive() {
    for name in ["a?b", "a%2e", "a#b", "a/b", "A", "-a", "a.b", "..", ""] {
        assert!(
            super::super::path::check_namespace(name).is_err(),
            "{name:?}"
        );
    }
    assert!(super::super::path::check_namespace(&"a".repeat(63)).is_ok());
    assert!(super::super::path::check_namespace(&"a".repeat(64)).is_err());
    run(async {
        let maps = config_maps();
        let (archive, index, _) =
            write(&[(maps.clone(), vec![item(&maps, Some("n?x=y"), "a", 0)])]).await;
        let opened = Archive::open(archive, index).await.unwrap();
        let refused = opened.index.rows("configmaps", 0).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt);
    });
}
