//! The commands: a whole run of each with good keys, and what they say where keys, files or stores are wrong.

use std::fs;
use std::path::{Path, PathBuf};

use harness::azurite::{self, Azurite};
use harness::cluster::Cluster;
use harness::etcd::{Etcd, Fill};
use harness::gcs::Gcs;
use harness::process::Folder;
use harness::proxy::{Action, Match, Proxy};
use harness::run::{Backup, etcd_launcher, kubectl_backup};
use harness::store::Minio;
use harness::tools;

use super::Witness;

/// All that may be done to any bucket.
const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}"#;
/// How every token of the harness' Entra begins.
const ENTRA: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.";

/// A user with a home, whose cluster is signed in to by a program that looks around: what it was given, and what it sees of its parents.
struct User {
    cluster: &'static Cluster,
    namespace: String,
    home: Folder,
    /// Where credentials lie; nobody else's.
    keys: Folder,
    kubeconfig: PathBuf,
    /// What the program saw.
    seen: PathBuf,
    witness: Witness,
}

impl User {
    fn new(prefix: &str) -> Self {
        let cluster = Cluster::shared();
        let namespace = cluster.create_namespace(prefix);
        cluster.kubectl(&[
            "create",
            "configmap",
            "kept",
            "-n",
            &namespace,
            "--from-literal=a=b",
        ]);
        let keys = Folder::new("keys");
        let seen = keys.join("seen");
        let answer = format!(
            r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"{}"}}}}"#,
            cluster.token()
        );
        // Its parent is the program, or what the program becomes to wait for it.
        let script = format!(
            "#!/bin/sh\n{{ env; above=$(cut -d' ' -f4 /proc/$PPID/stat); for pid in $$ $PPID $above; do tr '\\0' '\\n' < /proc/$pid/cmdline; done; \
             tr '\\0' '\\n' < /proc/$PPID/environ; }} >> {} 2>&1\necho '{answer}'\n",
            seen.display()
        );
        let script = keys.write("sign-in.sh", script);
        let ca = keys.write("ca.pem", cluster.ca_pem());
        let kubeconfig = keys.write(
            "kubeconfig",
            format!(
                "apiVersion: v1\nkind: Config\nclusters: [{{name: t, cluster: {{server: \"{}\", certificate-authority: {}}}}}]\n\
                 users: [{{name: t, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [{}], interactiveMode: Never}}}}}}]\n\
                 contexts: [{{name: t, context: {{cluster: t, user: t}}}}]\ncurrent-context: t\n",
                cluster.api_url(),
                ca.display(),
                script.display()
            ),
        );
        let mut witness = Witness::default();
        witness.keeps("the cluster's token", cluster.token());
        Self {
            cluster,
            namespace,
            home: Folder::new("home"),
            keys,
            kubeconfig,
            seen,
            witness,
        }
    }

    /// A call that tells as much as it can.
    fn call(&self, arguments: &[&str]) -> Backup {
        kubectl_backup(arguments)
            .arg("--v=9")
            .home(self.home.path())
            .kubeconfig(&self.kubeconfig)
    }

    #[track_caller]
    fn run(&mut self, arguments: &[&str], codes: &[i32]) -> String {
        let call = self.call(arguments);
        self.witness.run(call, codes).stdout
    }

    /// Remembers a location of these settings.
    fn location(&mut self, name: &str, file: &Path, settings: &[String]) {
        let file = file.display().to_string();
        let mut words = vec!["location", "create", name, "--prefix", name];
        words.extend(["--credentials-file", &file]);
        words.extend(settings.iter().map(String::as_str));
        self.run(&words, &[0]);
    }

    /// Everything that can be done with a location that works.
    fn lives(&mut self, location: &str, file: &Path, settings: &[String]) {
        self.location(location, file, settings);
        let namespace = self.namespace.clone();
        let (copy, restored) = (format!("{namespace}-{location}"), format!("{location}-r"));
        let mapping = format!("{namespace}:{copy}");
        let bundle = format!("{location}.bundle.json");
        let at = |words: &[&str]| -> Vec<String> {
            let words = [words, &["--location", location]].concat();
            words.iter().map(|word| (*word).to_owned()).collect()
        };
        let ok = [
            at(&["location", "check"]),
            at(&["location", "check", "-o", "json"]),
            at(&["create", "b", "-n", &namespace]),
            at(&["create", "c", "-n", &namespace, "-o", "json"]),
            at(&["describe", "b", "--details"]),
            at(&["logs", "b"]),
            at(&["contents", "b"]),
            at(&["contents", "b", "configmaps", "-o", "json"]),
            at(&["verify", "b"]),
            at(&["verify", "b", "-o", "json"]),
            at(&["diff", "b"]),
            at(&["download", "b", "--output", &format!("{location}.tar.gz")]),
            at(&[
                "restore",
                "create",
                &restored,
                "--from-backup",
                "b",
                "--namespace-mappings",
                &mapping,
            ]),
            at(&["restore", "describe", &restored, "--details"]),
            at(&["restore", "logs", &restored]),
            at(&["doctor"]),
            at(&["doctor", "-o", "json"]),
            at(&["doctor", "--bundle", &bundle]),
            at(&["prune", "--dry-run"]),
            at(&["delete", "c", "--dry-run"]),
            at(&["delete", "c", "--yes"]),
            at(&["etcd", "get"]),
        ];
        for words in &ok {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.run(&words, &[0]);
        }
        for format in ["json", "yaml", "wide", "name"] {
            for words in [
                at(&["get", "-o", format]),
                at(&["get", "b", "-o", format]),
                at(&["restore", "get", "-o", format]),
                at(&["restore", "get", &restored, "-o", format]),
                at(&["location", "get", "-o", format]),
                at(&["location", "get", location, "-o", format]),
            ] {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let told = self.run(&words, &[0]);
                assert!(!told.is_empty(), "{words:?}");
            }
        }
        for format in ["json", "yaml"] {
            for words in [
                at(&["describe", "b", "-o", format]),
                at(&["restore", "describe", &restored, "-o", format]),
                at(&["version", "-o", format]),
            ] {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.run(&words, &[0]);
            }
            // There is no controller here, and nothing of Velero's: what is said of that is heard.
            for words in [
                &["status", "-o", format][..],
                &["schedule", "get", "-o", format],
            ] {
                self.run(words, &[]);
            }
        }
        let bundle = fs::read(self.home.join(&bundle)).unwrap();
        assert!(bundle.len() > 100);
        self.run(&["location", "set", location, "--default"], &[0]);
    }

    /// What is said where the keys, or the file with them, are wrong.
    fn is_wrong(&mut self, location: &str, file: &Path) {
        let file = file.display().to_string();
        let namespace = self.namespace.clone();
        let bundle = format!("wrong-{}.json", self.witness.said.len());
        for words in [
            &["location", "check"][..],
            &["get"],
            &["create", "wrong", "-n", &namespace],
            &["verify", "b"],
            &["restore", "create", "--from-backup", "b"],
        ] {
            let words = [
                words,
                &["--location", location, "--credentials-file", &file],
            ]
            .concat();
            let told = self.run(&words, &[1, 2]);
            assert!(told.len() < 100_000);
        }
        let words = ["doctor", "--bundle", &bundle, "--location", location];
        let words = [&words[..], &["--credentials-file", &file]].concat();
        self.run(&words, &[1, 2]);
    }

    /// What is said where nobody answers, and where who answers hangs up.
    fn is_away(&mut self, name: &str, file: &Path, settings: &[String]) {
        self.location(name, file, settings);
        let namespace = self.namespace.clone();
        for words in [
            &["location", "check"][..],
            &["create", "away", "-n", &namespace],
        ] {
            let words = [words, &["--location", name]].concat();
            self.run(&words, &[1]);
        }
    }

    /// The same where a store breaks off whatever it is asked, each time elsewhere.
    fn breaks_off(&mut self, name: &str, proxy: &Proxy, file: &Path, settings: &[String]) {
        self.location(name, file, settings);
        let broken = "<html>Internal Server Error</html>";
        for (when, what) in [
            (Match::any(), Action::Cut),
            (Match::any(), Action::status(400, broken)),
            (Match::method("PUT"), Action::Interrupt(403, broken.into())),
            (Match::method("GET"), Action::CutBody(10)),
        ] {
            proxy.every(when, what);
            self.run(&["location", "check", "--location", name], &[1]);
            proxy.clear_rules();
        }
    }

    /// Looks through everything at the end: what was said, what the program that signs in saw, and what lies in the home.
    fn ends(mut self, objects: Vec<(String, Vec<u8>)>) {
        assert!(objects.len() > 8, "{}", objects.len());
        for (key, content) in objects {
            self.witness.hears(format!("the object {key}"), content);
        }
        let seen = fs::read(&self.seen).unwrap();
        let text = String::from_utf8_lossy(&seen);
        for word in ["KUBECONFIG=", "--location", "kubectl-backup"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        self.witness
            .hears("an argument, or the environment of a child", seen);
        self.witness.reads(self.home.path());
        let events = self.cluster.kubectl(&[
            "get",
            "events,configmaps",
            "-n",
            &self.namespace,
            "-o",
            "json",
        ]);
        self.witness.hears("the namespace", events.stdout);
        self.witness.was_told_nothing();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The settings with a store's address, which stands for `{}`.
fn settings(provider: &str, bucket: &str, config: &str, address: &str) -> Vec<String> {
    let config = config.replace("{}", address);
    words(&[
        "--provider",
        provider,
        "--bucket",
        bucket,
        "--config",
        &config,
    ])
}

const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn no_command_tells_a_secret_of_amazons() {
    let minio = Minio::shared();
    let bucket = minio.bucket("secrets-aws");
    let mut user = User::new("secrets-aws");
    let keys = minio.limited_user(ALL);
    for (what, secret) in [
        ("the access key", &keys.access_key),
        ("the secret key", &keys.secret_key),
        ("the session token", &keys.session_token),
    ] {
        user.witness.keeps(what, secret);
    }
    let file = user
        .keys
        .write("aws", fs::read(&keys.credentials_file).unwrap());
    let at = |address: &str| settings("aws", bucket, "s3Url={},region=us-east-1", address);
    user.lives("good", &file, &at(minio.endpoint()));

    let text = fs::read_to_string(&file).unwrap();
    let wrong = "wR0ng+s3cr3t/k3y";
    user.witness.keeps("a wrong secret key", wrong);
    for (name, text) in [
        ("another-secret", text.replace(&keys.secret_key, wrong)),
        (
            "another-token",
            text.replace(&keys.session_token, "bm90LWEtdG9rZW4="),
        ),
        ("another-key", text.replace(&keys.access_key, "NOBODY")),
        ("no-equals", text.replace('=', " ")),
        ("no-profile", text.replace("[default]\n", "")),
        (
            "half",
            format!("{}\n[", text.replace("aws_access_key_id", "aws_key")),
        ),
        ("json", format!("{{\"key\": \"{}\"}}", keys.secret_key)),
    ] {
        let file = user.keys.write(name, text);
        user.is_wrong("good", &file);
    }
    user.is_away("away", &file, &at(NOWHERE));
    let proxy = Proxy::start(minio.upstream());
    user.breaks_off("broken", &proxy, &file, &at(&proxy.url()));
    // Keys have no place in a URL, which is not repeated.
    for url in [
        format!("s3://{}:{wrong}@{bucket}/p", keys.access_key),
        format!(
            "s3://{bucket}/p?endpoint=http://{}:{wrong}@127.0.0.1:1",
            keys.access_key
        ),
    ] {
        let call = kubectl_backup(&["get", "--location", &url]).home(user.home.path());
        user.witness.run(call, &[2]);
    }

    // The other program: what it starts gets nothing of its variables.
    let etcd = Etcd::start();
    etcd.fill(&Fill::of(1 << 20));
    let real = tools::path("etcdutl");
    let script = format!(
        "#!/bin/sh\n{{ env; tr '\\0' '\\n' < /proc/$$/cmdline; }} >> {} 2>&1\nexec {} \"$@\"\n",
        user.seen.display(),
        real.display()
    );
    let script = user.keys.write("etcdutl", script);
    let location = format!("s3://{bucket}/etcd?endpoint={}", minio.endpoint());
    let with_keys = |call: Backup| {
        call.env("KUBECTL_BACKUP_LOCATION", &location)
            .env("AWS_ACCESS_KEY_ID", &keys.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_key)
            .env("AWS_SESSION_TOKEN", &keys.session_token)
            .env("AWS_REGION", "us-east-1")
    };
    let launcher = |arguments: &[&str]| with_keys(etcd_launcher(arguments));
    let take = launcher(&["snapshot", "--cluster=c", "--name=s", "-o=json"])
        .args(&etcd.client_flags())
        .env("ETCDCTL_ENDPOINTS", etcd.endpoint());
    user.witness.run(take, &[0]);
    for words in [
        &["etcd", "get", "-o", "json"][..],
        &["etcd", "describe", "s", "-o", "yaml"],
        &["etcd", "verify", "s", "-o", "json"],
    ] {
        let call = with_keys(kubectl_backup(words).home(user.home.path()));
        user.witness.run(call, &[0]);
    }
    let folder = Folder::new("member");
    harness::process::Output::of(std::process::Command::new("chmod").arg("700").arg(&script)).ok();
    let restore = |name: &str| {
        launcher(&[
            "restore",
            "s",
            "--cluster=c",
            "--yes",
            "--name=n",
            "--data-dir",
        ])
        .arg(folder.join(name))
        .args(&["--initial-cluster=n=http://127.0.0.1:2380", "--etcdutl"])
        .arg(&script)
    };
    user.witness.run(restore("data"), &[0]);
    let seen = fs::read_to_string(&user.seen).unwrap();
    assert!(seen.contains("snapshot\nrestore\n"), "{seen}");
    let refused = restore("none").env("AWS_SECRET_ACCESS_KEY", wrong);
    user.witness.run(refused, &[1]);

    let read = |key: String| {
        let content = minio.get(bucket, &key).to_vec();
        (key, content)
    };
    let objects = minio.list(bucket, "").into_iter().map(read).collect();
    user.ends(objects);
}

#[test]
fn no_command_tells_a_secret_of_googles() {
    // A store of its own: each token that it is shown is a secret, too.
    let gcs = Gcs::start();
    let bucket = gcs.bucket("secrets-gcp");
    let mut user = User::new("secrets-gcp");
    let at = |address: &str| settings("gcp", bucket, "storeEndpoint={}", address);
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let private = |text: &str| -> String {
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        let pem = file["private_key"].as_str().unwrap();
        pem.lines().nth(1).unwrap().to_owned()
    };
    let text = read(&gcs.credentials_file());
    let body = private(&text);
    user.witness.keeps("the private key", &body);
    let file = user.keys.write("key.json", &text);
    user.lives("good", &file, &at(&gcs.endpoint()));
    let person = read(&gcs.user_file(gcs.refresh_token()));
    user.witness.keeps("the refresh token", gcs.refresh_token());
    let known: serde_json::Value = serde_json::from_str(&person).unwrap();
    let secret = known["client_secret"].as_str().unwrap();
    user.witness.keeps("the client's secret", secret);
    let of_person = user.keys.write("person.json", &person);
    user.lives("person", &of_person, &at(&gcs.endpoint()));

    let foreign = read(&gcs.foreign_credentials_file());
    user.witness
        .keeps("a foreign private key", &private(&foreign));
    let revoked = "1//rev0ked-refresh-token";
    user.witness.keeps("a revoked token", revoked);
    let middle = &body[40..];
    for (name, text) in [
        ("foreign", foreign),
        ("revoked", person.replace(gcs.refresh_token(), revoked)),
        (
            "cut-off",
            text[..text.find(middle).unwrap() + 900].to_owned(),
        ),
        (
            "no-string",
            format!(
                r#"{{"type": "service_account", "client_email": "a@b", "private_key": ["{body}"]}}"#
            ),
        ),
        (
            "no-key",
            text.replace("-----BEGIN PRIVATE KEY-----", "-----BEGIN-----"),
        ),
        ("half-a-key", text.replace(&middle[..100], "")),
        ("unknown-type", format!(r#"{{"type": "{body}"}}"#)),
        ("no-json", format!("private_key={body}\n")),
    ] {
        let file = user.keys.write(name, text);
        user.is_wrong("good", &file);
    }
    user.witness
        .keeps("the rest of the private key", &middle[100..]);
    user.is_away("away", &file, &at(NOWHERE));
    let proxy = Proxy::start(&gcs.upstream());
    user.breaks_off("broken", &proxy, &file, &at(&proxy.url()));

    let tokens = gcs.bearers();
    assert!(tokens.len() > 2);
    for token in &tokens {
        user.witness.keeps("a token", token);
    }
    let read = |key: String| {
        let content = gcs.get(bucket, &key).to_vec();
        (key, content)
    };
    let objects = gcs.list(bucket, "").into_iter().map(read).collect();
    user.ends(objects);
}

#[test]
fn no_command_tells_a_secret_of_azures() {
    let Some(azurite) = Azurite::start() else {
        harness::skip!("Azurite needs Node.js");
    };
    let container = azurite.container("secrets-azure");
    let mut user = User::new("secrets-azure");
    let ca = azurite.ca_file().display().to_string();
    let at = |address: &str, more: &str| {
        let config = format!(
            "storageAccount={},storageAccountURI={{}}{more}",
            azurite.account()
        );
        let mut all = settings("azure", container, &config, address);
        all.extend(words(&["--cacert", &ca]));
        all
    };
    let account = azurite.account();
    let sas = azurite.sas(container, "racwdl", 3600);
    let (_, signature) = sas.split_once("&sig=").unwrap();
    let signature = signature
        .replace("%2B", "+")
        .replace("%2F", "/")
        .replace("%3D", "=");
    for (what, secret) in [
        ("the access key", azurite.key()),
        ("the SAS", signature.as_str()),
        ("the client secret", azurite::CLIENT_SECRET),
        ("a token of Entra's", ENTRA),
    ] {
        user.witness.keeps(what, secret);
    }
    let of_key = format!("AZURE_STORAGE_ACCOUNT_ACCESS_KEY={}\n", azurite.key());
    let of_sas = format!("AZURE_STORAGE_SAS_TOKEN={sas}\n");
    let identity = |secret: &str| {
        let (tenant, client) = (azurite::TENANT, azurite::CLIENT);
        format!(
            "AZURE_TENANT_ID={tenant}\nAZURE_CLIENT_ID={client}\nAZURE_CLIENT_SECRET={secret}\n"
        )
    };
    let key = user.keys.write("key", &of_key);
    let shared = user.keys.write("sas", &of_sas);
    let secret = user.keys.write("secret", identity(azurite::CLIENT_SECRET));
    let endpoint = azurite.endpoint();
    let authority = format!(",activeDirectoryAuthorityURI={}", azurite.authority());
    user.lives("key", &key, &at(&endpoint, ""));
    user.lives("sas", &shared, &at(&endpoint, ""));
    user.lives("secret", &secret, &at(&endpoint, &authority));

    let wrong = "wr0ng~client~secret";
    user.witness.keeps("a wrong client secret", wrong);
    user.witness
        .keeps("a wrong access key", "d3Jvbmcgd3Jvbmcgd3Jvbmc=");
    let late = azurite.sas(container, "racwdl", -300);
    let (_, of_late) = late.split_once("&sig=").unwrap();
    user.witness.keeps(
        "a late SAS",
        &of_late
            .replace("%2B", "+")
            .replace("%2F", "/")
            .replace("%3D", "="),
    );
    for (name, text) in [
        (
            "another-key",
            "AZURE_STORAGE_ACCOUNT_ACCESS_KEY=d3Jvbmcgd3Jvbmcgd3Jvbmc=\n".to_owned(),
        ),
        ("another-secret", identity(wrong)),
        ("late-sas", format!("AZURE_STORAGE_SAS_TOKEN={late}\n")),
        ("altered-sas", of_sas.replace("sp=racwdl", "sp=racwdlx")),
        ("no-sas", of_sas.replace("sig=", "signature=")),
        ("no-equals", of_key.replacen('=', " ", 1)),
        ("no-base64", of_key.replacen('=', "=!", 1)),
        (
            "half-an-identity",
            identity(azurite::CLIENT_SECRET).replace("AZURE_TENANT_ID", "TENANT"),
        ),
        (
            "another-tenant",
            identity(azurite::CLIENT_SECRET).replace(azurite::TENANT, "elsewhere"),
        ),
        ("json", format!("{{\"key\": \"{}\"}}", azurite.key())),
    ] {
        let file = user.keys.write(name, text);
        user.is_wrong("secret", &file);
    }
    let nowhere = format!("https://127.0.0.1:1/{account}");
    for (name, file, more) in [
        ("key-away", &key, ""),
        ("sas-away", &shared, ""),
        ("secret-away", &secret, authority.as_str()),
        (
            "nobody-signs-in",
            &secret,
            ",activeDirectoryAuthorityURI=https://127.0.0.1:1",
        ),
    ] {
        user.is_away(name, file, &at(&nowhere, more));
    }
    let proxy = azurite.proxy();
    let through = format!("{}/{account}", proxy.url());
    user.breaks_off("sas-broken", &proxy, &shared, &at(&through, ""));
    user.breaks_off("secret-broken", &proxy, &secret, &at(&through, &authority));

    let read = |key: String| {
        let content = azurite.get(container, &key).to_vec();
        (key, content)
    };
    let objects = azurite.list(container, "").into_iter().map(read).collect();
    user.ends(objects);
}
