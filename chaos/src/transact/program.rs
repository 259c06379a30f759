//! What a simulated transaction is to do.
//!
//! Keys belong to the zone whose clients write them: strict serializability is promised inside a zone. Most of a run's
//! keys of one kind are few, so that transactions meet; lists change their keys every few seconds, so that they stay short.

use bytes::Bytes;
use meridian_core::catalog::shard_of;
use meridian_core::ids::ShardId;
use rand::rngs::SmallRng;

use crate::rng::{Draw, SEC};

/// Accounts of each zone's bank.
pub const ACCOUNTS: u64 = 6;

/// What an account, and each side of a pair, holds before anybody has written it.
pub const OPENING: i64 = 100;

const LISTS: u64 = 5;
const REGISTERS: u64 = 5;
const PAIRS: u64 = 3;
const GROUPS: u64 = 3;
const FORK_KEYS: u64 = 3;

/// Lists and fork groups are left for fresh ones after this long.
const GENERATION_NS: u64 = 12 * SEC;

/// One step on a list or register: what is written, or `None` for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The key's number.
    pub key: u64,
    /// The value appended or written.
    pub write: Option<u64>,
}

/// How reads are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// One after the other, checked when the transaction commits.
    Interactive,
    /// From a view.
    View,
    /// In the transaction itself, or as a plain operation when there is one step.
    OneShot,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Appends to lists and reads them.
    Lists(How, Vec<Step>),
    /// Writes registers and reads them.
    Registers(How, Vec<Step>),
    /// If a register holds what this client last saw there, it and another are written, else both are read.
    Swap {
        /// The register that is compared.
        key: u64,
        /// What it is hoped to hold.
        expected: u64,
        /// The other one.
        other: u64,
        /// What is written to the first and to the other.
        writes: [u64; 2],
    },
    /// Moves money.
    Transfer {
        /// From this account.
        from: u64,
        /// To this one.
        to: u64,
        /// So much.
        amount: i64,
    },
    /// Reads all accounts.
    Audit(How),
    /// Takes from one side of a pair as much as both together allow.
    Withdraw {
        /// The pair.
        pair: u64,
        /// The side: 0 or 1.
        side: u64,
        /// So much.
        amount: i64,
    },
    /// Reads a pair.
    Weigh(u64, How),
    /// Takes a group if a scan shows that nobody has it, or leaves it.
    Claim {
        /// The group.
        group: u64,
        /// The name it is taken under.
        name: u64,
    },
    /// Scans a group from a view.
    Look(u64),
    /// Writes one key of a group that others read whole.
    ForkWrite {
        /// The group.
        group: u64,
        /// The key in it.
        key: u64,
    },
    /// Reads a group of keys that are written once.
    ForkRead(u64, How),
}

impl Program {
    /// What a client does next.
    pub fn draw(rng: &mut SmallRng, now: u64, mut fresh: impl FnMut() -> u64) -> Self {
        let generation = now / GENERATION_NS;
        match rng.between(0, 100) {
            0..30 => {
                let how = pick_how(rng, 0.2);
                let steps = steps(rng, generation * LISTS, LISTS, &mut fresh);
                Self::Lists(how, reads_only_from(how, steps))
            }
            30..50 => {
                let how = match rng.between(0, 10) {
                    0..5 => How::Interactive,
                    5..7 => How::View,
                    _ => How::OneShot,
                };
                let steps = steps(rng, 0, REGISTERS, &mut fresh);
                Self::Registers(how, reads_only_from(how, steps))
            }
            50..55 => Self::Swap {
                key: rng.between(0, REGISTERS),
                expected: 0,
                other: REGISTERS + rng.between(0, 2),
                writes: [fresh(), fresh()],
            },
            55..67 => {
                let from = rng.between(0, ACCOUNTS);
                Self::Transfer {
                    from,
                    to: (from + 1 + rng.between(0, ACCOUNTS - 1)) % ACCOUNTS,
                    amount: signed(1 + rng.between(0, 40)),
                }
            }
            67..73 => Self::Audit(pick_how(rng, 0.6)),
            73..80 => Self::Withdraw {
                pair: generation * PAIRS + rng.between(0, PAIRS),
                side: rng.between(0, 2),
                amount: signed(90 + rng.between(0, 60)),
            },
            80..83 => {
                let how = pick_how(rng, 0.5);
                Self::Weigh(generation * PAIRS + rng.between(0, PAIRS), how)
            }
            83..91 => Self::Claim {
                group: rng.between(0, GROUPS),
                name: fresh(),
            },
            91..94 => Self::Look(rng.between(0, GROUPS)),
            94..97 => Self::ForkWrite {
                group: now / (GENERATION_NS / 4),
                key: rng.between(0, FORK_KEYS),
            },
            _ => Self::ForkRead(now / (GENERATION_NS / 4), pick_how(rng, 0.6)),
        }
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Lists(_, steps) | Self::Registers(_, steps) => {
                steps.iter().all(|step| step.write.is_none())
            }
            Self::Audit(_) | Self::Weigh(..) | Self::Look(_) | Self::ForkRead(..) => true,
            Self::Swap { .. }
            | Self::Transfer { .. }
            | Self::Withdraw { .. }
            | Self::Claim { .. }
            | Self::ForkWrite { .. } => false,
        }
    }

    /// How it reads.
    pub const fn how(&self) -> How {
        match self {
            Self::Lists(how, _)
            | Self::Registers(how, _)
            | Self::Audit(how)
            | Self::Weigh(_, how)
            | Self::ForkRead(_, how) => *how,
            Self::Look(_) => How::View,
            Self::Swap { .. } | Self::ForkWrite { .. } => How::OneShot,
            Self::Transfer { .. } | Self::Withdraw { .. } | Self::Claim { .. } => How::Interactive,
        }
    }

    /// The keys it reads by name, each once.
    pub fn reads(&self, zone: usize) -> Vec<Bytes> {
        let keys: Vec<Bytes> = match self {
            Self::Lists(_, steps) => steps.iter().map(|step| list(zone, step.key)).collect(),
            Self::Registers(_, steps) => steps
                .iter()
                .filter(|step| step.write.is_none())
                .map(|step| register(zone, step.key))
                .collect(),
            Self::Transfer { from, to, .. } => vec![account(zone, *from), account(zone, *to)],
            Self::Audit(_) => (0..ACCOUNTS).map(|number| account(zone, number)).collect(),
            Self::Withdraw { pair, .. } | Self::Weigh(pair, _) => {
                vec![side(zone, *pair, 0), side(zone, *pair, 1)]
            }
            Self::ForkRead(group, _) => (0..FORK_KEYS).map(|key| fork(zone, *group, key)).collect(),
            Self::Swap { .. } | Self::Claim { .. } | Self::Look(_) | Self::ForkWrite { .. } => {
                Vec::new()
            }
        };
        let mut once = Vec::new();
        for key in keys {
            if !once.contains(&key) {
                once.push(key);
            }
        }
        once
    }

    /// The prefix it scans.
    pub fn scans(&self, zone: usize) -> Option<Bytes> {
        match self {
            Self::Claim { group, .. } | Self::Look(group) => Some(prefix(zone, *group)),
            Self::Lists(..)
            | Self::Registers(..)
            | Self::Swap { .. }
            | Self::Transfer { .. }
            | Self::Audit(_)
            | Self::Withdraw { .. }
            | Self::Weigh(..)
            | Self::ForkWrite { .. }
            | Self::ForkRead(..) => None,
        }
    }
}

fn pick_how(rng: &mut SmallRng, view: f64) -> How {
    if rng.chance(view) {
        How::View
    } else {
        How::Interactive
    }
}

/// From a view nothing is written.
fn reads_only_from(how: How, mut steps: Vec<Step>) -> Vec<Step> {
    if how == How::View {
        for step in &mut steps {
            step.write = None;
        }
    }
    steps
}

fn steps(rng: &mut SmallRng, first: u64, keys: u64, fresh: &mut impl FnMut() -> u64) -> Vec<Step> {
    let count = rng.between(1, 5);
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..count {
        let key = first + rng.between(0, keys);
        let write = rng.chance(0.5).then(&mut *fresh);
        let again = steps
            .iter()
            .any(|step| step.key == key && (step.write.is_some() || write.is_some()));
        if !again {
            steps.push(Step { key, write });
        }
    }
    steps
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The key of a list.
pub fn list(zone: usize, number: u64) -> Bytes {
    Bytes::from(format!("x/{zone}/l/{number:04}"))
}

/// The key of a register.
pub fn register(zone: usize, number: u64) -> Bytes {
    Bytes::from(format!("x/{zone}/r/{number:02}"))
}

/// The key of an account.
pub fn account(zone: usize, number: u64) -> Bytes {
    Bytes::from(format!("x/{zone}/a/{number:02}"))
}

/// The key of one side of a pair.
pub fn side(zone: usize, pair: u64, side: u64) -> Bytes {
    Bytes::from(format!("x/{zone}/w/{pair:04}/{side}"))
}

/// What the keys of a group begin with.
pub fn prefix(zone: usize, group: u64) -> Bytes {
    Bytes::from(format!("x/{zone}/p/{group}/"))
}

/// A key of a group that is read whole.
pub fn fork(zone: usize, group: u64, key: u64) -> Bytes {
    Bytes::from(format!("x/{zone}/f/{group:04}/{key}"))
}

/// The shard of a key.
pub fn shard(key: &[u8], shards: u16) -> ShardId {
    shard_of(key, shards)
}

/// Whether a key is one of those that transactions write.
pub fn is_transactional(key: &[u8]) -> bool {
    key.starts_with(b"x/")
}
