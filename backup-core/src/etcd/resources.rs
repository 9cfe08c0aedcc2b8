//! Numbers for the names of resources, so that counts are kept by number. Bounded, whatever the keys are.

use std::collections::{BTreeMap, HashMap};

use super::entry::resource;

/// What is counted of keys that belong to no resource, and of those beyond the bound.
const OTHER: &str = "(other)";

/// Resources that are told apart; a cluster with a thousand CRDs has fewer.
pub(super) const MOST_RESOURCES: usize = 4096;

/// The resources seen so far. Number 0 is that of keys that belong to none.
#[derive(Debug, Default)]
pub(super) struct Resources {
    ids: HashMap<String, usize>,
    name: String,
}

impl Resources {
    /// How many numbers were given out.
    pub(super) fn len(&self) -> usize {
        self.ids.len() + 1
    }

    /// The number of the resource that a key belongs to, below [`MOST_RESOURCES`].
    pub(super) fn id(&mut self, key: &[u8]) -> usize {
        let Some((name, group)) = resource(key) else {
            return 0;
        };
        let id = if let Some(group) = group {
            self.name.clear();
            self.name.push_str(name);
            self.name.push('.');
            self.name.push_str(group);
            self.ids.get(self.name.as_str())
        } else {
            self.ids.get(name)
        };
        if let Some(id) = id {
            return *id;
        }
        let next = self.len();
        if next == MOST_RESOURCES {
            return 0;
        }
        let name = group.map_or_else(|| name.to_owned(), |group| format!("{name}.{group}"));
        self.ids.insert(name, next);
        next
    }

    /// Counts by number as counts by name, without those that are 0.
    pub(super) fn named(&self, counts: &[u64]) -> BTreeMap<String, u64> {
        let others = counts.first().map(|count| (OTHER.to_owned(), *count));
        let ids = self.ids.iter();
        ids.filter_map(|(name, id)| Some((name.clone(), *counts.get(*id)?)))
            .chain(others)
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_counted_by_name_and_what_is_too_many_is_other() {
        let mut resources = Resources::default();
        let pods = resources.id(b"/registry/pods/a/b");
        assert_eq!(resources.id(b"/registry/pods/a/c"), pods);
        let backups = resources.id(b"/registry/velero.io/backups/a/c");
        assert_eq!(resources.id(b"/x"), 0);
        let mut counts = vec![0; 3];
        counts[pods] = 2;
        counts[backups] = 1;
        let named = resources.named(&counts);
        assert_eq!(named.len(), 2);
        assert_eq!((named["pods"], named["backups.velero.io"]), (2, 1));
        for index in 0..2 * MOST_RESOURCES {
            assert!(resources.id(format!("/registry/r{index}/x").as_bytes()) < MOST_RESOURCES);
        }
        assert_eq!(resources.id(b"/registry/one-more/x"), 0);
        assert_eq!(resources.id(b"/registry/pods/a/b"), pods);
    }
}
