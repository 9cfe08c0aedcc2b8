//! One question over HTTP/1.0 on a stream that is there already: a unix socket has no URL. The answer is bounded, and the stream ends with it.

use std::time::Duration;

use backup_core::{Error, Kind, Result};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// More than any answer that is asked for.
const LARGEST: u64 = 4 << 20;

/// Sends a request, and gives the JSON that comes back; `body` of none is a GET.
///
/// # Errors
/// Kind `Unreachable` where no answer comes in time; kind `Other` for one that is not 200, with its text.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    body: Option<&Value>,
    patience: Duration,
) -> Result<Value> {
    let asked = tokio::time::timeout(patience, exchange(stream, path, body)).await;
    let answer = asked
        .map_err(|_| Error::new(Kind::Unreachable, format!("no answer to {path}")))?
        .map_err(|e| Error::new(Kind::Unreachable, format!("no answer to {path}")).because(e))?;
    let odd = || Error::other(format!("the answer to {path} can not be read"));
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(odd)?;
    let (head, content) = (&answer[..end], &answer[end + 4..]);
    let status = head.split(|byte| *byte == b' ').nth(1).ok_or_else(odd)?;
    if status != b"200" {
        let text = String::from_utf8_lossy(&content[..content.len().min(500)]).into_owned();
        return Err(Error::other(format!("{path} is refused")).because(text));
    }
    serde_json::from_slice(content).map_err(|e| odd().because(e))
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    body: Option<&Value>,
) -> std::io::Result<Vec<u8>> {
    let (method, body) = match body {
        Some(body) => ("POST", body.to_string()),
        None => ("GET", String::new()),
    };
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(text: &'static str) -> Result<Value> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut asked = vec![0; 1000];
            let _ = theirs.read(&mut asked).await;
            let _ = theirs.write_all(text.as_bytes()).await;
        });
        ask(ours, "/x", None, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn an_answer_is_its_json_and_a_refusal_its_text() {
        assert_eq!(
            answered("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"a\":1}")
                .await
                .unwrap()["a"],
            1
        );
        let refused = answered("HTTP/1.0 500 No\r\n\r\nbecause")
            .await
            .unwrap_err();
        assert_eq!(
            std::error::Error::source(&refused).unwrap().to_string(),
            "because"
        );
        for text in ["", "HTTP/1.0 200", "HTTP/1.0 200 OK\r\n\r\nno json"] {
            assert!(answered(text).await.is_err(), "{text}");
        }
    }
}
