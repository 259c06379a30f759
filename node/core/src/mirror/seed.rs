//! A mirror as one end of a comparison: the groups of a keyspace that takes over in this zone are filled from it.
//!
//! A successor's group asks the node that mirrors its shard in its own zone, as it would ask a group of the old keyspace (the
//! exchange's `compare`): what a generation holds need not come from another zone, and after the loss of the home zone cannot.
//! Of a mirror that is promoted it is the generation at which the zone stands still; else the one that is shown.
//!
//! Invariant: a session shows one generation, from one view of the store; its `received` is what the home zone's shard had
//! received at that cut.

use bytes::Bytes;
use meridian_causal::VersionVector;
use meridian_storage::View;

use super::mirror_node;
use super::reading::MirrorRead;
use crate::core::Core;
use crate::error::Error;
use crate::exchange::Arrived;
use crate::ids::{KeyspaceId, ShardId, Side};
use crate::keys::Place;
use crate::limits::{
    COMPARE_RANGE_KEYS, COMPARE_RANGES_MAX, COMPARE_STATES_BYTES_MAX, VIEW_IDLE_MS_MAX, VIEWS_MAX,
};
use crate::message::{Exchange, PeerMessage};
use crate::output::{Notice, Outputs};
use crate::shard::compare;
use crate::time::Now;

/// A generation that a group is being filled from.
pub(super) struct Seed {
    place: Place,
    generation: u64,
    view: Box<dyn View>,
    received: VersionVector,
    used_at: Now,
}

impl Core {
    /// A group of the keyspace that takes over asks for something of the mirror of its shard in this zone.
    pub(crate) fn seed_asked(
        &mut self,
        now: Now,
        (shard, to): (ShardId, Side),
        arrived: Arrived,
        out: &mut Outputs,
    ) {
        let Arrived {
            from,
            reply_to,
            body,
        } = arrived;
        let answer = match body {
            Exchange::CompareOpen { session } => self.seed_open(now, (session, shard, from, to)),
            Exchange::CompareHashes { session, from } => self.seed_hashes(now, session, from),
            Exchange::CompareFetch { session, from, to } => {
                self.seed_states(now, session, (from, to))
            }
            // A mirror knows of no operation but by the versions that bear its id.
            Exchange::CompareRecall { session, from, .. } => Ok(Exchange::CompareRecalled {
                session,
                from,
                next: Bytes::new(),
                floor_ms: 0,
                operations: Vec::new(),
            }),
            // A mirror takes no part in anything else.
            Exchange::Subscribe { .. }
            | Exchange::Effects { .. }
            | Exchange::MustCompare
            | Exchange::CompareOpened { .. }
            | Exchange::CompareRanges { .. }
            | Exchange::CompareStates { .. }
            | Exchange::CompareRecalled { .. }
            | Exchange::CompareLost { .. } => return,
        };
        match answer {
            Ok(body) => {
                let message = PeerMessage::Exchange {
                    shard,
                    from: to,
                    to: from,
                    reply_to: self.config.node,
                    passed: false,
                    body,
                };
                out.messages.push((reply_to, message));
            }
            Err(error) => out.notices.push(Notice::Damaged {
                detail: error.to_string(),
            }),
        }
    }

    fn seed_open(
        &mut self,
        now: Now,
        (session, shard, from, to): (u64, ShardId, Side, Side),
    ) -> Result<Exchange, Error> {
        let lost = Exchange::CompareLost { session };
        if !self.is_seed_of(shard, from, to) || self.mirrors.seeds.len() >= VIEWS_MAX {
            return Ok(lost);
        }
        if !self.mirrors.seeds.contains_key(&session) {
            let Some(seed) = self.seed(now, to.keyspace, shard)? else {
                return Ok(lost);
            };
            self.mirrors.seeds.insert(session, seed);
        }
        let opened = self.mirrors.seeds.get(&session).map(|seed| {
            let snapshot = seed.received.clone();
            Exchange::CompareOpened { session, snapshot }
        });
        Ok(opened.unwrap_or(lost))
    }

    /// Whether `from` takes over in this zone from the keyspace of `to`, of which this core mirrors the shard.
    fn is_seed_of(&self, shard: ShardId, from: Side, to: Side) -> bool {
        let zone = self.zone();
        let old = self.catalog.keyspaces.get(&to.keyspace);
        let successor = old.and_then(|old| Some(old.alter.as_ref()?.successor));
        successor == Some(from.keyspace)
            && from.zone == zone
            && to.zone == zone
            && self.is_own_shard(shard)
            && mirror_node(&self.catalog, shard, zone) == Some(self.config.node)
    }

    fn seed(&self, now: Now, keyspace: KeyspaceId, shard: ShardId) -> Result<Option<Seed>, Error> {
        let promotion = self
            .catalog
            .keyspaces
            .get(&keyspace)
            .and_then(|found| found.promotion());
        let generation = match promotion {
            Some(promotion) => promotion.shown.as_ref().map(|shown| shown.generation),
            None => self.pointer_shown(keyspace)?.map(|shown| shown.generation),
        };
        let part = self.mirrors.parts.get(&(keyspace, shard));
        let held = generation.and_then(|generation| part?.held(generation));
        let Some(held) = held else {
            return Ok(None);
        };
        Ok(Some(Seed {
            place: Place { keyspace, shard },
            generation: held.generation,
            view: self.engine.view()?,
            received: held.received.clone(),
            used_at: now,
        }))
    }

    fn seed_hashes(&mut self, now: Now, session: u64, from: Bytes) -> Result<Exchange, Error> {
        let Some(seed) = self.mirrors.seeds.get_mut(&session) else {
            return Ok(Exchange::CompareLost { session });
        };
        seed.used_at = now;
        let shown = MirrorRead::new(&*seed.view, seed.generation);
        let limits = (COMPARE_RANGES_MAX, COMPARE_RANGE_KEYS);
        let ranges = compare::range_hashes_at(&shown, (seed.place, &seed.received), &from, limits)?;
        Ok(Exchange::CompareRanges {
            session,
            from,
            ranges,
        })
    }

    fn seed_states(
        &mut self,
        now: Now,
        session: u64,
        (from, to): (Bytes, Bytes),
    ) -> Result<Exchange, Error> {
        let Some(seed) = self.mirrors.seeds.get_mut(&session) else {
            return Ok(Exchange::CompareLost { session });
        };
        seed.used_at = now;
        let shown = MirrorRead::new(&*seed.view, seed.generation);
        let (states, end) =
            compare::states(&shown, seed.place, &from, &to, COMPARE_STATES_BYTES_MAX)?;
        Ok(Exchange::CompareStates {
            session,
            from,
            to: end,
            states,
        })
    }

    /// Sessions that nobody has asked for a while end: each keeps old files on the disk.
    pub(super) fn tick_seeds(&mut self, now: Now) {
        self.mirrors
            .seeds
            .retain(|_, seed| now.mono_ns < seed.used_at.after_ms(VIEW_IDLE_MS_MAX));
    }
}
