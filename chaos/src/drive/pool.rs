//! Keys of transactions: a few at one time, each retired after so many writes, so that lists stay short.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rand::rngs::SmallRng;

use crate::rng::Draw;

/// Writes to a key before the next one takes its place.
const WRITES_MAX: u32 = 64;

/// The keys in use, and the next value: none is given out twice.
#[derive(Debug)]
pub(super) struct Pool {
    places: Mutex<Places>,
    value: AtomicU64,
}

#[derive(Debug)]
struct Places {
    /// Each key with its writes.
    keys: Vec<(u64, u32)>,
    next: u64,
}

impl Pool {
    /// A pool of so many keys, at least one.
    pub(super) fn new(keys: u64) -> Self {
        let keys = keys.max(1);
        Self {
            places: Mutex::new(Places {
                keys: (0..keys).map(|key| (key, 0)).collect(),
                next: keys,
            }),
            value: AtomicU64::new(1),
        }
    }

    /// A value that nobody else writes.
    pub(super) fn value(&self) -> u64 {
        self.value.fetch_add(1, Ordering::Relaxed)
    }

    /// A key; a write counts towards its retirement.
    pub(super) fn key(&self, rng: &mut SmallRng, is_write: bool) -> u64 {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = rng.index(places.keys.len());
        let next = places.next;
        let Some((key, writes)) = places.keys.get_mut(place) else {
            return 0;
        };
        let drawn = *key;
        *writes += u32::from(is_write);
        if *writes >= WRITES_MAX {
            (*key, *writes) = (next, 0);
            places.next += 1;
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Streams;

    #[test]
    fn a_key_is_retired_after_its_writes_and_values_are_unique() {
        let pool = Pool::new(1);
        let mut rng = Streams::new(1).stream("pool", 0);
        let keys: Vec<u64> = (0..WRITES_MAX).map(|_| pool.key(&mut rng, true)).collect();
        assert!(keys.iter().all(|key| *key == 0));
        assert_eq!(pool.key(&mut rng, false), 1);
        assert_ne!(pool.value(), pool.value());
    }
}
