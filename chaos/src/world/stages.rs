//! Death at a stage of a transaction: a node is taken down in the very step in which it comes to one, before anything of
//! that step has left it.

use meridian_core::Outputs;
use meridian_core::output::{Observation, Stage};

use super::World;
use crate::rng::{Draw, MS};

/// How often a rarer stage is chosen, as a multiple: so that a swarm dies at every stage some hundred times.
const fn weight(stage: Stage) -> f64 {
    match stage {
        Stage::Inquired | Stage::Aborted => 6.0,
        Stage::Pinned | Stage::AllPinned | Stage::Forgotten => 2.0,
        Stage::MirrorPage | Stage::MirrorFlipped => 1.0,
        Stage::Began
        | Stage::Prepared
        | Stage::Voted
        | Stage::Deciding
        | Stage::Decided
        | Stage::Told
        | Stage::Resolved
        | Stage::Followed => 1.0,
    }
}

impl World {
    /// Counts the stages that a step has come to; true when the node dies of one.
    pub(super) fn dies_at_stage(&mut self, node: usize, out: &Outputs) -> bool {
        let stages = out.observations.iter().filter_map(|one| match one {
            Observation::Stage { stage, .. } => Some(*stage),
            Observation::Applied { .. }
            | Observation::Effect { .. }
            | Observation::Durable { .. }
            | Observation::Stored { .. }
            | Observation::Pinned { .. }
            | Observation::Leads { .. } => None,
        });
        for stage in stages {
            let chance = self.scenario.faults.stage_crash * weight(stage);
            let dies = !self.healing && self.stage_rng.chance(chance);
            let (seen, died) = self.stats.stages.entry(stage).or_default();
            *seen += 1;
            if dies {
                *died += 1;
                if self.trace.on() {
                    let now = self.queue.now();
                    self.trace
                        .line(now, format_args!("n{} dies at {stage:?}", node + 1));
                }
                return true;
            }
        }
        false
    }

    /// The node goes down with everything it was about to say.
    pub(super) fn die(&mut self, node: usize) {
        let down_ns = self.stage_rng.between(50 * MS, 4_000 * MS);
        self.crash(node, down_ns);
    }
}
