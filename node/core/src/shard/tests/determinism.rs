//! Apply is a function of (state, entry): turns may end anywhere (invariant 10).

use proptest::prelude::*;

use super::*;
use crate::lease::{AcquireOp, LeaseRef};

fn lease(token: u64) -> LeaseRef {
    LeaseRef {
        name: bytes("lease"),
        token,
    }
}

/// An operation on a lease, or an expiry.
fn lease_or_expiry(what: u8, key: Bytes, n: u64, more: u8) -> Op {
    match what % 12 {
        8 => Op::LeaseAcquire(AcquireOp {
            name: bytes("lease"),
            ttl_ms: 100,
            owner: u128::from(more % 3),
            waiter: Waiter::default(),
        }),
        9 => Op::LeaseEnd {
            leases: vec![lease(u64::from(more % 4))],
            waiter: None,
        },
        10 => Op::LeasedWrite {
            lease: lease(u64::from(more % 4)),
            home: more.is_multiple_of(2),
            write: WriteOp {
                key,
                content: value("leased"),
                intent: WriteIntent::Blind,
                op_id: OpId {
                    stamp_ms: n,
                    id: u128::from(n) << 32,
                },
                expires_at_ms: None,
                waiter: Waiter::default(),
            },
        },
        _ => Op::Expire {
            keys: vec![(key, (1..n).map(|n| Dot::new(incarnation(1), n)).collect())],
        },
    }
}

/// Commands that touch every table, from numbers.
fn commands(seeds: &[(u8, u8, u8)]) -> Vec<Command> {
    let mut other = Zone::new(2);
    let mut sent = 0;
    let mut commands = Vec::new();
    for (n, (what, key, more)) in (1_u64..).zip(seeds) {
        let key = format!("k{}", key % 5);
        let op = match what % 12 {
            0..=3 => Op::Write(WriteOp {
                key: bytes(&key),
                content: if more % 3 == 0 {
                    Content::Tombstone
                } else {
                    value(&n.to_string())
                },
                intent: if more % 2 == 0 {
                    WriteIntent::Blind
                } else {
                    WriteIntent::Context(CausalContext::new())
                },
                op_id: OpId {
                    stamp_ms: n,
                    id: u128::from(more % 40),
                },
                expires_at_ms: (more % 5 == 0).then_some(n + 3),
                waiter: Waiter::default(),
            }),
            8..=11 => lease_or_expiry(*what, bytes(&key), n, *more),
            4 | 5 => {
                other.put(&key, "other");
                let effects = other.outbox(incarnation(2), sent);
                sent += 1;
                Op::Merge {
                    incarnation: incarnation(2),
                    first: sent,
                    effects,
                }
            }
            6 => Op::Trim {
                through: [(incarnation(1), u64::from(*more)), (incarnation(2), 3)]
                    .into_iter()
                    .collect(),
            },
            _ => Op::EvictOpIds {
                through_index: n / 2,
                floor_ms: 0,
            },
        };
        commands.push(Command {
            hlc: Hlc::new(n, 0),
            ops: vec![op.clone(), op],
        });
    }
    commands
}

/// Applies commands in turns of the given lengths; the hash of what each entry wrote, and all that is stored.
fn run(commands: &[Command], turns: &[usize]) -> (Vec<u64>, Vec<(Bytes, Bytes)>) {
    let mut zone = Zone::new(1);
    let mut hashes = Vec::new();
    let mut lengths = turns.iter().copied().chain(std::iter::repeat(1));
    let mut rest = commands;
    while !rest.is_empty() {
        let (turn, later) = rest.split_at(lengths.next().unwrap_or(1).clamp(1, rest.len()));
        rest = later;
        let mut work = Workspace::new(&zone.engine, true);
        for command in turn {
            zone.index += 1;
            work.begin_entry();
            zone.shard
                .apply(zone.index, command.clone(), &mut work)
                .unwrap();
            hashes.push(work.entry_hash());
        }
        zone.shard.save(&mut work);
        let batch = work.into_batch();
        zone.engine.write(&batch, Durability::Buffered).unwrap();
    }
    zone.check();
    let mut all = Vec::new();
    let everything = meridian_storage::prefix_end(&[]);
    meridian_storage::Read::scan(&zone.engine, &[], &everything, &mut |key, value| {
        all.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    (hashes, all)
}

proptest! {
    #[test]
    fn replicas_with_other_turns_write_the_same(
        seeds in prop::collection::vec(any::<(u8, u8, u8)>(), 1..60),
        turns in prop::collection::vec(1..20_usize, 0..10),
    ) {
        let commands = commands(&seeds);
        let one_by_one = run(&commands, &[]);
        prop_assert_eq!(&run(&commands, &[usize::MAX]), &one_by_one);
        prop_assert_eq!(&run(&commands, &turns), &one_by_one);
    }
}

#[test]
fn a_restart_between_entries_changes_nothing() {
    let seeds: Vec<_> = (0..60_u8)
        .map(|n| (n.wrapping_mul(31), n.wrapping_mul(7), n.wrapping_mul(13)))
        .collect();
    let commands = commands(&seeds);
    let (mut kept, mut restarted) = (Zone::new(1), Zone::new(1));
    for command in commands {
        let steady = kept.entry(command.ops.clone());
        restarted.restart(PlantedBugs::default());
        assert_eq!(restarted.entry(command.ops), steady);
    }
    assert_eq!(kept.meta(), restarted.meta());
}
