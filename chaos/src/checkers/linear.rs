//! Per-key linearizability inside a zone, or over all of them where one group serves all, from causality: nothing has to be searched for.
//!
//! A read shows the set of writes its context covers. Linearizable reads of a key in a zone must form a chain by
//! inclusion; each must cover whatever a write acknowledged, or a read answered, in that zone before it began; none may
//! show what was known there to be replaced; none may show a write nobody had begun. What had ended in a delete may be
//! forgotten, with the key's record; that it does not come back is still held against it. Dots that a zone gives to a key grow
//! in the order of real time.

use std::collections::BTreeMap;

use super::FinalState;
use super::bits::Bits;
use super::key::{KeyHistory, ReadFact};
use crate::lineage::{Domain, Lineage};
use crate::node::zone_id;
use crate::violation::{Checked, Violation};

/// Values read were written, say what their write said, and are not from the future. Holds at every read level.
pub(super) fn check_values(key: &KeyHistory<'_>, _: &FinalState) -> Checked {
    for read in &key.reads {
        if let Some(dot) = read.unknown {
            let message = format!(
                "op {} read {dot} on {:?}, which no group applied",
                read.number, key.name
            );
            return Err(Violation::new("values", read.return_ns, message));
        }
        if let Some(dot) = read.wrong {
            let message = format!(
                "op {} read {dot} on {:?} with a value its write did not have",
                read.number, key.name
            );
            return Err(Violation::new("values", read.return_ns, message));
        }
        let early = read.held.iter().find(|place| {
            key.writes
                .get(*place)
                .is_some_and(|w| w.call_ns > read.return_ns)
        });
        if let Some(place) = early {
            let message = format!(
                "op {} read {} on {:?} before it was sent",
                read.number,
                key.show(place),
                key.name
            );
            return Err(Violation::new("values", read.return_ns, message));
        }
    }
    Ok(())
}

/// The order of linearizable operations of each keyspace, in each zone where zones are apart.
pub(super) fn check_order(key: &KeyHistory<'_>, state: &FinalState) -> Checked {
    let mut domains: BTreeMap<Domain, Vec<&ReadFact>> = BTreeMap::new();
    for read in key.reads.iter().filter(|read| read.linearizable) {
        let domain = state.lineage.domain(read.keyspace, zone_id(read.zone));
        domains.entry(domain).or_default().push(read);
    }
    for (domain, reads) in &domains {
        check_chain(key, reads)?;
        check_real_time(key, (*domain, &state.lineage), reads)?;
    }
    check_dots(key)
}

fn check_chain(key: &KeyHistory<'_>, reads: &[&ReadFact]) -> Checked {
    let mut sorted: Vec<&ReadFact> = reads.to_vec();
    sorted.sort_by_key(|read| read.covered.len());
    let is_chain = sorted
        .iter()
        .zip(sorted.iter().skip(1))
        .all(|(smaller, greater)| smaller.covered.minus(&greater.covered).first().is_none());
    if is_chain {
        Ok(())
    } else {
        check_pairs(key, reads)
    }
}

/// The same pair by pair, with what either of the two may have forgotten.
fn check_pairs(key: &KeyHistory<'_>, reads: &[&ReadFact]) -> Checked {
    let forgotten: Vec<Bits> = reads
        .iter()
        .map(|read| key.forgettable(read.return_ns))
        .collect();
    for (place, (one, ones)) in reads.iter().zip(&forgotten).enumerate() {
        for (other, others) in reads.iter().zip(&forgotten).skip(place + 1) {
            let missed =
                |a: &ReadFact, b: &ReadFact| a.covered.minus(&b.covered).minus(ones).minus(others);
            if let (Some(a), Some(_)) = (missed(one, other).first(), missed(other, one).first()) {
                return Err(Violation::new(
                    "linear",
                    one.return_ns.max(other.return_ns),
                    format!(
                        "ops {} and {} read {:?} in one zone, and each has seen what the other has not, such as {}",
                        one.number,
                        other.number,
                        key.name,
                        key.show(a)
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Something happens at a time in a zone.
enum Moment<'a> {
    Call(&'a ReadFact),
    ReadReturn(&'a ReadFact),
    Acked(usize),
}

fn check_real_time(
    key: &KeyHistory<'_>,
    (domain, lineage): (Domain, &Lineage),
    reads: &[&ReadFact],
) -> Checked {
    let mut moments: Vec<(u64, u8, Moment<'_>)> = Vec::new();
    for read in reads {
        moments.push((read.call_ns, 0, Moment::Call(read)));
        moments.push((read.return_ns, 1, Moment::ReadReturn(read)));
    }
    for (place, write) in key.writes.iter().enumerate() {
        let own = lineage.domain(write.origin, write.dot.zone()) == domain;
        if let Some(at) = write.acked_ns.filter(|_| own) {
            moments.push((at, 1, Moment::Acked(place)));
        }
    }
    moments.sort_by_key(|(at, rank, _)| (*at, *rank));
    let (mut known, mut gone) = (key.none(), key.none());
    for (_, _, moment) in moments {
        match moment {
            Moment::Call(read) => check_read(key, read, (&known, &gone))?,
            Moment::ReadReturn(read) => {
                known.add(&read.covered);
                gone.add(&read.covered.minus(&read.held));
            }
            Moment::Acked(place) => {
                known.insert(place);
                if let Some(replaced) = key
                    .writes
                    .get(place)
                    .and_then(|write| write.replaced.as_ref())
                {
                    gone.add(replaced);
                }
            }
        }
    }
    Ok(())
}

fn check_read(key: &KeyHistory<'_>, read: &ReadFact, (known, gone): (&Bits, &Bits)) -> Checked {
    let mut missed = known.minus(&read.covered);
    if missed.first().is_some() {
        missed = missed.minus(&key.forgettable(read.return_ns));
    }
    if let Some(place) = missed.first() {
        return Err(Violation::new(
            "linear",
            read.return_ns,
            format!(
                "op {} read {:?} without {}, known in its zone before it began",
                read.number,
                key.name,
                key.show(place)
            ),
        ));
    }
    if let Some(place) = read.held.and(gone).first() {
        return Err(Violation::new(
            "tombstones",
            read.return_ns,
            format!(
                "op {} read {} on {:?}, gone in its zone before it began",
                read.number,
                key.show(place),
                key.name
            ),
        ));
    }
    Ok(())
}

/// From the greatest dot down: no smaller dot was sent after a greater one of the same life was acknowledged.
fn check_dots(key: &KeyHistory<'_>) -> Checked {
    let mut acked: Option<(u64, meridian_causal::Dot)> = None;
    for write in key.writes.iter().rev() {
        acked = acked.filter(|(_, greater)| greater.incarnation == write.dot.incarnation);
        if let Some((at, greater)) = acked.filter(|(at, _)| write.call_ns > *at) {
            let message = format!(
                "{} on {:?} was sent after {greater} was acknowledged",
                write.dot, key.name
            );
            return Err(Violation::new("linear", at, message));
        }
        let own = write.acked_ns.map(|at| (at, write.dot));
        acked = [acked, own].into_iter().flatten().min();
    }
    Ok(())
}
