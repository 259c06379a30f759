//! The names causality is written in: zones, incarnations, dots.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A failure domain, and the actor that writes are attributed to. [`ZoneId::GLOBAL`] is reserved for groups that span
/// zones.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ZoneId(pub u16);

impl ZoneId {
    /// The actor of a group whose voters span zones.
    pub const GLOBAL: Self = Self(0);
}

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::GLOBAL {
            f.write_str("global")
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// One life of one data group. A group that is wiped, restored or cloned gets a new one, so that no dot is used twice.
///
/// The zone stands in the upper 16 bits and 48 random bits below it: dots name their zone, and sort by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(u64);

impl Incarnation {
    const NONCE_BITS: u32 = 48;
    const NONCE_MASK: u64 = (1 << Self::NONCE_BITS) - 1;

    /// The incarnation of `zone` with the lower 48 bits of `nonce`.
    pub const fn new(zone: ZoneId, nonce: u64) -> Self {
        // `u64::from` is not const.
        Self(((zone.0 as u64) << Self::NONCE_BITS) | (nonce & Self::NONCE_MASK))
    }

    /// The zone whose group this is.
    pub fn zone(self) -> ZoneId {
        let [high, low, ..] = self.0.to_be_bytes();
        ZoneId(u16::from_be_bytes([high, low]))
    }

    /// The random part.
    pub const fn nonce(self) -> u64 {
        self.0 & Self::NONCE_MASK
    }

    /// Both parts in one number, for keys and wire fields; [`Incarnation::from_raw`] reads it back.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The incarnation that [`Incarnation::raw`] gave. Every number is one.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:012x}", self.zone(), self.nonce())
    }
}

/// One write: the `counter`-th of its incarnation in its shard. Counters start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Whose counter it is.
    pub incarnation: Incarnation,
    /// Which write of it.
    pub counter: u64,
}

impl Dot {
    /// The `counter`-th write of `incarnation`.
    pub const fn new(incarnation: Incarnation, counter: u64) -> Self {
        Self {
            incarnation,
            counter,
        }
    }

    /// The zone that made the write.
    pub fn zone(self) -> ZoneId {
        self.incarnation.zone()
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.incarnation, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_keeps_its_zone_and_masks_its_nonce() {
        let incarnation = Incarnation::new(ZoneId(0xabcd), u64::MAX);
        assert_eq!(incarnation.zone(), ZoneId(0xabcd));
        assert_eq!(incarnation.nonce(), (1 << 48) - 1);
        assert_eq!(Incarnation::from_raw(incarnation.raw()), incarnation);
    }

    #[test]
    fn dots_sort_by_zone_first_and_by_counter_last() {
        let early = Incarnation::new(ZoneId(1), 900);
        let late = Incarnation::new(ZoneId(2), 1);
        let mut dots = [Dot::new(late, 1), Dot::new(early, 7), Dot::new(early, 2)];
        dots.sort();
        assert_eq!(
            dots,
            [Dot::new(early, 2), Dot::new(early, 7), Dot::new(late, 1)]
        );
    }

    #[test]
    fn zone_zero_is_shown_as_global() {
        assert_eq!(ZoneId::GLOBAL.to_string(), "global");
        assert_eq!(
            Dot::new(Incarnation::new(ZoneId(3), 255), 9).to_string(),
            "3.0000000000ff:9"
        );
    }
}
