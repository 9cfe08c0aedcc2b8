//! An informer, as controllers have one: kube's own, which lists once, follows its watch from there, and lists again only where the server answers
//! 410. Whoever is not told that lives with what it has, and never knows.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::store::{Store, Writer};
use kube::runtime::{reflector, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// What an informer or a list shows: by namespace and name, the version and the data of each object.
pub type Objects = BTreeMap<String, (String, Value)>;

/// An informer of ConfigMaps, in all namespaces.
pub struct Informer {
    store: Store<DynamicObject>,
    lists: Arc<AtomicUsize>,
    // Its tasks end with it.
    _runtime: Runtime,
}

impl Informer {
    pub fn start(kubeconfig: &Path) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let kind = GroupVersionKind::gvk("", "v1", "ConfigMap");
        let resource = ApiResource::from_gvk_with_plural(&kind, "configmaps");
        let writer = Writer::new(resource.clone());
        let (store, lists) = (writer.as_reader(), Arc::new(AtomicUsize::new(0)));
        let listed = lists.clone();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        runtime.spawn(async move {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            let client = Client::try_from(config.unwrap()).unwrap();
            let all = Api::all_with(client, &resource);
            let events = watcher(all, watcher::Config::default());
            let mut events = pin!(reflector(writer, events));
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::InitDone) => {
                        listed.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        });
        Self {
            store,
            lists,
            _runtime: runtime,
        }
    }

    /// How often it has listed.
    pub fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }

    /// What it holds to be there.
    pub fn objects(&self) -> Objects {
        let all = self.store.state();
        let shown = all.iter().map(|object| {
            let version = object.resource_version().unwrap_or_default();
            let namespace = object.namespace().unwrap_or_default();
            let name = format!("{namespace}/{}", object.name_any());
            (name, (version, object.data["data"].clone()))
        });
        shown.collect()
    }
}
