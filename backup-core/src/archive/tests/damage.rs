//! Whatever was done to an archive is found and named.

use super::*;

#[test]
fn every_truncation_and_every_flipped_bit_is_found() {
    run(async {
        let (maps, roles) = (config_maps(), roles());
        let pages = vec![
            (
                maps.clone(),
                vec![
                    item(&maps, Some("a"), "x", 0),
                    item(&maps, Some("a"), "y", 17_000),
                ],
            ),
            (
                roles.clone(),
                vec![item(&roles, None, &"r".repeat(120), 300)],
            ),
        ];
        let (archive, index, _) = write(&pages).await;
        for length in (0..archive.len())
            .step_by(61)
            .chain(archive.len() - 30..archive.len())
        {
            let cut = archive.slice(..length);
            assert!(
                !check(&cut, &index).await.problems.is_empty(),
                "archive cut at {length}"
            );
            assert!(
                !verify(&cut, None, &Silent)
                    .await
                    .unwrap()
                    .problems
                    .is_empty(),
                "{length}"
            );
        }
        for length in (0..index.len()).step_by(5) {
            let cut = index.slice(..length);
            assert!(
                !check(&archive, &cut).await.problems.is_empty(),
                "index cut at {length}"
            );
            assert!(Archive::open(archive.clone(), cut).await.is_err());
        }
        for (whole, is_index) in [(&archive, false), (&index, true)] {
            for at in (0..whole.len()).step_by(if is_index { 3 } else { 47 }) {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 1 << (at % 8);
                let flipped = Bytes::from(bytes);
                let (a, i) = if is_index {
                    (&archive, &flipped)
                } else {
                    (&flipped, &index)
                };
                assert!(
                    !check(a, i).await.problems.is_empty(),
                    "bit in byte {at}, index: {is_index}"
                );
                if let Ok(opened) = Archive::open(a.clone(), i.clone()).await {
                    for name in ["configmaps", "clusterroles.rbac.authorization.k8s.io"] {
                        for frame in 0..opened.index.frames(name) {
                            if let Ok(rows) = opened.index.rows(name, frame).await {
                                let _ = opened.objects(rows).try_collect::<Vec<_>>().await;
                            }
                        }
                    }
                }
            }
        }
        let mut longer = archive.to_vec();
        longer.extend_from_slice(b"more");
        assert!(!check(&longer.into(), &index).await.problems.is_empty());
    });
}

#[test]
fn objects_of_a_damaged_member_are_named() {
    run(async {
        let (archive, index, _) = write(&some_pages()).await;
        let opened = Archive::open(archive.clone(), index.clone()).await.unwrap();
        for (name, at) in [
            ("a-byte-more", 0.5),
            ("exactly-16-kib", 0.02),
            ("exactly-16-kib", 0.5),
        ] {
            let row = opened
                .index
                .find("configmaps", Some("a"), name)
                .await
                .unwrap()
                .unwrap();
            let member = opened
                .index
                .members(row.member, 1)
                .await
                .unwrap()
                .pop()
                .unwrap();
            let mut bytes = archive.to_vec();
            bytes[member.at as usize + (member.length as f64 * at) as usize] ^= 16;
            let problems = check(&bytes.into(), &index).await.problems.join("\n");
            assert!(
                problems.contains(&format!("configmaps \"a/{name}\"")),
                "{problems}"
            );
            assert!(
                problems.contains(&format!("member {} of the archive", row.member)),
                "{problems}"
            );
            assert!(
                problems.contains("of 9 objects could not be read"),
                "{problems}"
            );
        }
    });
}

/// Unpacks, alters and packs again, as somebody with `tar` would.
fn packed_again(archive: &Bytes, alter: impl Fn(&str, &mut Vec<u8>) -> bool) -> Bytes {
    let mut again = Foreign::new();
    for entry in tar::Archive::new(MultiGzDecoder::new(&archive[..]))
        .entries()
        .unwrap()
    {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        if alter(&path, &mut body) {
            again.file(&path, &body);
        }
    }
    again.finish()
}

#[test]
fn a_json_that_was_changed_and_packed_again_is_named() {
    run(async {
        let (archive, index, _) = write(&some_pages()).await;
        let named = |alter: &dyn Fn(&str, &mut Vec<u8>) -> bool| {
            let again = packed_again(&archive, alter);
            let index = index.clone();
            async move { check(&again, &index).await.problems.join("\n") }
        };
        let all = named(&|_, _| true).await;
        assert!(
            all.contains("does not fit") && !all.contains("changed"),
            "{all}"
        );
        let change = |body: &mut Vec<u8>| {
            let at = body.len() - 5;
            body[at] = b'#';
        };
        let both = named(&|path, body| {
            if path.ends_with("a/exactly-16-kib.json") {
                change(body);
            }
            true
        })
        .await;
        assert!(
            both.contains("configmaps \"a/exactly-16-kib\" was changed"),
            "{both}"
        );
        assert_eq!(both.matches("was changed").count(), 1, "{both}");
        let second = named(&|path, body| {
            if path.contains("preferredversion") && path.ends_with("/small.json") {
                change(body);
            }
            true
        })
        .await;
        assert!(
            second.contains("the two copies of configmaps \"a-b/small\" differ"),
            "{second}"
        );
        let gone = named(&|path, _| !path.ends_with("/more.json")).await;
        assert!(gone.contains("configmaps \"z/more\" is missing"), "{gone}");
        let half =
            named(&|path, _| !(path.contains("preferred") && path.ends_with("/more.json"))).await;
        assert!(
            half.contains("configmaps \"z/more\" has no second copy"),
            "{half}"
        );
    });
}
