//! From flags to what the library takes: filters, expiry, names, key=value lists. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::backup::{COPY_ALL, EPHEMERAL_MOVERS, MOVES_SNAPSHOTS, SNAPSHOT_TIMEOUT};
use backup_core::error::quoted;
use backup_core::filter::{Filter, Selector};
use backup_core::name::Name;
use backup_core::{Error, Kind};
use clap::{Args, ValueEnum};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use crate::install::NAMESPACE;
use backup_cli::error::{CommandError, Result};
use backup_cli::ui::Ui;

/// How long a backup is kept when nothing is said: Velero's 30 days.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(720 * 3600);

/// `--dry-run`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Do it.
    None,
    /// Show what would be done.
    Client,
}

/// Which controller is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct ControllerNamespace {
    /// Namespace of the controller, with its schedules and locations
    #[arg(long, global = true, value_name = "NS", default_value = NAMESPACE, value_parser = Name::foreign, env = "KUBECTL_BACKUP_CONTROLLER_NAMESPACE", hide_env_values = true)]
    controller_namespace: Name,
}

impl ControllerNamespace {
    /// The namespace.
    pub(crate) fn as_str(&self) -> &str {
        self.controller_namespace.as_str()
    }
}

/// How a controller works. `controller` heeds it, and `install` writes what it is told of it into the Deployment.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "How the controller works")]
pub(crate) struct ControllerFlags {
    /// Backups that are made at a time [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrent_backups: Option<u16>,
    /// How often a location is checked that does not say it itself [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    store_validation_frequency: Option<Duration>,
    /// How often a location is looked through for backups that have no object, where it does not say it itself [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    backup_sync_period: Option<Duration>,
    /// How often expired backups are removed [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    garbage_collection_frequency: Option<Duration>,
}

impl ControllerFlags {
    /// Backups that are made at a time.
    pub(crate) fn concurrent_backups(&self) -> usize {
        usize::from(self.concurrent_backups.unwrap_or(4))
    }

    /// How often a location is checked.
    pub(crate) fn validation_frequency(&self) -> SignedDuration {
        signed(
            self.store_validation_frequency,
            SignedDuration::from_mins(1),
        )
    }

    /// How often a location is looked through.
    pub(crate) fn sync_period(&self) -> SignedDuration {
        signed(self.backup_sync_period, SignedDuration::from_mins(1))
    }

    /// How often expired backups are removed.
    pub(crate) fn collection_frequency(&self) -> SignedDuration {
        signed(
            // Without a pause the bucket would be looked through all the time; of Velero's server, too, 0 is the default.
            self.garbage_collection_frequency
                .filter(|every| !every.is_zero()),
            SignedDuration::from_hours(1),
        )
    }

    /// Those that were given, as arguments of a controller.
    pub(crate) fn words(&self) -> Vec<String> {
        let count = self
            .concurrent_backups
            .map(|count| format!("--concurrent-backups={count}"));
        let period = |name: &str, given: Option<Duration>| {
            let text = humantime::format_duration(given?).to_string();
            // In one word, so that who copies it into a shell needs no quotes.
            Some(format!("--{name}={}", text.replace(' ', "")))
        };
        let all = [
            count,
            period(
                "store-validation-frequency",
                self.store_validation_frequency,
            ),
            period("backup-sync-period", self.backup_sync_period),
            period(
                "garbage-collection-frequency",
                self.garbage_collection_frequency,
            ),
        ];
        all.into_iter().flatten().collect()
    }
}

fn signed(given: Option<Duration>, default: SignedDuration) -> SignedDuration {
    given.map_or(default, |given| {
        SignedDuration::try_from(given).unwrap_or(SignedDuration::MAX)
    })
}

/// For commands that take something away for good: they ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemovalArgs {
    /// Do not ask
    #[arg(short, long, visible_alias = "confirm")]
    pub(crate) yes: bool,
    /// Only tell what would be done
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    /// Print names alone
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    output: Option<String>,
}

impl RemovalArgs {
    /// Whether nothing is to be done.
    pub(crate) fn is_dry(&self) -> bool {
        self.dry_run != DryRun::None
    }

    /// Whether nothing is to be done, or the user agrees already.
    pub(crate) fn asks_nothing(&self) -> bool {
        self.yes || self.is_dry()
    }

    /// Whether names alone are printed.
    pub(crate) fn names_only(&self) -> bool {
        self.output.is_some()
    }

    /// Asks; false says that nothing is to be done.
    ///
    /// # Errors
    /// As [`Ui::confirm`].
    pub(crate) fn agreed(&self, ui: &Ui, question: &str) -> Result<bool> {
        if self.is_dry() {
            return Ok(false);
        }
        ui.confirm(self.yes, question).map(|()| true)
    }

    /// Tells what was done, or would be.
    ///
    /// # Errors
    /// When it can not be written.
    pub(crate) fn tell(&self, ui: &Ui, title: &str, verb: &str) -> Result<()> {
        let dry = if self.is_dry() { " (dry run)" } else { "" };
        if self.names_only() {
            return ui.line(title);
        }
        ui.line(&format!("{title} {verb}{dry}"))
    }
}

/// Which objects, for backups and restores alike.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which objects")]
pub(crate) struct FilterArgs {
    /// This namespace only, without cluster-scoped objects
    #[arg(short, long, value_name = "NS", conflicts_with_all = ["include_namespaces", "exclude_namespaces"])]
    pub(crate) namespace: Option<String>,
    /// All namespaces, as where none is named
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "include_namespaces"])]
    all_namespaces: bool,
    /// Namespaces to take, globs allowed (comma list, can be repeated) [default: all]
    #[arg(long, value_name = "NS", value_delimiter = ',')]
    pub(crate) include_namespaces: Vec<String>,
    /// Namespaces to leave out (comma list, can be repeated)
    #[arg(long, value_name = "NS", value_delimiter = ',')]
    pub(crate) exclude_namespaces: Vec<String>,
    /// Kinds to take, such as pods, deploy, deployments.apps (comma list, can be repeated) [default: all]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) include_resources: Vec<String>,
    /// Kinds to leave out (comma list, can be repeated)
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) exclude_resources: Vec<String>,
    /// Cluster-scoped objects: all, none, or (not given) those that chosen namespaces need
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) include_cluster_resources: Option<bool>,
    /// Labels that objects must have, in kubectl's syntax
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Selectors joined by ` or `: objects must match one of them
    #[arg(long, value_name = "SELECTORS", conflicts_with = "selector")]
    pub(crate) or_selector: Option<String>,
}

impl FilterArgs {
    /// As the library takes it, not yet validated.
    ///
    /// # Errors
    /// A selector that does not parse.
    pub(crate) fn filter(&self) -> Result<Filter> {
        let selectors = match (&self.selector, &self.or_selector) {
            (Some(text), _) => vec![of_flag("--selector", Selector::parse(text))?],
            (None, Some(text)) => of_flag("--or-selector", Selector::parse_any(text))?,
            (None, None) => Vec::new(),
        };
        let mut namespaces = self.include_namespaces.clone();
        namespaces.extend(self.namespace.clone());
        Ok(Filter {
            namespaces,
            not_namespaces: self.exclude_namespaces.clone(),
            resources: self.include_resources.clone(),
            not_resources: self.exclude_resources.clone(),
            include_cluster_resources: self.include_cluster_resources,
            selectors,
            ..Filter::default()
        })
    }

    /// Takes these namespaces where the command line names none.
    pub(crate) fn default_namespaces(&mut self, namespaces: &[String]) {
        if self.namespace.is_none() && self.include_namespaces.is_empty() {
            self.include_namespaces = namespaces.to_vec();
        }
    }

    /// The resolved scope in words.
    pub(crate) fn scope(&self) -> String {
        let mut scope = match (&self.namespace, self.include_namespaces.as_slice()) {
            (Some(namespace), _) => format!("namespace {namespace}"),
            (None, []) => "the whole cluster".to_owned(),
            (None, names) if names.iter().any(|name| name == "*") => "the whole cluster".to_owned(),
            (None, [one]) => format!("namespace {one}"),
            (None, names) => format!("namespaces {}", names.join(", ")),
        };
        if !self.exclude_namespaces.is_empty() {
            scope.push_str(&format!(" but for {}", self.exclude_namespaces.join(", ")));
        }
        if !self.include_resources.is_empty() {
            scope.push_str(&format!(", only {}", self.include_resources.join(", ")));
        }
        if !self.exclude_resources.is_empty() {
            scope.push_str(&format!(", without {}", self.exclude_resources.join(", ")));
        }
        match self.include_cluster_resources {
            Some(true) => scope.push_str(", all cluster-scoped objects"),
            Some(false) => scope.push_str(", no cluster-scoped objects"),
            None => {}
        }
        if let Some(text) = self.selector.as_ref().or(self.or_selector.as_ref()) {
            scope.push_str(&format!(", labels {text}"));
        }
        scope
    }
}

/// What is done with volumes, in Velero's words.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Volumes")]
pub(crate) struct VolumeArgs {
    /// Copy the files of all claims, but for those that pods leave out by annotation; =false: of those alone that pods or resource policies ask for [default: as the location says]
    #[arg(long, alias = "default-volumes-to-restic", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    default_volumes_to_fs_backup: Option<bool>,
    /// Make a snapshot of every volume whose files are not copied, and fail where one can not have any; =false: of none but those that resource policies name, and nothing is told of data that is not saved [default: of those that can have one]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    snapshot_volumes: Option<bool>,
    /// Not built yet: every volume that would get a snapshot is told as failed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    snapshot_move_data: Option<bool>,
    /// How long a snapshot may take until it can be used: 10m, 1h30m [default: 10m]
    #[arg(long, value_name = "DURATION")]
    csi_snapshot_timeout: Option<String>,
    /// Copy a volume that one pod alone may have (ReadWriteOncePod) by an ephemeral container of the pod that uses it, which can never be removed from that pod again; the same of a single pod by its annotation kubectl-backup/ephemeral-movers [default: such a volume is not copied while it is in use]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ephemeral_movers: Option<bool>,
}

impl VolumeArgs {
    /// Whether snapshots are asked for.
    pub(crate) fn snapshots(&self) -> Option<bool> {
        self.snapshot_volumes
    }

    /// Puts what a Backup's annotations say.
    pub(crate) fn annotate(&self, annotations: &mut BTreeMap<String, String>) {
        if let Some(allowed) = self.ephemeral_movers {
            annotations.insert(EPHEMERAL_MOVERS.to_owned(), allowed.to_string());
        }
    }

    /// Puts what a Backup's spec says beside it.
    pub(crate) fn put(&self, rest: &mut serde_json::Map<String, serde_json::Value>) {
        if let Some(all) = self.default_volumes_to_fs_backup {
            rest.insert(COPY_ALL.to_owned(), all.into());
        }
        if let Some(moved) = self.snapshot_move_data {
            rest.insert(MOVES_SNAPSHOTS.to_owned(), moved.into());
        }
        if let Some(timeout) = &self.csi_snapshot_timeout {
            rest.insert(SNAPSHOT_TIMEOUT.to_owned(), timeout.as_str().into());
        }
    }
}

/// Which objects of a backup: single ones as well.
#[derive(Clone, Debug, Args)]
pub(crate) struct PartArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Single objects, NAMESPACE/NAME or NAME; best with --include-resources (comma list, can be repeated)
    #[arg(
        long,
        value_name = "OBJECT",
        value_delimiter = ',',
        help_heading = "Which objects"
    )]
    objects: Vec<String>,
}

impl PartArgs {
    /// As [`FilterArgs::default_namespaces`].
    pub(crate) fn default_namespaces(&mut self, namespaces: &[String]) {
        self.filter.default_namespaces(namespaces);
    }

    /// The flag that names the same namespaces again.
    pub(crate) fn namespaces_again(&self) -> String {
        match (
            &self.filter.namespace,
            self.filter.include_namespaces.as_slice(),
        ) {
            (Some(one), _) => format!(" -n {}", quoted(one)),
            (None, []) => String::new(),
            (None, names) => format!(" --include-namespaces {}", quoted(&names.join(","))),
        }
    }

    /// As [`FilterArgs::filter`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn filter(&self) -> Result<Filter> {
        let mut filter = self.filter.filter()?;
        filter.objects.clone_from(&self.objects);
        Ok(filter)
    }

    /// The resolved scope in words.
    pub(crate) fn scope(&self) -> String {
        let mut scope = self.filter.scope();
        if !self.objects.is_empty() {
            scope.push_str(&format!(", only the objects {}", self.objects.join(", ")));
        }
        scope
    }
}

/// A flag's value that the library refused is a wrong command line, and the flag is named.
pub(crate) fn of_flag<T>(flag: &str, parsed: Result<T, Error>) -> Result<T> {
    parsed.map_err(|e| CommandError::usage(e.context(format!("invalid value for {flag}"))))
}

/// A name that the user gives to something new.
pub(crate) fn new_name(text: &str) -> Result<Name> {
    text.parse().map_err(CommandError::usage)
}

/// A name of something that may be another tool's.
pub(crate) fn known_name(text: &str) -> Result<Name> {
    Name::foreign(text).map_err(CommandError::usage)
}

/// `k=v,k2=v2`, repeated; the last value of a key counts.
pub(crate) fn pairs(
    flag: &str,
    separator: char,
    items: &[String],
) -> Result<BTreeMap<String, String>> {
    items
        .iter()
        .flat_map(|item| item.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| match item.split_once(separator) {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(CommandError::usage(
                Error::invalid(format!("invalid value for {flag}: {item:?}")).hint(format!(
                    "write it as key{separator}value, several with commas between"
                )),
            )),
        })
        .collect()
}

/// When a backup may be removed: `--expires` or `--ttl`, else after [`DEFAULT_TTL`]; `never` is never.
pub(crate) fn expiry(
    ttl: Option<&str>,
    expires: Option<&str>,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    if let Some(text) = expires {
        let moment = text.parse::<Timestamp>().ok().or_else(|| {
            let date: Date = text.parse().ok()?;
            Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        });
        let refused = |why: &str| {
            CommandError::usage(
                Error::invalid(format!("invalid value for --expires: {text:?} {why}"))
                    .hint("write it as 2027-01-31 (midnight UTC) or 2027-01-31T12:00:00Z"),
            )
        };
        let moment = moment.ok_or_else(|| refused("is no date"))?;
        if moment <= now {
            return Err(refused("is over already"));
        }
        return Ok(Some(moment));
    }
    let ttl = match ttl {
        Some("never") => return Ok(None),
        None | Some("0") => DEFAULT_TTL,
        Some(text) => match humantime::parse_duration(text) {
            Ok(ttl) if ttl.is_zero() => DEFAULT_TTL,
            Ok(ttl) => ttl,
            Err(e) => {
                return Err(CommandError::usage(
                    Error::invalid(format!("invalid value for --ttl: {text:?}"))
                        .because(e)
                        .hint("write it as 720h, 30d or never"),
                ));
            }
        },
    };
    now.checked_add(ttl).map(Some).map_err(|e| {
        CommandError::usage(
            Error::new(
                Kind::Invalid,
                "invalid value for --ttl: it ends beyond the calendar",
            )
            .because(e)
            .hint("use never"),
        )
    })
}

/// `backup-20261121020000`, or any other stem.
pub(crate) fn generated_name(stem: &str, now: Timestamp) -> String {
    format!("{stem}-{}", now.strftime("%Y%m%d%H%M%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T02:00:00Z".parse().unwrap()
    }

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    /// Arguments of a controller, as its command line has them.
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        how: ControllerFlags,
    }

    fn line<W: AsRef<str>>(words: &[W]) -> ControllerFlags {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        let line = std::iter::once("controller".to_owned()).chain(words);
        <Line as clap::Parser>::try_parse_from(line).unwrap().how
    }

    #[test]
    fn the_controller_understands_what_install_tells_it() {
        let given = line(&[
            "--garbage-collection-frequency=1500ms",
            "--store-validation-frequency=1h 30m",
            "--backup-sync-period=0s",
            "--concurrent-backups=8",
        ]);
        let words = given.words();
        assert_eq!(
            words,
            [
                "--concurrent-backups=8",
                "--store-validation-frequency=1h30m",
                "--backup-sync-period=0s",
                "--garbage-collection-frequency=1s500ms",
            ]
        );
        let told = line(&words);
        assert_eq!(told.concurrent_backups(), 8);
        assert_eq!(told.validation_frequency(), SignedDuration::from_mins(90));
        assert_eq!(told.sync_period(), SignedDuration::ZERO);
        assert_eq!(
            told.collection_frequency(),
            SignedDuration::from_millis(1500)
        );
        assert_eq!(line::<&str>(&[]).words(), [""; 0]);
        for hour in [&[][..], &["--garbage-collection-frequency=0s"]] {
            assert_eq!(
                line(hour).collection_frequency(),
                SignedDuration::from_hours(1)
            );
        }
    }

    #[test]
    fn expiry_understands_velero_days_never_and_dates() {
        let of = |ttl, expires| expiry(ttl, expires, now()).unwrap();
        assert_eq!(of(None, None), at("2026-12-21T02:00:00Z"));
        assert_eq!(of(Some("0"), None), at("2026-12-21T02:00:00Z"));
        assert_eq!(of(Some("0h"), None), at("2026-12-21T02:00:00Z"));
        assert_eq!(of(Some("24h0m0s"), None), at("2026-11-22T02:00:00Z"));
        assert_eq!(of(Some("2d"), None), at("2026-11-23T02:00:00Z"));
        assert_eq!(of(Some("never"), None), None);
        assert_eq!(of(None, Some("2027-01-31")), at("2027-01-31T00:00:00Z"));
        assert_eq!(
            of(None, Some("2027-01-31T12:00:00+02:00")),
            at("2027-01-31T10:00:00Z")
        );
        for (ttl, expires) in [
            (Some("soon"), None),
            (Some("-1h"), None),
            (Some("99999999999d"), None),
            (None, Some("2026-11-21")),
            (None, Some("tomorrow")),
        ] {
            let refused = expiry(ttl, expires, now()).unwrap_err();
            assert_eq!(
                refused.exit(),
                backup_cli::error::Exit::Usage,
                "{ttl:?} {expires:?}"
            );
        }
    }

    #[test]
    fn pairs_take_commas_and_repeats() {
        let of = |items: &[&str]| {
            pairs(
                "--labels",
                '=',
                &items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
            )
        };
        let map = of(&["a=1,b=x=y", "a=2,c="]).unwrap();
        assert_eq!(map["a"], "2");
        assert_eq!(map["b"], "x=y");
        assert_eq!(map["c"], "");
        assert!(of(&["a"]).is_err());
        assert!(of(&["=b"]).is_err());
    }

    #[test]
    fn the_scope_is_told_in_words() {
        let args = FilterArgs {
            namespace: Some("shop".into()),
            ..FilterArgs::default()
        };
        assert_eq!(args.scope(), "namespace shop");
        assert_eq!(FilterArgs::default().scope(), "the whole cluster");
        let args = FilterArgs {
            exclude_namespaces: vec!["a".into()],
            include_resources: vec!["pods".into()],
            ..FilterArgs::default()
        };
        assert_eq!(args.scope(), "the whole cluster but for a, only pods");
    }

    #[test]
    fn generated_names_carry_the_time() {
        assert_eq!(generated_name("backup", now()), "backup-20261121020000");
    }
}
