//! What `restore`, `rollback` and `status` share: flags about the data dir and its tools, and taking it with etcd stopped.

use std::path::{Path, PathBuf};

use backup_cli::error::Result;
use backup_cli::ui::Ui;
use backup_core::Error;
use backup_core::etcd::Facts;
use backup_core::progress::Progress;
use clap::Args;

use crate::crash;
use crate::restore::dir::DataDir;
use crate::restore::entry::Former;
use crate::restore::etcdutl::Tool;
use crate::restore::exchange;
use crate::restore::fence::{self, Fence};
use crate::restore::fit::{self, Lineage, Target};
use crate::restore::job::{self, Builder};
use crate::restore::plan::{By, Carried};
use crate::restore::proof;

/// etcd's own default for `--quota-backend-bytes`.
const QUOTA: u64 = 2 << 30;

/// Which data dir.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataDirArgs {
    /// Data dir of the member, as etcd's own --data-dir
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,
}

/// With which tools.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tools")]
pub(crate) struct ToolArgs {
    /// etcdutl that writes the new state; default: the fitting one beside this program, then in PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) etcdutl: Option<PathBuf>,
    /// The etcd that will run on it; default: its version is taken from the data dir, else from the snapshot
    #[arg(long, value_name = "PATH")]
    pub(crate) etcd: Option<PathBuf>,
    /// etcd's own --quota-backend-bytes; default: as etcd is started with, where that is known, else 2 GiB
    #[arg(long, value_name = "BYTES")]
    pub(crate) quota_backend_bytes: Option<u64>,
    /// Where the snapshot is put before it is restored; default: the data dir
    #[arg(long, value_name = "FOLDER")]
    pub(crate) spool_dir: Option<PathBuf>,
}

impl ToolArgs {
    /// Where programs are looked for: beside this one, then in PATH.
    pub(crate) fn search() -> Vec<PathBuf> {
        let me = std::env::current_exe().ok();
        let beside = me.as_deref().and_then(Path::parent).map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        beside
            .into_iter()
            .chain(std::env::split_paths(&path))
            .collect()
    }

    /// The builder for a data dir whose database says this, where it can be read.
    ///
    /// # Errors
    /// Where the etcd that was named does not tell its version.
    pub(crate) async fn builder<'a>(
        &self,
        dir: &DataDir,
        facts: Option<&Facts>,
        another_cluster: bool,
        progress: &'a dyn Progress,
    ) -> Result<Builder<'a>> {
        let line = match &self.etcd {
            Some(path) => Some(Tool::ask(path, "--version").await?.version.line),
            None => facts.map(fit::line_of),
        };
        Ok(Builder {
            etcdutl: self.etcdutl.clone(),
            search: Self::search(),
            target: Target {
                line,
                quota: self.quota_backend_bytes.unwrap_or(QUOTA),
                lineage: Lineage::of(dir, &dir.carried()?, facts),
                another_cluster,
                by: By::Offline,
            },
            data_dir: dir.root().to_owned(),
            lock: dir.lock_for_child()?,
            stall: job::STALL,
            more_room: "free some, or let the download go elsewhere with --spool-dir",
            progress,
            notes: Vec::new(),
        })
    }
}

/// A data dir that is ours alone, with etcd stopped, and what was begun before settled.
pub(crate) struct Taken {
    /// It.
    pub(crate) dir: DataDir,
    /// The proof that no etcd runs.
    pub(crate) fence: Fence,
    /// What `member` carries.
    pub(crate) old: Carried,
    /// What is in it, where that can be read.
    pub(crate) former: Option<Former>,
    /// What its database says.
    pub(crate) facts: Option<Facts>,
}

impl Taken {
    /// The revision that the state there has come to, where it says one.
    pub(crate) fn mark(&self) -> Option<i64> {
        self.facts.as_ref().map(|facts| facts.revision)
    }

    /// Takes a data dir.
    ///
    /// # Errors
    /// Where etcd runs, another process works on it, or its folders can not be exchanged.
    pub(crate) fn take(ui: &Ui, path: &Path, spool: Option<&Path>) -> Result<Self> {
        Self::of(ui, open(path, spool)?)
    }

    /// Takes one that is opened already.
    ///
    /// # Errors
    /// Where etcd runs, or its folders can not be exchanged.
    pub(crate) fn of(ui: &Ui, mut dir: DataDir) -> Result<Self> {
        fence::check_layout(&dir)?;
        let first = Fence::take(&dir)?;
        exchange::recover(&mut dir, &first)?;
        drop(first);
        // What was settled may have put another database in place.
        fence::check_layout(&dir)?;
        let fence = Fence::take(&dir)?;
        let old = dir.carried()?;
        let bar = ui.progress();
        bar.step("reading the state that is there");
        let read = proof::seen(&dir.member(), &bar);
        drop(bar);
        let never_began = fence::never_began(&dir)?;
        let (former, facts) = match read {
            // What it says is of nobody; told below.
            _ if never_began => (None, None),
            Ok(seen) => {
                if let Some(problem) = seen.problem {
                    ui.warn(&format!(
                        "the state in {} is damaged, and replaced and kept as it is: {problem}",
                        dir.member().display()
                    ));
                }
                (seen.former, Some(seen.facts))
            }
            Err(_) if old == Carried::Absent => (None, None),
            Err(e) => {
                ui.warn(&format!(
                    "the state in {} can not be read, and is replaced and kept as it is: {e}",
                    dir.member().display()
                ));
                (None, None)
            }
        };
        if never_began {
            ui.warn(&format!(
                "in {} an etcd ended before it began its log: it holds nothing",
                dir.member().display()
            ));
        } else if let Carried::Unreadable { why } = &old {
            ui.warn(&format!(
                "nobody can say which cluster {} is of: {why}",
                dir.member().display()
            ));
        }
        Ok(Self {
            dir,
            fence,
            old,
            former,
            facts,
        })
    }
}

/// Opens a data dir for this process alone; etcd may run on it.
///
/// # Errors
/// Where another process works on it.
pub(crate) fn open(path: &Path, spool: Option<&Path>) -> Result<DataDir> {
    let mut dir = DataDir::take(path)?;
    dir.set_hook(Box::new(|step| crash::here(step.name())));
    if let Some(folder) = spool {
        dir.set_spool_folder(folder.to_owned());
    }
    Ok(dir)
}

/// Makes the data dir where it is absent; the folder above has to be there.
///
/// # Errors
/// When it can not be made.
pub(crate) fn make(path: &Path) -> Result<()> {
    let failed =
        |e| Error::other(format!("can not make the data dir {}", path.display())).because(e);
    match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(path)
    {
        Ok(()) => {
            let above = path.parent().filter(|p| !p.as_os_str().is_empty());
            std::fs::File::open(above.unwrap_or(Path::new(".")))
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(failed(e).into()),
    }
}
