//! The archive as a whole: what is written is read back, by us and by others, and whatever was done to it is found.

use std::io::{Read, Write};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use futures::stream::{BoxStream, TryStreamExt};
use proptest::prelude::*;

use super::pack::{Item, LEVEL, pack};
use super::read::{Archive, Source};
use super::row::{Outcome, ResourceRow};
use super::spool::spool;
use super::verify::{Findings, verify};
use super::write::{ArchiveWriter, Totals};
use crate::discovery::ApiResource;
use crate::error::{Kind, Result};
use crate::progress::Silent;

const MTIME: u64 = 1_700_000_000;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(work)
}

fn config_maps() -> Arc<ApiResource> {
    Arc::new(ApiResource {
        version: "v1".into(),
        plural: "configmaps".into(),
        kind: "ConfigMap".into(),
        namespaced: true,
        ..ApiResource::default()
    })
}

fn roles() -> Arc<ApiResource> {
    Arc::new(ApiResource {
        group: "rbac.authorization.k8s.io".into(),
        version: "v1".into(),
        plural: "clusterroles".into(),
        kind: "ClusterRole".into(),
        ..ApiResource::default()
    })
}

/// An object whose body is this long, or as short as it can be.
fn item(resource: &ApiResource, namespace: Option<&str>, name: &str, length: usize) -> Item {
    let space = namespace.map_or(String::new(), |ns| format!(",\"namespace\":\"{ns}\""));
    let head = format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",\"metadata\":{{\"name\":\"{name}\"{space},\"uid\":\"u-{name}\",\"resourceVersion\":\"7\",\"labels\":{{\"app\":\"x\"}}}},\"d\":\"",
        resource.api_version(),
        resource.kind
    );
    let mut state = name.len() as u64 + length as u64;
    let noise: String = (0..length.saturating_sub(head.len() + 2))
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'a' + (state >> 59) as u8 % 26)
        })
        .collect();
    Item::read(
        namespace.map(str::to_owned),
        name.to_owned(),
        format!("{head}{noise}\"}}").into(),
    )
    .unwrap()
}

type Page = (Arc<ApiResource>, Vec<Item>);

async fn write(pages: &[Page]) -> (Bytes, Bytes, Totals) {
    let mut writer = ArchiveWriter::start(Vec::new(), Vec::new(), "nightly", MTIME)
        .await
        .unwrap();
    for (resource, items) in pages {
        writer
            .append(pack(resource, items, MTIME, LEVEL).unwrap())
            .await
            .unwrap();
    }
    let other = ResourceRow {
        resource: "pods".into(),
        version: "v1".into(),
        kind: "Pod".into(),
        namespaced: true,
        outcome: Outcome::Failed,
        why: "forbidden".into(),
        ..ResourceRow::default()
    };
    let (archive, index, totals) = writer.finish(&[other]).await.unwrap();
    (archive.into(), index.into(), totals)
}

fn some_pages() -> Vec<Page> {
    let (maps, roles) = (config_maps(), roles());
    vec![
        (
            maps.clone(),
            vec![
                item(&maps, Some("a-b"), "small", 0),
                item(&maps, Some("a"), "exactly-16-kib", 16 << 10),
                item(&maps, Some("a"), "a-byte-more", (16 << 10) + 1),
                item(&maps, Some("a"), "no-padding", 40 * 512),
            ],
        ),
        (
            roles.clone(),
            vec![
                item(&roles, None, "system:controller:x..y", 300),
                item(&roles, None, &"long-".repeat(45), 700),
                item(&roles, None, &"l".repeat(253), 20_000),
            ],
        ),
        (
            maps.clone(),
            vec![
                item(&maps, Some("z"), "last", 2 << 20),
                item(&maps, Some("z"), "more", 9),
            ],
        ),
    ]
}

async fn everything<S: Source>(
    archive: &Archive<S>,
) -> Vec<(String, Option<String>, String, Bytes)> {
    let mut all = Vec::new();
    for resource in archive.index.resources() {
        for frame in 0..archive.index.frames(&resource.resource) {
            let rows = archive.index.rows(&resource.resource, frame).await.unwrap();
            let objects: Vec<_> = archive.objects(rows).try_collect().await.unwrap();
            for object in objects {
                if all.len() % 16 < 4 {
                    assert_eq!(archive.body(&object.row).await.unwrap(), object.body);
                }
                all.push((
                    resource.resource.clone(),
                    object.row.namespace,
                    object.row.name,
                    object.body,
                ));
            }
        }
    }
    all
}

fn as_written(pages: &[Page]) -> Vec<(String, Option<String>, String, Bytes)> {
    let mut all: Vec<_> = pages
        .iter()
        .flat_map(|(resource, items)| {
            items.iter().map(|item| {
                (
                    resource.group_resource(),
                    item.namespace.clone(),
                    item.name.clone(),
                    item.body.clone(),
                )
            })
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

async fn check(archive: &Bytes, index: &Bytes) -> Findings {
    verify(archive, Some(index), &Silent).await.unwrap()
}

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
                    let path = super::path::object(
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
        assert_eq!(lines[0]["format"], super::FORMAT);
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

/// Counts the reads.
#[derive(Clone)]
struct Counting(Bytes, Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Counting {
    fn new(bytes: Bytes) -> Self {
        Self(bytes, Arc::default(), Arc::default())
    }

    fn take(&self) -> (usize, usize) {
        (
            self.1.swap(0, Ordering::SeqCst),
            self.2.swap(0, Ordering::SeqCst),
        )
    }
}

#[async_trait]
impl Source for Counting {
    async fn len(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.2
            .fetch_add((range.end - range.start) as usize, Ordering::SeqCst);
        self.0.read(range).await
    }

    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.0.stream().await
    }
}

#[test]
fn one_object_costs_few_reads_and_few_bytes() {
    run(async {
        let maps = config_maps();
        let items: Vec<_> = (0..30_000)
            .map(|n| item(&maps, Some("ns"), &format!("object-{n:06}"), 400))
            .collect();
        let pages: Vec<Page> = items
            .chunks(500)
            .map(|page| (maps.clone(), page.to_vec()))
            .collect();
        let (archive, index, totals) = write(&pages).await;
        let (archive, index) = (Counting::new(archive), Counting::new(index));
        let opened = Archive::open(archive.clone(), index.clone()).await.unwrap();
        let (reads, _) = index.take();
        assert!(reads <= 3, "{reads}");
        assert!(opened.index.frames("configmaps") > 5);
        let row = opened
            .index
            .find("configmaps", Some("ns"), "object-012345")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(index.take().0, 1);
        assert_eq!(opened.body(&row).await.unwrap(), items[12345].body);
        let ((members, _), (reads, bytes)) = (index.take(), archive.take());
        assert_eq!((members, reads), (1, 1));
        assert!((bytes as u64) < totals.bytes / 20, "{bytes}");

        let mut count = 0;
        for frame in 0..opened.index.frames("configmaps") {
            let rows = opened.index.rows("configmaps", frame).await.unwrap();
            count += opened
                .objects(rows)
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
                .len();
        }
        assert_eq!(count, items.len());
        let (reads, bytes) = archive.take();
        assert!(
            reads <= 24 && (bytes as u64) < 2 * totals.bytes,
            "{reads} {bytes}"
        );
    });
}

#[test]
fn rows_in_another_order_than_members_are_read_in_the_rows_order() {
    run(async {
        let pages = some_pages();
        let (archive, index, _) = write(&pages).await;
        let opened = Archive::open(archive, index).await.unwrap();
        let mut rows = opened.index.rows("configmaps", 0).await.unwrap();
        rows.reverse();
        rows.swap(0, 3);
        let objects: Vec<_> = opened.objects(rows.clone()).try_collect().await.unwrap();
        assert_eq!(
            objects.iter().map(|o| o.row.clone()).collect::<Vec<_>>(),
            rows
        );
        rows[1].crc32 = "00000000".into();
        let error = opened
            .objects(rows)
            .try_collect::<Vec<_>>()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    });
}

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

/// A tar as Go writes it: ustar where the name fits, else a pax header.
struct Foreign(tar::Builder<GzEncoder<Vec<u8>>>);

impl Foreign {
    fn new() -> Self {
        Self(tar::Builder::new(GzEncoder::new(
            Vec::new(),
            flate2::Compression::new(6),
        )))
    }

    fn file(&mut self, path: &str, body: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(body.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        if header.set_path(path).is_err() {
            self.0
                .append_pax_extensions([("path", path.as_bytes())])
                .unwrap();
            header.set_path("short").unwrap();
        }
        header.set_cksum();
        self.0.append(&header, body).unwrap();
        self
    }

    /// A name that no library would write.
    fn raw(&mut self, name: &[u8], kind: tar::EntryType, size: u64, body: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_entry_type(kind);
        header.set_cksum();
        self.0.append(&header, body).unwrap();
        self
    }

    fn finish(self) -> Bytes {
        self.0.into_inner().unwrap().finish().unwrap().into()
    }
}

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
                    &super::path::object(&resource.group_resource(), folder, ns, &item.name),
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
        let (opened, report) = spool(&archive, &folder.path().join("new"), &Silent)
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
        let (opened, report) = spool(&archive, folder.path(), &Silent).await.unwrap();
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
            let Err(error) = spool(&archive, folder.path(), &Silent).await else {
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
        assert!(spool(&good, folder.path(), &Silent).await.is_ok());
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
        let (opened, _) = spool(&archive, folder.path(), &Silent).await.unwrap();
        assert_eq!(opened.index.objects(), 0);
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
        assert!(super::path::check_namespace(name).is_err(), "{name:?}");
    }
    assert!(super::path::check_namespace(&"a".repeat(63)).is_ok());
    assert!(super::path::check_namespace(&"a".repeat(64)).is_err());
    run(async {
        let maps = config_maps();
        let (archive, index, _) =
            write(&[(maps.clone(), vec![item(&maps, Some("n?x=y"), "a", 0)])]).await;
        let opened = Archive::open(archive, index).await.unwrap();
        let refused = opened.index.rows("configmaps", 0).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt);
    });
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
