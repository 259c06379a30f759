//! Merges that wait for a turn: what came from other zones enters the log a little at a time, so that a client's write waits
//! for little of it, however much has come at once.
//!
//! Clients' operations are never held back for them. In return, a turn takes at least as many bytes of merges as it is told,
//! and a multiple of what its clients bring: a steady load of all zones leaves no growing backlog here. When an effect may go,
//! [`Pace`] says.
//!
//! What it is not: a bound. What waits is bounded by the windows of the senders.
//!
//! Invariants: merges of one incarnation keep their order; the effects of one transaction are not parted.

use std::collections::{BTreeMap, VecDeque};

use meridian_causal::Incarnation;

use super::pace::{Pace, Replay};
use crate::command::{Effect, Op};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    /// None is empty.
    waiting: BTreeMap<Incarnation, VecDeque<Chunk>>,
    replays: BTreeMap<Incarnation, Replay>,
}

/// Effects that follow one another; never empty.
#[derive(Debug)]
struct Chunk {
    /// Counter of the first.
    first: u64,
    effects: VecDeque<Effect>,
}

impl Merges {
    /// Effects of an incarnation, from a counter on.
    pub(crate) fn push(&mut self, incarnation: Incarnation, first: u64, effects: Vec<Effect>) {
        if !effects.is_empty() {
            let effects = VecDeque::from(effects);
            let chunks = self.waiting.entry(incarnation).or_default();
            chunks.push_back(Chunk { first, effects });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.replays.clear();
    }

    /// Whether any may go now: of each incarnation, what has waited longest.
    pub(crate) fn is_due(&self, pace: &Pace) -> bool {
        self.waiting.iter().any(|(incarnation, chunks)| {
            let first = chunks.front().and_then(|chunk| chunk.effects.front());
            let replay = self.replays.get(incarnation);
            first.is_none_or(|effect| pace.admits(replay, effect.written_at))
        })
    }

    /// What has waited longest and may go, of about so many bytes, which the incarnations share; at least one effect, with its
    /// transaction. One incarnation does not wait for another.
    pub(crate) fn take(&mut self, bytes_max: usize, pace: &mut Pace) -> Vec<Op> {
        let mut taken = Vec::new();
        let mut left = bytes_max.max(1);
        let mut sharing = self.waiting.len();
        self.waiting.retain(|incarnation, chunks| {
            let mut share = left.div_ceil(sharing.max(1));
            sharing = sharing.saturating_sub(1);
            while share > 0
                && let Some(chunk) = chunks.front_mut()
                && let Some(begins_at) = chunk.effects.front().map(|effect| effect.written_at)
            {
                let replay = self.replays.entry(*incarnation);
                let replay = replay.or_insert_with(|| Replay::beginning_at(pace, begins_at));
                let (count, bytes) = fitting(&chunk.effects, share, (pace, replay));
                let Some(merge) = chunk.take(*incarnation, count) else {
                    break;
                };
                taken.push(merge);
                share = share.saturating_sub(bytes);
                left = left.saturating_sub(bytes);
                if !chunk.effects.is_empty() {
                    break;
                }
                chunks.pop_front();
            }
            !chunks.is_empty()
        });
        taken
    }
}

impl Chunk {
    /// Takes so many effects off its front.
    fn take(&mut self, incarnation: Incarnation, count: usize) -> Option<Op> {
        let effects: Vec<Effect> = self.effects.drain(..count).collect();
        let first = self.first;
        self.first = first.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        (!effects.is_empty()).then_some(Op::Merge {
            incarnation,
            first,
            effects,
        })
    }
}

/// How many effects go together, and their bytes.
fn fitting(
    effects: &VecDeque<Effect>,
    bytes_max: usize,
    (pace, replay): (&mut Pace, &mut Replay),
) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0_usize);
    let mut before: Option<&Effect> = None;
    for effect in effects {
        let own = effect.encoded_bytes();
        let more = bytes.saturating_add(own);
        let together = before.is_some_and(|before| effect.continues(before));
        let fits = before.is_none() || more <= bytes_max;
        let goes = together || (fits && pace.admits(Some(replay), effect.written_at));
        if !goes {
            break;
        }
        pace.enters(replay, effect.written_at, own);
        (count, bytes, before) = (count + 1, more, Some(effect));
    }
    (count, bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use meridian_causal::{CausalContext, Content, Hlc, TransactionTag, ZoneId};

    use super::*;

    fn effect(number: u8, transaction: Option<u128>) -> Effect {
        Effect {
            key: Bytes::from(vec![number]),
            content: Content::Value(Bytes::from_static(&[0; 100])),
            replaced: CausalContext::default(),
            written_at: Hlc(1),
            expires_at_ms: None,
            op_id: None,
            transaction: transaction.map(|id| TransactionTag { id, parts: 1 }),
        }
    }

    fn waiting(transactions: &[Option<u128>]) -> Merges {
        let mut merges = Merges::default();
        let effects = (1..).zip(transactions);
        merges.push(
            Incarnation::new(ZoneId(2), 7),
            1,
            effects.map(|(n, id)| effect(n, *id)).collect(),
        );
        merges
    }

    /// First counter and number of effects of each part that comes out.
    fn parts(mut merges: Merges, bytes_max: usize) -> Vec<(u64, usize)> {
        let mut parts = Vec::new();
        while !merges.is_empty() {
            for op in merges.take(bytes_max, &mut Pace::default()) {
                let Op::Merge { first, effects, .. } = op else {
                    panic!("a merge is a merge");
                };
                parts.push((first, effects.len()));
            }
        }
        parts
    }

    #[test]
    fn a_merge_comes_out_in_parts_that_go_on_where_the_last_ended() {
        let two = 2 * effect(1, None).encoded_bytes();
        assert_eq!(parts(waiting(&[None; 5]), two), [(1, 2), (3, 2), (5, 1)]);
        assert_eq!(parts(waiting(&[None; 5]), usize::MAX), [(1, 5)]);
    }

    #[test]
    fn one_effect_always_goes_however_little_is_allowed() {
        assert_eq!(parts(waiting(&[None; 3]), 0), [(1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn effects_of_one_transaction_are_not_parted() {
        let transactions = [None, Some(1), Some(1), Some(1), Some(2)];
        assert_eq!(parts(waiting(&transactions), 1), [(1, 1), (2, 3), (5, 1)]);
    }

    /// Times of one incarnation need not grow: a transaction's writes bear the time at which it was prepared.
    #[test]
    fn a_merge_that_is_due_waits_for_one_before_it_that_is_not() {
        let now = |ms: u64| crate::time::Now {
            mono_ns: ms * crate::time::MS,
            wall_ms: 5_000_000,
        };
        let mut pace = Pace::default();
        pace.client_asks(now(1_000));
        pace.begin(now(1_000), false);
        let mut other = Replay::beginning_at(&pace, Hlc::new(5_000_000, 0));
        pace.enters(&mut other, Hlc::new(5_000_000, 0), usize::MAX);
        let mut merges = waiting(&[None]);
        let late = Effect {
            written_at: Hlc::new(3_000_000, 0),
            ..effect(2, None)
        };
        let incarnation = Incarnation::new(ZoneId(2), 7);
        merges.push(incarnation, 2, vec![late, effect(3, None)]);
        while merges.is_due(&pace) {
            assert!(!merges.take(usize::MAX, &mut pace).is_empty());
            pace.end();
        }
        assert!(!merges.is_empty());
    }

    #[test]
    fn several_merges_go_in_one_turn_while_they_fit() {
        let mut merges = waiting(&[None]);
        let other = Incarnation::new(ZoneId(3), 7);
        merges.push(other, 9, vec![effect(9, None); 2]);
        let two = 2 * effect(1, None).encoded_bytes();
        assert_eq!(merges.take(two, &mut Pace::default()).len(), 2);
        assert_eq!(parts(merges, two), [(10, 1)]);
    }
}
