//! The programs of a mover over the streams of an exec: blocking on this side, for what reads a volume waits; ended by whoever stops the run, by the end of the pod, and where
//! nothing comes any more.

mod archive;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::run::{Mover, Spot, lock};
use super::spec::{MOUNT, PROGRAM};
use crate::cluster::{ApiError, Cluster};
use crate::error::{Error, Result};
use crate::pod::exit_status;
use crate::volume::source::Source;
use crate::volume::wire::{Asking, WireSource};

/// Bytes are handed on in pieces of this size at most.
const PIECE: usize = 64 << 10;

/// Pieces that wait to be read, and to be sent. What is asked for is small, and whoever asks must not wait for what comes.
const COMING: usize = 32;
const GOING: usize = 1024;

/// So much is buffered below.
const BUFFER: usize = 1 << 20;

/// So much of what a program says on standard error is kept.
const KEPT: usize = 4 << 10;

/// Where so long nothing comes that is owed, nothing will: a storage that hangs.
const STALL: Duration = Duration::from_secs(600);

/// How often that is seen.
const LOOKS: Duration = Duration::from_secs(5);

/// How long a server takes to begin a program.
const BEGINS: Duration = Duration::from_secs(60);

/// What it could not read a mover has told in its frames; then it ends with this.
const INCOMPLETE: i64 = 3;

/// Whoever copies has failed already, and says why.
const UNREAD: &str = "nobody reads what it sends";

/// Whether anything is owed by the other side.
pub(super) type Owes = Arc<OnceLock<Box<dyn Fn() -> bool + Send + Sync>>>;

/// Whether what is to go into a program waits for it; and once all of it went, the program owes its end.
pub(super) fn waits_in(to: &mpsc::Sender<Bytes>) -> Box<dyn Fn() -> bool + Send + Sync> {
    let to = to.downgrade();
    Box::new(move || {
        to.upgrade()
            .is_none_or(|to| to.capacity() < to.max_capacity())
    })
}

/// A program that was started.
pub(crate) struct Program {
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// How it ended.
    pub(crate) ended: oneshot::Receiver<Result<(), String>>,
}

/// Its standard input.
pub(crate) struct Input {
    to: mpsc::Sender<Bytes>,
    held: Vec<u8>,
}

impl Input {
    fn hand_on(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held).into();
        let sent = self.to.blocking_send(held);
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the mover has ended"))
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.hand_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()
    }
}

/// Its standard output.
pub(crate) struct Output {
    from: mpsc::Receiver<Bytes>,
    held: Bytes,
    /// Why it broke off, once it did.
    broke: Arc<Mutex<Option<String>>>,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() {
            match self.from.blocking_recv() {
                Some(bytes) => self.held = bytes,
                None => {
                    return match lock(&self.broke).clone() {
                        Some(why) => Err(io::Error::other(why)),
                        None => Ok(0),
                    };
                }
            }
        }
        let most = buffer.len().min(self.held.len());
        buffer[..most].copy_from_slice(&self.held.split_to(most));
        Ok(most)
    }
}

/// When a byte went or came last, and whether this side is what is waited for.
struct Activity {
    began: Instant,
    last: AtomicU64,
    /// Nobody here takes what comes.
    waits_for_us: AtomicBool,
    /// Bytes that came.
    came: Arc<AtomicU64>,
}

impl Activity {
    fn new(came: Arc<AtomicU64>) -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            waits_for_us: AtomicBool::new(false),
            came,
        }
    }

    fn note(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn silent(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }

    /// Ends when nothing has come for too long that was owed.
    async fn stalls(&self, owes: impl Fn() -> bool, stall: Duration, looks: Duration) -> String {
        loop {
            tokio::time::sleep(looks).await;
            if self.waits_for_us.load(Ordering::Relaxed) || !owes() {
                self.note();
            }
            if self.silent() >= stall {
                return format!(
                    "nothing came from it for {} minutes: the storage, the node or the connection hangs",
                    stall.as_secs() / 60
                );
            }
        }
    }
}

/// The streams of a program, on the way between threads and the connection.
struct Pump {
    to_program: mpsc::Receiver<Bytes>,
    from_program: mpsc::Sender<Bytes>,
    activity: Activity,
    /// Whether the end of the run cuts it off; else who speaks to it ends it.
    is_cut: bool,
}

impl Pump {
    /// Carries bytes until the program has ended; how it did comes over `status`.
    async fn carry(
        &mut self,
        stdin: Option<impl AsyncWrite + Unpin>,
        stdout: impl AsyncRead + Unpin,
        stderr: impl AsyncRead + Unpin,
        status: impl Future<Output = Option<Status>>,
        owes: &Owes,
    ) -> Result<(), String> {
        let Self {
            to_program,
            from_program,
            activity,
            is_cut: _,
        } = self;
        let is_asked_all = AtomicBool::new(stdin.is_none());
        let owed = || {
            // Who is asked nothing more has to end.
            is_asked_all.load(Ordering::Relaxed) || owes.get().is_some_and(|owes| owes())
        };
        let going = async {
            let Some(mut stdin) = stdin else {
                return std::future::pending::<String>().await;
            };
            while let Some(bytes) = to_program.recv().await {
                let sent = async {
                    stdin.write_all(&bytes).await?;
                    stdin.flush().await
                };
                if let Err(e) = sent.await {
                    return format!("the connection to it broke off: {e}");
                }
                activity.note();
            }
            is_asked_all.store(true, Ordering::Relaxed);
            activity.note();
            // Held open: where closing one direction is not known, the whole connection would go.
            let _held = stdin;
            std::future::pending().await
        };
        let coming = read_on(stdout, from_program, activity);
        let ending = async { futures::join!(coming, keep(stderr)) };
        tokio::pin!(going, ending, status);
        let stalled = activity.stalls(owed, STALL, LOOKS);
        tokio::pin!(stalled);
        let mut over = None;
        let status = loop {
            tokio::select! {
                status = &mut status => break status,
                why = &mut going => return Err(why),
                why = &mut stalled => return Err(why),
                ended = &mut ending, if over.is_none() => {
                    if !ended.0 {
                        return Err(UNREAD.to_owned());
                    }
                    over = Some(ended);
                }
            }
        };
        // Of a connection that broke off the streams have no end.
        let status = status.ok_or("the connection to it broke off")?;
        let (is_read, said) = match over {
            Some(over) => over,
            None => ending.await,
        };
        if !is_read {
            return Err(UNREAD.to_owned());
        }
        match exit_status(&status) {
            Some(0 | INCOMPLETE) => Ok(()),
            Some(code) => Err(with_words(&format!("exit status {code}"), &said)),
            None => {
                let message = status.message.as_deref().unwrap_or("no reason is told");
                Err(with_words(&crate::pod::short(message), &said))
            }
        }
    }
}

/// A reason, and the beginning of what the program said.
fn with_words(why: &str, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said: String = said
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match said.trim() {
        "" => why.to_owned(),
        said => format!("{why}: {said}"),
    }
}

/// Hands on what comes, to its end; false where nobody takes it.
async fn read_on(
    mut stdout: impl AsyncRead + Unpin,
    to: &mpsc::Sender<Bytes>,
    activity: &Activity,
) -> bool {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = stdout.read(&mut piece).await {
        activity.note();
        activity.came.fetch_add(length as u64, Ordering::Relaxed);
        activity.waits_for_us.store(true, Ordering::Relaxed);
        let bytes = Bytes::copy_from_slice(&piece[..length]);
        if to.send(bytes).await.is_err() {
            return false;
        }
        activity.waits_for_us.store(false, Ordering::Relaxed);
        activity.note();
    }
    true
}

/// Reads to the end and keeps the beginning.
async fn keep(mut stderr: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut said = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        let room = KEPT.saturating_sub(said.len()).min(length);
        said.extend_from_slice(&piece[..room]);
    }
    said
}

/// Carries the streams of a program until it ended, the pod did, or everything is to stop.
async fn attend(
    mut process: AttachedProcess,
    mut pump: Pump,
    with_input: bool,
    owes: Owes,
    mut over: watch::Receiver<Option<String>>,
    mut stop: watch::Receiver<bool>,
    why: impl Future<Output = Option<String>>,
) -> Result<(), String> {
    let streams = (process.stdout(), process.stderr(), process.take_status());
    let (Some(stdout), Some(stderr), Some(status)) = streams else {
        return Err("the connection to it has no streams".to_owned());
    };
    let stdin = if with_input { process.stdin() } else { None };
    let is_cut = pump.is_cut;
    let carried = tokio::select! {
        carried = pump.carry(stdin, stdout, stderr, status, &owes) => carried,
        over = over.wait_for(Option::is_some) => {
            let over = over.ok().and_then(|over| over.clone());
            return Err(over.unwrap_or_else(|| "its pod is not looked at any more".to_owned()));
        }
        _ = stop.wait_for(|stop| *stop), if is_cut => return Err("the backup was stopped".to_owned()),
    };
    match carried {
        Ok(()) => Ok(()),
        // The pod's end is told later than the connection's.
        Err(said) => tokio::select! {
            why = why => Err(why.map_or(said.clone(), |why| format!("{why} ({said})"))),
            _ = stop.wait_for(|stop| *stop) => Err("the backup was stopped".to_owned()),
        },
    }
}

/// Says a word to the container's first program: that its run lives, or that it is to end.
pub(super) async fn say(cluster: &Cluster, spot: &Spot, word: &str) -> kube::Result<()> {
    let pods: Api<core::Pod> = Api::namespaced(cluster.client().clone(), &spot.namespace);
    let params = AttachParams::default()
        .container(&spot.container)
        .stdout(true)
        .stderr(false);
    let mut process = pods
        .exec(&spot.pod, [PROGRAM, "mover", word], &params)
        .await?;
    if let Some(status) = process.take_status() {
        status.await;
    }
    Ok(())
}

impl Mover {
    /// The volume as it is read: listed and sent by two programs of the pod. What comes is counted in `came`.
    ///
    /// # Errors
    /// Programs that can not be started.
    pub(crate) async fn source(&self, came: &Arc<AtomicU64>) -> Result<Arc<dyn Source>> {
        let listed = self.program("list", false, Arc::default(), Arc::default());
        let owes = Owes::default();
        let sent = self.program("send", true, Arc::clone(&owes), Arc::clone(came));
        let (listed, sent) = futures::future::try_join(listed, sent).await?;
        let exit = move || {
            for (verb, ended) in [("list", listed.ended), ("send", sent.ended)] {
                let ended = ended.blocking_recv();
                let ended = ended.unwrap_or_else(|_| Err("nobody attended to it".to_owned()));
                ended.map_err(|why| Error::other(format!("`mover {verb}` failed: {why}")))?;
            }
            Ok(())
        };
        let asking = Asking {
            to: Box::new(sent.input),
            from: Box::new(sent.output),
        };
        let source = WireSource::new(Box::new(listed.output), asking, Box::new(exit));
        // Set once, here.
        let _ = owes.set(Box::new(source.owes()));
        Ok(Arc::new(source))
    }

    async fn program(
        &self,
        verb: &str,
        with_input: bool,
        owes: Owes,
        came: Arc<AtomicU64>,
    ) -> Result<Program> {
        let going = with_input.then(|| mpsc::channel(GOING));
        self.program_with(&[verb, MOUNT], going, owes, came).await
    }

    /// Starts a program of these words; what goes into it waits in this channel.
    pub(super) async fn program_with(
        &self,
        words: &[&str],
        going: Option<(mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>)>,
        owes: Owes,
        came: Arc<AtomicU64>,
    ) -> Result<Program> {
        let (with_input, verb) = (going.is_some(), words.first().copied().unwrap_or_default());
        let spot = &self.spot;
        let pods: Api<core::Pod> =
            Api::namespaced(self.cluster().client().clone(), &spot.namespace);
        let params = AttachParams::default()
            .container(&spot.container)
            .stdin(with_input)
            .stdout(true)
            .stderr(true)
            .tty(false)
            .max_stdout_buf_size(BUFFER)
            .max_stdin_buf_size(BUFFER);
        let command: Vec<&str> = [PROGRAM, "mover"].iter().chain(words).copied().collect();
        let doing = format!(
            "start `mover {verb}` in pod {}/{}",
            spot.namespace, spot.pod
        );
        let mut stop = self.stop();
        let started = tokio::select! {
            started = tokio::time::timeout(BEGINS, pods.exec(&spot.pod, command, &params)) => started,
            _ = stop.wait_for(|stop| *stop) => {
                return Err(Error::new(crate::error::Kind::Interrupted, "the backup was stopped"));
            }
        };
        let process = match started {
            Ok(Ok(process)) => process,
            Ok(Err(e)) => {
                let error = match e {
                    kube::Error::Api(status) => Error::from(ApiError {
                        code: status.code,
                        reason: status.reason.clone(),
                        message: status.message.clone(),
                        ..ApiError::default()
                    })
                    .context(format!("can not {doing}")),
                    e => crate::cluster::told(&doing, e),
                };
                return Err(error.hint("who copies volumes needs the rights to create and get pods/exec, and the API server has to reach the node's kubelet"));
            }
            Err(_) => {
                return Err(Error::other(format!(
                    "can not {doing}: the server did not say within {} s that it began",
                    BEGINS.as_secs()
                )));
            }
        };
        let (to, to_program) = going.unwrap_or_else(|| mpsc::channel(1));
        let (from_program, from) = mpsc::channel(COMING);
        let pump = Pump {
            to_program,
            from_program,
            activity: Activity::new(came),
            is_cut: words.first() != Some(&archive::VERB),
        };
        if !with_input {
            // It is asked once, and owes all from the beginning.
            let _ = owes.set(Box::new(|| true));
        }
        let (tell, ended) = oneshot::channel();
        let stream = Arc::new(Mutex::new(None));
        let (broke, first) = (Arc::clone(&stream), Arc::clone(&self.broke));
        let (over, why) = (self.over(), self.why());
        tokio::spawn(async move {
            // Its sender lives until the reason stands: who reads on learns it.
            let from_program = pump.from_program.clone();
            let how = attend(process, pump, with_input, owes, over, stop, why).await;
            if let Err(why) = &how {
                lock(&broke).get_or_insert_with(|| why.clone());
                lock(&first).get_or_insert_with(|| why.clone());
            }
            drop(from_program);
            let _ = tell.send(how);
        });
        Ok(Program {
            input: Input {
                to,
                held: Vec::new(),
            },
            output: Output {
                from,
                held: Bytes::new(),
                broke: stream,
            },
            ended,
        })
    }
}

#[cfg(test)]
mod tests;
