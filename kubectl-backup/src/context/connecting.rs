//! The client of a cluster, made once. A credential plugin of the kubeconfig (`users[].user.exec`) runs then, and may wait for somebody to log in.
//! Who gives up waiting does not end it, and who asks again waits for the same one: nobody is asked to log in twice.

use backup_core::Error;
use backup_core::cluster::Cluster;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::connection::ConnectionArgs;
use backup_cli::error::Result;

/// The client, and what should be known of the way there.
type Made = Result<(Cluster, Option<String>)>;

/// What is under way; nothing before and after.
#[derive(Default)]
pub(super) struct Connecting(Mutex<Option<JoinHandle<Made>>>);

impl Connecting {
    /// Makes the client, or waits for the one that is being made.
    ///
    /// # Errors
    /// As [`ConnectionArgs::cluster`].
    pub(super) async fn client(&self, args: &ConnectionArgs, now: Timestamp) -> Made {
        let mut under_way = self.0.lock().await;
        let making = under_way.get_or_insert_with(|| {
            let args = args.clone();
            tokio::spawn(async move { args.cluster(now).await })
        });
        let made = making.await;
        *under_way = None;
        made.map_err(|e| Error::other("the client of the cluster could not be made").because(e))?
    }
}
