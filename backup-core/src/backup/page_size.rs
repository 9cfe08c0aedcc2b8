//! How many objects the next page of a list asks for, and how much memory it may take. Pure.

use super::budget::TOTAL;
use super::point_in_time::Glance;

/// Objects on a first page: nothing is known of their size.
const FIRST_LIMIT: usize = 8;

/// What a first page may be long.
const FIRST_BYTES: usize = 12 << 20;

/// What later pages should be long.
const AIM: usize = 4 << 20;

/// Objects on a page at most.
const MOST_OBJECTS: usize = 5000;

/// What a single object may be long.
pub(super) const LARGEST_OBJECT: usize = 64 << 20;

/// How large the next page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageSize {
    /// Objects asked for.
    pub(super) limit: usize,
    /// Bytes reserved for them.
    pub(super) bytes: usize,
}

impl PageSize {
    /// A first page, after a glance: an empty or small type needs little.
    pub(super) fn first(glance: &Glance) -> Self {
        let limit = FIRST_LIMIT;
        let known = usize::try_from(glance.objects)
            .unwrap_or(limit)
            .clamp(1, limit);
        let bytes = match glance.bytes {
            0 => FIRST_BYTES,
            one => (known * one * 4).clamp(256 << 10, FIRST_BYTES),
        };
        Self { limit, bytes }
    }

    /// The longest answer that is taken.
    pub(super) fn bound(self) -> usize {
        if self.bytes >= TOTAL {
            LARGEST_OBJECT
        } else {
            self.bytes
        }
    }

    /// After an answer that was too long: fewer objects, or all the memory there is for a single one. False when neither is left.
    pub(super) fn shrink(&mut self) -> bool {
        if self.bytes < FIRST_BYTES {
            self.bytes = FIRST_BYTES;
            self.limit = (self.limit / 2).max(1);
        } else if self.limit > 1 {
            self.limit = (self.limit / 8).max(1);
        } else if self.bytes < TOTAL {
            self.bytes = TOTAL;
        } else {
            return false;
        }
        true
    }

    /// After a page: as many objects as should be of the length aimed at, growing at most eightfold.
    pub(super) fn learn(&mut self, length: usize, objects: usize, remaining: u64) {
        let average = (length / objects.max(1)).max(1);
        self.limit = (AIM / average).clamp(1, (self.limit * 8).min(MOST_OBJECTS));
        let coming = match usize::try_from(remaining) {
            Ok(remaining) if remaining > 0 => remaining.min(self.limit),
            _ => self.limit,
        };
        // Half as much again as is expected: a page that is longer is asked for again, in smaller pieces.
        self.bytes = (coming * average / 2 * 3 + (64 << 10)).clamp(256 << 10, FIRST_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_at_most_eightfold_and_shrink_to_one_object() {
        let mut size = PageSize::first(&Glance::default());
        assert_eq!((size.limit, size.bytes), (8, FIRST_BYTES));
        size.learn(8 << 10, 8, 100_000);
        assert_eq!(size.limit, 64);
        size.learn(64 << 10, 64, 100_000);
        size.learn(512 << 10, 512, 100_000);
        assert_eq!(size.limit, 4096);
        assert!(size.bytes >= AIM && size.bytes <= FIRST_BYTES);
        let mut steps = 0;
        while size.shrink() {
            steps += 1;
        }
        assert_eq!((size.limit, size.bound()), (1, LARGEST_OBJECT));
        assert!(steps < 10);
        assert!(
            PageSize::first(&Glance {
                bytes: 200,
                ..Glance::default()
            })
            .bytes
                <= 256 << 10
        );
    }
}
