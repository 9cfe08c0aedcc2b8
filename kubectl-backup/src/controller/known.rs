//! What was understood of objects, once for each of their versions: a look goes over all of them, and decoding is what costs. Knows no kind.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use super::objects::uid;

/// What was understood, by the object's uid, and of which version.
#[derive(Debug)]
pub(crate) struct Known<T>(BTreeMap<String, (String, T)>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Known<T> {
    /// What was understood of this version of an object; it is read where that was not done yet.
    pub(crate) fn of(&mut self, object: &Value, read: impl FnOnce(&Value) -> T) -> &mut T {
        let version = object["metadata"]["resourceVersion"].as_str();
        let version = version.unwrap_or_default();
        let fresh = || (version.to_owned(), read(object));
        let known = match self.0.entry(uid(object).to_owned()) {
            Entry::Vacant(entry) => entry.insert(fresh()),
            Entry::Occupied(mut entry) => {
                if entry.get().0 != version {
                    entry.insert(fresh());
                }
                entry.into_mut()
            }
        };
        &mut known.1
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| is_there(uid));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_once_for_each_of_its_versions() {
        let mut known = Known::default();
        let mut reads = 0;
        let object = |uid: &str, version: &str| json!({"metadata": {"uid": uid, "resourceVersion": version}});
        for (uid, version, expected) in [
            ("a", "1", 1),
            ("a", "1", 1),
            ("b", "1", 2),
            ("a", "2", 3),
            ("a", "2", 3),
            ("b", "1", 3),
        ] {
            let object = object(uid, version);
            let understood = known.of(&object, |object| {
                reads += 1;
                object.clone()
            });
            assert_eq!(*understood, object);
            assert_eq!(reads, expected, "{uid} {version}");
        }
        known.retain(|uid| uid == "a");
        assert_eq!(known.0.keys().collect::<Vec<_>>(), ["a"]);
    }
}
