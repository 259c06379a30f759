//! Histories of transactions that a model executed one at a time, with any overlap that clients may see, are clean;
//! after a value was changed in them, they mostly are not.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;

use super::*;
use crate::rng::{Draw, Streams};
use crate::serial::findings;

/// The store: lists, and registers under other keys.
#[derive(Default)]
struct Store {
    lists: BTreeMap<u64, Vec<u64>>,
    registers: BTreeMap<u64, u64>,
}

impl Store {
    fn execute(&mut self, op: &mut MicroOp) {
        match op {
            MicroOp::Append { key, value } => self.lists.entry(*key).or_default().push(*value),
            MicroOp::ReadList { key, list } => {
                *list = Some(self.lists.get(key).cloned().unwrap_or_default());
            }
            MicroOp::Write { key, value } => {
                self.registers.insert(*key, *value);
            }
            MicroOp::ReadRegister { key, value } => *value = Some(self.registers.get(key).copied()),
        }
    }
}

/// What kinds of keys a history has.
#[derive(Clone, Copy, PartialEq)]
enum Kinds {
    Lists,
    Registers,
}

struct Execution {
    rng: SmallRng,
    kinds: Kinds,
    keys: u64,
    store: Store,
    now: u64,
    value: u64,
    next_process: u64,
    txns: Vec<Txn>,
}

impl Execution {
    fn new(seed: u64, kinds: Kinds, keys: u64) -> Self {
        Self {
            rng: Streams::new(seed).stream("serial", 0),
            kinds,
            keys,
            store: Store::default(),
            now: 0,
            value: 0,
            next_process: 0,
            txns: Vec::new(),
        }
    }

    fn op(&mut self) -> MicroOp {
        let is_read = self.rng.chance(0.5);
        self.value += 1;
        let (key, value) = (self.rng.between(0, self.keys), self.value);
        match (self.kinds, is_read) {
            (Kinds::Lists, false) => MicroOp::Append { key, value },
            (Kinds::Lists, true) => MicroOp::ReadList { key, list: None },
            (Kinds::Registers, false) => MicroOp::Write { key, value },
            (Kinds::Registers, true) => MicroOp::ReadRegister { key, value: None },
        }
    }

    fn begin(&mut self, process: u64) -> Txn {
        let ops = self.rng.between(1, 5);
        Txn {
            process,
            invoke_ns: self.now,
            complete_ns: None,
            status: Status::Info,
            ops: (0..ops).map(|_| self.op()).collect(),
        }
    }

    /// Takes effect, or not, and what its client will hear of it is decided.
    fn decide(&mut self, txn: &mut Txn) {
        let is_failed = self.rng.chance(0.05);
        let is_unknown = self.rng.chance(0.05);
        let is_effective = !is_failed && (!is_unknown || self.rng.chance(0.5));
        let asked = txn.ops.clone();
        if is_effective {
            txn.ops.iter_mut().for_each(|op| self.store.execute(op));
        }
        txn.status = match (is_failed, is_unknown) {
            (true, _) => Status::Fail,
            (false, true) => Status::Info,
            (false, false) => Status::Ok,
        };
        if txn.status != Status::Ok {
            txn.ops = asked;
        }
    }

    /// Each turn one of the processes begins, takes effect, or is answered.
    fn run(mut self, processes: usize, txns: usize) -> Vec<Txn> {
        let mut running: Vec<(u64, Option<(Txn, bool)>)> = (0..processes as u64)
            .map(|process| (process, None))
            .collect();
        self.next_process = processes as u64;
        while self.txns.len() < txns {
            self.now += self.rng.between(0, 3);
            let place = self.rng.index(running.len());
            let (process, state) = &mut running[place];
            *state = match state.take() {
                None => Some((self.begin(*process), false)),
                Some((mut txn, false)) => {
                    self.decide(&mut txn);
                    Some((txn, true))
                }
                Some((mut txn, true)) => {
                    txn.complete_ns = Some(self.now);
                    if txn.status == Status::Info {
                        *process = self.next_process;
                        self.next_process += 1;
                    }
                    self.txns.push(txn);
                    None
                }
            };
        }
        let open = running.into_iter().filter_map(|(_, state)| state);
        let open = open.map(|(txn, _)| Txn {
            ops: txn.ops.iter().map(MicroOp::asked).collect(),
            ..ended(Status::Info, txn)
        });
        self.txns.extend(open);
        self.txns
    }
}

fn history(seed: u64, kinds: Kinds, txns: usize) -> Vec<Txn> {
    Execution::new(seed, kinds, 3 + seed % 8).run(8, txns)
}

#[test]
fn histories_of_serial_executions_are_clean() {
    for kinds in [Kinds::Lists, Kinds::Registers] {
        for seed in 0..150 {
            let found = findings(&history(seed, kinds, 200));
            assert!(found.is_empty(), "seed {seed}: {}", found[0]);
        }
    }
}

/// Makes the reads of one transaction stale: it shows what another one read earlier of the same keys.
fn make_stale(txns: &mut [Txn], rng: &mut SmallRng) -> bool {
    let ends: Vec<usize> = (0..txns.len())
        .filter(|at| txns[*at].status == Status::Ok)
        .collect();
    let target = *rng.pick(&ends).unwrap();
    for op in 0..txns[target].ops.len() {
        let now = txns[target].ops[op].clone();
        let fresh = !txns[target].ops[..op]
            .iter()
            .any(|earlier| earlier.key() == now.key());
        if fresh && now.written().is_none() {
            let begin = txns[target].invoke_ns;
            let earlier = txns
                .iter()
                .filter(|txn| txn.status == Status::Ok && txn.complete_ns < Some(begin));
            let other = earlier
                .flat_map(|txn| txn.ops.iter())
                .find(|old| old.written().is_none() && old.key() == now.key() && **old != now);
            if let Some(old) = other.cloned() {
                txns[target].ops[op] = old;
                return true;
            }
        }
    }
    false
}

/// Forgets one acknowledged write: it was answered as acknowledged, and no read shows it.
fn drop_write(txns: &mut [Txn], rng: &mut SmallRng) -> bool {
    let mut read: Vec<(u64, u64)> = Vec::new();
    for op in txns.iter().flat_map(|txn| &txn.ops) {
        if let MicroOp::ReadList {
            key,
            list: Some(list),
        } = op
        {
            read.extend(list.iter().map(|value| (*key, *value)));
        }
    }
    let Some((lost, value)) = rng.pick(&read).copied() else {
        return false;
    };
    for op in txns.iter_mut().flat_map(|txn| &mut txn.ops) {
        if let MicroOp::ReadList {
            key,
            list: Some(list),
        } = op
            && *key == lost
        {
            list.retain(|other| *other != value);
        }
    }
    true
}

/// Swaps two neighbours in the longest read of a list only.
fn swap_values(txns: &mut [Txn], rng: &mut SmallRng) -> bool {
    let key = rng.between(0, 3);
    let reads = txns.iter_mut().flat_map(|txn| &mut txn.ops);
    let lists = reads.filter_map(|op| match op {
        MicroOp::ReadList {
            key: of,
            list: Some(list),
        } if *of == key && list.len() > 2 => Some(list),
        MicroOp::ReadList { .. }
        | MicroOp::Append { .. }
        | MicroOp::Write { .. }
        | MicroOp::ReadRegister { .. } => None,
    });
    let Some(longest) = lists.max_by_key(|list| list.len()) else {
        return false;
    };
    let place = rng.index(longest.len() - 1);
    longest.swap(place, place + 1);
    true
}

/// How many of the changed histories are found out, in hundredths.
fn found_of_hundred(kinds: Kinds, change: fn(&mut [Txn], &mut SmallRng) -> bool) -> usize {
    let mut changed = 0;
    let mut found = 0;
    for seed in 0..100 {
        let mut txns = history(seed, kinds, 150);
        let mut rng = Streams::new(seed).stream("change", 0);
        if change(&mut txns, &mut rng) {
            changed += 1;
            found += usize::from(!findings(&txns).is_empty());
        }
    }
    assert!(changed > 50, "{changed} histories could be changed");
    found * 100 / changed
}

#[test]
fn most_changes_to_clean_histories_are_found() {
    let rates = [
        found_of_hundred(Kinds::Lists, make_stale),
        found_of_hundred(Kinds::Registers, make_stale),
        found_of_hundred(Kinds::Lists, drop_write),
        found_of_hundred(Kinds::Lists, swap_values),
    ];
    assert!(
        rates.iter().all(|rate| *rate >= 80),
        "{rates:?} of a hundred"
    );
}

#[test]
fn many_transactions_are_judged() {
    for kinds in [Kinds::Lists, Kinds::Registers] {
        let txns = Execution::new(1, kinds, 1_000).run(32, 20_000);
        assert!(findings(&txns).is_empty());
    }
}

#[test]
fn one_wrong_read_among_many_transactions_is_found() {
    let mut txns = Execution::new(2, Kinds::Registers, 20).run(16, 5_000);
    let mut rng = Streams::new(2).stream("change", 0);
    while !make_stale(&mut txns, &mut rng) {}
    assert!(!findings(&txns).is_empty());
}
