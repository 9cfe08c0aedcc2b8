//! The bodies of a frame's rows, in order: one that is damaged takes no other along.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::archive::read::{Archive, Object, Source};
use crate::archive::row::Row;
use crate::error::{Kind, Result};

/// Reads ahead as long as nothing is damaged, then row by row.
pub(super) struct Bodies<'a, S> {
    archive: &'a Archive<S>,
    rows: VecDeque<Row>,
    ahead: BoxStream<'a, Result<Object>>,
}

impl<'a, S: Source> Bodies<'a, S> {
    pub(super) fn new(archive: &'a Archive<S>, rows: Vec<Row>) -> Self {
        Self {
            archive,
            rows: rows.clone().into(),
            ahead: archive.objects(rows),
        }
    }

    /// The next row's object. `Corrupt` is about this object alone: the ones after it can be asked for.
    pub(super) async fn next(&mut self) -> Option<(Row, Result<Object>)> {
        let row = self.rows.pop_front()?;
        match self.ahead.next().await {
            Some(Err(e)) if e.kind() == Kind::Corrupt => {
                // What is read ahead fails as a whole, so the damage may be another object's.
                self.ahead = stream::empty().boxed();
            }
            Some(object) => return Some((row, object)),
            None => {}
        }
        let body = self.archive.body(&row).await;
        let object = body.map(|body| Object {
            row: row.clone(),
            body,
        });
        Some((row, object))
    }
}
