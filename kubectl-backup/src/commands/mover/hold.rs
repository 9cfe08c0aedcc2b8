//! What the container of a mover does: waits, so that others can be run beside the volume. It ends when it is told to, and by itself when it has not heard of anybody for a while:
//! of a run that died, and then the volume is free again.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use backup_cli::error::{Exit, Result};
use backup_cli::interrupt;
use backup_core::{Error, mover};

/// Nobody who lives is silent for so long.
const SILENT: Duration = Duration::from_secs(600);

/// Where it listens: a name in the pod's own network, so that it needs no folder. In somebody's pod there may be several, and each has a name of its own.
const NAME: &str = "kubectl-backup/mover";

/// What is said: that somebody is there, or that it is to end.
const BEAT: u8 = 0;
const END: u8 = 1;

fn name() -> Vec<u8> {
    let own = std::env::var(mover::NAME).ok();
    let name = own.map_or_else(|| NAME.to_owned(), |own| format!("{NAME}/{own}"));
    name.into_bytes()
}

fn address(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

/// In somebody's pod this program goes first where memory runs out: else the kernel might take the pod's own, which is the larger one. Each exec has it anew.
pub(super) fn be_expendable() {
    if std::env::var_os(mover::NAME).is_some() {
        // Raising it needs no right; where it fails all is as it would be without.
        drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    }
}

/// Waits until nobody was heard of for too long, or it is told to end.
pub(super) async fn run() -> Result<Exit> {
    let socket = listen(&name())
        .map_err(|e| Error::other("a mover waits here already, or can not").because(e))?;
    let mut word = [BEAT; 1];
    tokio::select! {
        () = silence(async || socket.recv(&mut word).await.is_ok() && word != [END], SILENT) => {}
        _ = interrupt::interrupted() => {}
    }
    Ok(Exit::Done)
}

/// Says that somebody is there; where nobody waits, nothing happens.
pub(super) fn beat() {
    drop(say(&name(), BEAT));
}

/// Says that it is to end; where nobody waits, nothing happens.
pub(super) fn end() {
    drop(say(&name(), END));
}

fn say(name: &[u8], word: u8) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(&[word], &address(name)?).map(drop)
}

fn listen(name: &[u8]) -> io::Result<tokio::net::UnixDatagram> {
    let socket = UnixDatagram::bind_addr(&address(name)?)?;
    socket.set_nonblocking(true)?;
    tokio::net::UnixDatagram::from_std(socket)
}

/// Ends when nothing was heard for so long, or nothing can be any more.
async fn silence(mut heard: impl AsyncFnMut() -> bool, silent: Duration) {
    while tokio::time::timeout(silent, heard()).await == Ok(true) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_is_heard_of_and_waits_for_whoever_is() {
        let (say, mut words) = tokio::sync::mpsc::channel(1);
        let began = tokio::time::Instant::now();
        let speaks = async {
            for _ in 0..20 {
                tokio::time::sleep(SILENT - Duration::from_secs(1)).await;
                say.send(()).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = silence(async || words.recv().await.is_some(), SILENT) => {}
            () = speaks => {}
        }
        let last = (SILENT - Duration::from_secs(1)) * 20;
        assert_eq!(began.elapsed().as_secs(), (last + SILENT).as_secs());
    }

    #[tokio::test]
    async fn who_beats_is_heard_and_a_second_one_can_not_wait() {
        let name = format!("kubectl-backup/test-{}", std::process::id());
        let socket = listen(name.as_bytes()).unwrap();
        assert!(listen(name.as_bytes()).is_err());
        let mut word = [7; 1];
        for said in [BEAT, END] {
            say(name.as_bytes(), said).unwrap();
            assert_eq!(socket.recv(&mut word).await.unwrap(), 1);
            assert_eq!(word, [said]);
        }
    }
}
