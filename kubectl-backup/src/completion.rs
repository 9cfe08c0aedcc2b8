//! What may come next on a command line that is being typed, for kubectl: it runs `kubectl_complete-backup` with the words so far and shows
//! the lines that come back. The words are matched against the command line's own definition; only names are asked for, within [`SOON`].
//! Never an error, never a question: whatever goes wrong, nothing is proposed.

mod live;
mod walk;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

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
    let proposal = propose(&typed).await;
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
    match ui.line(&format!(":{}", proposal.directive)) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}

async fn propose(typed: &Typed) -> Proposal {
    match &typed.next {
        Next::Words(words) => fitting(words.clone(), &typed.prefix, &typed.unfinished, NO_FILES),
        Next::Files => Proposal::default(),
        Next::Names(names) => {
            let found = tokio::time::timeout(SOON, lookup(*names, &typed.global));
            let found = found.await.unwrap_or_default();
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
    }
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
async fn lookup(names: Names, global: &[String]) -> Vec<String> {
    let command = <GlobalArgs as clap::Args>::augment_args(clap::Command::new("completion"));
    let words = std::iter::once("completion").chain(global.iter().map(String::as_str));
    let parsed = command
        .try_get_matches_from(words)
        .and_then(|matches| GlobalArgs::from_arg_matches(&matches));
    let Ok(mut global) = parsed else {
        return Vec::new();
    };
    global.quiet = true;
    let context = Context::new(global, "kubectl backup".to_owned());
    live::look(names, &context).await.unwrap_or_default()
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
