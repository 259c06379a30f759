//! Finds a /24 of 127.77.0.0/16 on which every address of a demo is free, by binding all of them.

use std::net::TcpListener;

use super::plan::Plan;
use crate::exit::Failure;

/// A plan whose addresses nobody listens on.
pub(super) fn free_plan(nodes_per_zone: u8) -> Result<Plan, Failure> {
    let first: u8 = rand::random();
    let plans = (0..=u8::MAX).map(|step| Plan {
        subnet: first.wrapping_add(step),
        nodes_per_zone,
    });
    let mut free = plans.filter(|plan| is_free(*plan));
    free.next()
        .ok_or_else(|| Failure::other("no free subnet in 127.77.0.0/16"))
}

/// All addresses are held at once, so that none is counted twice.
fn is_free(plan: Plan) -> bool {
    let mut held = Vec::new();
    for addr in plan.nodes().iter().flat_map(super::plan::Node::addrs) {
        match TcpListener::bind(addr) {
            Ok(listener) => held.push(listener),
            Err(_taken) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_with_one_address_taken_is_not_free() {
        let plan = free_plan(1).unwrap();
        let taken = plan.nodes()[1].addr();
        let _listener = TcpListener::bind(taken).unwrap();
        assert!(!is_free(plan));
    }
}
