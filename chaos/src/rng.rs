//! Chance, split per concern.
//!
//! One seed gives a stream for every (concern, index) pair, so that one more draw by the nemesis does not shift what the
//! network draws, and one more client does not shift what the others do.
//!
//! What it is not: good for secrets. Read `scenario` for what is drawn first.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SEC: u64 = 1_000_000_000;

/// The streams of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// The streams of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream of one concern; `index` tells clients, nodes or links apart.
    pub fn stream(self, concern: &str, index: u64) -> SmallRng {
        let mut hash = Hash64::default();
        hash.bytes(concern.as_bytes());
        hash.number(index);
        hash.number(self.seed);
        SmallRng::seed_from_u64(hash.value())
    }
}

/// Draws that the whole simulator phrases alike.
pub trait Draw {
    /// True with probability `p`.
    fn chance(&mut self, p: f64) -> bool;
    /// A number in `[low, high)`; `low` when the range is empty.
    fn between(&mut self, low: u64, high: u64) -> u64;
    /// An exponential delay with the given mean, at most eight times the mean.
    fn exponential(&mut self, mean: u64) -> u64;
    /// One of the items.
    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T>;
    /// An index below `len`; 0 when `len` is 0.
    fn index(&mut self, len: usize) -> usize;
}

impl Draw for SmallRng {
    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.random::<f64>() < p
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        if low >= high {
            low
        } else {
            self.random_range(low..high)
        }
    }

    fn exponential(&mut self, mean: u64) -> u64 {
        // Ratio in 1/1024ths drawn from a table-free approximation: -ln(u) by the position of the first set bit, with
        // the rest of the bits as the fraction. Integer arithmetic, so that every machine draws the same.
        let bits = self.random::<u64>();
        let whole = u64::from(bits.trailing_zeros().min(11));
        let fraction = (bits >> 54) & 1023;
        let ratio = (whole * 1024 + fraction) * 693 / 1000;
        mean.saturating_mul(ratio) / 1024
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    fn index(&mut self, len: usize) -> usize {
        if len == 0 {
            0
        } else {
            self.random_range(0..len)
        }
    }
}

/// A fixed 64-bit hash (FNV-1a with a final mix): the same on every machine and in every build.
#[derive(Clone, Copy, Debug)]
pub struct Hash64(u64);

impl Default for Hash64 {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash64 {
    /// Takes bytes in.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Takes a number in.
    pub const fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ mix(number)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// The hash of all that was taken in.
    pub const fn value(self) -> u64 {
        mix(self.0)
    }
}

impl std::fmt::Write for Hash64 {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_its_concern_and_index_and_on_nothing_else() {
        let streams = Streams::new(7);
        let mut first = streams.stream("network", 0);
        let mut again = streams.stream("network", 0);
        let mut other = streams.stream("network", 1);
        let drawn: Vec<u64> = (0..8).map(|_| first.random()).collect();
        assert_eq!(drawn, (0..8).map(|_| again.random()).collect::<Vec<u64>>());
        assert_ne!(drawn, (0..8).map(|_| other.random()).collect::<Vec<u64>>());
    }

    #[test]
    fn exponential_delays_have_about_the_mean_asked_for() {
        let mut rng = Streams::new(1).stream("test", 0);
        let sum: u64 = (0..10_000).map(|_| rng.exponential(1000)).sum();
        let mean = sum / 10_000;
        assert!((800..1200).contains(&mean), "mean {mean}");
    }

    #[test]
    fn an_empty_range_gives_its_lower_end() {
        let mut rng = Streams::new(1).stream("test", 0);
        assert_eq!(rng.between(5, 5), 5);
        assert_eq!(rng.index(0), 0);
    }
}
