//! What others ask the controller: /metrics, /healthz (its loop turns) and /readyz (it sees its objects). Answers; changes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use backup_core::error::{Error, Result};
use tokio::net::TcpListener;

use super::desk::Desk;
use super::metrics::{self, Facts};

/// The loop turns every second; an API server that does not answer holds it for a few.
const SILENT: Duration = Duration::from_secs(120);

/// How the loop does.
#[derive(Debug)]
pub(crate) struct Health {
    turned: Mutex<Instant>,
    works: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            turned: Mutex::new(Instant::now()),
            works: AtomicBool::new(false),
        }
    }
}

impl Health {
    /// The loop turned.
    pub(crate) fn turned(&self) {
        *self.turned.lock().expect("nobody panics while holding it") = Instant::now();
    }

    /// Whether this controller works, or another one does.
    pub(crate) fn works(&self, works: bool) {
        self.works.store(works, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let turned = self.turned.lock().expect("nobody panics while holding it");
        turned.elapsed() < SILENT
    }
}

/// `HOST:PORT`, or `:PORT` for all addresses.
///
/// # Errors
/// What is neither.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("it is HOST:PORT, or :PORT for all addresses".to_owned()),
    }
}

/// Takes the address.
///
/// # Errors
/// Where somebody has it.
pub(crate) async fn listen(address: &str) -> Result<TcpListener> {
    let bound = match address.strip_prefix(':') {
        // Where the machine has no IPv6, the other one is all.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(bound) => Ok(bound),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|e| {
        Error::other(format!("can not listen on {address}"))
            .because(e)
            .hint("--metrics-address names another one")
    })
}

/// Answers for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::clone(&desk));
    if let Err(e) = axum::serve(listener, routes).await {
        desk.ui
            .warn(&format!("metrics are not served any more: {e}"));
    }
}

async fn metrics(State(desk): State<Arc<Desk>>) -> impl IntoResponse {
    let works = desk.health.works.load(Ordering::Relaxed);
    let counts = desk.history().counts.clone();
    let facts = Facts::of(desk.objects(), counts, works);
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, metrics::render(&facts))
}

async fn healthz(State(desk): State<Arc<Desk>>) -> (StatusCode, &'static str) {
    match desk.health.is_alive() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the loop does not turn"),
    }
}

async fn readyz(State(desk): State<Arc<Desk>>) -> (StatusCode, String) {
    if let Some(why) = desk.failed() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("objects can not be read: {why}"),
        );
    }
    match desk.is_whole() {
        true => (StatusCode::OK, "ok".to_owned()),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "objects are being read".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        for good in [":8085", "127.0.0.1:0", "[::1]:80", "localhost:1"] {
            assert_eq!(address(good).unwrap(), good);
        }
        for bad in ["", "8085", "x", ":", ":65536", "host:"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_address_that_somebody_has_is_an_error() {
        let first = listen("127.0.0.1:0").await.unwrap();
        let taken = first.local_addr().unwrap().to_string();
        let refused = listen(&taken).await.unwrap_err();
        assert!(refused.to_string().contains(&taken), "{refused}");
        assert!(listen(":0").await.is_ok());
    }
}
