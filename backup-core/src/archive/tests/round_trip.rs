//! What is written is read back, by us and by others.

use super::*;

#[test]
fn what_is_written_is_read_back_and_verified() {
    run(async {
        let pages = some_pages();
        let (archive, index, totals) = write(&pages).await;
        assert_eq!((totals.objects, totals.bytes), (9, archive.len() as u64));
        let findings = check(&archive, &index).await;
        assert_eq!(findings.problems, Vec::<String>::new());
        assert_eq!(findings.objects, 9);
        let foreign = verify(&archive, None, &Silent).await.unwrap();
        assert_eq!((foreign.problems, foreign.objects), (Vec::new(), 9));

        let opened = Archive::open(archive, index).await.unwrap();
        assert_eq!(everything(&opened).await, as_written(&pages));
        let rows = opened.index.resources();
        let counts: Vec<_> = rows
            .iter()
            .map(|r| (r.resource.as_str(), r.count))
            .collect();
        assert_eq!(
            counts,
            [
                ("clusterroles.rbac.authorization.k8s.io", 3),
                ("configmaps", 6),
                ("pods", 0)
            ]
        );
        assert_eq!(rows[2].outcome, Outcome::Failed);
        let row = opened
            .index
            .find("configmaps", Some("a"), "no-padding")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (row.uid.as_str(), row.resource_version.as_str()),
            ("u-no-padding", "7")
        );
        assert_eq!(row.labels["app"], "x");
        assert!(
            opened
                .index
                .find("configmaps", None, "no-padding")
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            opened
                .index
                .find("nothing", None, "x")
                .await
                .unwrap()
                .is_none()
        );
    });
}

#[test]
fn an_empty_backup_is_an_archive() {
    run(async {
        let (archive, index, _) = write(&[]).await;
        assert_eq!(check(&archive, &index).await.problems, Vec::<String>::new());
        let opened = Archive::open(archive, index).await.unwrap();
        assert!(everything(&opened).await.is_empty());
    });
}

/// The output of a program that is fed these bytes; nothing where the machine has no such program.
fn piped(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(
        out.status.success() && out.stderr.is_empty(),
        "{program}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

#[test]
fn a_large_body_is_compressed_once_and_read_back_by_plain_gunzip_and_tar() {
    run(async {
        let maps = config_maps();
        let large = item(&maps, Some("ns"), "large", 100_000);
        let packed = pack(&maps, std::slice::from_ref(&large), MTIME, LEVEL).unwrap();
        // header, body, padding and header, body, padding
        assert_eq!(packed.members.len(), 5);
        assert_eq!(packed.members[1].size, large.body.len() as u64);
        assert_eq!(
            packed.members[1].bytes.as_ptr(),
            packed.members[3].bytes.as_ptr()
        );
        assert_eq!((packed.rows[0].member, packed.rows[0].offset), (1, 0));
        let aligned = item(&maps, Some("ns"), "aligned", 51_200);
        assert_eq!(
            pack(&maps, &[aligned], MTIME, LEVEL).unwrap().members.len(),
            4
        );
        let small: Vec<_> = (0..3)
            .map(|n| item(&maps, Some("ns"), &format!("s{n}"), 16 << 10))
            .collect();
        let packed = pack(&maps, &small, MTIME, LEVEL).unwrap();
        let ratio = packed.members[0].size as f64 / packed.members[0].bytes.len() as f64;
        // Noise of 26 letters packs to 60 %; a second copy that were packed again would leave 1.7.
        assert!(packed.members.len() == 1 && ratio > 2.8, "{ratio}");

        let pages = some_pages();
        let (archive, _, _) = write(&pages).await;
        let mut wanted: Vec<(String, Vec<u8>)> =
            vec![("metadata/version".into(), b"1.1.0\n".into())];
        for (resource, items) in &pages {
            for item in items {
                for folder in ["", "v1-preferredversion/"] {
                    let path = super::super::path::object(
                        &resource.group_resource(),
                        folder,
                        item.namespace.as_deref(),
                        &item.name,
                    );
                    wanted.push((path, item.body.to_vec()));
                }
            }
        }
        let mut plain = Vec::new();
        MultiGzDecoder::new(&archive[..])
            .read_to_end(&mut plain)
            .unwrap();
        let read: Vec<(String, Vec<u8>)> = tar::Archive::new(&plain[..])
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().mode().unwrap(), 0o755);
                assert_eq!(entry.header().mtime().unwrap(), MTIME);
                let mut body = Vec::new();
                entry.read_to_end(&mut body).unwrap();
                (entry.path().unwrap().to_str().unwrap().to_owned(), body)
            })
            .collect();
        assert_eq!(read, wanted);
        assert_eq!(piped("gunzip", &["-c"], &archive), plain);
        let bodies: Vec<u8> = wanted.into_iter().flat_map(|(_, body)| body).collect();
        assert_eq!(piped("tar", &["-xzO"], &archive), bodies);
    });
}

#[test]
fn the_index_is_json_lines_for_zstd() {
    run(async {
        let (_, index, _) = write(&some_pages()).await;
        // The library behind `zstd -dc`, which passes over the last frame as that does.
        let out = zstd::stream::decode_all(&index[..]).unwrap();
        let lines: Vec<serde_json::Value> = out
            .split_inclusive(|b| *b == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines[0]["format"], super::super::FORMAT);
        assert_eq!(lines[0]["backup"], "nightly");
        assert_eq!(lines[0]["created"], "2023-11-14T22:13:20Z");
        assert_eq!(lines.last().unwrap()["objects"], 9);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_sizes_come_back(
        sizes in prop::collection::vec(prop_oneof![
            0_usize..2000,
            16_300_usize..16_500,
            (0_usize..80).prop_map(|n| n * 512),
            (1_usize << 20) - 600..(1 << 20) + 600,
        ], 0..12),
        cuts in prop::collection::vec(any::<bool>(), 12),
        level in 0_u32..10,
    ) {
        run(async {
            let (maps, roles) = (config_maps(), roles());
            let mut pages: Vec<Page> = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let namespaced = cuts[number];
                let (resource, ns) = if namespaced { (&maps, Some("ns")) } else { (&roles, None) };
                let item = item(resource, ns, &format!("o{number}-{}", "n".repeat(number * 20)), *size);
                match pages.last_mut() {
                    Some((last, items)) if last == resource => items.push(item),
                    _ => pages.push((resource.clone(), vec![item])),
                }
            }
            let mut writer = ArchiveWriter::start(Vec::new(), Vec::new(), "b", MTIME).await.unwrap();
            for (resource, items) in &pages {
                let packed = pack(resource, items, MTIME, level).unwrap();
                assert!(packed.members.iter().all(|m| m.size > 0 && m.size < (3 << 20)));
                writer.append(packed).await.unwrap();
            }
            let (archive, index, _) = writer.finish(&[]).await.unwrap();
            let (archive, index) = (Bytes::from(archive), Bytes::from(index));
            assert_eq!(check(&archive, &index).await.problems, Vec::<String>::new());
            let opened = Archive::open(archive, index).await.unwrap();
            assert_eq!(everything(&opened).await, as_written(&pages));
        });
    }
}

#[test]
fn many_open_types_hold_little_and_their_rows_stay_in_order() {
    run(async {
        let types: Vec<_> = (0..65)
            .map(|n| {
                Arc::new(ApiResource {
                    group: "example.com".into(),
                    plural: format!("things{n}"),
                    ..(*config_maps()).clone()
                })
            })
            .collect();
        let mut pages: Vec<Page> = Vec::new();
        for round in 0..6 {
            for resource in &types {
                let items = (0..60).map(|n| {
                    item(
                        resource,
                        Some("ns"),
                        &format!("o{round:02}{n:03}-{}", "n".repeat(230)),
                        0,
                    )
                });
                pages.push((resource.clone(), items.collect()));
            }
        }
        let (archive, index, _) = write(&pages).await;
        assert_eq!(check(&archive, &index).await.problems, Vec::<String>::new());
        let opened = Archive::open(archive, index).await.unwrap();
        let frames: usize = types
            .iter()
            .map(|resource| opened.index.frames(&resource.group_resource()))
            .sum();
        assert!((66..200).contains(&frames), "{frames}");
        let all = everything(&opened).await;
        assert_eq!(all.len(), 65 * 360);
        assert!(
            all.windows(2)
                .all(|w| (&w[0].0, &w[0].2) < (&w[1].0, &w[1].2))
        );
    });
}
