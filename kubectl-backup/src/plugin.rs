//! A credential plugin of the kubeconfig (`users[].user.exec`) that has to end in time. The client below waits for one without a limit, when it is
//! made and whenever a token has run out. Alone, that is what somebody who logs in wants; of several clusters, one that never answers would keep
//! the others from being reported. So this program stands between the two: it runs the plugin in a group of processes of its own, hands on what it
//! says, and ends the whole group when its time is over or nobody waits for it any more. How it went is its exit code, and is told by
//! [`credential_plugin`].

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backup_cli::interrupt::interrupted;
use backup_core::credential_plugin::LATE;
use kube::config::ExecConfig;
use rustix::process::{Pid, Signal, getppid, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// The first argument of a call of this program for this.
const WORD: &str = "__credential-plugin";

/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How often it is seen whether somebody still waits.
const PAUSE: Duration = Duration::from_millis(200);

/// What a plugin that has ended left in its pipes is there at once; what it started may keep them open.
const REST: Duration = Duration::from_secs(1);

/// An answer, and what is said on the way, is not longer.
const MOST: u64 = 1 << 20;

/// The exit codes of a shell where a program can not be run, and where it was interrupted.
const CAN_NOT_RUN: u8 = 126;
const INTERRUPTED: u8 = 130;

/// Puts this program before a plugin.
pub(crate) fn bound(exec: &mut ExecConfig, patience: Duration) {
    // A program that was replaced while it runs has no path any more.
    let this = std::env::current_exe().ok().filter(|this| this.is_file());
    let this = this.and_then(|this| this.into_os_string().into_string().ok());
    let (Some(command), Some(this)) = (&exec.command, this) else {
        return;
    };
    let mut arguments = vec![
        WORD.to_owned(),
        patience.min(LONGEST).as_millis().to_string(),
        command.clone(),
    ];
    arguments.extend(exec.args.take().unwrap_or_default());
    exec.args = Some(arguments);
    exec.command = Some(this);
}

/// Whether the command line is one of [`bound`].
pub(crate) fn is_asked(arguments: &[OsString]) -> bool {
    arguments.get(1).is_some_and(|word| word == WORD)
}

/// Runs the plugin that these arguments name; ends with its exit code.
pub(crate) async fn run(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().skip(2);
    let patience = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok());
    let (Some(patience), Some(command)) = (patience, arguments.next()) else {
        return ExitCode::from(CAN_NOT_RUN);
    };
    let mut plugin = Command::new(command);
    plugin.args(arguments);
    let (code, answer) = until(sleep(Duration::from_millis(patience)), plugin).await;
    // Who asked may have gone.
    let _ = std::io::stdout().lock().write_all(&answer);
    ExitCode::from(code)
}

/// Its exit code, and what it answered.
async fn until(over: impl Future<Output = ()>, mut plugin: Command) -> (u8, Vec<u8>) {
    // Nobody is asked anything while several clusters are worked on.
    plugin
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    plugin.process_group(0);
    let waits = getppid();
    let Ok(mut child) = plugin.spawn() else {
        return (CAN_NOT_RUN, Vec::new());
    };
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let answer = Arc::new(Mutex::new(Vec::new()));
    let collected = tokio::spawn(collect(child.stdout.take(), Arc::clone(&answer)));
    let said = tokio::spawn(hand_on(child.stderr.take()));
    let code = tokio::select! {
        ended = child.wait() => ended.map_or(CAN_NOT_RUN, code_of),
        () = over => LATE,
        () = forsaken(waits) => INTERRUPTED,
        true = interrupted() => INTERRUPTED,
    };
    if [LATE, INTERRUPTED].contains(&code)
        && let Some(group) = group
    {
        // It may have ended by itself just now.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = timeout(REST, said).await;
    let _ = timeout(REST, collected).await;
    (code, std::mem::take(&mut *locked(&answer)))
}

fn code_of(status: ExitStatus) -> u8 {
    let signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Ends when the program that started this one is gone.
async fn forsaken(by: Option<Pid>) {
    while getppid() == by {
        sleep(PAUSE).await;
    }
}

fn locked(answer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn collect(from: Option<impl AsyncRead + Unpin>, answer: Arc<Mutex<Vec<u8>>>) {
    each_piece(from, |piece| locked(&answer).extend_from_slice(piece)).await;
}

/// A log-in may say where to go.
async fn hand_on(from: Option<impl AsyncRead + Unpin>) {
    each_piece(from, |piece| {
        let _ = std::io::stderr().lock().write_all(piece);
    })
    .await;
}

async fn each_piece(from: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&[u8])) {
    let Some(from) = from else { return };
    let mut from = from.take(MOST);
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        take(&piece[..read]);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_plugin_keeps_its_arguments_behind_ours() {
        let mut exec: ExecConfig = serde_json::from_value(
            serde_json::json!({"command": "aws", "args": ["eks", "get-token"]}),
        )
        .unwrap();
        bound(&mut exec, Duration::from_secs(5));
        let this = std::env::current_exe().unwrap();
        assert_eq!(exec.command.as_deref(), this.to_str());
        let arguments = exec.args.unwrap();
        assert_eq!(arguments, [WORD, "5000", "aws", "eks", "get-token"]);
        let line = std::iter::once("kubectl-backup".into()).chain(arguments.iter().map(Into::into));
        assert!(is_asked(&line.collect::<Vec<OsString>>()));
        assert!(!is_asked(&["kubectl-backup".into(), "get".into()]));
        let mut exec: ExecConfig =
            serde_json::from_value(serde_json::json!({"command": "aws"})).unwrap();
        bound(&mut exec, Duration::MAX);
        assert!(exec.args.unwrap()[1].parse::<u64>().is_ok());
    }

    #[tokio::test]
    async fn a_plugin_ends_by_itself_or_is_ended_with_all_that_it_started() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let never = std::future::pending::<()>;
        let ended = until(never(), shell("echo answer; exit 7")).await;
        assert_eq!(ended, (7, b"answer\n".to_vec()));
        assert_eq!(until(never(), shell("kill -9 $$")).await.0, 137);
        // What it started keeps its pipes open, and is gone with it.
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 6000 & echo $! > {}; wait", pid.display());
        let started = async {
            while !std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert_eq!(until(started, shell(&script)).await.0, LATE);
        let started = std::fs::read_to_string(&pid).unwrap();
        let stat = Path::new("/proc").join(started.trim()).join("stat");
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        for _ in 0..600 {
            if !lives() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert!(!lives());
        // One that leaves something behind on purpose has answered all the same.
        let daemon = until(never(), shell("sleep 5 & echo answer")).await;
        assert_eq!(daemon, (0, b"answer\n".to_vec()));
        let absent = until(never(), Command::new("/absent")).await;
        assert_eq!(absent.0, CAN_NOT_RUN);
    }
}
