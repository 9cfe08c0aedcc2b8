//! How far a command line got: which command, which flag waits for its value, which kind of word comes next. Pure.

use clap::{Arg, Command};

use super::live::Names;

/// What may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// One of these words, each with what is said of it.
    Words(Vec<(String, String)>),
    /// A name of something that exists.
    Names(Names),
    /// A file or a folder, which the shell knows best.
    Files,
    /// A key=value, which goes on without a space.
    Pairs,
    /// Something that nobody can propose, such as a new name.
    Nothing,
}

/// A command line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) next: Next,
    /// What is typed of the word that comes next.
    pub(super) unfinished: String,
    /// What stands before it in the same word, such as `--output=`.
    pub(super) prefix: String,
    /// Values of the same argument that are typed already.
    pub(super) given: Vec<String>,
    /// Flags of the connection and of the location that are typed already.
    pub(super) global: Vec<String>,
    /// Under `etcd`, the flags that say which control plane is meant.
    pub(super) scope: Vec<String>,
}

/// Where one is on the way along the words.
struct Walk<'c> {
    command: &'c Command,
    /// The commands that led here, without the program.
    path: Vec<&'c str>,
    positionals: Vec<String>,
    global: Vec<String>,
    scope: Vec<String>,
    /// A flag that waits for its value.
    waiting: Option<&'c Arg>,
    flags_ended: bool,
}

/// Follows the words; the last one is not finished. The command must have been built.
pub(super) fn walk(root: &Command, words: &[String]) -> Typed {
    let (unfinished, done) = match words.split_last() {
        Some((last, done)) => (last.as_str(), done),
        None => ("", &[][..]),
    };
    let mut walk = Walk {
        command: root,
        path: Vec::new(),
        positionals: Vec::new(),
        global: Vec::new(),
        scope: Vec::new(),
        waiting: None,
        flags_ended: false,
    };
    for word in done {
        walk.step(word);
    }
    walk.end(unfinished)
}

impl<'c> Walk<'c> {
    fn step(&mut self, word: &str) {
        if let Some(flag) = self.waiting.take() {
            self.note(flag, Some(word));
            return;
        }
        if self.flags_ended || word == "-" || !word.starts_with('-') {
            let inner = self.command.find_subcommand(word);
            match inner.filter(|_| self.positionals.is_empty() && !self.flags_ended) {
                Some(inner) => {
                    self.path.push(inner.get_name());
                    self.command = inner;
                }
                None => self.positionals.push(word.to_owned()),
            }
            return;
        }
        if word == "--" {
            self.flags_ended = true;
            return;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let Some(flag) = self.flag(name) else {
            return;
        };
        if value.is_some() || !takes_value(flag) {
            self.note(flag, value);
        } else {
            self.waiting = Some(flag);
        }
    }

    /// The flag of this name, long or short.
    fn flag(&self, name: &str) -> Option<&'c Arg> {
        self.command.get_arguments().find(|arg| {
            if let Some(long) = name.strip_prefix("--") {
                let aliases = arg.get_all_aliases().unwrap_or_default();
                return arg.get_long() == Some(long) || aliases.contains(&long);
            }
            // Of several in one word, the last one is what a value would be for.
            let short = name.chars().last();
            short.is_some() && arg.get_short() == short
        })
    }

    /// Keeps a flag that decides where names are looked up.
    fn note(&mut self, flag: &Arg, value: Option<&str>) {
        if let Some(long) = flag.get_long().filter(|_| flag.is_global_set()) {
            let typed = match value {
                Some(value) => format!("--{long}={value}"),
                None => format!("--{long}"),
            };
            // There, these are not the connection's.
            if self.is_etcd() && matches!(long, "cluster" | "namespace") {
                self.scope.push(typed);
            } else {
                self.global.push(typed);
            }
        }
    }

    fn is_etcd(&self) -> bool {
        self.path.first() == Some(&"etcd")
    }

    fn end(self, unfinished: &str) -> Typed {
        let typed = |next, prefix: &str, unfinished: &str, given| Typed {
            next,
            unfinished: unfinished.to_owned(),
            prefix: prefix.to_owned(),
            given,
            global: self.global.clone(),
            scope: self.scope.clone(),
        };
        if let Some(flag) = self.waiting {
            return typed(self.value(flag), "", unfinished, Vec::new());
        }
        if unfinished.starts_with('-') && !self.flags_ended {
            return match unfinished.split_once('=') {
                Some((name, value)) => {
                    let next = self
                        .flag(name)
                        .map_or(Next::Nothing, |flag| self.value(flag));
                    typed(next, &format!("{name}="), value, Vec::new())
                }
                None => typed(Next::Words(self.flags()), "", unfinished, Vec::new()),
            };
        }
        if self.command.has_subcommands() {
            return typed(Next::Words(self.commands()), "", unfinished, Vec::new());
        }
        let positional = self.positional();
        let next = positional.map_or(Next::Nothing, |arg| self.value(arg));
        typed(next, "", unfinished, self.positionals.clone())
    }

    /// The argument without a flag that comes next; the last one may take several.
    fn positional(&self) -> Option<&'c Arg> {
        let count = self.positionals.len();
        let mut all = self.command.get_positionals();
        all.nth(count).or_else(|| {
            let last = self.command.get_positionals().last()?;
            let many = last
                .get_num_args()
                .is_some_and(|range| range.max_values() > 1)
                || matches!(last.get_action(), clap::ArgAction::Append);
            many.then_some(last)
        })
    }

    fn flags(&self) -> Vec<(String, String)> {
        let shown = self
            .command
            .get_arguments()
            .filter(|arg| !arg.is_hide_set());
        shown
            .filter_map(|arg| Some((format!("--{}", arg.get_long()?), first_line(arg.get_help()))))
            .collect()
    }

    fn commands(&self) -> Vec<(String, String)> {
        let shown = self
            .command
            .get_subcommands()
            .filter(|inner| !inner.is_hide_set());
        shown
            .map(|inner| (inner.get_name().to_owned(), first_line(inner.get_about())))
            .collect()
    }

    /// What an argument's value may be.
    fn value(&self, arg: &Arg) -> Next {
        let possible: Vec<_> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| (value.get_name().to_owned(), first_line(value.get_help())))
            .collect();
        if !possible.is_empty() {
            return Next::Words(possible);
        }
        let shown = arg.get_value_names().unwrap_or_default();
        let shown = shown.first().map_or("", |name| name.as_str());
        match (arg.get_id().as_str(), shown) {
            ("context", _) => Next::Names(Names::Contexts),
            ("contexts", _) => Next::Names(Names::ContextLists),
            ("workspace", _) => Next::Names(Names::Workspaces),
            ("user", _) => Next::Names(Names::Users),
            ("cluster", _) if self.is_etcd() => Next::Names(Names::HostedClusters),
            ("cluster", _) => Next::Names(Names::Clusters),
            ("destination", _) => Next::Names(Names::Destinations),
            (_, "NS") if arg.get_value_delimiter() == Some(',') => {
                Next::Names(Names::NamespaceLists)
            }
            (_, "NS") => Next::Names(Names::Namespaces),
            (_, "BACKUP") => Next::Names(Names::Backups),
            (_, "SNAPSHOT") => Next::Names(Names::Snapshots),
            (_, "SCHEDULE") if !self.is_etcd() => Next::Names(Names::Schedules),
            (_, "NAME|URL" | "LOCATION") => Next::Names(Names::Locations),
            (_, "FILE" | "FOLDER") => Next::Files,
            ("labels" | "annotations" | "config", _) => Next::Pairs,
            _ if arg.is_positional() => self.named(arg),
            _ => Next::Nothing,
        }
    }

    /// What a name on a command line means depends on the command.
    fn named(&self, arg: &Arg) -> Next {
        let names = match self.path.as_slice() {
            ["describe" | "logs" | "contents" | "download" | "verify" | "copy" | "rekey"]
                if arg.get_id() == "name" =>
            {
                Names::Backups
            }
            ["get" | "delete" | "diff"] => Names::Backups,
            ["restore", "get" | "describe" | "logs" | "delete"] => Names::Restores,
            [
                "schedule",
                "get" | "describe" | "pause" | "unpause" | "trigger" | "delete",
            ] => Names::ScheduleObjects,
            ["location", "get" | "check" | "set" | "delete" | "adopt"] => Names::Locations,
            [
                "etcd",
                "get" | "describe" | "verify" | "download" | "delete" | "rekey",
            ] => Names::Snapshots,
            ["etcd", "schedule", "get" | "delete"] => Names::EtcdSchedules,
            ["etcd", "restore", "get" | "describe"] | ["etcd", "abort" | "rollback"] => {
                Names::EtcdRestores
            }
            _ => return Next::Nothing,
        };
        Next::Names(names)
    }
}

fn takes_value(flag: &Arg) -> bool {
    flag.get_action().takes_values()
        && !flag.is_require_equals_set()
        && flag
            .get_num_args()
            .is_none_or(|range| range.min_values() > 0)
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn typed(line: &[&str]) -> Typed {
        let mut root = Cli::command();
        root.build();
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        walk(&root, &words)
    }

    fn words(line: &[&str]) -> Vec<String> {
        match typed(line).next {
            Next::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_and_flags_are_proposed_with_their_first_line_of_help() {
        let first = words(&[""]);
        assert!(first.contains(&"create".to_owned()) && first.contains(&"restore".to_owned()));
        assert!(words(&["restore", ""]).contains(&"describe".to_owned()));
        let flags = words(&["restore", "create", "--"]);
        for flag in [
            "--from-backup",
            "--namespace-mappings",
            "--context",
            "--location",
        ] {
            assert!(flags.contains(&flag.to_owned()), "{flag}");
        }
        // What is accepted for old scripts alone is not proposed.
        assert!(!flags.contains(&"--wait".to_owned()));
        let Next::Words(described) = typed(&[""]).next else {
            panic!("no words");
        };
        assert!(
            described.iter().all(|(_, about)| !about.is_empty()),
            "{described:?}"
        );
    }

    #[test]
    fn a_value_is_proposed_where_a_flag_waits_for_it() {
        let formats = ["table", "wide", "json", "yaml", "name"];
        assert_eq!(words(&["get", "-o", ""]), formats);
        assert_eq!(words(&["get", "--output", "j"]), formats);
        let equals = typed(&["get", "--output=j"]);
        assert_eq!(
            (equals.prefix.as_str(), equals.unfinished.as_str()),
            ("--output=", "j")
        );
        for (line, names) in [
            (&["--context", ""][..], Names::Contexts),
            (&["get", "--context="], Names::Contexts),
            (&["get", "--contexts", "a,"], Names::ContextLists),
            (&["get", "--workspace", ""], Names::Workspaces),
            (&["create", "-n", ""], Names::Namespaces),
            (
                &["create", "--include-namespaces", "a,"],
                Names::NamespaceLists,
            ),
            (&["restore", "create", "--from-backup", ""], Names::Backups),
            (
                &["restore", "create", "--from-schedule", ""],
                Names::Schedules,
            ),
            (&["get", "--location", ""], Names::Locations),
            (&["copy", "b", "--to", ""], Names::Locations),
            (&["copy", ""], Names::Backups),
            (&["describe", ""], Names::Backups),
            (&["describe", "--details", "x"], Names::Backups),
            (&["delete", "one", ""], Names::Backups),
            (&["diff", "one", ""], Names::Backups),
            (&["restore", "describe", ""], Names::Restores),
            (&["location", "check", ""], Names::Locations),
            (&["schedule", "pause", ""], Names::ScheduleObjects),
            (&["etcd", "--cluster", ""], Names::HostedClusters),
            (&["etcd", "download", ""], Names::Snapshots),
            (&["etcd", "rekey", ""], Names::Snapshots),
            (
                &["etcd", "restore", "create", "--from-snapshot", ""],
                Names::Snapshots,
            ),
            (&["etcd", "schedule", "delete", ""], Names::EtcdSchedules),
            (&["etcd", "restore", "describe", ""], Names::EtcdRestores),
            (&["etcd", "rollback", ""], Names::EtcdRestores),
            (
                &["etcd", "snapshot", "x", "--destination", ""],
                Names::Destinations,
            ),
        ] {
            assert_eq!(typed(line).next, Next::Names(names), "{line:?}");
        }
        for line in [
            &["create", ""][..],
            &["describe", "one", ""],
            &["location", "create", ""],
        ] {
            assert_eq!(typed(line).next, Next::Nothing, "{line:?}");
        }
        assert_eq!(typed(&["get", "--kubeconfig", ""]).next, Next::Files);
        assert_eq!(typed(&["create", "--labels", "a"]).next, Next::Pairs);
    }

    #[test]
    fn flags_that_decide_where_to_look_are_kept() {
        let line = typed(&[
            "--context",
            "one",
            "get",
            "--location=file:///x",
            "--no-headers",
            "-q",
            "b",
            "",
        ]);
        assert_eq!(
            line.global,
            ["--context=one", "--location=file:///x", "--quiet"]
        );
        assert_eq!(line.given, ["b"]);
        // Under `etcd` the flags mean the hosted cluster.
        let etcd = typed(&["etcd", "get", "--cluster", "x", "-n", "y", "-q", ""]);
        assert_eq!(etcd.scope, ["--cluster=x", "--namespace=y"]);
        assert_eq!(etcd.global, ["--quiet"]);
    }
}
