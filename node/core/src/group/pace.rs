//! How fast a core lets in what was written elsewhere while it was away, beside clients of its own.
//!
//! A backlog is replayed: effects of one incarnation enter at most [`REPLAY_TENTHS`] tenths as fast as they were written, by the
//! times that they bear. So a zone that was cut off catches up in a share of the time that it was away, all zones at once, and
//! takes no more of the processors than it must. Whatever they were written, some bytes go in any second, so that a backlog with
//! long gaps is not waited for; and where no client asks for anything nothing is held back.
//!
//! And it comes in portions, with pauses between them: an entry of many effects costs less than many entries. They are as large as
//! time has made them: small where turns are quick, so that who writes meanwhile waits for little.
//!
//! What it is not: a bound on what waits, or on a turn. What comes fresh is never held back: its times advance as the clock does.
//!
//! Invariant: a replay is never ahead of the last effect let in by more than [`REPLAY_CREDIT_MS`], so that a pause is not made up
//! for by a burst.

use meridian_causal::Hlc;

use crate::limits::{
    BACKLOG_AGE_MS, BACKLOG_EVERY_MS, CLIENTS_ABSENT_MS, MERGE_BYTES_PER_MS, MERGE_CREDIT_BYTES,
    REPLAY_CREDIT_MS, REPLAY_TENTHS,
};
use crate::time::{MS, Now};

/// What a core's groups share.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes that go whatever their times.
    credit_bytes: u64,
    filled_ns: u64,
    client_ns: Option<u64>,
    /// When the last portion of a backlog went in.
    portion_ns: u64,
    takes_portion: bool,
    /// In this turn no merges are applied.
    defers: bool,
    put_off: PutOff,
    now: Now,
}

/// Whether the next portion of a backlog was put off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PutOff {
    #[default]
    No,
    /// None goes in this turn.
    InThisTurn,
    Before,
}

impl Pace {
    /// A client asks for something.
    pub(crate) const fn client_asks(&mut self, now: Now) {
        self.client_ns = Some(now.mono_ns);
    }

    /// A turn begins. One that answers clients by what it applies takes no portion of a backlog; but not twice before
    /// the next portion.
    pub(crate) fn begin(&mut self, now: Now, answers_clients: bool) {
        let passed_ms = now.mono_ns.saturating_sub(self.filled_ns) / MS;
        if passed_ms > 0 {
            let more = passed_ms.saturating_mul(MERGE_BYTES_PER_MS);
            self.credit_bytes = self
                .credit_bytes
                .saturating_add(more)
                .min(MERGE_CREDIT_BYTES);
            self.filled_ns = self.filled_ns.saturating_add(passed_ms.saturating_mul(MS));
        }
        self.now = now;
        let is_due = now.mono_ns >= self.portion_ns.saturating_add(BACKLOG_EVERY_MS * MS);
        self.put_off = match self.put_off {
            PutOff::No if answers_clients && is_due => PutOff::InThisTurn,
            PutOff::No => PutOff::No,
            PutOff::InThisTurn | PutOff::Before => PutOff::Before,
        };
    }

    /// A turn is written.
    pub(crate) const fn end(&mut self) {
        if self.takes_portion {
            self.takes_portion = false;
            self.put_off = PutOff::No;
            self.portion_ns = self.now.mono_ns;
        }
    }

    /// Of what is logged, this turn applies what clients have asked for and puts merges off, where there are both; but not twice.
    pub(crate) const fn defer_beside(&mut self, has_both: bool) {
        self.defers = has_both && !self.defers;
    }

    /// Whether this turn puts merges off.
    pub(crate) const fn defers(&self) -> bool {
        self.defers
    }

    /// Whether a portion of a backlog may go in this turn.
    pub(crate) const fn is_portion_due(&self) -> bool {
        let is_time = self.now.mono_ns >= self.portion_ns.saturating_add(BACKLOG_EVERY_MS * MS);
        is_time && !matches!(self.put_off, PutOff::InThisTurn)
    }

    const fn is_backlog(&self, written_at: Hlc) -> bool {
        self.now.wall_ms.saturating_sub(written_at.wall_ms()) > BACKLOG_AGE_MS
    }

    /// Whether something written at a time may go now.
    pub(crate) fn admits(&self, replay: Option<&Replay>, written_at: Hlc) -> bool {
        let has_clients = self
            .client_ns
            .is_some_and(|at| self.now.mono_ns < at.saturating_add(CLIENTS_ABSENT_MS * MS));
        let is_time = self.is_portion_due() || !self.is_backlog(written_at);
        let is_due = || replay.is_none_or(|replay| replay.is_due(self.now, written_at));
        !has_clients || (is_time && (self.credit_bytes > 0 || is_due()))
    }

    /// It goes.
    pub(crate) fn enters(&mut self, replay: &mut Replay, written_at: Hlc, bytes: usize) {
        self.takes_portion |= self.is_backlog(written_at);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.credit_bytes = self.credit_bytes.saturating_sub(bytes);
        replay.reach(self.now, written_at);
    }
}

/// How far the effects of one incarnation are replayed: a clock that runs faster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay {
    written_ms: u64,
    at_ns: u64,
}

impl Replay {
    /// One that begins with what was written at a time.
    pub(crate) const fn beginning_at(pace: &Pace, written_at: Hlc) -> Self {
        Self {
            written_ms: written_at.wall_ms(),
            at_ns: pace.now.mono_ns,
        }
    }

    fn reads_ms(&self, now: Now) -> u64 {
        let passed_ns = now.mono_ns.saturating_sub(self.at_ns);
        let replayed_ms = passed_ns.saturating_mul(REPLAY_TENTHS) / (10 * MS);
        self.written_ms.saturating_add(replayed_ms)
    }

    fn is_due(&self, now: Now, written_at: Hlc) -> bool {
        written_at.wall_ms() <= self.reads_ms(now)
    }

    fn reach(&mut self, now: Now, written_at: Hlc) {
        let (reads_ms, reached_ms) = (self.reads_ms(now), written_at.wall_ms());
        let most_ms = reached_ms.saturating_add(REPLAY_CREDIT_MS);
        if !(reached_ms..=most_ms).contains(&reads_ms) {
            self.written_ms = reads_ms.clamp(reached_ms, most_ms);
            self.at_ns = now.mono_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            mono_ns: ms * MS,
            wall_ms: 0,
        }
    }

    /// How many effects, one written each millisecond, go in so many milliseconds with a client beside.
    fn replayed(ms: u64, bytes: usize) -> u64 {
        let mut pace = Pace::default();
        pace.begin(at(0), false);
        let mut replay = Replay::beginning_at(&pace, Hlc::new(0, 0));
        let mut next = 0;
        for now_ms in 0..ms {
            pace.client_asks(at(now_ms));
            pace.begin(at(now_ms), false);
            while pace.admits(Some(&replay), Hlc::new(next, 0)) && next < 1_000_000 {
                pace.enters(&mut replay, Hlc::new(next, 0), bytes);
                next += 1;
            }
        }
        next
    }

    #[test]
    fn a_backlog_is_replayed_some_times_as_fast_as_it_was_written() {
        let expected = 10_000 * REPLAY_TENTHS / 10;
        let replayed = replayed(10_000, 1 << 20);
        assert!(replayed.abs_diff(expected) < expected / 20, "{replayed}");
    }

    #[test]
    fn a_backlog_goes_in_portions_and_what_is_fresh_does_not_wait_for_them() {
        let now = |ms| Now {
            wall_ms: 100_000,
            ..at(ms)
        };
        let mut pace = Pace::default();
        let (old, fresh) = (Hlc::new(1, 0), Hlc::new(99_900, 0));
        pace.client_asks(now(1_000));
        pace.begin(now(1_000), false);
        let mut replay = Replay::beginning_at(&pace, old);
        pace.enters(&mut replay, old, 1);
        pace.end();
        pace.begin(now(1_001), false);
        assert!(!pace.admits(Some(&replay), old));
        assert!(pace.admits(None, fresh));
        pace.begin(now(1_000 + BACKLOG_EVERY_MS), false);
        assert!(pace.admits(Some(&replay), old));
    }

    #[test]
    fn a_portion_waits_for_a_turn_that_answers_nobody_but_not_for_two() {
        let mut pace = Pace::default();
        let due = at(BACKLOG_EVERY_MS);
        let goes = |pace: &mut Pace, answers_clients| {
            pace.begin(due, answers_clients);
            pace.is_portion_due()
        };
        assert!(!goes(&mut pace, true));
        // It need not go in the turn that could take it: then it goes with the next, whoever waits for that.
        assert!(goes(&mut pace, false) && goes(&mut pace, true));
        let mut replay = Replay::beginning_at(&pace, Hlc::new(0, 0));
        pace.now.wall_ms = 100_000;
        pace.enters(&mut replay, Hlc::new(1, 0), 1);
        pace.end();
        assert!(!goes(&mut pace, false));
        let due = at(2 * BACKLOG_EVERY_MS);
        pace.begin(due, true);
        assert!(!pace.is_portion_due());
    }

    #[test]
    fn merges_are_put_off_beside_clients_but_not_twice() {
        let mut pace = Pace::default();
        let turns = [true, true, true, false].map(|has_both| {
            pace.defer_beside(has_both);
            pace.defers()
        });
        assert_eq!(turns, [true, false, true, false]);
    }

    #[test]
    fn small_writes_go_as_fast_as_so_many_bytes_allow() {
        let per_byte = replayed(1_000, 1);
        assert!(per_byte > 500 * MERGE_BYTES_PER_MS, "{per_byte}");
    }

    #[test]
    fn nothing_is_held_back_where_no_client_asks() {
        let mut pace = Pace::default();
        pace.begin(at(10), false);
        let replay = Replay::beginning_at(&pace, Hlc::new(0, 0));
        let late = Hlc::new(1 << 40, 0);
        pace.credit_bytes = 0;
        assert!(pace.admits(Some(&replay), late));
        pace.client_asks(at(10));
        assert!(!pace.admits(Some(&replay), late));
        pace.begin(at(11 + CLIENTS_ABSENT_MS), false);
        assert!(pace.admits(Some(&replay), late));
    }

    #[test]
    fn a_pause_is_not_made_up_for_by_a_burst() {
        let mut pace = Pace::default();
        pace.begin(at(0), false);
        let mut replay = Replay::beginning_at(&pace, Hlc::new(0, 0));
        pace.begin(at(60_000), false);
        pace.enters(&mut replay, Hlc::new(1, 0), usize::MAX);
        pace.client_asks(at(60_000));
        assert!(pace.admits(Some(&replay), Hlc::new(REPLAY_CREDIT_MS, 0)));
        assert!(!pace.admits(Some(&replay), Hlc::new(REPLAY_CREDIT_MS + 2, 0)));
    }
}
