//! What is told of a credential plugin of the kubeconfig (`users[].user.exec`) that failed. The client's own words hold the plugin's environment, its
//! arguments and all that it printed: what it is there to keep secret. Told are how it ended and the last it said on standard error.

use std::error::Error as StdError;

use kube::client::AuthError;

use crate::error::{Error, Kind};

/// The exit code by which who bounds a plugin says that its time was over; that of `timeout`.
pub const LATE: u8 = 124;

/// Lines of standard error that are told, from its end.
const LINES: usize = 3;

/// Characters of each.
const WIDTH: usize = 200;

/// The failure of a plugin, where one is among the causes of an error.
pub fn failure(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(auth) = error.downcast_ref::<AuthError>() {
            return told(auth);
        }
        next = error.source();
    }
    None
}

fn told(error: &AuthError) -> Option<Error> {
    let refused = |text: String| Error::new(Kind::Unauthorized, text);
    match error {
        AuthError::AuthExecRun { out, .. } if out.status.code() == Some(i32::from(LATE)) => Some(
            refused("the credential plugin did not answer in time, and was ended".to_owned())
                .hint("log in before, or give it more time with --request-timeout"),
        ),
        AuthError::AuthExecRun { out, .. } => {
            let how = out.status.code().map_or_else(
                || "was killed".to_owned(),
                |code| format!("ended with exit code {code}"),
            );
            let text = format!("the credential plugin {how}{}", last_said(&out.stderr));
            Some(refused(text).hint("run `kubectl get ns` to see its own message"))
        }
        AuthError::AuthExecStart(e) => Some(refused(format!(
            "the credential plugin can not be run: {e}"
        ))),
        // The cause would show what could not be read.
        AuthError::AuthExecParse(_) => Some(refused(
            "what the credential plugin answered is no ExecCredential".to_owned(),
        )),
        _ => None,
    }
}

/// `: first; second`
fn last_said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            line.chars()
                .filter(|c| !c.is_control())
                .take(WIDTH)
                .collect::<String>()
        })
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    match &lines[lines.len().saturating_sub(LINES)..] {
        [] => String::new(),
        last => format!(": {}", last.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Output};

    use super::*;

    #[test]
    fn a_plugins_environment_arguments_and_output_are_not_told() {
        let run = |status: i32| {
            let out = Output {
                status: ExitStatus::from_raw(status),
                stdout: b"{\"token\": \"TOKEN\"}".to_vec(),
                stderr: b"first\n\n\x1b[2Jsecond\nthird\nfourth\n".to_vec(),
            };
            kube::Error::Auth(AuthError::AuthExecRun {
                cmd: "SECRET=\"ENV\" \"login\" \"--secret=ARGUMENT\"".to_owned(),
                out: Box::new(out),
            })
        };
        let told = |error: kube::Error| failure(&error).unwrap().to_string();
        assert_eq!(
            told(run(1 << 8)),
            "the credential plugin ended with exit code 1: [2Jsecond; third; fourth"
        );
        assert!(told(run(9)).contains("was killed"));
        let late = failure(&run(i32::from(LATE) << 8)).unwrap();
        assert!(late.to_string().contains("in time"));
        assert!(late.hint_text().unwrap().contains("--request-timeout"));
        // A token that has run out is refreshed in the midst of a request.
        let AuthError::AuthExecRun { cmd, out } = (match run(1 << 8) {
            kube::Error::Auth(auth) => auth,
            other => panic!("{other}"),
        }) else {
            panic!("no plugin")
        };
        let later = kube::Error::Service(AuthError::AuthExecRun { cmd, out }.into());
        assert!(!told(later).contains("TOKEN"));
        let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
        let start = kube::Error::Auth(AuthError::AuthExecStart(absent));
        assert!(told(start).contains("can not be run"));
        assert!(failure(&std::io::Error::other("x")).is_none());
    }
}
