//! What a command is given: the terminal, the clock, the cluster when it is first needed, and the location that is meant.

mod connecting;
mod kkp;
mod lookup;
mod second;
mod velero;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backup_core::api::BackupStorageLocation;
use backup_core::cluster::{Asked, Cluster, Watcher};
use backup_core::hooks::Process;
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use backup_core::{Error, Kind};
use jiff::Timestamp;
use tokio::sync::{OnceCell, watch};

use crate::cli::GlobalArgs;
use crate::encryption::IdentityArgs;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::locations::{self, Choice, LocationArgs, Source, file, same};
use backup_cli::paths::Paths;
use backup_cli::ui::Ui;
use backup_core::error::quoted;

pub(crate) use lookup::Place;

/// How long a listing waits to learn which cluster it is for, before it shows all.
const SOON: Duration = Duration::from_secs(5);

/// From this level on requests are told, as kubectl does.
const REQUESTS: u8 = 6;

/// Tells each request in kubectl's words.
fn tell(ui: &Arc<Ui>) -> Watcher {
    let ui = Arc::clone(ui);
    Arc::new(move |asked: &Asked<'_>| {
        let (method, path, took) = (asked.method, asked.path, asked.took.as_millis());
        let status = match asked.status {
            Some(status) => status.to_string(),
            None => "no answer".to_owned(),
        };
        ui.say(&format!("{method} {path} {status} in {took} milliseconds"));
    })
}

/// A variable of the environment that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a command is given.
pub(crate) struct Context {
    /// The terminal.
    pub(crate) ui: Arc<Ui>,
    /// When the command was started.
    pub(crate) now: Timestamp,
    /// This user's folders.
    pub(crate) paths: Paths,
    /// How the user calls this program.
    pub(crate) program: String,
    /// Its name among several clusters that are meant.
    pub(crate) member: Option<String>,
    stop: Arc<Stop>,
    global: GlobalArgs,
    connecting: connecting::Connecting,
    cluster: OnceCell<Cluster>,
    identity: OnceCell<Option<String>>,
    objects: OnceCell<velero::Found>,
    /// The API server with KKP's locations, where it is another one.
    kkp: OnceCell<Cluster>,
}

/// The user's wish to stop: one of the whole command, however many clusters are meant.
struct Stop {
    /// Of the command, not of one of its clusters.
    ui: Arc<Ui>,
    /// There since the first work that can be stopped.
    asked: OnceLock<watch::Receiver<bool>>,
}

impl Context {
    /// The context of a command; touches nothing yet.
    pub(crate) fn new(global: GlobalArgs, program: String) -> Self {
        let ui = Arc::new(Ui::new(global.color, global.quiet));
        Self {
            stop: Arc::new(Stop {
                ui: Arc::clone(&ui),
                asked: OnceLock::new(),
            }),
            ui,
            now: Timestamp::now(),
            paths: Paths::new(|name| std::env::var_os(name)),
            program,
            member: None,
            global,
            connecting: connecting::Connecting::default(),
            cluster: OnceCell::new(),
            identity: OnceCell::new(),
            objects: OnceCell::new(),
            kkp: OnceCell::new(),
        }
    }

    /// One of several clusters, as if its context and location had been named alone.
    pub(crate) fn of_member(&self, name: &str, context: &str, location: Option<String>) -> Self {
        let mut global = self.global.clone();
        global.connection.context = Some(context.to_owned());
        global.connection.is_one_of_several = true;
        global.location.location = location;
        let ui = Arc::new(self.ui.labelled(name));
        self.with_flags(ui, Some(name.to_owned()), global)
    }

    /// The same command as if other flags had been given: nothing that is known from those of before is kept.
    fn with_flags(&self, ui: Arc<Ui>, member: Option<String>, global: GlobalArgs) -> Self {
        Self {
            ui,
            now: self.now,
            paths: self.paths.clone(),
            program: self.program.clone(),
            member,
            stop: Arc::clone(&self.stop),
            global,
            connecting: connecting::Connecting::default(),
            cluster: OnceCell::new(),
            identity: OnceCell::new(),
            objects: OnceCell::new(),
            kkp: OnceCell::new(),
        }
    }

    /// The flag (or its variable) that several clusters can not have in common, where one is given.
    pub(crate) fn one_cluster_alone(&self) -> Option<&'static str> {
        self.global.connection.one_cluster_alone()
    }

    /// The API server; nothing is sent to it here.
    ///
    /// # Errors
    /// When the kubeconfig does not name one.
    pub(crate) async fn cluster(&self) -> Result<&Cluster> {
        self.cluster
            .get_or_try_init(|| async {
                let made = self.connecting.client(&self.global.connection, self.now);
                let (cluster, warning) = made.await?;
                if let Some(warning) = warning {
                    self.ui.warn(&warning);
                }
                Ok(match self.global.verbosity {
                    REQUESTS.. => cluster.watched(tell(&self.ui)),
                    _ => cluster,
                })
            })
            .await
    }

    /// What is known by now of which cluster this is: its uid and its address.
    pub(crate) fn signs(&self) -> (Option<&str>, Option<&str>) {
        let uid = self.identity.get().and_then(Option::as_deref);
        (uid, self.cluster.get().map(Cluster::server))
    }

    /// The kubeconfig that the flags and the environment name; an empty one where there is none.
    ///
    /// # Errors
    /// When it can not be read.
    pub(crate) fn kubeconfig(&self) -> Result<kube::config::Kubeconfig> {
        Ok(self.global.connection.read()?.unwrap_or_default())
    }

    /// The uid of kube-system, or nothing where this user may not read it.
    ///
    /// # Errors
    /// When the cluster is not reached.
    pub(crate) async fn identity(&self) -> Result<Option<&str>> {
        let identity = self
            .identity
            .get_or_try_init(|| async {
                let cluster = self.cluster().await?;
                let identity = cluster.identity().await?;
                if let Some(uid) = &identity {
                    self.remember(uid, cluster.context());
                }
                Ok::<_, CommandError>(identity)
            })
            .await?;
        Ok(identity.as_deref())
    }

    /// The same within a few seconds, or why not: for listings, which go on without it.
    pub(crate) async fn identity_soon(&self) -> Result<Option<&str>> {
        self.soon(self.identity()).await
    }

    /// The machine's name, for claims.
    pub(crate) fn host(&self) -> String {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    }

    /// This process, for what it owes to pods.
    pub(crate) fn process(&self) -> Process {
        Process::this(self.host(), None)
    }

    /// The flags that name the same location and the same cluster again, for commands that messages suggest.
    pub(crate) fn flags_again(&self) -> String {
        let mut flags = self.global.connection.again();
        for (flag, value) in [
            ("location", &self.global.location.location),
            ("velero-namespace", &self.global.velero_namespace),
            ("kkp-context", &self.global.kkp_context),
        ] {
            if let Some(value) = value {
                flags.push_str(&format!(" --{flag} {}", quoted(value)));
            }
        }
        flags
    }

    /// The same where this location was meant though no flag named one.
    pub(crate) fn flags_again_with(&self, location: Option<&str>) -> String {
        let location = location.filter(|_| !self.is_location_asked());
        let location = location.map(|name| format!(" --location {}", quoted(name)));
        self.flags_again() + &location.unwrap_or_default()
    }

    /// Credentials and CA as the flags give them, for `location create`.
    pub(crate) fn location_args(&self) -> &LocationArgs {
        &self.global.location
    }

    /// Who opens encrypted backups, as the flags say.
    pub(crate) fn identity_args(&self) -> &IdentityArgs {
        &self.global.identity
    }

    /// The sources of locations, in the order in which they are asked, and why those of the cluster are not among them.
    ///
    /// # Errors
    /// When the client's own file can not be read.
    pub(crate) async fn sources(&self) -> Result<(Vec<Source>, Option<CommandError>)> {
        let mut sources = vec![self.own_locations()?];
        match self.soon(self.objects()).await {
            Ok(objects) => sources.extend(objects.sources.iter().cloned()),
            Err(e) => return Ok((sources, Some(e))),
        }
        Ok((sources, None))
    }

    /// The namespace of the cluster's Velero, where it was named.
    pub(crate) fn velero_namespace(&self) -> Option<&str> {
        let namespace = self.global.velero_namespace.as_deref();
        namespace.or(self.global.velero_namespace_of_velero.as_deref())
    }

    /// Where the cluster's Velero has its schedules, resource policies and ConfigMaps.
    pub(crate) fn velero(&self) -> &str {
        self.velero_namespace().unwrap_or("velero")
    }

    /// The locations of the cluster's Velero; nothing where it has none.
    async fn objects(&self) -> Result<&velero::Found> {
        self.objects
            .get_or_try_init(|| async {
                velero::find(self.cluster().await?, self.velero_namespace()).await
            })
            .await
    }

    /// The location that is meant: the client's own file is asked first, and the cluster only where that does not say.
    ///
    /// # Errors
    /// No such location; a cluster that can not be asked.
    pub(crate) async fn choose(&self, asked: Option<&str>) -> Result<Choice> {
        if self.global.kkp_context.is_some() {
            return self.choose_of_kkp(asked).await;
        }
        match self.choose_of_all(asked).await {
            // What nobody has may be KKP's.
            Err(e) if e.is_not_found() && asked.is_some() => {
                match self.kkp_location(asked.unwrap_or_default()).await? {
                    Some(location) => Ok(Choice::Object(Box::new(location))),
                    None => Err(e),
                }
            }
            chosen => chosen,
        }
    }

    async fn choose_of_all(&self, asked: Option<&str>) -> Result<Choice> {
        let own = self.own_locations()?;
        let missing = match locations::choose(asked, std::slice::from_ref(&own)) {
            Ok(Choice::PerCluster) => None,
            Err(e) if e.is_not_found() => Some(e),
            decided => return decided,
        };
        let objects = match (self.objects().await, missing) {
            (Ok(objects), _) => objects,
            (Err(e), None) => return Err(e),
            (Err(e), Some(missing)) => {
                let hint = missing.error().hint_text().map(str::to_owned);
                let title = format!(
                    "{}, and the cluster can not be asked for it",
                    missing.error()
                );
                let error = e.into_error().context(title);
                return Err(match (error.hint_text(), hint) {
                    (None, Some(hint)) => error.hint(hint),
                    _ => error,
                }
                .into());
            }
        };
        let sources: Vec<_> = std::iter::once(own)
            .chain(objects.sources.iter().cloned())
            .collect();
        let chosen = locations::choose(asked, &sources);
        let unused = objects.unused();
        match (chosen, unused) {
            (Ok(Choice::PerCluster), Some(unused)) => {
                self.ui.warn(&unused);
                Ok(Choice::PerCluster)
            }
            (Err(e), Some(unused)) if e.is_not_found() => {
                let error = e.into_error();
                let known = error.hint_text().map(|known| format!("{known}; {unused}"));
                Err(error.hint(known.unwrap_or(unused)).into())
            }
            (chosen, _) => chosen,
        }
    }

    /// The location to read where a cluster that does not answer stops nobody: then every cluster's folder is meant, and why is told.
    ///
    /// # Errors
    /// No such location; a cluster that was named and refuses.
    async fn choose_to_read(&self) -> Result<(Choice, Option<CommandError>)> {
        if self.global.kkp_context.is_some() || self.is_location_asked() {
            return Ok((self.choose(self.asked_location()).await?, None));
        }
        let own = self.own_locations()?;
        let decided = locations::choose(None, &[own])?;
        if decided != Choice::PerCluster {
            return Ok((decided, None));
        }
        match self.soon(self.objects()).await {
            Ok(objects) => {
                let chosen = locations::choose(None, &objects.sources)?;
                if let (Choice::PerCluster, Some(unused)) = (&chosen, objects.unused()) {
                    self.ui.note(&unused);
                }
                Ok((chosen, None))
            }
            Err(e) if self.means_this_cluster_alone(&e) => Err(e),
            Err(e) => Ok((Choice::PerCluster, Some(e))),
        }
    }

    /// Whether what the cluster failed with ends the command: who names a cluster does not mean all of them in its place, but for one that is gone.
    fn means_this_cluster_alone(&self, failed: &CommandError) -> bool {
        self.member.is_some()
            || (self.global.is_cluster_named() && failed.error().kind() != Kind::Unreachable)
    }

    /// An answer of the cluster that a listing goes on without.
    async fn soon<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(SOON, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(
                Kind::Unreachable,
                format!("the cluster did not answer within {} s", SOON.as_secs()),
            )
            .into()),
        }
    }

    /// Opens a location of the client's file or of a URL with its credentials; nothing is sent yet.
    ///
    /// # Errors
    /// Settings or files that can not be used.
    pub(crate) fn open(&self, spec: &BackupStorageLocation) -> Result<Location> {
        self.global.location.open(spec)
    }

    /// The same with any location that was chosen; nothing where the folders of clusters are meant.
    async fn open_choice(&self, choice: Choice) -> Result<Option<Location>> {
        Ok(Some(match choice {
            Choice::One(spec) if spec.metadata.name.contains("://") => {
                self.open(&self.as_remembered(*spec)?)?
            }
            Choice::One(spec) => self.open(&spec)?,
            Choice::Object(spec) => self.open_object(*spec).await?,
            Choice::PerCluster => return Ok(None),
        }))
    }

    /// A place that is not meant by its name has the recipients and keys all the same that are remembered of it: nothing plain gets into it by a URL.
    fn as_remembered(&self, mut spec: BackupStorageLocation) -> Result<BackupStorageLocation> {
        self.heed(&mut spec, &self.own_locations()?.locations);
        Ok(spec)
    }

    /// The same by these locations.
    fn heed(&self, spec: &mut BackupStorageLocation, known: &[BackupStorageLocation]) {
        for (name, what) in same::heed(spec, known, &variable) {
            self.ui.note(&format!(
                "{} is the place of location {name:?}: its {what} count",
                locations::place(spec)
            ));
        }
    }

    /// The location of this name or URL.
    ///
    /// # Errors
    /// As [`Context::choose`] and [`Context::open`].
    pub(crate) async fn location_named(&self, asked: &str) -> Result<Location> {
        let opened = self.open_choice(self.choose(Some(asked)).await?).await?;
        opened.ok_or_else(|| Error::invalid(format!("location {asked:?} has no name")).into())
    }

    /// The location to write to; with nothing configured the folder of this cluster, which the first write makes.
    ///
    /// # Errors
    /// No such location, a read-only one, or a cluster that is not reached.
    pub(crate) async fn location_to_write(&self) -> Result<Location> {
        let location = self.location_to_check().await?;
        Self::refuse_to_write_to_kkp(&location.spec)?;
        if location.is_read_only() {
            return Err(Error::new(
                Kind::Forbidden,
                format!("location {:?} is read-only", location.name),
            )
            .hint("its accessMode says so; choose another one with --location")
            .into());
        }
        Ok(location)
    }

    /// The location that a backup would be written to, for a check; a read-only one too.
    ///
    /// # Errors
    /// No such location; a cluster that is not reached.
    pub(crate) async fn location_to_check(&self) -> Result<Location> {
        let choice = self.choose(self.asked_location()).await?;
        if let Choice::One(spec) = &choice
            && spec.metadata.name.contains("://")
        {
            let mut known = self.own_locations()?.locations;
            match self.soon(self.objects()).await {
                Ok(objects) => {
                    let all = objects.sources.iter();
                    known.extend(all.flat_map(|source| same::of_cluster(&source.locations)));
                }
                // Who may not see the cluster's locations is not bound by them.
                Err(e) if matches!(e.error().kind(), Kind::Forbidden | Kind::NotFound) => {}
                Err(e) => self.ui.warn(&format!(
                    "whether a BackupStorageLocation says for whom backups there are encrypted or signed is not known: {}",
                    e.error().sentence()
                )),
            }
            let mut spec = (**spec).clone();
            self.heed(&mut spec, &known);
            return self.open(&spec);
        }
        if let Some(location) = self.open_choice(choice).await? {
            return Ok(location);
        }
        let folder = self.paths.backups().join(self.cluster_folder().await?);
        self.open(&self.as_remembered(locations::folder(&folder))?)
    }

    /// The name of the location that would be written to; nothing is made.
    ///
    /// # Errors
    /// No such location.
    pub(crate) async fn location_name(&self) -> Result<String> {
        Ok(match self.choose_to_read().await?.0 {
            Choice::One(spec) | Choice::Object(spec) => spec.metadata.name,
            Choice::PerCluster => "default".to_owned(),
        })
    }

    /// The name of this cluster's folder; one that hides its uid goes by its address.
    async fn cluster_folder(&self) -> Result<String> {
        if let Some(uid) = self.identity().await? {
            return Ok(uid.to_owned());
        }
        let server = self.cluster().await?.server();
        let host = server.split_once("://").map_or(server, |(_, host)| host);
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '-'
            }
        };
        Ok(format!(
            "server-{}",
            host.chars().map(safe).collect::<String>()
        ))
    }

    /// Whether this cluster may prune and delete in a location (creating asks for itself; a restore is never asked), and what says so.
    ///
    /// # Errors
    /// Where the location is another cluster's; where nobody knows and `--yes` is missing.
    pub(crate) async fn guard(&self, location: &Location, verb: &str, yes: bool) -> Result<Guard> {
        let identity = self.identity().await?;
        match guard::read(location, identity).await? {
            known @ (Guard::Ours | Guard::Open) => Ok(known),
            Guard::Other(uid) => Err(Error::new(
                Kind::Forbidden,
                format!(
                    "can not {verb} backups in location {:?}: it belongs to the cluster {}",
                    location.name,
                    self.label(&uid)
                ),
            )
            .hint(format!(
                "use another prefix for this cluster, or hand the location over: {} location adopt {}",
                self.program, quoted(&location.name)
            ))
            .into()),
            Guard::Unknown if yes => Ok(Guard::Unknown),
            Guard::Unknown => Err(Error::new(
                Kind::Forbidden,
                format!(
                    "can not tell whether location {:?} belongs to this cluster: this user may not read the namespace kube-system",
                    location.name
                ),
            )
            .hint(format!("add --yes to {verb} all the same"))
            .into()),
        }
    }

    /// The first Ctrl-C (or SIGTERM) asks the work to stop, on all clusters that are meant; the second one stops at once.
    pub(crate) fn cancel(&self, stays: &'static str) -> watch::Receiver<bool> {
        self.stop.asked.get_or_init(|| self.listen(stays)).clone()
    }

    /// Whether the user asked to stop: what is not begun by then is not begun.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.asked.get().is_some_and(|asked| *asked.borrow())
    }

    /// What a command ends with that was asked to stop, whatever it had done by then.
    ///
    /// # Errors
    /// `Interrupted`.
    pub(crate) fn was_not_stopped(&self) -> Result<()> {
        match self.is_stopped() {
            true => Err(Error::new(
                Kind::Interrupted,
                "this was stopped: what was not come to is as it was",
            )
            .hint("run it again to go on")
            .into()),
            false => Ok(()),
        }
    }

    /// In a test, the wish comes from there.
    #[cfg(test)]
    pub(crate) fn stopped_by(&self, asked: watch::Receiver<bool>) {
        self.stop.asked.set(asked).unwrap();
    }

    fn listen(&self, stays: &'static str) -> watch::Receiver<bool> {
        let (stop, stopped) = watch::channel(false);
        let ui = Arc::clone(&self.stop.ui);
        tokio::spawn(async move {
            if interrupted().await {
                ui.say(&format!(
                    "stopping; {stays} (press Ctrl-C again to stop at once)"
                ));
                // The work may be over already.
                let _ = stop.send(true);
            }
            if interrupted().await {
                ui.clear_progress();
                ui.warn("stopped at once: `prune` removes what was left behind");
                std::process::exit(Exit::Interrupted as i32);
            }
            // Dropping the sender would look like an answer.
            std::future::pending::<()>().await;
        });
        stopped
    }

    /// Whether a location is named, by the flag or its variable.
    pub(crate) fn is_location_asked(&self) -> bool {
        self.asked_location().is_some()
    }

    /// The location that is named, by the flag or its variable.
    pub(crate) fn asked_location(&self) -> Option<&str> {
        self.global.location.location.as_deref()
    }

    /// The locations of the client's own file.
    ///
    /// # Errors
    /// When it can not be read.
    pub(crate) fn own_locations(&self) -> Result<Source> {
        file::read(&self.paths.locations())
    }

    /// A cluster as listings show it: the context it was last seen with, else its uid.
    pub(crate) fn label(&self, uid: &str) -> String {
        self.known_as(uid).unwrap_or_else(|| uid.to_owned())
    }

    /// The context that a cluster was last seen with on this machine.
    pub(crate) fn known_as(&self, uid: &str) -> Option<String> {
        self.seen().remove(uid)
    }

    fn seen(&self) -> BTreeMap<String, String> {
        std::fs::read(self.paths.clusters())
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Keeps which context a cluster was seen with. Only labels depend on it, so a failure is none.
    fn remember(&self, uid: &str, context: &str) {
        let mut seen = self.seen();
        if seen.get(uid).is_none_or(|known| known != context) {
            seen.insert(uid.to_owned(), context.to_owned());
            let _ = serde_json::to_vec(&seen)
                .map(|bytes| file::replace(&self.paths.clusters(), &bytes));
        }
    }
}
