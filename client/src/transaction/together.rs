//! Whether what a transaction has read stood side by side, as far as the answers themselves show it.
//!
//! A node says with a key from which to which index of its shard's log the key did not change. Keys of one shard whose
//! stretches share an index were all so at that index. Where this shows nothing (another shard, a range, a key without a
//! record, a change in between) the earlier reads have to be validated.

use meridian_proto::kv::v1 as wire;

/// What the reads so far have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Together {
    /// Nothing was read.
    #[default]
    Nothing,
    /// All reads are of this shard and hold throughout this stretch of its log.
    Span(wire::HeldSpan),
    /// Not shown.
    Unknown,
}

impl Together {
    /// Takes in a read.
    pub(super) fn add(&mut self, span: Option<wire::HeldSpan>) {
        let Some(span) = span.filter(|span| span.from <= span.through) else {
            *self = Self::Unknown;
            return;
        };
        *self = match self {
            Self::Nothing => Self::Span(span),
            Self::Span(before) if (before.shard, before.log) == (span.shard, span.log) => {
                let from = before.from.max(span.from);
                let through = before.through.min(span.through);
                let shared = wire::HeldSpan {
                    shard: span.shard,
                    from,
                    through,
                    log: span.log,
                };
                if from <= through {
                    Self::Span(shared)
                } else {
                    Self::Unknown
                }
            }
            Self::Span(_) | Self::Unknown => Self::Unknown,
        };
    }

    /// Everything read stood side by side.
    pub(super) const fn is_shown(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spans: &[Option<(u32, u64, u64)>]) -> bool {
        let mut together = Together::default();
        for span in spans {
            together.add(span.map(|(shard, from, through)| wire::HeldSpan {
                shard,
                from,
                through,
                log: 7,
            }));
        }
        together.is_shown()
    }

    #[test]
    fn stretches_of_one_shard_that_share_an_index_show_it() {
        assert!(shown(&[]));
        assert!(shown(&[
            Some((3, 5, 9)),
            Some((3, 1, 12)),
            Some((3, 9, 20))
        ]));
    }

    #[test]
    fn a_change_between_two_reads_shows_nothing_and_no_later_read_mends_it() {
        assert!(!shown(&[Some((3, 5, 9)), Some((3, 10, 12))]));
        assert!(!shown(&[
            Some((3, 5, 9)),
            Some((3, 10, 12)),
            Some((3, 1, 40))
        ]));
        // Each two of them share an index; the three do not.
        assert!(!shown(&[Some((3, 1, 5)), Some((3, 4, 9)), Some((3, 6, 9))]));
    }

    #[test]
    fn stretches_of_two_logs_of_a_shard_show_nothing() {
        let mut together = Together::default();
        for log in [7, 8] {
            together.add(Some(wire::HeldSpan {
                shard: 3,
                from: 5,
                through: 9,
                log,
            }));
        }
        assert!(!together.is_shown());
    }

    #[test]
    fn other_shards_absent_keys_and_backward_stretches_show_nothing() {
        assert!(!shown(&[Some((3, 5, 9)), Some((4, 5, 9))]));
        assert!(!shown(&[Some((3, 5, 9)), None]));
        assert!(!shown(&[Some((3, 9, 5))]));
    }
}
