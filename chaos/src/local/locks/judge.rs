//! What is promised of tokens and holders, checked against what the register has written down.
//!
//! * No two acquisitions get the same token, so no two holders act under one.
//! * Of two acquisitions, the one that was asked for after the other was announced has the greater token.
//! * No action under an older token is accepted after one under a newer.
//! * While one holds the lease by its own clock, from when it said so until it said that it is done, nobody else gets it.
//!
//! It trusts nothing the register concluded; it looks at the order of events alone.

use std::collections::BTreeMap;

use super::register::{Event, What};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Promises that were broken.
    pub(super) findings: Vec<String>,
    taken: usize,
    paused: usize,
    accepted: usize,
    refused: usize,
    lost: usize,
}

impl Verdict {
    /// What happened, in one line.
    pub(super) fn summary(&self) -> String {
        let Self {
            findings: _,
            taken,
            paused,
            accepted,
            refused,
            lost,
        } = self;
        format!(
            "acquisitions={taken} paused={paused} accepted={accepted} refused-as-stale={refused} lost={lost}"
        )
    }

    fn find(&mut self, finding: String) {
        self.findings.push(finding);
    }
}

#[derive(Default)]
struct Judge {
    verdict: Verdict,
    /// Who got a token.
    holders: BTreeMap<u64, u32>,
    /// The greatest token announced before a contender last asked.
    announced_before: BTreeMap<u32, u64>,
    announced: u64,
    newest_accepted: u64,
    /// Holders that are not done, and who else was announced meanwhile.
    current: BTreeMap<u64, Vec<u64>>,
}

/// Judges events in their order.
pub(super) fn judge(events: &[Event]) -> Verdict {
    let mut judge = Judge::default();
    for event in events {
        judge.event(*event);
    }
    judge.verdict
}

impl Judge {
    fn event(&mut self, Event { holder, what }: Event) {
        match what {
            What::Asked => {
                self.announced_before.insert(holder, self.announced);
            }
            What::Held { token } => self.held(holder, token),
            What::Paused { .. } => self.verdict.paused += 1,
            What::Acted { token, accepted } => self.acted(holder, token, accepted),
            What::Done { token, kept } => self.done(holder, token, kept),
        }
    }

    fn held(&mut self, holder: u32, token: u64) {
        self.verdict.taken += 1;
        if let Some(other) = self.holders.insert(token, holder) {
            self.verdict.find(format!(
                "token {token} was given to contender {other} and to contender {holder}"
            ));
        }
        let before = self.announced_before.get(&holder).copied().unwrap_or(0);
        if token <= before {
            self.verdict.find(format!(
                "contender {holder} got token {token} after token {before} had been given"
            ));
        }
        self.announced = self.announced.max(token);
        for others in self.current.values_mut() {
            others.push(token);
        }
        self.current.insert(token, Vec::new());
    }

    fn acted(&mut self, holder: u32, token: u64, accepted: bool) {
        if self.holders.get(&token) != Some(&holder) {
            self.verdict.find(format!(
                "contender {holder} acted under token {token}, which it was not given"
            ));
        }
        if !accepted {
            self.verdict.refused += 1;
            return;
        }
        self.verdict.accepted += 1;
        if token < self.newest_accepted {
            let newest = self.newest_accepted;
            self.verdict.find(format!(
                "an action under token {token} was accepted after one under {newest}"
            ));
        }
        self.newest_accepted = self.newest_accepted.max(token);
    }

    fn done(&mut self, holder: u32, token: u64, kept: bool) {
        let others = self.current.remove(&token).unwrap_or_default();
        if !kept {
            self.verdict.lost += 1;
        } else if let Some(other) = others.first() {
            self.verdict.find(format!(
                "contender {holder} held the lease under token {token} when token {other} was given"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(script: &[(u32, What)]) -> Vec<Event> {
        let event = |&(holder, what): &(u32, What)| Event { holder, what };
        script.iter().map(event).collect()
    }

    fn findings(script: &[(u32, What)]) -> Vec<String> {
        judge(&events(script)).findings
    }

    const fn held(token: u64) -> What {
        What::Held { token }
    }

    const fn acted(token: u64, accepted: bool) -> What {
        What::Acted { token, accepted }
    }

    const fn done(token: u64, kept: bool) -> What {
        What::Done { token, kept }
    }

    #[test]
    fn holders_one_after_another_and_a_stale_one_that_is_refused_break_nothing() {
        let script = [
            (1, What::Asked),
            (1, held(1)),
            (2, What::Asked),
            (1, What::Paused { token: 1 }),
            (2, held(2)),
            (2, acted(2, true)),
            (1, acted(1, false)),
            (2, done(2, true)),
            (1, done(1, false)),
        ];
        let verdict = judge(&events(&script));
        assert_eq!(verdict.findings, Vec::<String>::new());
        assert_eq!(
            verdict.summary(),
            "acquisitions=2 paused=1 accepted=1 refused-as-stale=1 lost=1"
        );
    }

    #[test]
    fn one_token_for_two_holders_is_found() {
        let script = [
            (1, What::Asked),
            (2, What::Asked),
            (1, held(1)),
            (2, held(1)),
        ];
        assert_eq!(findings(&script).len(), 1);
    }

    #[test]
    fn a_token_that_does_not_grow_is_found() {
        let script = [
            (1, What::Asked),
            (1, held(5)),
            (1, done(5, true)),
            (2, What::Asked),
            (2, held(4)),
        ];
        assert_eq!(findings(&script).len(), 1);
    }

    #[test]
    fn an_older_action_accepted_after_a_newer_one_is_found() {
        let script = [
            (1, What::Asked),
            (2, What::Asked),
            (1, held(1)),
            (2, held(2)),
            (2, acted(2, true)),
            (1, acted(1, true)),
        ];
        assert_eq!(findings(&script).len(), 1);
    }

    #[test]
    fn a_second_holder_while_the_first_still_holds_is_found() {
        let script = [
            (1, What::Asked),
            (2, What::Asked),
            (1, held(1)),
            (2, held(2)),
            (1, done(1, true)),
        ];
        assert_eq!(findings(&script).len(), 1);
        let lost = [
            script[0],
            script[1],
            script[2],
            script[3],
            (1, done(1, false)),
        ];
        assert_eq!(findings(&lost).len(), 0);
    }

    #[test]
    fn an_action_under_a_token_of_somebody_else_is_found() {
        let script = [(1, What::Asked), (1, held(1)), (2, acted(1, true))];
        assert_eq!(findings(&script).len(), 1);
    }
}
