//! The work of a backup under its claim: reads the lists into the streams of archive and index, then seals: side files, digests, and the marker's bytes. It writes no marker.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::apply::{Applied, Apply};
use super::choice::{self, Copied, Wanted};
use super::copies::Copying;
use super::gather::Gathered;
use super::names::{self, gzip};
use super::options::BackupOptions;
use super::outgoing::Outgoing;
use super::point_in_time::Patience;
use super::report::{self, Facts, Findings, Log};
use super::volumes::Volume;
use super::writers::Secrets;
use super::{BackupReport, plan, volume_files};
use crate::apart::Apart;
use crate::archive::SECRETS;
use crate::archive::row::{Outcome, ResourceRow};
use crate::archive::write::Totals;
use crate::catalog::Digests;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::hooks::bracket::Brackets;
use crate::location::claim::Claim;
use crate::location::{Location, hex};
use crate::progress::Progress;
use crate::records::copies::{Copies, Row};
use crate::records::snapshots;

/// The work under a claim.
pub(super) struct Work<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) location: &'a Location,
    pub(super) options: &'a BackupOptions,
    pub(super) claim: &'a Claim,
    pub(super) brackets: &'a Brackets,
    pub(super) copying: Option<&'a Copying>,
    pub(super) log: &'a Log,
    pub(super) progress: &'a dyn Progress,
}

impl Work<'_> {
    /// Lists, and streams archive and index.
    pub(super) async fn read(
        &self,
        gathered: &Arc<Gathered>,
        cancel: tokio::sync::watch::Receiver<bool>,
    ) -> Result<Applied<Outgoing, Outgoing>> {
        let Self {
            options,
            claim,
            log,
            ..
        } = self;
        log.line(
            "info",
            &format!(
                "backup {} of {} ({}), {} API resources served",
                options.name,
                self.cluster.server(),
                gathered.version.git_version,
                gathered.served.all.len()
            ),
        );
        let plan = plan::plan(gathered, options.single_namespace);
        let keys = claim.keys();
        let archive = Outgoing::plain(claim.upload(&keys.archive()).await?);
        let index = Outgoing::plain(claim.upload(&keys.index()).await?.slim());
        let apart = match (&self.location.apart, &self.location.key_files) {
            (Some(key), Some(files)) if plan.lists(SECRETS) => {
                claim.put(&keys.secrets_key(), files.key.clone()).await?;
                let names = files.recipients.clone();
                claim.put(&keys.secrets_recipients(), names).await?;
                let archive = claim.upload(&keys.secrets_archive()).await?.slim();
                let index = claim.upload(&keys.secrets_index()).await?.slim();
                Some((
                    Outgoing::sealed(archive, key)?,
                    Outgoing::sealed(index, key)?,
                ))
            }
            _ => None,
        };
        Apply {
            cluster: self.cluster,
            gathered: Arc::clone(gathered),
            cancel,
            exact: options.exact,
            mtime: u64::try_from(options.now.as_second()).unwrap_or_default(),
            patience: Patience::default(),
            brackets: self.brackets,
            copying: self.copying,
            progress: self.progress,
        }
        .run(plan, options.name.as_str(), archive, index, apart)
        .await
    }

    /// Everything after the lists but the marker, which comes back as bytes.
    pub(super) async fn seal(
        &self,
        gathered: &Gathered,
        applied: Applied<Outgoing, Outgoing>,
    ) -> Result<(Bytes, BackupReport)> {
        let options = self.options;
        let Applied {
            archive,
            index,
            totals,
            rows,
            revision,
            seen,
            names,
            apart,
        } = applied;
        // Post hooks may still be at work.
        let hooks = self.brackets.settle().await;
        let copied = self.copied().await?;
        self.progress.step("writing the side files");
        let streamed = self.finish(archive, index, totals, apart).await?;
        let choices = choice::choose(&seen, Wanted::of(options, gathered));
        let claims = choice::rows(&choices, &seen.volumes, &copied);
        let findings = report::judge(options, gathered, &rows, revision, &seen, &claims, &hooks);
        self.tell(&rows, &findings, &streamed);
        let backup = report::marker(
            options,
            gathered,
            &findings,
            &Facts {
                location: &self.location.name,
                context: self.cluster.context(),
                revision,
                objects: streamed.objects,
                apart: streamed.told.as_ref(),
                hooks: &hooks,
                completed: self.log.now(),
            },
        );
        let marker: Bytes = serde_json::to_vec_pretty(&backup)
            .map_err(|e| Error::other("the marker can not be written as JSON").because(e))?
            .into();
        let copies = self.copies(gathered, claims);
        let place = backup.spec.storage_location.as_deref().unwrap_or_default();
        let keys = self.claim.keys();
        let mut files = self.files_of_volumes(&copies, &seen.volumes, place)?;
        files.extend([
            (keys.results(), gzip(&findings.results()?)),
            (keys.resource_list(), names::resource_list(names)),
            (keys.item_operations(), gzip(b"[]")),
            (keys.logs(), self.log.finish()),
        ]);
        self.put(files, streamed.digests, &marker).await?;
        let report = BackupReport {
            backup,
            resources: rows,
            errors: findings.errors.sentences(),
            warnings: findings.warnings.sentences(),
            volumes: copies.rows,
            volumes_not_saved: findings.not_saved,
            volumes_left_out: findings.left_out,
            archive_bytes: streamed.bytes,
        };
        Ok((marker, report))
    }

    /// What came of copies and snapshots, once all have ended.
    async fn copied(&self) -> Result<Copied> {
        let Some(copying) = self.copying else {
            return Ok(Copied::new());
        };
        for text in copying.settle().await {
            self.log.line("warning", &text);
            self.progress.warn(&text);
        }
        let mut copied = copying.copied();
        copied.extend(copying.cuts.finish(self.log).await);
        copying.cuts.seal(&mut copied, self.log).await?;
        Ok(copied)
    }

    /// Tells the log, and who looks on, what came of it.
    fn tell(&self, rows: &[ResourceRow], findings: &Findings, streamed: &Streamed) {
        let log = self.log;
        for row in rows {
            let level = match row.outcome {
                Outcome::Failed => "error",
                Outcome::Saved | Outcome::Excluded => "info",
            };
            log.line(level, &report::describe(row));
        }
        findings.log(log);
        for text in findings.warnings.sentences() {
            self.progress.warn(&text);
        }
        log.line(
            "info",
            &format!(
                "{}: {} objects, {} bytes of archive",
                findings.phase(),
                streamed.objects,
                streamed.bytes
            ),
        );
        if let Some(told) = &streamed.told {
            let text = format!("{} secrets are encrypted apart", told.count);
            log.line("info", &text);
        }
    }

    fn copies(&self, gathered: &Gathered, rows: Vec<Row>) -> Copies {
        let run = self.claim.run();
        Copies {
            cluster: gathered.identity.clone(),
            backup_uid: self.copying.map_or(run, Copying::backup_uid).to_owned(),
            run: run.to_owned(),
            rows,
        }
    }

    /// Writes the side files, then what vouches for them, for the streams and for the marker that follows.
    async fn put(
        &self,
        files: Vec<(String, Bytes)>,
        mut digests: Digests,
        marker: &[u8],
    ) -> Result<()> {
        let claim = self.claim;
        let keys = claim.keys();
        for (key, bytes) in &files {
            digests = digests.add_bytes(key, bytes);
        }
        let put = files
            .into_iter()
            .map(|(key, bytes)| async move { claim.put(&key, bytes).await });
        futures::future::try_join_all(put).await?;
        let digests = digests.add_bytes(&keys.marker(), marker).to_bytes();
        claim.confirm().await?;
        claim.put(&keys.digests(), digests.clone()).await?;
        if let Some(key) = &self.location.signatures.sign {
            claim.put(&keys.signature(), key.sign(&digests)).await?;
        }
        Ok(())
    }

    /// Ends the streams, and of Secrets that stand apart theirs.
    async fn finish(
        &self,
        archive: Outgoing,
        index: Outgoing,
        totals: Totals,
        apart: Option<Secrets<Outgoing, Outgoing>>,
    ) -> Result<Streamed> {
        let keys = self.claim.keys();
        let (archive, index) = futures::join!(archive.finish(), index.finish());
        let mut streamed = Streamed {
            digests: Digests::new()
                .add(&keys.archive(), &archive?.sha256)
                .add(&keys.index(), &index?.sha256),
            objects: totals.objects,
            bytes: totals.bytes,
            told: None,
        };
        if let (Some(apart), Some(key)) = (apart, &self.location.apart) {
            let (archive, index) = futures::join!(apart.archive.finish(), apart.index.finish());
            streamed.digests = streamed
                .digests
                .add(&keys.secrets_archive(), &archive?.sha256)
                .add(&keys.secrets_index(), &index?.sha256);
            streamed.objects += apart.totals.objects;
            streamed.bytes += apart.totals.bytes;
            streamed.told = Some(Apart {
                count: apart.totals.objects,
                key: key.public(),
                index: hex(&apart.totals.seal),
            });
        }
        Ok(streamed)
    }

    /// What tells of volumes, Velero's files and ours.
    fn files_of_volumes(
        &self,
        copies: &Copies,
        volumes: &BTreeMap<String, Volume>,
        place: &str,
    ) -> Result<Vec<(String, Bytes)>> {
        let keys = self.claim.keys();
        let name = self.options.name.as_str();
        let infos = report::json(&volume_files::infos(&copies.rows, volumes))?;
        let pods = report::json(&volume_files::pod_volume_backups(name, place, copies))?;
        let mut files = vec![
            (keys.volume_info(), gzip(&infos)),
            (keys.volume_snapshots(), gzip(b"[]")),
            (keys.pod_volume_backups(), gzip(&pods)),
        ];
        if !copies.rows.is_empty() {
            files.push((keys.volumes(), copies.write()?));
            files.push((keys.snapshots(), snapshots::write(copies)?));
        }
        Ok(files)
    }
}

/// What the streams of a backup came to.
struct Streamed {
    digests: Digests,
    objects: u64,
    bytes: u64,
    told: Option<Apart>,
}
