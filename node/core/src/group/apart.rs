//! Election timeouts of voters that are far apart.
//!
//! Votes take a round trip. Two voters that stand for election within it may each vote for itself, and both wait for another
//! timeout; with timeouts drawn evenly from one to two of them, a round trip of a fifth of that splits every third vote. So
//! in a group that spans zones each voter has a part of that time to itself, in the order of their ids: the first stands early,
//! the next when the first must have won or cannot. Within its part it still draws, so that no two runs are alike.
//!
//! Invariant: a timeout is at least one election timeout, and less than two, as raft-rs wants it.

use super::Group;

/// What a voter still draws from, in ticks.
const DRAW_TICKS: usize = 2;

impl Group {
    /// The timeout in force, of what was drawn.
    pub(super) fn timeout_of(&self, drawn: usize) -> usize {
        if !self.id.spans_zones() {
            return drawn;
        }
        let leader = self.raft.raft.leader_id;
        let others = self.log().conf().voters.iter();
        let others = others.filter(|voter| **voter != leader);
        let own = self.replica.0;
        let (before, count) = others.fold((0, 0), |(before, count), voter| {
            (before + usize::from(*voter < own), count + 1)
        });
        apart((before, count), self.election_ticks, drawn)
    }
}

/// The timeout of the voter at a place, of so many that may stand.
fn apart((place, count): (usize, usize), election_ticks: usize, drawn: usize) -> usize {
    let room = election_ticks.saturating_sub(DRAW_TICKS);
    let step = room / count.saturating_sub(1).max(1);
    let timeout =
        election_ticks + (place * step).min(room) + drawn % DRAW_TICKS.min(election_ticks);
    assert!(
        (election_ticks..2 * election_ticks).contains(&timeout),
        "raft-rs takes timeouts of one to two election timeouts"
    );
    timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_may_stand_are_most_of_a_timeout_apart() {
        for (first, second) in [(10, 10), (11, 10), (10, 11), (19, 13)] {
            let (first, second) = (apart((0, 2), 10, first), apart((1, 2), 10, second));
            assert!(first <= 11 && second >= 18, "{first} and {second}");
        }
    }

    #[test]
    fn however_many_and_however_short_it_is_between_one_and_two_timeouts() {
        for election_ticks in 1..30 {
            for count in 0..8 {
                for place in 0..=count {
                    for drawn in election_ticks..2 * election_ticks {
                        apart((place, count), election_ticks, drawn);
                    }
                }
            }
        }
    }
}
