//! Is a history of transactions strictly serializable? If not: which anomaly, and why.
//!
//! What it is: Elle's inference over lists and registers ([`findings`]), and checkers of special workloads, one file
//! each: `bank`, `skew`, `fork`, `sets`, and `linear` for single registers. What it is not: a search through orders (but for
//! `linear`); a clean answer means that no anomaly can be *inferred*, which for lists is nearly as good.
//!
//! Invariants: pure, and linear but for sorting, in the number of steps and of values read; every link in the graph is true of
//! every strictly serializable execution that could have given the history, so whatever is found is wrong.
//!
//! Sources: Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020); Adya,
//! "Weak Consistency" (1999) for the names.
//!
//! Read `model` (a history), `known` (who wrote what), `lists` and `registers` (links by value), `orders` (links by time),
//! `cycles` (what cannot be ordered), `explain` (why).

pub mod bank;
mod components;
mod cycles;
mod explain;
pub mod finding;
pub mod fork;
mod graph;
mod known;
pub mod linear;
mod lists;
pub mod model;
mod orders;
mod registers;
pub mod sets;
pub mod skew;
#[cfg(test)]
mod tests;

pub use finding::{Anomaly, Finding, checked};
pub use model::{MicroOp, Status, Txn};

use graph::Builder;
use known::Known;
use lists::Lists;
use registers::Registers;

/// What is wrong with a history of transactions: none when it may be strictly serializable.
pub fn findings(txns: &[Txn]) -> Vec<Finding> {
    let (mut known, mut wrong) = Known::new(txns);
    if !wrong.is_empty() {
        return wrong;
    }
    let (lists, within) = Lists::new(txns, &known);
    wrong.extend(within);
    let (registers, within) = Registers::new(txns, &known);
    wrong.extend(within);
    lists.see(&mut known);
    registers.see(&mut known);
    wrong.extend(lists.check(&known));
    wrong.extend(registers.check(&known));
    let mut graph = Builder::new(txns.len());
    lists.link(&known, &mut graph);
    registers.link(&known, &mut graph);
    orders::link_processes(&known, &mut graph);
    orders::link_real_time(&known, &mut graph);
    let cycles = cycles::cycles(&graph.build());
    wrong.extend(cycles.iter().map(|cycle| explain::explain(cycle, &known)));
    wrong
}

/// The same as the violation of a simulated run.
pub fn check(txns: &[Txn]) -> crate::violation::Checked {
    checked(findings(txns))
}
