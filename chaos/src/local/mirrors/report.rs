//! What was done and seen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Kills;
use super::readers::Seen;
use super::writers::Written;
use crate::local::experiment::{Findings, Wrong};
use crate::local::table::print;

/// Of one mirror.
#[derive(Debug, Serialize)]
struct Mirror {
    zone: String,
    reads: u64,
    generations: u64,
    refused: BTreeMap<String, u64>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    kills: u32,
    /// Of these, while home said that the mirror received.
    while_receiving: u32,
    seconds: f64,
    puts: u64,
    transactions: u64,
    mirrors: Vec<Mirror>,
    pub(super) wrong: Wrong,
}

impl Report {
    pub(super) fn of((kills, time): (Kills, Duration), written: &Written, read: Vec<Seen>) -> Self {
        let mut wrong = Wrong::default();
        let mut mirrors = Vec::new();
        for seen in read {
            if seen.reads == 0 {
                wrong.broken.push(format!("{} was never read", seen.zone));
            }
            wrong.broken.extend(seen.found);
            mirrors.push(Mirror {
                zone: seen.zone,
                reads: seen.reads,
                generations: seen.generations,
                refused: seen.refused,
            });
        }
        Self {
            kills: kills.all,
            while_receiving: kills.receiving,
            seconds: time.as_secs_f64(),
            puts: written.puts,
            transactions: written.transactions,
            mirrors,
            wrong,
        }
    }
}

impl Findings for Report {
    fn wrong(&self) -> &Wrong {
        &self.wrong
    }

    fn show(&self) {
        print(
            [
                "kills of zone-2",
                "while it received",
                "time",
                "puts at home",
                "transactions over all shards",
            ],
            &[[
                self.kills.to_string(),
                self.while_receiving.to_string(),
                format!("{:.0} s", self.seconds),
                self.puts.to_string(),
                self.transactions.to_string(),
            ]],
        );
        let rows: Vec<[String; 4]> = self.mirrors.iter().map(row).collect();
        print(
            ["mirror", "read whole", "generations seen", "not answered"],
            &rows,
        );
    }
}

fn row(mirror: &Mirror) -> [String; 4] {
    [
        mirror.zone.clone(),
        mirror.reads.to_string(),
        mirror.generations.to_string(),
        format!("{:?}", mirror.refused),
    ]
}
