//! `location check --from-cluster`: makes the Job, asks its pod over standard input and takes both away again, whatever comes of it. Keys of this machine go
//! through that one connection; nothing of them is written into an object.

use std::time::{Duration, Instant};

use backup_core::api::BackupStorageLocation;
use backup_core::cluster::{ApiError, Call, Cluster};
use backup_core::location::check::Step;
use backup_core::location::{kkp, store_address};
use backup_core::pod::{Event, Stand, event_of, short, stand};
use backup_core::{Error, Kind};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::pod::{self, CONTAINER, Wanted};
use super::question::{Answer, Key, LONGEST, MOST_STEPS, Question};
use super::{CheckArgs, refused};
use crate::context::{Context, variable};
use crate::install::{self, place};
use backup_cli::error::Result;
use backup_cli::locations::{self, Choice};
use backup_cli::output;

/// How often the pod is looked at.
const OFTEN: Duration = Duration::from_millis(300);

/// Pods without a first sign of life are asked for their events so often.
const SELDOM: Duration = Duration::from_secs(2);

/// How long the end of the pod is awaited.
const GOES: Duration = Duration::from_secs(30);

/// No object that is looked at here is larger.
const LARGEST: usize = 4 << 20;

/// What was seen, and from where.
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) steps: Vec<Step>,
}

/// What is asked, and where the pod is to be.
struct Asked {
    question: Question,
    namespace: String,
    account: Option<String>,
    secrets: Vec<Value>,
}

/// Checks the location from a pod; nothing where the user stopped it.
///
/// # Errors
/// A location that no pod can see; a pod that does not come; an answer that is none.
pub(super) async fn check(context: &Context, args: &CheckArgs) -> Result<Option<Seen>> {
    if args.image.trim().is_empty() || args.image.contains(char::is_whitespace) {
        return Err(refused(
            &format!("--image {:?} is no image", args.image),
            "an image is named like registry.example.com/kubectl-backup:0.1.0",
        ));
    }
    let asked = asked(context, args).await?;
    let cluster = context.cluster().await?;
    let ui = &context.ui;
    let place = locations::place(&asked.question.location);
    ui.note(&format!(
        "checking {place} from a pod in namespace {} of context {:?}",
        asked.namespace,
        cluster.context()
    ));
    remove_left(cluster, &asked.namespace).await;
    let mut stop = context.cancel("the pod goes, too");
    let name = format!("location-check-{}", random());
    let wanted = Wanted {
        name: &name,
        namespace: &asked.namespace,
        image: &args.image,
        timeout: args.timeout,
        account: asked.account.as_deref(),
        secrets: asked.secrets.clone(),
    };
    let bar = ui.progress();
    let mut run = Run {
        cluster,
        namespace: &asked.namespace,
        job: &name,
        uid: String::new(),
        until: Instant::now() + args.timeout,
        args,
    };
    // Not in the midst of this: it could come to be after it was removed.
    run.uid = run.make(&pod::job(&wanted)).await?;
    let seen = tokio::select! {
        seen = run.whole(&asked.question) => Some(seen),
        _ = stop.wait_for(|asked| *asked) => None,
    };
    let gone = run.remove().await;
    drop(bar);
    if let Err(e) = gone {
        ui.warn(&format!(
            "job/{name} of namespace {} could not be removed, and goes by itself: {}",
            asked.namespace,
            e.sentence()
        ));
    }
    let Some(seen) = seen else {
        return Ok(None);
    };
    let (node, mut steps) = seen?;
    advise(&asked.question.location, &mut steps);
    ui.note(&format!("checked from node {node}"));
    Ok(Some(Seen {
        name: asked.question.location.metadata.name,
        node,
        steps,
    }))
}

/// What to ask of which pod: an object of the cluster with its own Secrets, everything else with what this machine knows.
async fn asked(context: &Context, args: &CheckArgs) -> Result<Asked> {
    let named = args.name.as_deref().or(context.asked_location());
    let ours = args.namespace.as_str();
    let flags = context.location_args();
    match context.choose(named).await? {
        Choice::PerCluster => Err(no_folder("the folder of this machine that is used")),
        Choice::One(location) => {
            refuse_folder(&location)?;
            // Settings that nobody could open go nowhere.
            context.open(&location)?;
            let carried = place::carried(*location, flags, None, &variable)?;
            Ok(sent(carried, ours))
        }
        Choice::Object(location) if location.kind == kkp::KIND => {
            let keys = context.kkp_credentials(&location).await?;
            let none = |_: &str| None;
            let carried = place::carried(*location, flags, keys.file, &none)?;
            Ok(sent(carried, ours))
        }
        Choice::Object(location) => {
            refuse_folder(&location)?;
            mounted(context, *location).await
        }
    }
}

fn refuse_folder(location: &BackupStorageLocation) -> Result<()> {
    match location.spec.provider.trim_start_matches("velero.io/") {
        "local" => Err(no_folder(&format!("location {:?}", location.metadata.name))),
        _ => Ok(()),
    }
}

fn no_folder(what: &str) -> backup_cli::error::CommandError {
    refused(
        &format!(
            "{what} can not be checked from the cluster: it is a folder, and a pod has another one of that name at best"
        ),
        "check it from here, without --from-cluster; a controller needs a bucket",
    )
}

/// With the keys of this machine.
fn sent(carried: place::Carried, namespace: &str) -> Asked {
    let mut location = carried.location;
    location.metadata.annotations.clear();
    if carried.customer_key.is_some() {
        let setting = "this-machine/customer-key".to_owned();
        let config = &mut location.spec.config;
        config.insert("customerKeyEncryptionSecret".to_owned(), setting);
    }
    Asked {
        question: Question {
            location,
            credentials: carried.credentials.map(Key),
            customer_key: carried.customer_key.map(Key),
            origin: Some("the credentials of this machine".to_owned()),
        },
        namespace: namespace.to_owned(),
        account: None,
        secrets: Vec::new(),
    }
}

/// With the Secrets that it names in its own namespace.
async fn mounted(context: &Context, mut location: BackupStorageLocation) -> Result<Asked> {
    let namespace = location.metadata.namespace.clone().unwrap_or_default();
    if let Some(file) = location.spec.config.get("customerKeyEncryptionFile") {
        return Err(refused(
            &format!(
                "location {:?} can not be checked from another pod: config.customerKeyEncryptionFile names {file} on its server's machine",
                location.metadata.name
            ),
            "name the key's Secret with config.customerKeyEncryptionSecret",
        ));
    }
    let own = context.location_args().credentials_file.as_deref();
    let credentials = match own {
        Some(path) => Some(std::fs::read(path).map_err(|e| {
            Error::invalid(format!(
                "can not read the credentials file {}",
                path.display()
            ))
            .because(e)
        })?),
        None => None,
    };
    let secrets = pod::secrets(&location, own.is_some());
    let account = match (&location.spec.credential, own) {
        (None, None) => account(context.cluster().await?, &namespace).await?,
        _ => None,
    };
    if let Some(account) = &account {
        context.ui.note(&format!(
            "the location names no Secret: the pod is what serviceaccount/{account} is to the provider"
        ));
    }
    let origin = match (&location.spec.credential, own) {
        (_, Some(path)) => path.display().to_string(),
        (Some(named), None) => format!("the Secret {namespace}/{}", named.name),
        (None, None) => format!("the Secret {namespace}/cloud-credentials"),
    };
    location.metadata.annotations.clear();
    location.status = Value::Null;
    Ok(Asked {
        question: Question {
            location,
            credentials: credentials.map(Key),
            customer_key: None,
            origin: Some(origin),
        },
        namespace,
        account,
        secrets,
    })
}

/// The account of the server in a namespace, which may have a role with the provider.
///
/// # Errors
/// Where that can not be seen: as another account the pod would find out something else.
async fn account(cluster: &Cluster, namespace: &str) -> Result<Option<String>> {
    for name in [install::NAME, "velero"] {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}");
        match cluster.get_bounded(&path, LARGEST).await {
            Ok(_) => return Ok(Some(name.to_owned())),
            Err(e) if e.is_not_found() => {}
            Err(e) => {
                let error = Error::from(e).context(format!(
                    "can not see which account the server in namespace {namespace} has"
                ));
                return Err(error
                    .hint("the location names no Secret: that needs the right to get serviceaccounts there; --credentials-file gives the check keys of this machine")
                    .into());
            }
        }
    }
    Ok(None)
}

fn random() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{random:016x}")
}

/// Whether an answer says what a check says: a listing, and where that was good, a write. Nothing that lacks one is taken for a good location.
fn is_whole(steps: &[Step]) -> bool {
    let of = |name: &str| steps.iter().find(|step| step.name == name);
    of("list").is_some_and(|list| !list.ok || of("write").is_some())
}

/// Addresses that mean this machine mean the pod there.
fn advise(location: &BackupStorageLocation, steps: &mut [Step]) {
    let Some(address) = store_address(&location.spec) else {
        return;
    };
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let is_itself = ["127.", "localhost", "[::1]"]
        .iter()
        .any(|own| host.starts_with(own));
    let first = steps.iter_mut().find(|step| !step.ok && !step.optional);
    if let Some(step) = first.filter(|_| is_itself) {
        step.advice = Some(format!(
            "{host} is the pod itself there: name an address of the store that nodes reach"
        ));
    }
}

/// One check.
struct Run<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    job: &'a str,
    /// The Job's own, by which its pod is known.
    uid: String,
    until: Instant,
    args: &'a CheckArgs,
}

impl Run<'_> {
    /// Waits for the pod and asks it; the node, and what was seen from there.
    async fn whole(&self, question: &Question) -> Result<(String, Vec<Step>)> {
        let (pod, node) = self.started().await?;
        let answer = tokio::time::timeout_at(self.until.into(), self.ask(&pod, question)).await;
        let answer = match answer {
            Ok(Ok(Some(answer))) => answer,
            Ok(Err(e)) => return Err(e.into()),
            Ok(Ok(None)) => return Err(self.silent(&pod).await.into()),
            Err(_) => {
                return Err(Error::new(
                    Kind::Unreachable,
                    format!(
                        "the check from node {node} did not end within {}",
                        output::duration(self.args.timeout)
                    ),
                )
                .hint("what neither answers nor refuses is a firewall or a NetworkPolicy between the pod and the store, as a rule; --timeout gives it longer")
                .into());
            }
        };
        match answer {
            Answer::Steps(mut steps) => {
                steps.truncate(MOST_STEPS);
                for step in &mut steps {
                    step.detail = short(&step.detail);
                }
                if !is_whole(&steps) {
                    return Err(self.ended("its answer lacks steps of a check").into());
                }
                Ok((node, steps))
            }
            Answer::Refused(why) => {
                Err(Error::invalid(format!("on node {node}: {}", short(&why))).into())
            }
        }
    }

    fn path(&self, kind: &str) -> String {
        format!("/api/v1/namespaces/{}/{kind}", self.namespace)
    }

    fn jobs(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", self.namespace)
    }

    /// Makes the Job; its uid.
    async fn make(&self, job: &Value) -> Result<String> {
        let path = self.jobs();
        let call = Call::post(&path, job.to_string().into());
        match self.cluster.send(&call).await {
            Ok(body) => {
                let made: Value = serde_json::from_slice(&body).unwrap_or_default();
                let uid = made["metadata"]["uid"].as_str();
                Ok(uid.unwrap_or_default().to_owned())
            }
            Err(e) => {
                let hint = match (e.is_not_found(), e.is_forbidden()) {
                    (true, _) => {
                        "`install` makes the namespace; --controller-namespace names another one"
                    }
                    (_, true) => {
                        "who checks from the cluster needs the rights to create, get, list and delete jobs, to list pods and events, and to get and create pods/attach there"
                    }
                    _ => "",
                };
                let error = Error::from(e).context(format!(
                    "no pod can be made in namespace {}",
                    self.namespace
                ));
                Err(match hint {
                    "" => error,
                    hint => error.hint(hint),
                }
                .into())
            }
        }
    }

    /// Waits until the pod can be asked; its name and its node's.
    async fn started(&self) -> Result<(String, String), Error> {
        let mut told = Instant::now();
        loop {
            let pod = self.pod().await?;
            let waits = match &pod {
                None => "there is no pod yet".to_owned(),
                Some(pod) => match stand(pod, CONTAINER) {
                    Stand::Runs => {
                        let text = |pointer: &str| {
                            let text = pod.pointer(pointer).and_then(Value::as_str);
                            text.unwrap_or_default().to_owned()
                        };
                        return Ok((text("/metadata/name"), text("/spec/nodeName")));
                    }
                    Stand::Waits(why) => why,
                    Stand::Stuck(why) => return Err(self.lacking(pod, &why).await),
                    Stand::Ended(why) => return Err(self.ended(&why)),
                },
            };
            let over = Instant::now() >= self.until;
            if over || told.elapsed() >= SELDOM {
                told = Instant::now();
                let about = match &pod {
                    Some(pod) => pod["metadata"]["name"].as_str().unwrap_or_default(),
                    None => self.job,
                };
                let event = self.event(about).await;
                if over || event.as_ref().is_some_and(|event| event.is_final) {
                    return Err(self.not_come(&waits, event.map(|event| event.text)));
                }
            }
            tokio::time::sleep(OFTEN).await;
        }
    }

    async fn pod(&self) -> Result<Option<Value>, Error> {
        let path = format!(
            "{}?labelSelector=job-name%3D{}",
            self.path("pods"),
            self.job
        );
        let body = self.cluster.get_bounded(&path, LARGEST).await;
        let body = body.map_err(|e| {
            Error::from(e).context(format!("can not look for the pod of job/{}", self.job))
        })?;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(pod::own(pods, &self.uid).cloned())
    }

    async fn event(&self, name: &str) -> Option<Event> {
        event_of(self.cluster, self.namespace, name).await
    }

    async fn lacking(&self, pod: &Value, why: &str) -> Error {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let event = self.event(name).await;
        self.not_come(why, event.map(|event| event.text))
    }

    fn not_come(&self, why: &str, event: Option<String>) -> Error {
        let event = event.map_or_else(String::new, |event| format!("; last event: {event}"));
        let hint = if why.contains("image") {
            format!(
                "--image names an image that the nodes can pull; {} was asked for",
                self.args.image
            )
        } else {
            "the pod's namespace, quotas, taints and Secrets decide that; --timeout gives it longer"
                .to_owned()
        };
        Error::new(
            Kind::Unreachable,
            format!(
                "no pod checks the location in namespace {}: {why}{event}",
                self.namespace
            ),
        )
        .hint(hint)
    }

    fn ended(&self, why: &str) -> Error {
        Error::other(format!("the pod of the check gave no answer: {why}")).hint(format!(
            "the image has to be of this version ({}); {} was asked for",
            env!("CARGO_PKG_VERSION"),
            self.args.image
        ))
    }

    /// Why a pod said nothing.
    async fn silent(&self, pod: &str) -> Error {
        let until = Instant::now() + SELDOM;
        loop {
            let there = self.pod().await.ok().flatten();
            match there.as_ref().map(|pod| stand(pod, CONTAINER)) {
                Some(Stand::Ended(why)) => return self.ended(&why),
                _ if Instant::now() >= until => {
                    return self.ended(&format!("the connection to pod/{pod} broke off"));
                }
                _ => tokio::time::sleep(OFTEN).await,
            }
        }
    }

    /// Sends the question over the pod's standard input and reads the answer; nothing where it gives none.
    async fn ask(&self, pod: &str, question: &Question) -> Result<Option<Answer>, Error> {
        let failed = |e: kube::Error| {
            backup_core::cluster::told(&format!("reach pod/{pod} of namespace {}", self.namespace), e).hint(
                "who checks from the cluster needs the rights to get and create pods/attach there, and the API server has to reach the node's kubelet",
            )
        };
        let mut line = serde_json::to_string(question)
            .map_err(|e| Error::other("the question can not be written").because(e))?;
        if line.len() as u64 >= LONGEST {
            return Err(Error::invalid(
                "the location's settings and credentials are larger than 1 MiB",
            ));
        }
        line.push('\n');
        let pods: Api<Pod> = Api::namespaced(self.cluster.client().clone(), self.namespace);
        let wanted = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .stdout(true)
            .stderr(false);
        let mut attached = pods.attach(pod, &wanted).await.map_err(failed)?;
        let (Some(mut stdin), Some(stdout)) = (attached.stdin(), attached.stdout()) else {
            return Ok(None);
        };
        // One that ended meanwhile says why by its status.
        if stdin.write_all(line.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
            return Ok(None);
        }
        let mut answer = Vec::new();
        let mut stdout = BufReader::new(stdout.take(LONGEST));
        if stdout.read_until(b'\n', &mut answer).await.is_err() {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&answer).ok())
    }

    /// Removes the Job with its pod, and waits until both are gone.
    async fn remove(&self) -> Result<(), Error> {
        let path = format!("{}/{}", self.jobs(), self.job);
        match delete(self.cluster, &path).await {
            Ok(()) => {}
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(Error::from(e)),
        }
        let until = Instant::now() + GOES;
        while Instant::now() < until {
            match self.cluster.get_bounded(&path, LARGEST).await {
                Err(e) if e.is_not_found() => return Ok(()),
                _ => tokio::time::sleep(OFTEN).await,
            }
        }
        Err(Error::other(format!(
            "its pod is still there after {}",
            output::duration(GOES)
        )))
    }
}

/// The pod goes before its Job.
async fn delete(cluster: &Cluster, path: &str) -> Result<(), ApiError> {
    let options = json!({"propagationPolicy": "Foreground"});
    let call = Call::delete(path, options.to_string().into());
    cluster.send(&call).await.map(|_| ())
}

/// Removes what killed runs left; what can not be goes by itself.
async fn remove_left(cluster: &Cluster, namespace: &str) {
    let jobs = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    let selector = pod::selector().replace('/', "%2F").replace('=', "%3D");
    let path = format!("{jobs}?labelSelector={selector}&limit=100");
    let Ok(body) = cluster.get_bounded(&path, LARGEST).await else {
        return;
    };
    let list: Value = serde_json::from_slice(&body).unwrap_or_default();
    for job in list["items"].as_array().into_iter().flatten() {
        let name = job["metadata"]["name"].as_str().unwrap_or_default();
        if pod::is_left(job, jiff::Timestamp::now()) {
            let _ = delete(cluster, &format!("{jobs}/{name}")).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_the_steps_of_a_check_is_none() {
        let step = |name: &'static str, ok: bool| Step {
            name: name.into(),
            ok,
            optional: false,
            detail: String::new(),
            advice: None,
        };
        assert!(!is_whole(&[]));
        assert!(!is_whole(&[step("write", true)]));
        assert!(!is_whole(&[step("list", true), step("clock", true)]));
        assert!(is_whole(&[step("list", true), step("write", false)]));
        assert!(is_whole(&[step("list", false)]));
    }

    #[test]
    fn an_address_that_is_the_pod_itself_there_is_named() {
        let step = || Step {
            name: "list".into(),
            ok: false,
            optional: false,
            detail: "refused".to_owned(),
            advice: None,
        };
        let mut location = BackupStorageLocation::default();
        location.spec.provider = "aws".to_owned();
        for (url, is_itself) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000/x", true),
            ("https://[::1]:9000", true),
            ("https://minio.example.com", false),
        ] {
            location
                .spec
                .config
                .insert("s3Url".to_owned(), url.to_owned());
            let mut steps = [step()];
            advise(&location, &mut steps);
            assert_eq!(steps[0].advice.is_some(), is_itself, "{url}");
        }
    }
}
