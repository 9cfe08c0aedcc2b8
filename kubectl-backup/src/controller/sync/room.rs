//! How much room the objects of a location may take: they lie in etcd and in memory, and a bucket is anybody's who may write to it.

/// Objects of one location, and their bytes: they lie in etcd, and in the memory of this process.
pub(super) const MOST: Room = Room {
    objects: 10_000,
    bytes: 64 << 20,
};

/// How many objects, of how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) objects: usize,
    pub(super) bytes: usize,
}

/// What the objects of a location take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    all: Room,
    /// Of it, other clusters' backups.
    others: Room,
}

impl Taken {
    /// Takes room for one more; false where there is none.
    pub(super) fn take(&mut self, is_own: bool, bytes: usize) -> bool {
        let fits = |taken: &Room, part: usize| {
            taken.objects < MOST.objects / part && taken.bytes + bytes <= MOST.bytes / part
        };
        if !fits(&self.all, 1) || !(is_own || fits(&self.others, 2)) {
            return false;
        }
        self.add(is_own, bytes);
        true
    }

    pub(super) fn add(&mut self, is_own: bool, bytes: usize) {
        let others = (!is_own).then_some(&mut self.others);
        for room in others.into_iter().chain([&mut self.all]) {
            room.objects += 1;
            room.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_a_location_are_bounded_and_other_clusters_have_half() {
        let mib = 1 << 20;
        let mut taken = Taken::default();
        for n in 0..32 {
            assert!(taken.take(false, mib), "{n}");
        }
        assert!(!taken.take(false, 1));
        for n in 0..32 {
            assert!(taken.take(true, mib), "{n}");
        }
        assert!(!taken.take(true, 1));
        let mut taken = Taken::default();
        let fits = |taken: &mut Taken, is_own| (0..).take_while(|_| taken.take(is_own, 1)).count();
        assert_eq!(fits(&mut taken, false), 5_000);
        assert_eq!(fits(&mut taken, true), 5_000);
        let mut taken = Taken::default();
        assert_eq!(fits(&mut taken, true), 10_000);
        assert_eq!(fits(&mut taken, false), 0);
    }
}
