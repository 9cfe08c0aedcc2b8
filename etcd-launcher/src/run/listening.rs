//! On which TCP ports a process, or anybody, listens, as the kernel says: the proof that a fenced etcd can not be reached.

use std::collections::BTreeSet;
use std::fs;
use std::io;

/// The ports.
///
/// # Errors
/// When /proc can not be read.
pub(crate) fn ports(pid: u32) -> io::Result<BTreeSet<u16>> {
    let mut sockets = BTreeSet::new();
    for open in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // Files come and go while they are listed.
        let Ok(link) = fs::read_link(open?.path()) else {
            continue;
        };
        if let Some(inode) = link
            .to_str()
            .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
        {
            sockets.insert(inode.to_owned());
        }
    }
    let lines = lines(&pid.to_string())?;
    let found = lines.iter().filter_map(|line| listening(line));
    Ok(found
        .filter(|(_, inode)| sockets.contains(*inode))
        .map(|(port, _)| port)
        .collect())
}

/// The ports on which any process of this network namespace listens.
///
/// # Errors
/// When /proc can not be read.
pub(crate) fn anybodys() -> io::Result<BTreeSet<u16>> {
    let lines = lines("self")?;
    Ok(lines
        .iter()
        .filter_map(|line| listening(line))
        .map(|(port, _)| port)
        .collect())
}

/// The lines of a process' tables of sockets.
fn lines(pid: &str) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
            Ok(text) => lines.extend(text.lines().skip(1).map(str::to_owned)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(lines)
}

/// Port and socket of a line of /proc/net/tcp, where it listens.
fn listening(line: &str) -> Option<(u16, &str)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != "0A" {
        return None;
    }
    Some((
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?,
        inode,
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_that_is_listened_on_is_seen_and_one_that_was_closed_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = std::process::id();
        assert!(super::ports(me).unwrap().contains(&port));
        drop(listener);
        assert!(!super::ports(me).unwrap().contains(&port));
    }
}
