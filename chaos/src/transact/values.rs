//! What the keys of transactions hold, as bytes and as numbers; and what a program writes, given what it has read.

use bytes::Bytes;
use meridian_causal::{Content, SiblingSet};
use meridian_core::command::WriteIntent;
use meridian_core::transaction::Action;

use super::attempt::{Found, write};
use super::program::{self, OPENING, Program};

/// A number as a value.
pub fn number(value: u64) -> Bytes {
    Bytes::from(value.to_string())
}

fn amount(value: i64) -> Bytes {
    Bytes::from(value.to_string())
}

fn text(set: &SiblingSet) -> Option<String> {
    let versions = set.versions();
    let value = versions
        .iter()
        .find_map(|version| version.content().value());
    value.and_then(|value| String::from_utf8(value.to_vec()).ok())
}

/// What a register holds.
pub fn register(set: &SiblingSet) -> Option<u64> {
    text(set)?.parse().ok()
}

/// What a list holds.
pub fn list(set: &SiblingSet) -> Vec<u64> {
    let text = text(set).unwrap_or_default();
    text.split(',')
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// What an account or a side of a pair holds.
pub fn balance(set: &SiblingSet) -> i64 {
    text(set)
        .and_then(|text| text.parse().ok())
        .unwrap_or(OPENING)
}

fn of<'f>(found: &'f [Found], key: &Bytes) -> Option<&'f SiblingSet> {
    found.iter().find(|one| one.key == *key).map(|one| &one.set)
}

/// The writes of an interactive program; none when there is nothing to do.
pub fn writes(program: &Program, zone: usize, found: &[Found]) -> Option<Vec<Action>> {
    let writes = match program {
        Program::Lists(_, steps) => steps
            .iter()
            .filter_map(|step| {
                let value = step.write?;
                let key = program::list(zone, step.key);
                let mut held = list(of(found, &key)?);
                held.push(value);
                let held: Vec<String> = held.iter().map(u64::to_string).collect();
                Some(write(&key, Bytes::from(held.join(","))))
            })
            .collect(),
        Program::Registers(_, steps) => steps
            .iter()
            .filter_map(|step| {
                Some(write(
                    &program::register(zone, step.key),
                    number(step.write?),
                ))
            })
            .collect(),
        Program::Transfer { from, to, amount } => transfer(zone, [*from, *to], *amount, found)?,
        Program::Withdraw { pair, side, amount } => {
            vec![withdraw(zone, (*pair, *side), *amount, found)?]
        }
        Program::Claim { group, name } => match found {
            [] => {
                let mut key = program::prefix(zone, *group).to_vec();
                key.extend_from_slice(name.to_string().as_bytes());
                vec![write(&Bytes::from(key), number(*name))]
            }
            [held, ..] if name.is_multiple_of(2) => vec![Action::Write {
                key: held.key.clone(),
                content: Content::Tombstone,
                intent: WriteIntent::Overwrite,
                expires_at_ms: None,
            }],
            _ => return None,
        },
        Program::Swap { .. }
        | Program::Audit(_)
        | Program::Weigh(..)
        | Program::Look(_)
        | Program::ForkWrite { .. }
        | Program::ForkRead(..) => return None,
    };
    (!writes.is_empty()).then_some(writes)
}

fn transfer(zone: usize, [from, to]: [u64; 2], moved: i64, found: &[Found]) -> Option<Vec<Action>> {
    let (from, to) = (program::account(zone, from), program::account(zone, to));
    let held = balance(of(found, &from)?);
    let other = balance(of(found, &to)?);
    (held >= moved).then(|| {
        vec![
            write(&from, amount(held - moved)),
            write(&to, amount(other + moved)),
        ]
    })
}

fn withdraw(zone: usize, (pair, side): (u64, u64), taken: i64, found: &[Found]) -> Option<Action> {
    let sides = [program::side(zone, pair, 0), program::side(zone, pair, 1)];
    let held: Vec<i64> = sides
        .iter()
        .filter_map(|key| of(found, key))
        .map(balance)
        .collect();
    if held.iter().sum::<i64>() < taken {
        return None;
    }
    let place = usize::try_from(side).unwrap_or(0);
    Some(write(sides.get(place)?, amount(held.get(place)? - taken)))
}
