//! What probes and the other launchers ask this one over HTTP: `/livez`, `/readyz`, `/state`. Answers from what it was last told, and
//! changes nothing: no probe may end a restore.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What this launcher knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SelfReport {
    /// The member's name.
    pub(crate) name: String,
    /// Cluster id that its data dir carries, hex; nothing where there is no data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_id: Option<String>,
    /// The attempt it takes part in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<String>,
    /// The last decision it saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<String>,
    /// Whether etcd serves clients as usual.
    pub(crate) serving: bool,
    /// What people should know besides, such as that KKP acts on the restores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// What it does, for people: `reading prod-nightly.db.gz in s3://…: 43 %, 812 MiB`.
    pub(crate) message: String,
}

/// Keeps what is answered.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    report: Arc<watch::Sender<SelfReport>>,
}

impl Health {
    /// Nothing is known yet.
    pub(crate) fn new(name: &str) -> Self {
        let (report, _) = watch::channel(SelfReport {
            name: name.to_owned(),
            message: "starting".to_owned(),
            ..SelfReport::default()
        });
        Self {
            report: Arc::new(report),
        }
    }

    /// Changes what is answered.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut SelfReport)) {
        self.report.send_modify(change);
    }

    /// What is answered now.
    pub(crate) fn report(&self) -> SelfReport {
        self.report.borrow().clone()
    }

    /// Answers until the process ends; gives the address that was bound.
    ///
    /// # Errors
    /// When the address can not be had.
    pub(crate) async fn serve(&self, address: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Error::other(format!("can not answer probes on {address}"))
                .because(e)
                .hint("choose another address with --listen")
        })?;
        let bound = listener
            .local_addr()
            .map_err(|e| Error::other("can not tell where probes are answered").because(e))?;
        let router = Router::new()
            .route("/livez", get(live))
            .route("/healthz", get(live))
            .route("/readyz", get(ready))
            .route("/state", get(state))
            .with_state(self.clone());
        tokio::spawn(async move {
            // It ends with the process.
            let _ = axum::serve(listener, router).await;
        });
        Ok(bound)
    }
}

/// A launcher that answers is alive, whatever it waits for: killing it would not help.
async fn live(State(health): State<Health>) -> String {
    format!("{}\n", health.report().message)
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    let report = health.report();
    let code = if report.serving {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{}\n", report.message))
}

async fn state(State(health): State<Health>) -> Json<SelfReport> {
    Json(health.report())
}
