//! What of anybody's files may come in: so many entries, and texts that are fit to be shown.

use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// No list has more entries.
pub(super) const MOST: usize = 200_000;

/// So many characters of a text of another tool, on one line.
pub(super) fn shown(text: &str, most: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(most)
        .collect()
}

/// A list that is bounded; Go writes an empty one as `null`.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Bounded<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        at_most::<MOST, T, D>(d).map(Self)
    }
}

/// Reads a list of so many entries at most: what is beyond is refused before it is held.
pub(super) fn at_most<'de, const N: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> std::result::Result<Vec<T>, D::Error> {
    struct Items<T, const N: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E>(self) -> std::result::Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(
            self,
            mut items: A,
        ) -> std::result::Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() >= N {
                    return Err(A::Error::custom(format!("it has more than {N} entries")));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    d.deserialize_any(Items::<T, N>(PhantomData))
}
