//! A credential plugin of the kubeconfig (`users[].user.exec`) that has to end in time. The client below waits for one without a limit, when it is
//! made and whenever a token has run out. Alone, that is what somebody who logs in wants; of several clusters, one that never answers would keep
//! the others from being reported. So this program stands between the two: it runs the plugin with its own streams, and ends it when its time is over.

use std::ffi::OsString;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use backup_cli::ui::{Color, Ui};
use backup_core::Error;
use kube::config::ExecConfig;
use tokio::time::{Instant, sleep};

/// The first argument of a call of this program for this.
const WORD: &str = "__credential-plugin";

/// How often a plugin that runs is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Puts this program before a plugin.
pub(crate) fn bound(exec: &mut ExecConfig, patience: Duration) {
    let (Some(command), Ok(this)) = (&exec.command, std::env::current_exe()) else {
        return;
    };
    let mut arguments = vec![
        WORD.to_owned(),
        patience.as_millis().to_string(),
        command.clone(),
    ];
    arguments.extend(exec.args.take().unwrap_or_default());
    exec.args = Some(arguments);
    exec.command = Some(this.display().to_string());
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
        return ExitCode::FAILURE;
    };
    let mut plugin = Command::new(&command);
    plugin.args(arguments);
    match in_time(plugin, Duration::from_millis(patience)).await {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            ExitCode::from(code.unwrap_or(1))
        }
        Err(e) => {
            let error = e.context(format!("credential plugin {}", command.display()));
            Ui::new(Color::Auto, true).error(&error.into());
            ExitCode::FAILURE
        }
    }
}

async fn in_time(mut plugin: Command, patience: Duration) -> Result<ExitStatus, Error> {
    let failed = |e: std::io::Error| Error::other("it can not be run").because(e);
    let until = Instant::now() + patience;
    let mut child = plugin.spawn().map_err(failed)?;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if Instant::now() >= until {
            // It may have ended by itself just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::other(format!(
                "it did not answer within {} s, and was ended",
                patience.as_secs()
            ))
            .hint("log in before, or give it more time with --request-timeout"));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
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
    }

    #[tokio::test]
    async fn a_plugin_ends_by_itself_or_is_ended() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let ended = in_time(shell("exit 7"), Duration::from_secs(60)).await;
        assert_eq!(ended.unwrap().code(), Some(7));
        let over = in_time(shell("exec sleep 600"), Duration::ZERO).await;
        assert!(over.unwrap_err().to_string().contains("did not answer"));
        let absent = in_time(Command::new("/absent"), Duration::ZERO).await;
        assert!(absent.unwrap_err().to_string().contains("can not be run"));
    }
}
