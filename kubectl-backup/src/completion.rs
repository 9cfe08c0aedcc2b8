//! What may come next on a command line that is being typed, for kubectl: it runs `kubectl_complete-backup` with the words so far and shows
//! the lines that come back. The words are matched against the command line's own definition; only names are asked for, within [`SOON`].
//! Never an error, never a question: whatever goes wrong, nothing is proposed.

mod live;
mod walk;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;

use crate::cli::{Cli, GlobalArgs};
use crate::context::Context;
use backup_cli::error::Exit;
use live::Names;
use walk::{Next, Typed};

/// The program that kubectl looks for in PATH.
pub(crate) const PROGRAM: &str = "kubectl_complete-backup";

/// Names that take longer to learn are not proposed.
const SOON: Duration = Duration::from_secs(3);

/// Cobra's directives, of which the last line holds the sum.
const NO_SPACE: u8 = 2;
const NO_FILES: u8 = 4;

/// What is proposed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Proposal {
    /// Words, and what is said of them.
    words: Vec<(String, String)>,
    directive: u8,
}

/// Whether this process was started to complete a line.
pub(crate) fn is_asked(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.and_then(OsStr::to_str)
        .is_some_and(|name| name.trim_end_matches(".exe") == PROGRAM)
}

/// Prints what may come next after these words, of which the last one is not finished and may be empty.
pub(crate) async fn answer(words: Vec<OsString>) -> Exit {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut root = Cli::command();
    root.build();
    let typed = walk::walk(&root, &words);
    // Whatever is started below, such as a program that brings credentials, is in this group.
    let group = Group::new();
    let (proposal, late) = propose(&typed).await;
    let ui = backup_cli::ui::Ui::new(backup_cli::ui::Color::Never, true);
    for (word, about) in &proposal.words {
        let line = if about.is_empty() {
            word.clone()
        } else {
            format!("{word}\t{about}")
        };
        // A shell that went away needs nothing more.
        if ui.line(&line).is_err() {
            return Exit::Failed;
        }
    }
    let exit = match ui.line(&format!(":{}", proposal.directive)) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    };
    if late {
        // A program that brings credentials is waited for in a way that can not be given up: it is ended, and nothing is waited for.
        group.end_others();
        std::process::exit(exit as i32);
    }
    exit
}

/// What is proposed, and whether a look-up is still at work that came too late.
async fn propose(typed: &Typed) -> (Proposal, bool) {
    let proposal = match &typed.next {
        Next::Words(words) => fitting(words.clone(), &typed.prefix, &typed.unfinished, NO_FILES),
        Next::Files => Proposal::default(),
        Next::Names(names) => {
            // On a thread of its own: not everything below knows how to wait without holding one.
            let looking = tokio::spawn(lookup(*names, typed.global.clone(), typed.scope.clone()));
            let Ok(found) = tokio::time::timeout(SOON, looking).await else {
                let nothing = fitting(Vec::new(), "", "", NO_FILES);
                return (nothing, true);
            };
            let found = found.unwrap_or_default();
            // Of a list, what is typed already is no proposal again.
            let (done, unfinished) = match typed.unfinished.rsplit_once(',') {
                Some((done, last)) if names.is_list() => (format!("{done},"), last),
                _ => (String::new(), typed.unfinished.as_str()),
            };
            let given: Vec<&str> = done.split(',').collect();
            let words = found
                .into_iter()
                .filter(|name| !given.contains(&name.as_str()) && !typed.given.contains(name))
                .map(|name| (name, String::new()))
                .collect();
            let prefix = format!("{}{done}", typed.prefix);
            fitting(words, &prefix, unfinished, NO_FILES)
        }
        Next::Pairs => Proposal {
            directive: NO_FILES | NO_SPACE,
            ..Proposal::default()
        },
        Next::Nothing => Proposal {
            directive: NO_FILES,
            ..Proposal::default()
        },
    };
    (proposal, false)
}

/// The words that go on from what is typed.
fn fitting(
    words: Vec<(String, String)>,
    prefix: &str,
    unfinished: &str,
    directive: u8,
) -> Proposal {
    let words = words
        .into_iter()
        .filter(|(word, _)| word.starts_with(unfinished))
        .map(|(word, about)| (format!("{prefix}{word}"), about))
        .collect();
    Proposal { words, directive }
}

/// Asks for names, with the flags that are typed already.
async fn lookup(names: Names, global: Vec<String>, scope: Vec<String>) -> Vec<String> {
    let (Some(mut global), Some(scope)) = (parsed::<GlobalArgs>(&global), parsed(&scope)) else {
        return Vec::new();
    };
    global.quiet = true;
    let context = Context::new(global, "kubectl backup".to_owned());
    let found = live::look(names, &context, &scope).await;
    found.unwrap_or_default()
}

/// Flags by themselves.
fn parsed<A: clap::Args>(words: &[String]) -> Option<A> {
    let command = A::augment_args(clap::Command::new("completion"));
    let words = std::iter::once("completion").chain(words.iter().map(String::as_str));
    let matches = command.try_get_matches_from(words).ok()?;
    A::from_arg_matches(&matches).ok()
}

/// A process group of this process's own.
struct Group(bool);

impl Group {
    fn new() -> Self {
        Self(rustix::process::setpgid(None, None).is_ok())
    }

    /// Asks what else is in it to end.
    fn end_others(&self) {
        use rustix::process::{Signal, getpid, kill_process_group};
        use tokio::signal::unix::{SignalKind, signal};
        // From here on the signal does not end this process.
        let spared = signal(SignalKind::terminate());
        if self.0 && spared.is_ok() {
            // One that waits for the terminal does not hear before it goes on.
            for signal in [Signal::TERM, Signal::CONT] {
                let _ = kill_process_group(getpid(), signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_known_by_its_name() {
        let asked = |name: &str| is_asked(Some(&OsString::from(name)));
        assert!(asked("/usr/local/bin/kubectl_complete-backup"));
        assert!(!asked("/usr/local/bin/kubectl-backup"));
        assert!(!is_asked(None));
    }

    #[test]
    fn only_what_goes_on_from_the_typed_word_is_proposed() {
        let words = vec![
            ("json".to_owned(), String::new()),
            ("yaml".to_owned(), String::new()),
        ];
        let proposal = fitting(words, "--output=", "j", NO_FILES);
        assert_eq!(
            proposal.words,
            [("--output=json".to_owned(), String::new())]
        );
    }
}
