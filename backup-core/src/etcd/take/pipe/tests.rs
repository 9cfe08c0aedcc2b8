use super::*;
use crate::location::Store;
use crate::progress::Silent;

/// Messages that were prepared, and then perhaps an error.
struct Prepared {
    messages: std::vec::IntoIter<Message>,
    then: Option<Error>,
}

#[async_trait]
impl Source for Prepared {
    async fn next(&mut self) -> Result<Option<Message>> {
        match (self.messages.next(), self.then.take()) {
            (Some(message), then) => {
                self.then = then;
                Ok(Some(message))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }
}

/// `announced` bytes, of which `sent` come, and a trailer.
fn messages(announced: u64, sent: u64, trailer: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut left = sent;
    while left > 0 {
        let length = left.min(32 << 10);
        left -= length;
        messages.push(Message {
            bytes: vec![7; length as usize],
            remaining: announced - (sent - left),
        });
    }
    if !trailer.is_empty() {
        messages.push(Message {
            bytes: trailer.to_vec(),
            remaining: 0,
        });
    }
    messages
}

async fn passed(messages: Vec<Message>, then: Option<Error>) -> Result<Passed> {
    let store = Store::in_memory();
    let mut source = Prepared {
        messages: messages.into_iter(),
        then,
    };
    let mut sink = Sink::Upload(Box::new(store.upload("x").unwrap()));
    let how = How {
        compression: &Compression::Zstd,
        spool: None,
        hold_limit: None,
        progress: &Silent,
    };
    let passed = pass(&mut source, &mut sink, &how, None).await;
    assert!(store.find("x", u64::MAX).await.unwrap().is_none());
    passed
}

#[tokio::test]
async fn a_stream_that_is_not_whole_is_told_as_such() {
    let size = 4 << 20;
    for (sent, says) in [
        (messages(size, size - (32 << 10), b""), "ended after"),
        (messages(size, size, b""), "digest at the end is missing"),
        (
            messages(size, size, &[1; 31]),
            "digest at the end is missing",
        ),
        (messages(size, size, &[1; 33]), "more than it announced"),
        (messages(size + 1, 512, b""), "no database"),
        (Vec::new(), "nothing at all"),
        (vec![Message::default()], "no database"),
    ] {
        let error = passed(sent, None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[tokio::test]
async fn a_member_that_dies_in_mid_stream_is_told_and_not_what_came_of_it() {
    for sent in [32 << 10, 3 << 20] {
        let died = Error::new(Kind::Unreachable, "the member died");
        let error = passed(messages(4 << 20, sent, b""), Some(died))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert_eq!(error.to_string(), "the member died");
    }
}

#[tokio::test]
async fn what_is_no_database_is_refused_however_well_it_is_hashed() {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &vec![7; 1 << 20]);
    let error = passed(messages(1 << 20, 1 << 20, digest.as_ref()), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.hint_text().is_some());
}
