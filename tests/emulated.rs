//! A bucket of Google's and a container of Azure's as stories meet them: how it is named and signed in to, what its requests look like on the wire, and
//! what is in it, read without the programs. The stores are the harness', with what they lack of the real ones.

use std::path::PathBuf;

use bytes::Bytes;
use harness::azurite::Azurite;
use harness::gcs::Gcs;
use harness::proxy::{Action, Match, Proxy};
use harness::run::Backup;

/// One of them.
pub(crate) struct Bucket {
    store: Store,
    pub(crate) name: &'static str,
}

enum Store {
    Google(&'static Gcs),
    Azure(&'static Azurite),
}

impl Bucket {
    /// A bucket of this name at each provider whose store can run here.
    pub(crate) fn of_each(name: &'static str) -> Vec<Self> {
        let google = Gcs::shared();
        google.bucket(name);
        let mut all = vec![Self {
            store: Store::Google(google),
            name,
        }];
        match Azurite::shared() {
            Some(azure) => {
                azure.container(name);
                all.push(Self {
                    store: Store::Azure(azure),
                    name,
                });
            }
            None => harness::skip::report("Azurite needs Node.js; without Azure"),
        }
        all
    }

    pub(crate) fn provider(&self) -> &'static str {
        match self.store {
            Store::Google(_) => "Google",
            Store::Azure(_) => "Azure",
        }
    }

    /// The URL of a folder or an object in it.
    pub(crate) fn url(&self, path: &str) -> String {
        match self.store {
            Store::Google(google) => self.url_at(&google.endpoint(), path),
            Store::Azure(azure) => self.url_at(&azure.upstream().url, path),
        }
    }

    /// The same by way of a proxy.
    pub(crate) fn url_at(&self, server: &str, path: &str) -> String {
        let name = self.name;
        match self.store {
            Store::Google(_) => format!("gs://{name}/{path}?endpoint={server}"),
            Store::Azure(azure) => {
                let account = azure.account();
                format!("az://{name}/{path}?storage-account={account}&endpoint={server}/{account}")
            }
        }
    }

    /// A proxy in front of the store.
    pub(crate) fn proxy(&self) -> Proxy {
        match self.store {
            Store::Google(google) => Proxy::start(&google.upstream()),
            Store::Azure(azure) => azure.proxy(),
        }
    }

    /// A call with the keys of the store, and the authority that it is trusted by.
    pub(crate) fn signed_in(&self, call: Backup) -> Backup {
        let (file, ca): (_, Option<PathBuf>) = match self.store {
            Store::Google(google) => (google.credentials_file(), None),
            Store::Azure(azure) => (azure.credentials_file(), Some(azure.ca_file().to_owned())),
        };
        let call = call.env("KUBECTL_BACKUP_CREDENTIALS_FILE", file);
        match ca {
            Some(ca) => call.env("KUBECTL_BACKUP_CACERT", ca),
            None => call,
        }
    }

    /// Every key under a prefix, sorted.
    pub(crate) fn list(&self, prefix: &str) -> Vec<String> {
        match self.store {
            Store::Google(google) => google.list(self.name, prefix),
            Store::Azure(azure) => azure.list(self.name, prefix),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Bytes {
        match self.store {
            Store::Google(google) => google.get(self.name, key),
            Store::Azure(azure) => azure.get(self.name, key),
        }
    }

    /// Fails the test where a folder has anything, parts of uploads among it. Azure shows no parts and takes none back: they go by themselves.
    #[track_caller]
    pub(crate) fn assert_is_empty(&self, folder: &str) {
        assert_eq!(self.list(folder), Vec::<String>::new());
        if let Store::Google(google) = self.store {
            let mut left = google.uploads(self.name);
            left.retain(|key| key.starts_with(folder));
            assert_eq!(left, Vec::<String>::new());
        }
    }

    /// Requests about a key that contains this: on the wire Google's have their dots and dashes encoded.
    pub(crate) fn about(&self, method: &'static str, key: &'static str) -> Match {
        let about = Match::when(move |parts| {
            let path = parts.path().replace("%2E", ".").replace("%2D", "-");
            path.contains(key)
        });
        about.and_method(method)
    }

    /// A part of an upload.
    pub(crate) fn part(&self) -> Match {
        Match::method("PUT").and_path(match self.store {
            Store::Google(_) => "partNumber=",
            Store::Azure(_) => "blockid=",
        })
    }

    /// What makes an object of the parts.
    pub(crate) fn complete(&self) -> Match {
        match self.store {
            Store::Google(_) => Match::method("POST").and_path("uploadId="),
            Store::Azure(_) => Match::method("PUT").and_path("comp=blocklist"),
        }
    }

    /// A listing.
    pub(crate) fn listing(&self) -> Match {
        Match::method("GET").and_path(match self.store {
            Store::Google(_) => "list-type=2",
            Store::Azure(_) => "comp=list",
        })
    }

    /// The store has too much to do.
    pub(crate) fn is_busy(&self) -> Action {
        match self.store {
            Store::Google(_) => answer(503, "ServiceUnavailable"),
            Store::Azure(_) => answer(503, "ServerBusy"),
        }
    }

    /// Too much is asked of it by this caller.
    pub(crate) fn throttles(&self) -> Action {
        let (status, code) = match self.store {
            Store::Google(_) => (429, "SlowDown"),
            Store::Azure(_) => (503, "OperationTimedOut"),
        };
        let headers = vec![("retry-after".to_owned(), "1".to_owned())];
        Action::Status(status, headers, error(code))
    }

    /// The rights were taken away.
    pub(crate) fn refuses(&self) -> Action {
        answer(403, self.refusal())
    }

    /// Its code for that.
    pub(crate) fn refusal(&self) -> &'static str {
        match self.store {
            Store::Google(_) => "AccessDenied",
            Store::Azure(_) => "AuthorizationPermissionMismatch",
        }
    }
}

fn error(code: &str) -> Bytes {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No.</Message></Error>")
        .into()
}

fn answer(status: u16, code: &str) -> Action {
    Action::status(status, error(code))
}
