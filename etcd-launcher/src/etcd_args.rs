//! The command line of etcd that the launcher was given: what of it the launcher must know, and the same line with some flags replaced.
//! Reads etcd's flags and `ETCD_*` variables as etcd does (flags win); starts nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

/// A member's name and one peer URL of it, as `--initial-cluster` lists them.
pub(crate) type Peer = (String, String);

/// How etcd is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EtcdArgs {
    program: PathBuf,
    arguments: Vec<String>,
    /// Flags by name without dashes, the last one of a name; variables where no flag is.
    settings: BTreeMap<String, String>,
}

impl EtcdArgs {
    /// Reads a command line: the program, then its arguments. `environment` gives a variable.
    ///
    /// # Errors
    /// `Invalid`: no program, an argument that is no UTF-8, a configuration file (it would hide flags from us).
    pub(crate) fn parse(
        line: &[OsString],
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let (program, rest) = line.split_first().ok_or_else(|| {
            Error::invalid("no command is given").hint(
                "put etcd's own command line after two dashes: etcd-launcher run -- etcd --name=..",
            )
        })?;
        let arguments = rest
            .iter()
            .map(|argument| {
                argument.to_str().map(str::to_owned).ok_or_else(|| {
                    Error::invalid(format!("etcd's argument {argument:?} is not UTF-8"))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut settings = BTreeMap::new();
        for name in KNOWN {
            if let Some(value) =
                environment(&variable(name)).and_then(|value| value.into_string().ok())
                && !value.is_empty()
            {
                settings.insert((*name).to_owned(), value);
            }
        }
        for flag in flags(&arguments) {
            settings.insert(flag.name.to_owned(), flag.value.to_owned());
        }
        let args = Self {
            program: program.into(),
            arguments,
            settings,
        };
        if let Some(file) = args.setting("config-file") {
            return Err(Error::invalid(format!(
                "etcd is started with the configuration file {file}, which the launcher does not read"
            ))
            .hint("give etcd's settings as flags or ETCD_* variables"));
        }
        Ok(args)
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn list(&self, name: &str, default: &str) -> Vec<String> {
        self.setting(name)
            .unwrap_or(default)
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// Whether a flag or its variable is given, with whatever value but an empty one.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.setting(name).is_some()
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// `--name`
    pub(crate) fn name(&self) -> &str {
        self.setting("name").unwrap_or("default")
    }

    /// `--data-dir`
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.setting("data-dir")
            .map_or_else(|| format!("{}.etcd", self.name()).into(), PathBuf::from)
    }

    /// `--wal-dir`, where it is not the usual place inside the data dir.
    pub(crate) fn foreign_wal_dir(&self) -> Option<PathBuf> {
        self.setting("wal-dir")
            .map(PathBuf::from)
            .filter(|dir| *dir != self.data_dir().join("member/wal"))
    }

    /// `--initial-cluster`: name and peer URL, one entry per URL.
    ///
    /// # Errors
    /// `Invalid`, for an entry without `=`.
    pub(crate) fn initial_cluster(&self) -> Result<Vec<Peer>> {
        let default = format!("{}={}", self.name(), self.peer_urls().join(","));
        self.list("initial-cluster", &default)
            .into_iter()
            .map(|entry| {
                entry
                    .split_once('=')
                    .map(|(name, url)| (name.to_owned(), url.to_owned()))
                    .ok_or_else(|| {
                        Error::invalid(format!("--initial-cluster has the entry {entry:?}"))
                            .hint("each entry is NAME=PEER-URL")
                    })
            })
            .collect()
    }

    /// `--initial-cluster` as it is written.
    pub(crate) fn initial_cluster_text(&self) -> String {
        self.setting("initial-cluster").map_or_else(
            || format!("{}={}", self.name(), self.peer_urls().join(",")),
            str::to_owned,
        )
    }

    /// `--initial-cluster-token`
    pub(crate) fn token(&self) -> &str {
        self.setting("initial-cluster-token")
            .unwrap_or("etcd-cluster")
    }

    /// Ports on which it listens for peers and for whoever measures, fenced or not.
    pub(crate) fn ports_that_are_no_clients(&self) -> Vec<u16> {
        let mut urls = self.list("listen-peer-urls", "http://localhost:2380");
        urls.extend(self.list("listen-metrics-urls", ""));
        let ports = urls
            .iter()
            .filter_map(|url| url.rsplit_once(':')?.1.parse().ok());
        ports.collect()
    }

    /// Ports on which it listens for anybody.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let clients = self.client_urls();
        let ports = clients
            .iter()
            .filter_map(|url| url.rsplit_once(':')?.1.parse().ok());
        ports.chain(self.ports_that_are_no_clients()).collect()
    }

    /// Files with certificates that it shows or trusts.
    pub(crate) fn certificates(&self) -> Vec<PathBuf> {
        let flags = [
            "cert-file",
            "client-cert-file",
            "peer-cert-file",
            "trusted-ca-file",
            "peer-trusted-ca-file",
        ];
        let mut files: Vec<PathBuf> = flags
            .iter()
            .filter_map(|flag| self.setting(flag).map(PathBuf::from))
            .collect();
        files.dedup();
        files
    }

    /// `--initial-advertise-peer-urls`
    pub(crate) fn peer_urls(&self) -> Vec<String> {
        self.list("initial-advertise-peer-urls", "http://localhost:2380")
    }

    /// `--listen-client-urls`
    pub(crate) fn client_urls(&self) -> Vec<String> {
        self.list("listen-client-urls", "http://localhost:2379")
    }

    /// `--quota-backend-bytes`; 0 where etcd's default holds.
    pub(crate) fn quota_bytes(&self) -> u64 {
        self.setting("quota-backend-bytes")
            .and_then(|value| value.parse::<i64>().ok())
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(0)
    }

    /// CA, certificate and key that a client of this member can use: the server's own, which etcd itself uses towards itself.
    pub(crate) fn client_files(&self) -> (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>) {
        let file = |name: &str| self.setting(name).map(PathBuf::from);
        (
            file("trusted-ca-file"),
            file("client-cert-file").or_else(|| file("cert-file")),
            file("client-key-file").or_else(|| file("key-file")),
        )
    }

    /// The arguments of an etcd that no client reaches but on this socket, with this membership. Flags are taken away in every form: one
    /// that stayed would open a listener beside the socket, or compact away what the members are compared at.
    pub(crate) fn fenced(&self, socket: &Path, initial_cluster: &str) -> Vec<String> {
        let mut replaced: Vec<(&str, Option<String>)> =
            FENCED.iter().map(|name| (*name, None)).collect();
        replaced.extend([
            (
                "listen-client-urls",
                Some(format!("unix://{}", socket.display())),
            ),
            ("auto-compaction-retention", Some("0".to_owned())),
            ("initial-cluster", Some(initial_cluster.to_owned())),
        ]);
        self.with(&replaced)
    }

    /// Variables that the fence takes away: one beside its flag is fatal to etcd, and one without would be obeyed.
    pub(crate) fn fenced_variables() -> impl Iterator<Item = String> {
        let set = [
            "listen-client-urls",
            "auto-compaction-retention",
            "initial-cluster",
        ];
        FENCED.iter().copied().chain(set).map(variable)
    }

    /// The arguments with these flags set to these values; a value of none takes the flag away.
    pub(crate) fn with(&self, replaced: &[(&str, Option<String>)]) -> Vec<String> {
        let mut kept = Vec::new();
        let mut at = 0;
        while at < self.arguments.len() {
            let flag = flag_at(&self.arguments, at);
            let length = flag.as_ref().map_or(1, |flag| flag.length);
            let gone = flag.is_some_and(|flag| replaced.iter().any(|(name, _)| *name == flag.name));
            if !gone {
                kept.extend_from_slice(&self.arguments[at..at + length]);
            }
            at += length;
        }
        kept.extend(
            replaced.iter().filter_map(|(name, value)| {
                value.as_ref().map(|value| format!("--{name}={value}"))
            }),
        );
        kept
    }
}

/// What a fenced etcd is not given.
const FENCED: &[&str] = &[
    "listen-client-http-urls",
    "initial-cluster-token",
    "initial-cluster-state",
    "auto-compaction-mode",
];

fn variable(name: &str) -> String {
    format!("ETCD_{}", name.to_uppercase().replace('-', "_"))
}

/// Settings that are also read from the environment.
const KNOWN: &[&str] = &[
    "advertise-client-urls",
    "cert-file",
    "client-cert-auth",
    "client-cert-file",
    "client-key-file",
    "config-file",
    "data-dir",
    "discovery",
    "discovery-endpoints",
    "discovery-srv",
    "force-new-cluster",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-token",
    "key-file",
    "listen-client-urls",
    "listen-metrics-urls",
    "listen-peer-urls",
    "name",
    "peer-cert-file",
    "peer-trusted-ca-file",
    "quota-backend-bytes",
    "trusted-ca-file",
    "wal-dir",
];

struct Flag<'a> {
    name: &'a str,
    value: &'a str,
    /// Arguments it consists of.
    length: usize,
}

/// The flag at an argument, as Go's flag package reads it: `-x`, `--x`, `--x=v`, `--x v`.
fn flag_at(arguments: &[String], at: usize) -> Option<Flag<'_>> {
    let text = arguments.get(at)?;
    let text = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    if let Some((name, value)) = text.split_once('=') {
        return Some(Flag {
            name,
            value,
            length: 1,
        });
    }
    // etcd takes no arguments besides flags: what follows without a dash is the value.
    match arguments.get(at + 1).filter(|next| !next.starts_with('-')) {
        Some(value) => Some(Flag {
            name: text,
            value,
            length: 2,
        }),
        None => Some(Flag {
            name: text,
            value: "true",
            length: 1,
        }),
    }
}

fn flags(arguments: &[String]) -> Vec<Flag<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < arguments.len() {
        match flag_at(arguments, at) {
            Some(flag) => {
                at += flag.length;
                found.push(flag);
            }
            None => at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, environment: &[(&str, &str)]) -> Result<EtcdArgs> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        EtcdArgs::parse(&words, |name| {
            environment
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn flags_are_read_in_every_form_that_etcd_takes_and_beat_the_environment() {
        let args = parse(
            "/bin/etcd --name=a -data-dir /d --initial-cluster a=http://h:1,a=http://h:2,b=http://i:1 --client-cert-auth --listen-client-urls http://h:3",
            &[("ETCD_NAME", "z"), ("ETCD_QUOTA_BACKEND_BYTES", "77")],
        )
        .unwrap();
        assert_eq!(args.name(), "a");
        assert_eq!(args.data_dir(), Path::new("/d"));
        assert_eq!(args.quota_bytes(), 77);
        let peers = args.initial_cluster().unwrap();
        assert_eq!(peers.len(), 3);
        assert_eq!(peers[2], ("b".to_owned(), "http://i:1".to_owned()));
        assert_eq!(args.client_urls(), ["http://h:3"]);
        assert_eq!(args.foreign_wal_dir(), None);
    }

    #[test]
    fn a_replaced_flag_is_gone_in_every_form_and_the_others_stay_as_they_were() {
        let args = parse("etcd --name a --listen-client-urls=http://x:1 --snapshot-count=5 -listen-client-urls http://y:1 --debug", &[]).unwrap();
        assert_eq!(
            args.with(&[
                ("listen-client-urls", Some("unix://s".to_owned())),
                ("name", None)
            ]),
            [
                "--snapshot-count=5",
                "--debug",
                "--listen-client-urls=unix://s"
            ]
        );
        assert_eq!(args.with(&[]).len(), 7);
    }

    #[test]
    fn a_fenced_etcd_is_given_no_listener_but_the_socket() {
        let args = parse(
            "etcd --name=a -listen-client-http-urls http://h:1 --listen-client-urls=https://h:2,https://h:3 --listen-peer-urls=http://h:4 --listen-metrics-urls http://h:5 --auto-compaction-mode=periodic --auto-compaction-retention 8 --initial-cluster-state new --initial-cluster a=http://h:4",
            &[],
        )
        .unwrap();
        assert_eq!(
            args.fenced(Path::new("/d/s"), "a=http://h:4"),
            [
                "--name=a",
                "--listen-peer-urls=http://h:4",
                "--listen-metrics-urls",
                "http://h:5",
                "--listen-client-urls=unix:///d/s",
                "--auto-compaction-retention=0",
                "--initial-cluster=a=http://h:4"
            ]
        );
        assert_eq!(args.ports_that_are_no_clients(), [4, 5]);
        let variables: Vec<String> = EtcdArgs::fenced_variables().collect();
        assert!(variables.contains(&"ETCD_LISTEN_CLIENT_HTTP_URLS".to_owned()));
        assert!(variables.contains(&"ETCD_LISTEN_CLIENT_URLS".to_owned()));
    }

    #[test]
    fn what_the_launcher_could_not_know_is_refused() {
        assert!(parse("etcd --config-file=/x", &[]).is_err());
        assert!(parse("etcd", &[("ETCD_CONFIG_FILE", "/x")]).is_err());
        assert!(parse("", &[]).is_err());
        let foreign = parse("etcd --data-dir=/d --wal-dir=/w", &[]).unwrap();
        assert_eq!(foreign.foreign_wal_dir(), Some("/w".into()));
        let usual = parse("etcd --data-dir=/d --wal-dir=/d/member/wal", &[]).unwrap();
        assert_eq!(usual.foreign_wal_dir(), None);
    }

    #[test]
    fn defaults_are_etcds() {
        let args = parse("etcd", &[]).unwrap();
        assert_eq!(args.name(), "default");
        assert_eq!(args.data_dir(), Path::new("default.etcd"));
        assert_eq!(
            args.initial_cluster().unwrap(),
            [("default".to_owned(), "http://localhost:2380".to_owned())]
        );
    }
}
