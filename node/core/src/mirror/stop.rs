//! A mirror that is promoted stands still: the holder of the zone takes no more cuts, and says which generation is shown.
//!
//! Invariant: once the holder has said so, the pointer does not move: it is said only while nothing is in writing, by the core
//! whose catalog has the promotion, and a catalog is durable before it is gone by.

use meridian_causal::ZoneId;

use super::{Mirrors, Zone};
use crate::catalog::{AlterReport, Catalog, Shown};
use crate::core::Core;
use crate::ids::{GroupId, KeyspaceId};
use crate::output::Outputs;
use crate::request::Request;
use crate::time::Now;

/// Between two times that it is said: a control group without a leader is not to be flooded.
const SAY_MS: u64 = 300;

/// When it was last said, and how often.
#[derive(Default)]
pub(super) struct Stop {
    due_ns: u64,
    attempts: usize,
}

/// Whether a mirror of this zone is being promoted, so that it takes no more cuts.
pub(super) fn is_stopped(catalog: &Catalog, keyspace: KeyspaceId, zone: ZoneId) -> bool {
    let promotion = catalog
        .keyspaces
        .get(&keyspace)
        .and_then(|found| found.promotion());
    promotion.is_some_and(|promotion| promotion.zone == zone)
}

impl Core {
    /// Says of the mirrors here that are promoted where they stand.
    pub(super) fn tick_stops(&mut self, now: Now, out: &mut Outputs) {
        let stopped = self.mirrors_to_stop();
        self.mirrors
            .stop_said
            .retain(|keyspace, _| stopped.iter().any(|(of, _)| of == keyspace));
        if !self.holds_pointer() {
            return;
        }
        for (keyspace, group) in stopped {
            let Some(report) = self.mirrors.stop_at(now, keyspace) else {
                continue;
            };
            let said = self.mirrors.stop_said.entry(keyspace).or_default();
            if now.mono_ns < said.due_ns {
                continue;
            }
            said.due_ns = now.after_ms(SAY_MS);
            said.attempts = said.attempts.wrapping_add(1);
            let attempt = said.attempts;
            let request = Request::AlterReport {
                group,
                report,
                passed: false,
            };
            self.ask_control(now, attempt, request, out);
        }
    }

    /// Keyspaces whose mirror here is promoted and has not said where it stands, each with a group in whose name to say it.
    fn mirrors_to_stop(&self) -> Vec<(KeyspaceId, GroupId)> {
        let zone = self.zone();
        let promoted = self.catalog.keyspaces.values().filter_map(|keyspace| {
            let alter = keyspace.alter.as_ref()?;
            let promotion = alter.promotion.as_ref()?;
            let silent = promotion.zone == zone && promotion.shown.is_none();
            let successor = self.catalog.keyspaces.get(&alter.successor)?;
            let group = successor.groups.first().filter(|_| silent)?;
            Some((keyspace.id, group.id))
        });
        promoted.collect()
    }
}

impl Mirrors {
    /// Takes no more cuts of a keyspace, and says what is shown once nothing is in writing.
    fn stop_at(&mut self, now: Now, keyspace: KeyspaceId) -> Option<AlterReport> {
        let Some(zone) = self.zones.get_mut(&keyspace) else {
            return Some(AlterReport::NothingShown);
        };
        let lacking_keys = zone.stop();
        zone.stands(now.wall_ms, lacking_keys)
    }
}

impl Zone {
    /// Takes no more of a cut that is not whole; how many keys had come of it.
    fn stop(&mut self) -> u64 {
        if let Some(order) = self.order.take() {
            let view = order.cut.view;
            let parts = self.parts.values();
            let come = parts.filter(|part| {
                part.have.1 == view || part.receiving.is_some_and(|(_, of)| of == view)
            });
            self.lacking_keys = come.map(|part| part.received.1).sum();
        }
        self.lacking_keys
    }

    fn stands(&self, wall_ms: u64, lacking_keys: u64) -> Option<AlterReport> {
        if self.to_write.is_some() || self.writing.is_some() {
            return None;
        }
        let Some(pointer) = &self.pointer else {
            return Some(AlterReport::NothingShown);
        };
        Some(AlterReport::Shown(Shown {
            generation: pointer.generation,
            view: pointer.cut.view,
            cut_ms: pointer.cut.time_ms,
            heard_ms: self.heard_ms,
            stopped_ms: wall_ms,
            lacking_keys,
        }))
    }
}
