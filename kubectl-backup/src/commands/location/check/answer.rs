//! `location answer`: what runs in the pod of `location check --from-cluster`. Reads one question from standard input, opens the location with the keys that
//! came along or that are mounted, checks it and writes one answer. Asks no API server and keeps nothing.

use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::time::Duration;

use backup_core::Error;
use backup_core::location::{Credentials, Location, check, leads_elsewhere};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::pod::{CA, CREDENTIALS, CUSTOMER_KEY, MOUNT};
use super::question::{Answer, LONGEST, Question};
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::LocationArgs;

/// Answer one question about a location
#[derive(Clone, Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Not for longer than this
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    within: Duration,
}

/// Runs the command.
///
/// # Errors
/// No question in time, or one that can not be understood.
pub(crate) async fn run(context: &Context, args: AnswerArgs) -> Result<Exit> {
    let answered = tokio::time::timeout(args.within, async {
        let question = asked().await?;
        Ok::<_, Error>(match open(question).await {
            Ok(location) => Answer::Steps(check::check(&location, jiff::Timestamp::now()).await),
            Err(e) => Answer::Refused(e.sentence()),
        })
    })
    .await;
    let answer = match answered {
        Ok(answer) => answer?,
        Err(_) => return Err(Error::other("the check did not end in time").into()),
    };
    let line = serde_json::to_string(&answer)
        .map_err(|e| Error::other("the answer can not be written").because(e))?;
    context.ui.line(&line)?;
    Ok(Exit::Done)
}

async fn asked() -> Result<Question, Error> {
    let (told, hears) = tokio::sync::oneshot::channel();
    // A thread of its own: where nobody asks, the program ends all the same.
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let mut stdin = std::io::stdin().lock().take(LONGEST);
        // Nobody hears it any more where it came too late.
        let _ = told.send(stdin.read_until(b'\n', &mut line).map(|_| line));
    });
    let failed = "the question can not be read";
    let line = hears.await.map_err(|e| Error::other(failed).because(e))?;
    let line = line.map_err(|e| Error::other(failed).because(e))?;
    // Not the decoder's words: the question holds keys.
    serde_json::from_slice(&line).map_err(|_| {
        Error::invalid("standard input holds no question").hint(
            "`location check --from-cluster` asks it; both programs have to be of one version",
        )
    })
}

/// With what came along, or else with what is mounted.
async fn open(question: Question) -> Result<Location, Error> {
    let mut spec = question.location;
    let key = |key: super::question::Key| key.0;
    let credentials = question.credentials.map(key);
    let customer_key = question.customer_key.map(key);
    let storage = &mut spec.spec.object_storage;
    storage.ca_cert_ref = None;
    if let Some(pem) = mounted(CA).await? {
        if storage.ca_cert.as_ref().is_some_and(|ca| !ca.is_empty()) {
            return Err(Error::invalid(
                "objectStorage.caCert and objectStorage.caCertRef exclude each other",
            ));
        }
        storage.ca_cert = Some(STANDARD.encode(pem));
    }
    let credentials = Credentials {
        file: match credentials {
            Some(file) => Some(file),
            None => mounted(CREDENTIALS).await?,
        },
        customer_key: match customer_key {
            Some(key) => Some(key),
            None => mounted(CUSTOMER_KEY).await?,
        },
        origin: question.origin,
        // No file and no role of the node is named by who asks.
        of_object: true,
        ..Credentials::default()
    };
    if credentials.file.is_none()
        && let Some(key) = leads_elsewhere(&spec.spec)
    {
        return Err(Error::invalid(format!(
            "location {:?} has no credentials: config.{key} leads to others than the provider, and what the pod is allowed is not for them",
            spec.metadata.name
        ))
        .hint("name the key of a Secret in spec.credential"));
    }
    let flags = LocationArgs::default();
    let opened = flags.open_with(&spec, None, credentials);
    opened.map_err(backup_cli::error::CommandError::into_error)
}

/// A file that the pod has out of a Secret of its namespace.
async fn mounted(name: &str) -> Result<Option<Vec<u8>>, Error> {
    match tokio::fs::read(Path::new(MOUNT).join(name)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::other(format!("{MOUNT}/{name} can not be read")).because(e)),
    }
}
