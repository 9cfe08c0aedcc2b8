//! The archive as a whole: what is written is read back, by us and by others, and whatever was done to it is found.

mod damage;
mod foreign;
mod reading;
mod round_trip;

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
use super::spool::{OtherVersion, as_stored, spool};
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
