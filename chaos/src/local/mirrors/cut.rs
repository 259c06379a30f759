//! What a point in time may show of chains and batches.
//!
//! *Chain*: keys 0, 1, … are written with number 1, one after the other, each when the one before is acknowledged; then all
//! with number 2, and so on. At any point in time the keys up to some place have a number n, those from there on n - 1; the
//! number 0 means that the key is not there. Of a mix of two cuts some key has a number too small or too large for its place.
//!
//! *Batch*: a transaction writes one number to a key of every shard. At any point in time all have the same.

use std::collections::BTreeMap;

use meridian_client::proto::routing::shard_of;

/// Numbers by key, as written or as shown, of one chain or batch.
pub(super) type Numbers = BTreeMap<usize, u64>;

/// All that a mirror shows, or that was written last: by name of the chain or batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents(pub(super) BTreeMap<String, Numbers>);

/// Which kind a name is of.
pub(super) const CHAIN: &str = "chain";
pub(super) const BATCH: &str = "batch";

/// A key of a chain.
pub(super) fn key(name: &str, place: usize) -> String {
    format!("{name}/{place:04}")
}

/// The key of a batch that is in a shard; its place is the shard's number.
pub(super) fn key_in(name: &str, (shard, shards): (u32, u32)) -> String {
    let mut keys = (0_u32..).map(|salt| format!("{name}/{shard:04}.{salt}"));
    keys.find(|key| shard_of(key.as_bytes(), shards) == shard)
        .unwrap_or_default()
}

impl Contents {
    /// Notes a key and its value: the number, then padding.
    pub(super) fn note(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let unknown = || format!("{:?} was never written", String::from_utf8_lossy(key));
        let text = std::str::from_utf8(key).map_err(|_other| unknown())?;
        let (name, place) = text.split_once('/').ok_or_else(unknown)?;
        let place = place.split('.').next().unwrap_or_default();
        let place = place.parse().map_err(|_other| unknown())?;
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
        let digits = digits.map(|digit| u64::from(*digit - b'0'));
        let number = digits.fold(0_u64, |sum, digit| {
            sum.saturating_mul(10).saturating_add(digit)
        });
        let numbers = self.0.entry(name.to_owned()).or_default();
        numbers.insert(place, number);
        Ok(())
    }

    /// What no point in time can have shown, when every chain has `keys` keys and every batch `shards`.
    pub(super) fn mixed(&self, keys: usize, shards: usize) -> Vec<String> {
        let mut found = Vec::new();
        for (name, numbers) in &self.0 {
            let wrong = if name.starts_with(CHAIN) {
                !is_chain(numbers, keys)
            } else {
                !is_batch(numbers, shards)
            };
            if wrong {
                found.push(format!("{name} shows {:?}", run_lengths(numbers)));
            }
        }
        found
    }
}

fn of_place(numbers: &Numbers, keys: usize) -> Vec<u64> {
    let number = |place| numbers.get(&place).copied().unwrap_or(0);
    (0..keys).map(number).collect()
}

fn is_chain(numbers: &Numbers, keys: usize) -> bool {
    let of_place = of_place(numbers, keys);
    let falls = of_place.is_sorted_by(|before, after| before >= after);
    let (first, last) = (of_place.first(), of_place.last());
    falls
        && first
            .zip(last)
            .is_none_or(|(first, last)| first - last <= 1)
        && numbers.len() <= keys
}

fn is_batch(numbers: &Numbers, shards: usize) -> bool {
    let of_place = of_place(numbers, shards);
    of_place.windows(2).all(|pair| pair.first() == pair.last()) && numbers.len() <= shards
}

/// Number and how many keys in a row have it.
fn run_lengths(numbers: &Numbers) -> Vec<(u64, usize)> {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for number in numbers.values() {
        match runs.last_mut() {
            Some((last, count)) if last == number => *count += 1,
            Some(_) | None => runs.push((*number, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(name: &str, numbers: &[u64]) -> bool {
        let mut contents = Contents::default();
        for (place, number) in numbers
            .iter()
            .enumerate()
            .filter(|(_, number)| **number > 0)
        {
            let value = format!("{number}xxx");
            contents
                .note(key(name, place).as_bytes(), value.as_bytes())
                .unwrap();
        }
        !contents.mixed(4, 4).is_empty()
    }

    #[test]
    fn a_chain_may_be_anywhere_in_a_round() {
        for numbers in [[0, 0, 0, 0], [1, 1, 0, 0], [7, 7, 7, 7], [12, 11, 11, 11]] {
            assert!(!mixed("chain-1", &numbers), "{numbers:?}");
        }
    }

    #[test]
    fn a_chain_whose_keys_are_of_two_points_in_time_is_mixed() {
        for numbers in [
            [1, 0, 1, 0],
            [6, 7, 7, 7],
            [9, 8, 8, 7],
            [9, 9, 9, 7],
            [2, 2, 0, 2],
        ] {
            assert!(mixed("chain-1", &numbers), "{numbers:?}");
        }
    }

    #[test]
    fn a_batch_is_there_whole_or_not_at_all() {
        assert!(!mixed("batch-1", &[0, 0, 0, 0]));
        assert!(!mixed("batch-1", &[5, 5, 5, 5]));
        for numbers in [[5, 5, 4, 5], [5, 0, 5, 5], [1, 0, 0, 0]] {
            assert!(mixed("batch-1", &numbers), "{numbers:?}");
        }
    }

    #[test]
    fn a_batch_has_a_key_in_each_shard_whose_place_is_the_shard() {
        let mut contents = Contents::default();
        for shard in 0..8 {
            let key = key_in("batch-0", (shard, 8));
            assert_eq!(shard_of(key.as_bytes(), 8), shard);
            contents.note(key.as_bytes(), b"3").unwrap();
        }
        assert_eq!(contents.mixed(4, 8), Vec::<String>::new());
    }

    #[test]
    fn a_key_that_nobody_wrote_is_told() {
        let mut contents = Contents::default();
        assert!(contents.note(b"probe", b"1").is_err());
        assert!(contents.note(b"chain-1/x", b"1").is_err());
        assert!(contents.note(&[0xff], b"1").is_err());
    }
}
