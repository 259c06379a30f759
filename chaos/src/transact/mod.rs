//! Simulated clients that run transactions, and what they must never see.
//!
//! What it is not: the world's loop (`world::transactors` sends and receives) and the checkers of histories (`serial`).
//!
//! Read `program` (what is done), `attempt` (how), `stamped` (what it compares), `judge` (what is allowed).

pub mod attempt;
pub mod judge;
pub mod program;
pub mod stamped;
pub mod values;

use meridian_causal::OpId;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::rng::{Draw, MS};
use attempt::Attempt;
use program::Program;

/// A client that runs one transaction after the other.
#[derive(Debug)]
pub struct Transactor {
    /// Its number over all zones.
    pub index: usize,
    /// Its zone, from 0.
    pub zone: usize,
    /// The zone whose keys it uses: its own, or one for all where the store is one.
    pub domain: usize,
    /// Its chance.
    pub rng: SmallRng,
    /// The transaction under way.
    pub running: Option<Attempt>,
    /// When that began.
    pub invoke_ns: u64,
    /// Requests sent so far.
    pub sent: u32,
    /// The request whose answer is waited for; 0 while it pauses.
    pub awaited: u32,
    /// Who it is: another after each unknown outcome.
    pub process: u64,
    values: u64,
    last_seen: u64,
    think_ns: u64,
}

impl Transactor {
    /// A client that has done nothing yet.
    pub fn new(index: usize, (zone, domain): (usize, usize), think_ns: u64, rng: SmallRng) -> Self {
        Self {
            index,
            zone,
            domain,
            rng,
            running: None,
            invoke_ns: 0,
            sent: 0,
            awaited: 0,
            process: u64::try_from(index).unwrap_or(0),
            values: 0,
            last_seen: 0,
            think_ns,
        }
    }

    /// Begins the next transaction.
    pub fn begin(&mut self, now: u64, wall_ms: u64, shards: u16, patience_ns: u64) {
        let index = u64::try_from(self.index).unwrap_or(0);
        let mut values = self.values;
        let mut program = Program::draw(&mut self.rng, now, || {
            values += 1;
            (index + 1) * 1_000_000 + values
        });
        self.values = values;
        if let Program::Swap { expected, .. } = &mut program {
            *expected = self.last_seen;
        }
        let op_id = OpId {
            stamp_ms: wall_ms,
            id: self.rng.random(),
        };
        self.invoke_ns = now;
        self.running = Some(Attempt::new(
            program,
            self.domain,
            shards,
            op_id,
            now + patience_ns,
        ));
    }

    /// Remembers what a register holds: what a swap hopes to find.
    pub fn see(&mut self, attempt: &Attempt) {
        let seen = attempt
            .found
            .iter()
            .filter_map(|found| values::register(&found.set))
            .next_back();
        self.last_seen = seen.unwrap_or(self.last_seen);
    }

    /// The pause before the next transaction.
    pub fn think_ns(&mut self) -> u64 {
        self.rng.exponential(self.think_ns)
    }

    /// The pause before the same request is sent again.
    pub fn backoff_ns(&mut self) -> u64 {
        self.rng.between(10 * MS, 150 * MS)
    }
}
