//! Merges that wait for a turn: what came from other zones enters the log a little at a time, so that a client's write waits
//! for little of it, however much has come at once.
//!
//! Clients' operations are never held back for them. In return, a turn takes at least as many bytes of merges as it is told,
//! and a multiple of what its clients bring: a steady load of all zones leaves no growing backlog here.
//!
//! What it is not: a bound. What waits is bounded by the windows of the senders.
//!
//! Invariants: merges of one incarnation keep their order; the effects of one transaction are not parted.

use std::collections::VecDeque;

use crate::command::{Effect, Op};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    waiting: VecDeque<Op>,
}

impl Merges {
    pub(crate) fn push(&mut self, merge: Op) {
        self.waiting.push_back(merge);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// What has waited longest, of about so many bytes; at least one effect, with its transaction.
    pub(crate) fn take(&mut self, bytes_max: usize) -> Vec<Op> {
        let mut taken = Vec::new();
        let mut left = bytes_max.max(1);
        while left > 0
            && let Some(op) = self.waiting.pop_front()
        {
            let (now, bytes, rest) = part(op, left);
            left = left.saturating_sub(bytes);
            taken.push(now);
            if let Some(rest) = rest {
                self.waiting.push_front(rest);
                break;
            }
        }
        taken
    }
}

/// A merge of about so many bytes, the bytes, and the rest.
fn part(op: Op, bytes_max: usize) -> (Op, usize, Option<Op>) {
    let Op::Merge {
        incarnation,
        first,
        mut effects,
    } = op
    else {
        let bytes = op.encoded_bytes();
        return (op, bytes, None);
    };
    let (count, bytes) = fitting(&effects, bytes_max);
    let rest = effects.split_off(count);
    let now = Op::Merge {
        incarnation,
        first,
        effects,
    };
    let rest = (!rest.is_empty()).then(|| Op::Merge {
        incarnation,
        first: first.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)),
        effects: rest,
    });
    (now, bytes, rest)
}

/// How many effects go together, and their bytes.
fn fitting(effects: &[Effect], bytes_max: usize) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0_usize);
    let mut before: Option<&Effect> = None;
    for effect in effects {
        let more = bytes.saturating_add(effect.encoded_bytes());
        let together = before.is_none_or(|before| effect.continues(before));
        if more > bytes_max && !together {
            break;
        }
        (count, bytes, before) = (count + 1, more, Some(effect));
    }
    (count, bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use meridian_causal::{CausalContext, Content, Hlc, Incarnation, TransactionTag, ZoneId};

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
        merges.push(Op::Merge {
            incarnation: Incarnation::new(ZoneId(2), 7),
            first: 1,
            effects: effects.map(|(n, id)| effect(n, *id)).collect(),
        });
        merges
    }

    /// First counter and number of effects of each part that comes out.
    fn parts(mut merges: Merges, bytes_max: usize) -> Vec<(u64, usize)> {
        let mut parts = Vec::new();
        while !merges.is_empty() {
            for op in merges.take(bytes_max) {
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

    #[test]
    fn several_merges_go_in_one_turn_while_they_fit() {
        let mut merges = waiting(&[None]);
        merges.push(Op::Merge {
            incarnation: Incarnation::new(ZoneId(3), 7),
            first: 9,
            effects: vec![effect(9, None); 2],
        });
        let two = 2 * effect(1, None).encoded_bytes();
        assert_eq!(merges.take(two).len(), 2);
        assert_eq!(parts(merges, two), [(10, 1)]);
    }
}
