//! Whether somebody still writes to etcd: all keys are watched for some seconds between two reads that the whole cluster agrees on. What a lease
//! takes away by itself is no writer.

use std::time::Duration;

use backup_core::{Error, Kind, Result};
use etcd_client::{EventType, GetOptions, WatchOptions};

use super::decide::Watched;
use super::door;
use crate::etcd_args::EtcdArgs;

/// Watches, for so long.
pub(crate) async fn watch(args: &EtcdArgs, for_long: Duration) -> Result<Watched> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: etcd_client::Error| Error::new(Kind::Unreachable, what).because(e)
    };
    let mut client = door::usual(args).await?;
    let options = || Some(GetOptions::new().with_keys_only());
    let first = client
        .get("etcd-launcher", options())
        .await
        .map_err(failed("can not read from etcd"))?;
    let from = first
        .header()
        .map_or(0, etcd_client::ResponseHeader::revision)
        + 1;
    let watched = WatchOptions::new()
        .with_all_keys()
        .with_prev_key()
        .with_start_revision(from);
    let mut stream = client
        .watch("", Some(watched))
        .await
        .map_err(failed("can not watch etcd"))?;
    let until = tokio::time::Instant::now() + for_long;
    loop {
        let next = tokio::time::timeout_at(until, stream.message()).await;
        let Ok(message) = next else { break };
        let message = message
            .map_err(failed("can not watch etcd any more"))?
            .ok_or_else(|| Error::new(Kind::Unreachable, "the watch of etcd ended"))?;
        if message.canceled() {
            return Err(Error::new(
                Kind::Unreachable,
                "the watch of etcd was cancelled",
            ));
        }
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let leased = match event.event_type() {
                EventType::Put => false,
                EventType::Delete => event.prev_kv().is_some_and(|prev| prev.lease() != 0),
            };
            if !leased {
                return Ok(Watched::Writer(resource(kv.key())));
            }
        }
    }
    // A watch that was cut off in between would have been silent too.
    client
        .get("etcd-launcher", options())
        .await
        .map_err(failed("can not read from etcd"))?;
    Ok(Watched::Quiet)
}

/// The resource of a key, and the object below it: `/registry/pods/a/b` is `pods a/b`.
fn resource(key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key);
    let mut parts = key.trim_start_matches('/').splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("registry"), Some(group), Some(rest)) if group.contains('.') => {
            match rest.split_once('/') {
                Some((resource, object)) => format!("{resource}.{group} {object}"),
                None => format!("{group} {rest}"),
            }
        }
        (Some("registry"), Some(resource), Some(object)) => format!("{resource} {object}"),
        _ => format!("key {key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::resource;

    #[test]
    fn a_key_is_told_as_its_resource() {
        assert_eq!(resource(b"/registry/pods/a/b"), "pods a/b");
        assert_eq!(
            resource(b"/registry/apiextensions.k8s.io/customresourcedefinitions/x"),
            "customresourcedefinitions.apiextensions.k8s.io x"
        );
        assert_eq!(resource(b"other"), "key other");
    }
}
