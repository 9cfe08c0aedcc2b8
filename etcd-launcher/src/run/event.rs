//! Events, for people: what was decided, and what ended badly. Nothing depends on one; that it can not be written is no failure.

use backup_core::Result;
use backup_core::api::hosted::HOSTED_API_VERSION;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};

use super::hosting::{Hosting, soon};
use super::memory::RestoreRef;

/// Longer messages are refused by the API.
const LONGEST: usize = 1024;

/// How an event looks to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Normal,
    Warning,
}

impl Hosting {
    /// Tells of a restore.
    pub(crate) async fn tell_event(
        &self,
        about: &RestoreRef,
        tone: Tone,
        reason: &str,
        message: &str,
    ) {
        let about = ObjectReference {
            kind: Some("EtcdRestore".to_owned()),
            namespace: Some(about.namespace.clone()),
            name: Some(about.name.clone()),
            uid: Some(about.uid.clone()),
            ..ObjectReference::default()
        };
        self.tell_event_about(about, tone, reason, message).await;
    }

    /// Tells of an object of these kinds.
    pub(crate) async fn tell_event_about(
        &self,
        about: ObjectReference,
        tone: Tone,
        reason: &str,
        message: &str,
    ) {
        let _: Result<Event> = self.try_event(about, tone, reason, message).await;
    }

    async fn try_event(
        &self,
        about: ObjectReference,
        tone: Tone,
        reason: &str,
        message: &str,
    ) -> Result<Event> {
        let namespace = about.namespace.clone().unwrap_or_default();
        let now = Some(Time(Timestamp::now()));
        let event = Event {
            metadata: ObjectMeta {
                generate_name: about.name.as_ref().map(|name| format!("{name}.")),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(HOSTED_API_VERSION.to_owned()),
                ..about
            },
            type_: Some(format!("{tone:?}")),
            reason: Some(reason.to_owned()),
            message: Some(message.chars().take(LONGEST).collect()),
            source: Some(EventSource {
                component: Some("etcd-launcher".to_owned()),
                ..EventSource::default()
            }),
            count: Some(1),
            first_timestamp: now.clone(),
            last_timestamp: now,
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        soon(
            "write an event",
            events.create(&PostParams::default(), &event),
        )
        .await
    }
}
