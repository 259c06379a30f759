//! Single registers with put, get, compare-and-set and delete: is what clients saw linearizable?
//!
//! A search through the orders that real time allows, one register at a time, just in time: at each return, every
//! configuration (the state, and which open operations have taken effect) is carried on until the returning operation has taken
//! effect; when none is left, no order exists. Source: Lowe, "Testing for linearizability" (2017), section 5.
//!
//! What keeps it small: a read that fits takes effect at once; a write of unknown outcome whose value nobody has seen is left
//! out; deletes of unknown outcome are taken in the order of their calls, and only as many as are needed. A failed
//! operation has no effect, and says nothing about the state: why it failed is not in the history.

use std::collections::BTreeSet;

use super::finding::{Anomaly, Finding};
use super::model::Status;

/// Configurations at one time; beyond, nothing is said.
const CONFIGURATIONS_MAX: usize = 20_000;

/// What was asked, and for a read what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stores a value.
    Put(u64),
    /// Found a value, or nothing.
    Get(Option<u64>),
    /// Stores a value where there is an expected one.
    Cas {
        /// What must be there.
        expected: u64,
        /// What replaces it.
        value: u64,
    },
    /// Removes the value.
    Delete,
}

/// One operation on the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub call_ns: u64,
    /// When it returned.
    pub return_ns: u64,
    /// What came of it.
    pub status: Status,
    /// What was asked.
    pub action: Action,
}

impl Operation {
    fn show(&self, name: &dyn Fn(u64) -> String) -> String {
        let asked = match self.action {
            Action::Put(value) => format!("put {}", name(value)),
            Action::Get(state) => format!("get of {}", show_state(state, name)),
            Action::Cas { expected, value } => {
                format!("cas from {} to {}", name(expected), name(value))
            }
            Action::Delete => "delete".to_owned(),
        };
        format!(
            "{asked}, called at {} ns, returned at {} ns",
            self.call_ns, self.return_ns
        )
    }
}

fn show_state(state: State, name: &dyn Fn(u64) -> String) -> String {
    state.map_or_else(|| "nothing".to_owned(), name)
}

/// What can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Not(Box<Finding>),
    /// The search was given up.
    Undecided,
}

/// What a register may hold.
type State = Option<u64>;

/// A state, and the open operations that have taken effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Configuration {
    state: State,
    done: BTreeSet<usize>,
}

/// Judges the operations on one register, which is absent at first. `name` says how a value is called.
pub fn check(key: &str, operations: &[Operation], name: &dyn Fn(u64) -> String) -> Verdict {
    let kept = relevant(operations);
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, operation) in kept.iter().enumerate() {
        events.push((operation.call_ns, false, number));
        if operation.status == Status::Ok {
            events.push((operation.return_ns, true, number));
        }
    }
    events.sort_unstable();
    let mut search = Search::new(&kept);
    for (_, returns, number) in events {
        if !returns {
            search.open.insert(number);
        } else if let Err(end) = search.returned(number) {
            return search.verdict(end, (key, number), name);
        }
    }
    Verdict::Linearizable
}

/// Without what surely had no effect, and what may be left out.
fn relevant(operations: &[Operation]) -> Vec<Operation> {
    let acknowledged = operations
        .iter()
        .filter(|operation| operation.status == Status::Ok);
    let observed = acknowledged.filter_map(|operation| match operation.action {
        Action::Get(value) => value,
        Action::Cas { expected, .. } => Some(expected),
        Action::Put(_) | Action::Delete => None,
    });
    let observed: BTreeSet<u64> = observed.collect();
    let kept = operations
        .iter()
        .filter(|operation| match operation.status {
            Status::Ok => true,
            Status::Fail => false,
            Status::Info => match operation.action {
                Action::Put(value) | Action::Cas { value, .. } => observed.contains(&value),
                Action::Get(_) => false,
                Action::Delete => true,
            },
        });
    kept.copied().collect()
}

/// Why a search ends early.
enum End {
    NoOrder,
    TooMany,
}

struct Search<'a> {
    operations: &'a [Operation],
    open: BTreeSet<usize>,
    configurations: BTreeSet<Configuration>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let first = Configuration {
            state: None,
            done: BTreeSet::new(),
        };
        Self {
            operations,
            open: BTreeSet::new(),
            configurations: BTreeSet::from([first]),
        }
    }

    fn verdict(
        &self,
        end: End,
        (key, number): (&str, usize),
        name: &dyn Fn(u64) -> String,
    ) -> Verdict {
        let returned = self.operations.get(number);
        let (End::NoOrder, Some(returned)) = (end, returned) else {
            return Verdict::Undecided;
        };
        let message = format!(
            "no order of the operations on {key:?} allows {}",
            returned.show(name)
        );
        let states = self
            .configurations
            .iter()
            .map(|found| format!("it may have held {}", show_state(found.state, name)));
        let states: BTreeSet<String> = states.collect();
        let open = self.open.iter().filter(|other| **other != number);
        let open = open.filter_map(|number| self.operations.get(*number));
        let open = open.map(|operation| format!("at the same time: {}", operation.show(name)));
        let details = states.into_iter().chain(open).collect();
        let finding = Finding::new(Anomaly::NotLinearizable, returned.return_ns, message);
        Verdict::Not(Box::new(finding.with(details)))
    }

    fn returned(&mut self, number: usize) -> Result<(), End> {
        let mut found: BTreeSet<Configuration> = BTreeSet::new();
        let mut met: BTreeSet<Configuration> = BTreeSet::new();
        let mut open: Vec<Configuration> = self.configurations.iter().cloned().collect();
        while let Some(mut next) = open.pop() {
            self.read_all(&mut next);
            if next.done.remove(&number) {
                found.insert(next);
            } else if met.insert(next.clone()) {
                open.extend(self.successors(&next));
            }
            if met.len() > CONFIGURATIONS_MAX {
                return Err(End::TooMany);
            }
        }
        if found.is_empty() {
            return Err(End::NoOrder);
        }
        self.open.remove(&number);
        self.configurations = self.needed(found);
        Ok(())
    }

    /// Open reads that fit take effect.
    fn read_all(&self, configuration: &mut Configuration) {
        let fit = self
            .open
            .iter()
            .filter(|number| self.action(**number) == Some(Action::Get(configuration.state)));
        let fit: Vec<usize> = fit.copied().collect();
        configuration.done.extend(fit);
    }

    fn action(&self, number: usize) -> Option<Action> {
        self.operations
            .get(number)
            .map(|operation| operation.action)
    }

    fn successors(&self, from: &Configuration) -> Vec<Configuration> {
        let mut next = Vec::new();
        let mut deletes = false;
        for number in self.open.difference(&from.done) {
            let Some(operation) = self.operations.get(*number) else {
                continue;
            };
            let is_spare = operation.action == Action::Delete && operation.status == Status::Info;
            if is_spare && std::mem::replace(&mut deletes, true) {
                continue;
            }
            if let Some(state) = apply(operation.action, from.state, is_spare) {
                let mut done = from.done.clone();
                done.insert(*number);
                next.push(Configuration { state, done });
            }
        }
        next
    }

    /// Without configurations that have spent more writes of unknown outcome than another one in the same state.
    fn needed(&self, found: BTreeSet<Configuration>) -> BTreeSet<Configuration> {
        let is_known = |number: &usize| {
            let operation = self.operations.get(*number);
            operation.is_some_and(|operation| operation.status == Status::Ok)
        };
        let dominates = |one: &Configuration, other: &Configuration| {
            one != other
                && one.state == other.state
                && one.done.is_subset(&other.done)
                && !other.done.difference(&one.done).any(is_known)
        };
        let needed = found
            .iter()
            .filter(|other| !found.iter().any(|one| dominates(one, other)));
        needed.cloned().collect()
    }
}

/// The state after an action; `None` when it cannot take effect, or need not.
fn apply(action: Action, state: State, is_spare: bool) -> Option<State> {
    match action {
        Action::Put(value) => Some(Some(value)),
        Action::Get(_) => None,
        Action::Cas { expected, value } => (state == Some(expected)).then_some(Some(value)),
        Action::Delete => (!is_spare || state.is_some()).then_some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ok(call_ns: u64, return_ns: u64, action: Action) -> Operation {
        Operation {
            call_ns,
            return_ns,
            status: Status::Ok,
            action,
        }
    }

    const fn info(call_ns: u64, action: Action) -> Operation {
        Operation {
            call_ns,
            return_ns: call_ns + 1,
            status: Status::Info,
            action,
        }
    }

    fn judge(operations: &[Operation]) -> bool {
        match check("k", operations, &|value| value.to_string()) {
            Verdict::Linearizable => true,
            Verdict::Not(_) => false,
            Verdict::Undecided => panic!("undecided"),
        }
    }

    #[test]
    fn a_stale_read_is_found_and_a_concurrent_one_passes() {
        let writes = [ok(0, 1, Action::Put(1)), ok(2, 5, Action::Put(2))];
        assert!(judge(&[
            writes[0],
            writes[1],
            ok(3, 4, Action::Get(Some(1)))
        ]));
        assert!(!judge(&[
            writes[0],
            writes[1],
            ok(6, 7, Action::Get(Some(1)))
        ]));
    }

    #[test]
    fn reads_that_go_back_and_forth_between_concurrent_writes_are_found() {
        let writes = [ok(0, 9, Action::Put(1)), ok(0, 9, Action::Put(2))];
        let get = |at, value| ok(at, at + 1, Action::Get(Some(value)));
        assert!(judge(&[writes[0], writes[1], get(10, 1), get(12, 1)]));
        assert!(!judge(&[writes[0], writes[1], get(10, 1), get(12, 2)]));
    }

    #[test]
    fn a_compare_and_set_needs_what_it_expects() {
        let cas = |at, expected, value| ok(at, at + 1, Action::Cas { expected, value });
        let put = ok(0, 1, Action::Put(1));
        assert!(judge(&[put, cas(2, 1, 2), cas(4, 2, 3)]));
        assert!(!judge(&[put, cas(2, 1, 2), cas(4, 1, 3)]));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_take_effect_late_or_never() {
        let put = ok(0, 1, Action::Put(1));
        let late = info(2, Action::Put(2));
        assert!(judge(&[put, late, ok(5, 6, Action::Get(Some(1)))]));
        assert!(judge(&[
            put,
            late,
            ok(5, 6, Action::Get(Some(1))),
            ok(7, 8, Action::Get(Some(2)))
        ]));
        assert!(!judge(&[
            put,
            late,
            ok(5, 6, Action::Get(Some(2))),
            ok(7, 8, Action::Get(Some(1)))
        ]));
    }

    #[test]
    fn many_deletes_of_unknown_outcome_do_not_make_the_search_explode() {
        let mut operations: Vec<Operation> = (0..200).map(|at| info(at, Action::Delete)).collect();
        for round in 0..100 {
            let at = 1000 + 10 * round;
            operations.push(ok(at, at + 1, Action::Put(round)));
            operations.push(ok(at + 2, at + 3, Action::Get(None)));
        }
        assert!(judge(&operations));
        operations.push(ok(9000, 9001, Action::Get(Some(0))));
        assert!(!judge(&operations));
    }

    #[test]
    fn a_failed_write_that_is_read_is_found() {
        let failed = Operation {
            status: Status::Fail,
            ..ok(0, 1, Action::Put(7))
        };
        assert!(!judge(&[failed, ok(2, 3, Action::Get(Some(7)))]));
    }
}
