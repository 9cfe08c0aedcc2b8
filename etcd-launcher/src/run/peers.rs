//! What the launchers of the other members say: asked only where the hosting API can not answer. Nothing is taken on one peer's word alone.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;

use super::http;
use crate::health::SelfReport;

const SOON: Duration = Duration::from_secs(2);

/// Where the others are: `host:port` of each member's launcher, by its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(pub(crate) BTreeMap<String, String>);

impl Peers {
    /// What each of them says; who does not answer is not there.
    pub(crate) async fn ask(&self) -> BTreeMap<String, SelfReport> {
        let asked = self.0.iter().map(|(name, address)| async move {
            let stream = tokio::time::timeout(SOON, TcpStream::connect(address))
                .await
                .ok()?
                .ok()?;
            let state = http::ask(stream, "/state", None, SOON).await.ok()?;
            let report: SelfReport = serde_json::from_value(state).ok()?;
            // Another member at this address is not whom we asked.
            (report.name == *name).then(|| (name.clone(), report))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}
