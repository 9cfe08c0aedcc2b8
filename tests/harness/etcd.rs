//! Real etcd on loopback: one member or several, of the minor in use or the one before, plain or with TLS.
//!
//! A member is a process, an address and a folder, and stays what it is while it is stopped, killed or started again.
//! Keys go through etcd's own gateway, so that nothing of the product's way to etcd is used to judge the product.

mod fill;
mod gateway;
mod member;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::http_client::Endpoint;
use crate::pki::{Authority, Identity};
use crate::process::{Folder, Output};
use crate::tools;

pub use fill::{Content, Fill, Filled};
pub use gateway::{KeyValue, Keys};
pub use member::Member;

const READY: Duration = Duration::from_secs(60);
/// How often a start is tried with new ports, when somebody took one in between.
const STARTS: usize = 4;

/// Which etcd runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V3_5,
    V3_6,
}

impl Version {
    pub(crate) fn server(self) -> &'static str {
        match self {
            Self::V3_5 => "etcd35",
            Self::V3_6 => "etcd",
        }
    }

    pub(crate) fn etcdutl(self) -> &'static str {
        match self {
            Self::V3_5 => "etcdutl35",
            Self::V3_6 => "etcdutl",
        }
    }
}

/// What an etcd is to be like.
#[derive(Debug, Clone)]
pub struct EtcdBuilder {
    members: usize,
    version: Version,
    tls: bool,
    fsync: bool,
    flags: Vec<String>,
    through: Vec<String>,
}

impl EtcdBuilder {
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// TLS for clients and peers, both with certificates on both ends, as kubeadm sets it up.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Whether it waits for the disk; only measurements and the loss of power need that.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// Bytes the database may have.
    pub fn quota(self, bytes: u64) -> Self {
        self.flag(&format!("--quota-backend-bytes={bytes}"))
    }

    /// Keeps so many revisions and compacts the rest every five minutes.
    pub fn auto_compaction(self, revisions: u64) -> Self {
        self.flag("--auto-compaction-mode=revision")
            .flag(&format!("--auto-compaction-retention={revisions}"))
    }

    /// One more flag, as `--flag=value`.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// A command that gets the command line of etcd as its last arguments and starts it: a parent of etcd.
    pub fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts all members and waits until they serve.
    pub fn start(self) -> Etcd {
        assert!(self.members > 0, "an etcd has members");
        let folder = Folder::new("etcd");
        let security = self.tls.then(|| Security::new(&folder));
        let mut etcd = Etcd {
            members: Vec::new(),
            builder: self,
            security,
            folder,
        };
        for _ in 0..STARTS {
            etcd.members = member::all(&etcd.builder, etcd.security.as_ref(), &etcd.folder);
            etcd.members.iter().for_each(Member::start);
            match etcd.try_wait() {
                Ok(()) => return etcd,
                Err(log) => assert!(log.contains("address already in use"), "no etcd:\n{log}"),
            }
            etcd.members.clear();
            for index in 0..etcd.builder.members {
                let _ = std::fs::remove_dir_all(member::data_dir(&etcd.folder, index));
            }
        }
        panic!("no etcd: every port was taken {STARTS} times");
    }
}

/// Who may talk to it: one authority, one certificate for all servers, one for a client.
struct Security {
    authority: Authority,
    client: Identity,
}

impl Security {
    fn new(folder: &Folder) -> Self {
        let authority = Authority::new("etcd-ca");
        let client = authority.client("root", &[]);
        let hosts = ["127.0.0.1", "localhost"];
        folder.write("ca.crt", authority.certificate());
        for (name, identity) in [
            ("server", &authority.peer("etcd-server", &hosts)),
            ("peer", &authority.peer("etcd-peer", &hosts)),
            ("client", &client),
        ] {
            folder.write(format!("{name}.crt"), &identity.certificate);
            folder.write(format!("{name}.key"), &identity.key);
        }
        Self { authority, client }
    }

    fn endpoint(&self, url: &str) -> Endpoint {
        Endpoint {
            ca: Some(self.authority.certificate().to_owned()),
            identity: Some(self.client.clone()),
            ..Endpoint::plain(url)
        }
    }
}

/// A running etcd of one or several members; dropping it stops them and removes all they had.
pub struct Etcd {
    // Fields drop in this order: members before their folder.
    members: Vec<Member>,
    builder: EtcdBuilder,
    security: Option<Security>,
    folder: Folder,
}

/// An etcd of several members is no other thing than one of one.
pub type EtcdCluster = Etcd;

impl Etcd {
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder {
            members: 1,
            version: Version::V3_6,
            tls: false,
            fsync: false,
            flags: Vec::new(),
            through: Vec::new(),
        }
    }

    /// One member, plain.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// So many members, plain.
    pub fn of(members: usize) -> Self {
        Self::builder().members(members).start()
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// The client URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        let urls = self.members.iter().map(Member::client_url);
        urls.map(str::to_owned).collect()
    }

    /// The client URL of the first member.
    pub fn endpoint(&self) -> &str {
        self.members[0].client_url()
    }

    /// The data directory of the first member.
    pub fn data_dir(&self) -> &Path {
        self.members[0].data_dir()
    }

    /// All members with their peer URLs, as for `--initial-cluster`.
    pub fn initial_cluster(&self) -> String {
        member::initial_cluster(&self.members)
    }

    /// The folder with its logs, certificates and data.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The authority's certificate, the client's and its key, where it speaks TLS.
    pub fn client_files(&self) -> Option<[PathBuf; 3]> {
        let files = ["ca.crt", "client.crt", "client.key"].map(|name| self.folder.join(name));
        self.security.is_some().then_some(files)
    }

    /// `--cacert`, `--cert` and `--key` of a client, each with its file; nothing where it does not speak TLS.
    pub fn client_flags(&self) -> Vec<String> {
        let flags = ["--cacert", "--cert", "--key"];
        let files = self.client_files().into_iter().flatten();
        flags
            .iter()
            .zip(files)
            .map(|(flag, file)| format!("{flag}={}", file.display()))
            .collect()
    }

    /// The authority that signs its certificates, where it speaks TLS.
    pub fn authority(&self) -> Option<&Authority> {
        self.security.as_ref().map(|security| &security.authority)
    }

    /// How to reach one member over HTTP, as a client it trusts.
    pub fn http(&self, index: usize) -> Endpoint {
        self.member(index).http().clone()
    }

    /// Waits until every member serves; fails the test where one of them ends.
    pub fn wait_until_healthy(&self) {
        self.try_wait()
            .unwrap_or_else(|log| panic!("etcd does not serve:\n{log}"));
    }

    fn try_wait(&self) -> Result<(), String> {
        self.members
            .iter()
            .try_for_each(|member| member.try_wait(READY))
    }

    /// Keys of the first member, over a connection of its own.
    pub fn keys(&self) -> Keys {
        self.member(0).keys()
    }

    /// Puts one key and returns the revision of that.
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) -> i64 {
        self.keys().put(key, value.as_ref())
    }

    /// Deletes one key and returns the revision of that, or the current one where there was no such key.
    pub fn delete(&self, key: &str) -> i64 {
        self.keys().delete(key)
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.keys().get(key).map(|found| found.value)
    }

    /// Waits until every running member has applied what any of them answered: a member may lag behind, and a snapshot or a hash does not wait.
    pub fn caught_up(&self) {
        for member in self.members.iter().filter(|member| member.is_running()) {
            // A linearizable read: the member answers when it has caught up.
            member.keys().revision();
        }
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.keys().revision()
    }

    /// Puts many keys at once; the same ones for the same `fill`.
    pub fn fill(&self, fill: &Fill) -> Filled {
        fill.run(&self.http(0))
    }

    /// etcdctl with this etcd's endpoints and certificates; fails the test unless it succeeds.
    #[track_caller]
    pub fn etcdctl(&self, arguments: &[&str]) -> Output {
        self.try_etcdctl(arguments).ok()
    }

    /// The same, whatever comes of it.
    pub fn try_etcdctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(tools::path("etcdctl"));
        command
            .env_clear()
            .arg(format!("--endpoints={}", self.endpoints().join(",")))
            .args(self.client_flags())
            .args(arguments)
            .current_dir(self.folder.path());
        Output::of(&mut command)
    }

    /// etcdutl of the same minor; fails the test unless it succeeds.
    #[track_caller]
    pub fn etcdutl(&self, arguments: &[&str]) -> Output {
        self.try_etcdutl(arguments).ok()
    }

    /// The same, whatever comes of it.
    pub fn try_etcdutl(&self, arguments: &[&str]) -> Output {
        etcdutl(self.builder.version, arguments)
    }

    /// Saves a snapshot of the first member to a file in its folder, as etcdctl does it; every write that was answered is in it.
    #[track_caller]
    pub fn save_snapshot(&self, name: &str) -> PathBuf {
        let file = self.folder.join(name);
        self.caught_up();
        let mut command = Command::new(tools::path("etcdctl"));
        command
            .env_clear()
            .arg(format!("--endpoints={}", self.endpoint()))
            .args(self.client_flags())
            .args(["snapshot", "save"])
            .arg(&file);
        Output::of(&mut command).ok();
        file
    }
}

/// etcdutl of this minor, whatever comes of it.
pub fn etcdutl(version: Version, arguments: &[&str]) -> Output {
    let mut command = Command::new(tools::path(version.etcdutl()));
    command.env_clear().args(arguments);
    Output::of(&mut command)
}
