//! The upstream side of the proxy: one connection for each of the client's, as if the proxy were not there.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::sync::Mutex;

use crate::http_client::{Connector, Failure};
use crate::http_server::{self, Body};

pub(super) struct Upstream {
    connector: Connector,
    connection: Mutex<Option<SendRequest<Incoming>>>,
}

impl Upstream {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            connection: Mutex::new(None),
        }
    }

    /// Sends a request on and returns the answer as it begins.
    pub(super) async fn forward(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        if request.headers().contains_key(header::UPGRADE) {
            return self.switch(request).await;
        }
        let mut connection = self.connection.lock().await;
        let is_usable = match connection.as_mut() {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_usable {
            let stream = self.connector.connect().await?;
            let (sender, task) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(async move { drop(task.await) });
            *connection = Some(sender);
        }
        let sender = connection.as_mut().ok_or("no connection")?;
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|body| body.map_err(Failure::from).boxed_unsync()))
    }

    /// Sends on a request after which the connection speaks something else, where the server agrees: its bytes pass both ways then, over a connection of their own.
    async fn switch(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let client = hyper::upgrade::on(&mut request);
        let stream = self.connector.connect().await?;
        let (mut sender, task) = http1::handshake(TokioIo::new(stream)).await?;
        let task = task.with_upgrades();
        tokio::spawn(async move { drop(task.await) });
        let mut answer = sender.send_request(request).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let server = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                if let Ok((client, server)) = futures::future::try_join(client, server).await {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
        Ok(answer.map(|body| body.map_err(Failure::from).boxed_unsync()))
    }

    /// Sends a request on and waits for the end of the answer, so that nothing of it is left undone.
    pub(super) async fn carry_out(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let (parts, body) = self.forward(request).await?.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, http_server::full(bytes)))
    }
}

/// Reads a body to its end and keeps nothing of it.
pub(super) async fn drain(mut body: Incoming) -> Result<(), Failure> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// The first `length` bytes of a body, and then an error. The pause lets them reach the client: what is still
/// buffered when a body fails is thrown away.
pub(super) fn cut_after(length: usize, body: Body) -> Body {
    ends_after(length, body, Duration::from_millis(100))
}

/// The first `length` bytes of a body, and then nothing for longer than any test takes.
pub(super) fn hold_after(length: usize, body: Body) -> Body {
    ends_after(length, body, Duration::from_secs(3600))
}

fn ends_after(length: usize, body: Body, pause: Duration) -> Body {
    let frames = futures::stream::unfold((length, Some(body)), move |(left, body)| async move {
        let mut body = body?;
        loop {
            if left == 0 {
                tokio::time::sleep(pause).await;
                return Some((
                    Err::<Frame<Bytes>, Failure>("cut by a rule".into()),
                    (0, None),
                ));
            }
            let frame = match body.frame().await? {
                Ok(frame) => frame,
                Err(error) => return Some((Err(error), (0, None))),
            };
            if let Ok(mut bytes) = frame.into_data() {
                bytes.truncate(left);
                let left = left - bytes.len();
                return Some((Ok(Frame::data(bytes)), (left, Some(body))));
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
