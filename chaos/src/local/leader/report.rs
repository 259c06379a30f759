//! What was measured, and whether the bars hold.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::minority::Asked;
use crate::local::experiment::{Findings, Wrong};
use crate::local::puts::percentile;
use crate::local::table::{median_and_most, print};

/// Election timeouts until a shard takes writes again: wanted, and at most.
const WANTED: f64 = 3.0;
const AT_MOST: f64 = 5.0;
/// A strong operation on the minority side is refused within this.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// What it may be refused with.
const REASONS: [&str; 2] = ["NO_QUORUM", "OUTCOME_UNKNOWN"];

/// One cut.
pub(super) struct Cut {
    /// Per shard, since the cut began; `None`: it did not.
    pub(super) went_on: Vec<Option<Duration>>,
    pub(super) asked: Asked,
    /// Acknowledged keys that are not there after healing.
    pub(super) lost: Vec<String>,
}

/// Refusals for one reason.
#[derive(Debug, Default, Serialize)]
struct Refusals {
    count: usize,
    #[serde(skip)]
    times: Vec<Duration>,
    most_ms: f64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    processors: usize,
    election_timeout_ms: f64,
    cuts: usize,
    /// Shards that took writes again, over all cuts.
    shards: usize,
    median_ms: f64,
    most_ms: f64,
    /// In election timeouts.
    median_timeouts: f64,
    most_timeouts: f64,
    /// The last shard of each cut, in milliseconds.
    last_shard_ms: Vec<f64>,
    refused: BTreeMap<String, Refusals>,
    eventual_gets: usize,
    eventual_most_ms: f64,
    #[serde(skip)]
    eventual: Vec<Duration>,
    wrong: Wrong,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Report {
    pub(super) fn of(election_timeout: Duration, cuts: &[Cut]) -> Self {
        let all = cuts.iter().flat_map(|cut| cut.went_on.iter().flatten());
        let mut all: Vec<Duration> = all.copied().collect();
        let mut at = |share| percentile(&mut all, share).map_or(f64::NAN, ms);
        let (median_ms, most_ms) = (at(500), at(1000));
        let asked = || cuts.iter().map(|cut| &cut.asked);
        let mut refused: BTreeMap<String, Refusals> = BTreeMap::new();
        for (time, reason) in asked().flat_map(|asked| &asked.refused) {
            let refusals = refused.entry(reason.clone()).or_default();
            refusals.count += 1;
            refusals.times.push(*time);
            refusals.most_ms = refusals.most_ms.max(ms(*time));
        }
        let eventual: Vec<Duration> = asked().flat_map(|asked| asked.eventual.clone()).collect();
        let last = |cut: &Cut| cut.went_on.iter().flatten().max().copied();
        let timeout_ms = ms(election_timeout);
        let mut report = Self {
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            election_timeout_ms: timeout_ms,
            cuts: cuts.len(),
            shards: all.len(),
            median_ms,
            most_ms,
            median_timeouts: median_ms / timeout_ms,
            most_timeouts: most_ms / timeout_ms,
            last_shard_ms: cuts.iter().filter_map(last).map(ms).collect(),
            refused,
            eventual_gets: eventual.len(),
            eventual_most_ms: eventual.iter().max().copied().map_or(f64::NAN, ms),
            eventual,
            wrong: Wrong::default(),
        };
        report.judge(cuts);
        report
    }

    fn judge(&mut self, cuts: &[Cut]) {
        let mut wrong = Wrong::default();
        for (number, cut) in (1..).zip(cuts) {
            judge_cut(number, cut, &mut wrong);
        }
        let (median, most) = (self.median_timeouts, self.most_timeouts);
        wrong.expect(median <= WANTED, || {
            format!("the median shard took writes again after {median:.2} election timeouts, {WANTED} are wanted")
        });
        wrong.expect(most <= AT_MOST, || {
            format!("a shard took writes again after {most:.2} election timeouts, {AT_MOST} at most are allowed")
        });
        for (reason, refusals) in &self.refused {
            wrong.expect(refusals.most_ms <= ms(REFUSED_WITHIN), || {
                format!(
                    "{reason} on the minority side took {:.0} ms",
                    refusals.most_ms
                )
            });
        }
        self.wrong = wrong;
    }
}

fn judge_cut(number: usize, cut: &Cut, wrong: &mut Wrong) {
    let mut broken = |what: String| wrong.broken.push(format!("cut {number}: {what}"));
    let not = cut.went_on.iter().filter(|shard| shard.is_none()).count();
    if not > 0 {
        broken(format!("{not} shards took no writes on the majority side"));
    }
    for done in &cut.asked.done {
        broken(format!("a {done} was done on the minority side"));
    }
    let reasons = cut.asked.refused.iter().map(|(_, reason)| reason);
    for reason in reasons.filter(|reason| !REASONS.contains(&reason.as_str())) {
        broken(format!("the minority side refused with {reason}"));
    }
    for why in &cut.asked.unanswered {
        broken(format!("an eventual get on the minority side: {why}"));
    }
    if cut.asked.eventual.is_empty() || cut.asked.refused.is_empty() {
        broken("the minority side was not asked".to_owned());
    }
    for lost in &cut.lost {
        broken(format!("acknowledged and not there: {lost}"));
    }
}

impl Findings for Report {
    fn wrong(&self) -> &Wrong {
        &self.wrong
    }

    fn show(&self) {
        let last: Vec<String> = self
            .last_shard_ms
            .iter()
            .map(|ms| format!("{ms:.0}"))
            .collect();
        print(
            [
                "cuts",
                "shards",
                "takes writes again: median",
                "worst",
                "last shard of each cut",
            ],
            &[[
                self.cuts.to_string(),
                self.shards.to_string(),
                format!(
                    "{:.0} ms, {:.2} election timeouts",
                    self.median_ms, self.median_timeouts
                ),
                format!(
                    "{:.0} ms, {:.2} election timeouts",
                    self.most_ms, self.most_timeouts
                ),
                format!("{} ms", last.join(", ")),
            ]],
        );
        let mut rows: Vec<[String; 3]> = Vec::new();
        for (reason, refusals) in &self.refused {
            rows.push([
                format!("strong operations: {reason}"),
                refusals.count.to_string(),
                median_and_most(refusals.times.clone()),
            ]);
        }
        rows.push([
            "eventual gets: answered".to_owned(),
            self.eventual_gets.to_string(),
            median_and_most(self.eventual.clone()),
        ]);
        print(["minority side", "count", "median (most)"], &rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn good() -> Cut {
        Cut {
            went_on: vec![Some(2 * TIMEOUT), Some(3 * TIMEOUT)],
            asked: Asked {
                refused: vec![(TIMEOUT, "NO_QUORUM".to_owned())],
                eventual: vec![Duration::from_millis(1)],
                ..Asked::default()
            },
            lost: Vec::new(),
        }
    }

    fn judged(spoil: impl FnOnce(&mut Cut)) -> Wrong {
        let mut cut = good();
        spoil(&mut cut);
        Report::of(TIMEOUT, &[cut]).wrong
    }

    #[test]
    fn a_cut_after_which_all_goes_on_and_the_minority_refuses_is_right() {
        assert_eq!(judged(|_| {}), Wrong::default());
    }

    #[test]
    fn what_the_minority_must_not_do_is_found() {
        let broken = |spoil: fn(&mut Cut)| judged(spoil).broken.len();
        assert_eq!(broken(|cut| cut.asked.done.push("put".to_owned())), 1);
        let other = (TIMEOUT, "NOT_LEADER".to_owned());
        assert_eq!(judged(|cut| cut.asked.refused.push(other)).broken.len(), 1);
        assert_eq!(
            broken(|cut| cut.asked.unanswered.push("gone".to_owned())),
            1
        );
        assert_eq!(broken(|cut| cut.asked.eventual.clear()), 1);
    }

    #[test]
    fn what_the_majority_must_do_is_missed_or_lost() {
        assert_eq!(judged(|cut| cut.went_on = vec![None]).broken.len(), 1);
        assert_eq!(judged(|cut| cut.lost.push("k".to_owned())).broken.len(), 1);
        let late = judged(|cut| cut.went_on = vec![Some(6 * TIMEOUT)]);
        assert_eq!((late.missed.len(), late.broken.len()), (2, 0));
    }

    #[test]
    fn a_refusal_that_takes_longer_than_a_second_is_missed() {
        let slow = (Duration::from_millis(1001), "OUTCOME_UNKNOWN".to_owned());
        assert_eq!(judged(|cut| cut.asked.refused.push(slow)).missed.len(), 1);
    }
}
