//! The test double: a file system in memory that records every change and every sync, and gives the file systems that a crash after
//! any of them may leave: what was synced is there, and of the rest any part.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Files, Kind};

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Folder(BTreeMap<String, usize>),
    File(Vec<u8>),
}

type Name = (usize, String);

/// One change, told in nodes: it stays what it is when a change before it was lost.
#[derive(Clone, Debug)]
enum Change {
    Put(Name, usize),
    Take(Name),
    Swap(Name, Name),
    Move(Name, Name),
    Data(usize, u64, Vec<u8>),
}

#[derive(Clone, Debug)]
enum Event {
    Change(Change),
    Sync(usize),
}

#[derive(Clone, Debug)]
struct State {
    nodes: Vec<Node>,
    log: Vec<Event>,
    /// As it was before the first event; nodes that came later are empty there.
    before: Vec<Node>,
    exchanges: bool,
    full: bool,
}

/// The file system; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Model(Arc<Mutex<State>>);

impl Model {
    /// An empty one. Without `exchanges` it refuses RENAME_EXCHANGE.
    pub(crate) fn new(exchanges: bool) -> Self {
        let nodes = vec![Node::Folder(BTreeMap::new())];
        Self::of(nodes, exchanges)
    }

    fn of(nodes: Vec<Node>, exchanges: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            before: nodes.clone(),
            nodes,
            log: Vec::new(),
            exchanges,
            full: false,
        })))
    }

    /// From now on nothing can be written into files, as on a full disk; or again it can.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    /// Takes what is there as durable and forgets the events.
    pub(crate) fn settled(&self) -> Self {
        let state = self.0.lock().unwrap();
        Self::of(state.nodes.clone(), state.exchanges)
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> usize {
        self.0.lock().unwrap().log.len()
    }

    /// What a crash after so many events may leave. Where few changes are not durable, every part of them; where many, none, all,
    /// each beginning, and all but each one. A write that is not durable may also be half there.
    pub(crate) fn crashes(&self, events: usize) -> Vec<Self> {
        let state = self.0.lock().unwrap();
        let log = &state.log[..events];
        let loose: Vec<usize> = (0..log.len())
            .filter(|at| matches!(&log[*at], Event::Change(c) if !is_durable(c, &log[at + 1..])))
            .collect();
        let mut kept: Vec<Vec<usize>> = Vec::new();
        if loose.len() <= 5 {
            kept.extend((0..1u32 << loose.len()).map(|mask| {
                let chosen = loose.iter().enumerate();
                chosen
                    .filter(|(bit, _)| mask >> bit & 1 == 1)
                    .map(|(_, at)| *at)
                    .collect()
            }));
        } else {
            kept.extend((0..=loose.len()).map(|n| loose[..n].to_vec()));
            kept.extend(
                loose
                    .iter()
                    .map(|gone| loose.iter().copied().filter(|at| at != gone).collect()),
            );
        }
        let mut images = Vec::new();
        for kept in kept {
            images.push(state.image(log, &loose, &kept, None));
            if let Some(last) = kept.last()
                && matches!(log[*last], Event::Change(Change::Data(..)))
            {
                images.push(state.image(log, &loose, &kept, Some(*last)));
            }
        }
        images
    }

    /// Everything below a path, as text, for comparison: a file's bytes under each name.
    pub(crate) fn tree(&self, path: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock().unwrap();
        let mut found = BTreeMap::new();
        if let Ok(node) = state.find(Path::new(path)) {
            state.collect(node, "", &mut found);
        }
        found
    }
}

fn is_durable(change: &Change, later: &[Event]) -> bool {
    let synced = |node: usize| {
        later
            .iter()
            .any(|event| matches!(event, Event::Sync(at) if *at == node))
    };
    match change {
        Change::Put((folder, _), _) | Change::Take((folder, _)) => synced(*folder),
        Change::Swap((a, _), (b, _)) | Change::Move((a, _), (b, _)) => synced(*a) && synced(*b),
        Change::Data(node, ..) => synced(*node),
    }
}

impl State {
    fn image(&self, log: &[Event], loose: &[usize], kept: &[usize], torn: Option<usize>) -> Model {
        let mut nodes = self.before.clone();
        for (at, event) in log.iter().enumerate() {
            let Event::Change(change) = event else {
                continue;
            };
            if loose.contains(&at) && !kept.contains(&at) {
                continue;
            }
            match change {
                Change::Data(node, offset, bytes) if torn == Some(at) => {
                    let half = bytes[..bytes.len() / 2].to_vec();
                    apply(&mut nodes, &Change::Data(*node, *offset, half));
                }
                change => apply(&mut nodes, change),
            }
        }
        Model::of(nodes, self.exchanges)
    }

    fn collect(&self, node: usize, at: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        match &self.nodes[node] {
            Node::File(bytes) => {
                found.insert(at.to_owned(), bytes.clone());
            }
            Node::Folder(names) => {
                found.insert(format!("{at}/"), Vec::new());
                for (name, node) in names {
                    self.collect(*node, &format!("{at}/{name}"), found);
                }
            }
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut node = 0;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let Node::Folder(names) = &self.nodes[node] else {
                    return Err(io::ErrorKind::NotADirectory.into());
                };
                let name = name.to_str().unwrap();
                node = *names.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(node)
    }

    fn name(&self, path: &Path) -> io::Result<Name> {
        let folder = self.find(path.parent().unwrap())?;
        Ok((
            folder,
            path.file_name().unwrap().to_str().unwrap().to_owned(),
        ))
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.nodes, &change);
        self.log.push(Event::Change(change));
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let name = self.name(path)?;
        if self.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let empty = match node {
            Node::Folder(_) => Node::Folder(BTreeMap::new()),
            Node::File(_) => Node::File(Vec::new()),
        };
        self.nodes.push(node);
        self.before.push(empty);
        let id = self.nodes.len() - 1;
        self.change(Change::Put(name, id));
        Ok(id)
    }
}

fn names(nodes: &mut [Node], folder: usize) -> &mut BTreeMap<String, usize> {
    match &mut nodes[folder] {
        Node::Folder(names) => names,
        Node::File(_) => panic!("a file where a folder was"),
    }
}

fn apply(nodes: &mut [Node], change: &Change) {
    match change {
        Change::Put((folder, name), node) => {
            names(nodes, *folder).insert(name.clone(), *node);
        }
        Change::Take((folder, name)) => {
            names(nodes, *folder).remove(name);
        }
        Change::Swap(a, b) => {
            let at = |nodes: &mut [Node], n: &Name| names(nodes, n.0).get(&n.1).copied();
            if let (Some(one), Some(two)) = (at(nodes, a), at(nodes, b)) {
                names(nodes, a.0).insert(a.1.clone(), two);
                names(nodes, b.0).insert(b.1.clone(), one);
            }
        }
        Change::Move(from, to) => {
            if let Some(node) = names(nodes, from.0).remove(&from.1) {
                names(nodes, to.0).insert(to.1.clone(), node);
            }
        }
        Change::Data(node, offset, bytes) => {
            if let Node::File(content) = &mut nodes[*node] {
                content.resize(usize::try_from(*offset).unwrap(), 0);
                content.extend(bytes);
            }
        }
    }
}

impl Files for Model {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let state = self.0.lock().unwrap();
        Ok(match state.find(path).map(|node| &state.nodes[node]) {
            Ok(Node::Folder(_)) => Kind::Folder,
            Ok(Node::File(_)) => Kind::File,
            Err(_) => Kind::Absent,
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let state = self.0.lock().unwrap();
        match &state.nodes[state.find(folder)?] {
            Node::Folder(names) => Ok(names.keys().map(OsString::from).collect()),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let state = self.0.lock().unwrap();
        match &state.nodes[state.find(path)?] {
            Node::File(bytes) => {
                let end = bytes.len().min(usize::try_from(limit).unwrap());
                Ok(bytes[..end].to_vec())
            }
            Node::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state
            .create(path, Node::Folder(BTreeMap::new()))
            .map(|_| ())
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let node = match state.find(path) {
            Ok(node) => node,
            Err(_) => state.create(path, Node::File(Vec::new()))?,
        };
        state.change(Change::Data(node, offset, bytes.to_vec()));
        Ok(())
    }

    fn reserve(&self, path: &Path, _bytes: u64) -> io::Result<()> {
        self.0.lock().unwrap().find(path).map(|_| ())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let node = state.find(path)?;
        state.log.push(Event::Sync(node));
        Ok(())
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if !state.exchanges {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.find(a)?;
        state.find(b)?;
        let (a, b) = (state.name(a)?, state.name(b)?);
        state.change(Change::Swap(a, b));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.find(from)?;
        if state.find(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (from, to) = (state.name(from)?, state.name(to)?);
        state.change(Change::Move(from, to));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.find(path)?;
        let name = state.name(path)?;
        state.change(Change::Take(name));
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        // Each name is a change of its own: a crash may come in the middle, and a part may come back.
        let names = match self.kind(path)? {
            Kind::Folder => self.list(path)?,
            Kind::File => Vec::new(),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        for name in names {
            self.remove_tree(&PathBuf::from(path).join(name))?;
        }
        self.remove_file(path)
    }

    fn give(&self, path: &Path, like: &Path) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        state.find(like)?;
        state.find(path).map(|_| ())
    }
}

#[test]
fn what_was_not_synced_may_be_lost_and_what_was_is_not() {
    let model = Model::new(true);
    model.create_folder(Path::new("/d")).unwrap();
    let model = model.settled();
    model.write_at(Path::new("/d/f"), 0, b"one").unwrap();
    model.sync(Path::new("/d/f")).unwrap();
    let nameless = model.crashes(model.events());
    assert!(nameless.iter().any(|image| image.tree("/d/f").is_empty()));
    model.sync(Path::new("/d")).unwrap();
    model.write_at(Path::new("/d/f"), 3, b"two!").unwrap();
    let read: std::collections::BTreeSet<_> = model
        .crashes(model.events())
        .iter()
        .map(|image| image.read(Path::new("/d/f"), 99).unwrap())
        .collect();
    assert_eq!(
        read.iter().map(Vec::as_slice).collect::<Vec<_>>(),
        [b"one".as_slice(), b"onetw", b"onetwo!"]
    );
}
