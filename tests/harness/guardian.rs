//! The guardian: a small shell, one per test process, that outlives it to clean up.
//!
//! Statics are never dropped, and a killed process drops nothing at all. The guardian reads from a pipe what was
//! started and made; when our end of the pipe closes, for whatever reason, it kills what still runs and removes
//! the folders, interfaces and control groups. It must never kill a process it was not told of: a pid counts only with its start time.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Ignores the signals of a terminal, or Ctrl-C would end it before it has cleaned up. Killing the whole process
/// group takes a program's own children (Velero's plugins) along.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
PATH=$PATH:/usr/sbin:/sbin
pids= ; dirs= ; links= ; groups=
without() { left= ; for word in $1; do [ "$word" = "$2" ] || left="$left $word"; done; }
while IFS= read -r line; do
  case $line in
    "pid "*) pids="$pids ${line#pid }" ;;
    "end "*) without "$pids" "${line#end }"; pids=$left ;;
    "lnk "*) links="$links ${line#lnk }" ;;
    "lne "*) without "$links" "${line#lne }"; links=$left ;;
    "grp "*) groups="$groups ${line#grp }" ;;
    "gre "*) without "$groups" "${line#gre }"; groups=$left ;;
    "dir "*) dirs="$dirs
${line#dir }" ;;
    "rmd "*) left= ; IFS='
'; for d in $dirs; do [ "$d" = "${line#rmd }" ] || left="$left
$d"; done; dirs=$left; IFS=' ' ;;
  esac
done
IFS=' '
for p in $pids; do
  pid=${p%%:*}; start=${p##*:}
  stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
  set -- ${stat##*) }
  [ "${20}" = "$start" ] || continue
  kill -9 -"$pid" 2>/dev/null
done
# What was killed may take a while to go, and until then it holds groups and writes files.
tries="1 2 3 4 5 6 7 8 9 10"; tries="$tries $tries $tries $tries $tries"
for link in $links; do ip link delete "$link" 2>/dev/null; done
for group in $groups; do
  for i in $tries; do
    again=
    for at in "/sys/fs/cgroup/$group" /sys/fs/cgroup/*/"$group"; do
      [ ! -d "$at" ] || find "$at" -depth -type d -exec rmdir {} + 2>/dev/null || again=1
    done
    [ -n "$again" ] || break
    sleep 0.2
  done
done
set -- $tries
IFS='
'
for i; do
  again=
  for d in $dirs; do rm -rf "$d" 2>/dev/null || again=1; done
  [ -n "$again" ] || break
  sleep 0.2
done
"#;

fn guardian() -> &'static Mutex<Child> {
    static GUARDIAN: OnceLock<Mutex<Child>> = OnceLock::new();
    GUARDIAN.get_or_init(|| {
        let guardian = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "test-guardian"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell to clean up after the tests");
        Mutex::new(guardian)
    })
}

fn tell(line: &str) {
    let mut guardian = guardian()
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let pipe = guardian.stdin.as_mut().unwrap();
    // One write per line: less than the size of a pipe is written as a whole.
    let _ = pipe.write_all(format!("{line}\n").as_bytes());
}

/// The start time of a process in ticks since boot; none for one that has ended, even when nobody has reaped it.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Tells the guardian of a process that leads its own group, and returns what `process_gone` wants.
pub(crate) fn process_made(pid: u32) -> String {
    let id = format!("{pid}:{}", start_time(pid).unwrap_or_default());
    tell(&format!("pid {id}"));
    id
}

pub(crate) fn process_gone(id: &str) {
    tell(&format!("end {id}"));
}

pub(crate) fn folder_made(path: &Path) {
    tell(&format!("dir {}", path.display()));
}

pub(crate) fn folder_gone(path: &Path) {
    tell(&format!("rmd {}", path.display()));
}

/// Tells the guardian of a network interface of this machine.
pub(crate) fn link_made(name: &str) {
    tell(&format!("lnk {name}"));
}

pub(crate) fn link_gone(name: &str) {
    tell(&format!("lne {name}"));
}

/// Tells the guardian of control groups of this name, one in each hierarchy.
pub(crate) fn control_group_made(name: &str) {
    tell(&format!("grp {name}"));
}

pub(crate) fn control_group_gone(name: &str) {
    tell(&format!("gre {name}"));
}
