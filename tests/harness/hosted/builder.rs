//! What a hosted control plane is to be like, and the start of all of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::api::Api;
use super::hosting::{HostingApi, Kinds, bring_crds, new_hosting, shared_hosting};
use super::launch::How;
use super::member::{Launched, Tls};
use super::{BUCKET, CLUSTER, Hosted, PERMITS, TOKEN};
use crate::etcd::Version;
use crate::pki::{Authority, SigningKey};
use crate::ports::Port;
use crate::process::Folder;
use crate::store::Minio;

/// What a hosted control plane is to be like.
pub struct HostedBuilder {
    members: usize,
    api_server: bool,
    own_hosting: bool,
    tls: bool,
    kinds: Kinds,
    version: Version,
    in_earnest: bool,
}

impl HostedBuilder {
    pub(super) fn new() -> Self {
        Self {
            members: 1,
            api_server: false,
            own_hosting: false,
            tls: false,
            kinds: Kinds::Ours,
            version: Version::V3_6,
            in_earnest: false,
        }
    }

    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// With an API server on its etcd; whoever looks at etcd alone need not wait for one.
    pub fn with_api_server(mut self) -> Self {
        self.api_server = true;
        self
    }

    /// With a hosting API of its own, and the names of KKP's documentation.
    pub fn with_own_hosting(mut self) -> Self {
        self.own_hosting = true;
        self
    }

    /// etcd asks its clients and its peers for certificates.
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Of this etcd, restored with the etcdutl of its release.
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// KKP manages it: the kinds are KKP's.
    pub fn managed_by_kkp(mut self) -> Self {
        self.kinds = Kinds::Kkp;
        self.with_own_hosting()
    }

    /// As users have it: etcd waits for its disk and may hold gigabytes, and launchers are in no hurry. For measurements.
    pub fn in_earnest(mut self) -> Self {
        self.in_earnest = true;
        self
    }

    pub fn start(self) -> Hosted {
        let wanted = self;
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let permit = PERMITS.take();
        let hosting = if wanted.own_hosting {
            HostingApi::Own(Box::new(new_hosting()))
        } else {
            HostingApi::Shared(shared_hosting())
        };
        let name = match &hosting {
            HostingApi::Own(_) => CLUSTER.to_owned(),
            HostingApi::Shared(_) => format!("hosted-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        };
        let folder = Folder::new("hosted");
        let authority = Authority::new("hosted-ca");
        let tls = wanted.tls.then(|| {
            let server = authority.peer("etcd", &["127.0.0.1", "localhost"]);
            folder.write("ca.crt", authority.certificate());
            folder.write("etcd.crt", &server.certificate);
            folder.write("peer.crt", &server.certificate);
            folder.write("etcd.key", &server.key);
            Tls {
                ca: authority.certificate().to_owned(),
                client: server,
            }
        });
        let members: Vec<_> = (0..wanted.members)
            .map(|index| Launched::new(index, &folder, tls.clone()))
            .collect();
        let minio = Minio::start();
        minio.bucket(BUCKET);

        let server = authority.server("kube-apiserver", &["127.0.0.1", "localhost"]);
        let keys = SigningKey::new();
        folder.write("server.crt", &server.certificate);
        folder.write("server.key", &server.key);
        folder.write("sa.key", &keys.private);
        folder.write("sa.pub", &keys.public);
        folder.write(
            "tokens.csv",
            format!("{TOKEN},admin,admin,\"system:masters\"\n"),
        );
        let urls: Vec<_> = members.iter().map(Launched::client_url).collect();
        let mut etcd = vec![format!("--etcd-servers={}", urls.join(","))];
        if wanted.tls {
            for (flag, file) in [
                ("--etcd-cafile", "ca.crt"),
                ("--etcd-certfile", "etcd.crt"),
                ("--etcd-keyfile", "etcd.key"),
            ] {
                etcd.push(format!("{flag}={}", folder.join(file).display()));
            }
        }
        let api = Api {
            process: None,
            port: Port::lease(),
            ca: authority.certificate().to_owned(),
            folder: folder.path().to_owned(),
            etcd,
            with_api_server: wanted.api_server,
        };
        let mut hosted = Hosted {
            world: None,
            how: How::of(wanted.version, wanted.in_earnest),
            // Its rights are those of the manifest, and no others.
            launcher_kubeconfig: hosting.user(
                &format!("system:serviceaccount:cluster-{name}:etcd-launcher"),
                &["system:serviceaccounts"],
            ),
            members,
            api: Arc::new(Mutex::new(api)),
            minio,
            namespace: format!("cluster-{name}"),
            name,
            hosting,
            folder,
            _permit: permit,
        };
        if let HostingApi::Own(own) = &hosted.hosting {
            bring_crds(own, wanted.kinds);
        }
        hosted.make_objects(&|yaml| {
            hosted.hosting.apply(yaml);
        });
        for index in 0..hosted.members.len() {
            hosted.launch(index);
        }
        hosted.wait_until_etcd_serves();
        hosted.world = Some(hosted.play());
        if wanted.api_server {
            hosted.wait_for_api();
        }
        hosted
    }
}
