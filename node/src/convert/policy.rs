//! Policies of keyspaces on the wire, both ways: names become ids, words become choices.

use meridian_causal::ZoneId;
use meridian_core::catalog::{
    Ack, Alter, Catalog, DefaultLevel, Divergence, Keyspace, Mode, OnBreach, OnZoneLoss, Policy,
    PolicyChange, Returned,
};
use meridian_core::ids::GroupId;
use meridian_core::request::AlterAsk;
use meridian_proto::admin::v1 as pb;

use super::Failure;

/// What a request asks for. `mode` is the field beside the policy, from before there was one.
pub(crate) fn from_wire(
    catalog: &Catalog,
    mode: &str,
    policy: Option<pb::Policy>,
) -> Result<Policy, Failure> {
    let policy = policy.unwrap_or_default();
    let mode = match (mode, policy.mode.as_str()) {
        (name, "") | ("", name) => name,
        (name, other) if name == other => name,
        (name, other) => {
            return Err(invalid(format!("both mode {name} and mode {other}")));
        }
    };
    let mode = match mode {
        "" => Mode::default(),
        name => Mode::named(name).ok_or_else(|| Failure::mode_unsupported(name))?,
    };
    let zone = |name: &String| zone_named(catalog, name);
    Ok(Policy {
        mode,
        zones: policy.zones.iter().map(zone).collect::<Result<_, _>>()?,
        ack: choice("ack", &policy.ack, &ACKS)?,
        on_zone_loss: choice("on_zone_loss", &policy.on_zone_loss, &ON_ZONE_LOSS)?,
        home: match policy.home.as_str() {
            "" => None,
            name => Some(zone_named(catalog, name)?),
        },
        interval_ms: policy.interval_ms,
        max_lag_ms: (policy.max_lag_ms > 0).then_some(policy.max_lag_ms),
        on_breach: choice("on_breach", &policy.on_breach, &ON_BREACH)?,
        read_level: default_level(&policy)?.unwrap_or_default(),
        epoch: 0,
    })
}

/// What an alter asks for: what is empty or 0 stays as it is.
pub(crate) fn change_from_wire(
    catalog: &Catalog,
    policy: &pb::Policy,
    no_max_lag: bool,
) -> Result<PolicyChange, Failure> {
    let zone = |name: &String| zone_named(catalog, name);
    let zones: Vec<ZoneId> = policy.zones.iter().map(zone).collect::<Result<_, _>>()?;
    let mode = match policy.mode.as_str() {
        "" => None,
        name => Some(Mode::named(name).ok_or_else(|| Failure::mode_unsupported(name))?),
    };
    let named = |ms: u64| (ms > 0).then_some(ms);
    if no_max_lag && policy.max_lag_ms > 0 {
        return Err(invalid("both a bound on the lag and none".to_owned()));
    }
    Ok(PolicyChange {
        mode,
        zones: (!zones.is_empty()).then_some(zones),
        ack: named_choice("ack", &policy.ack, &ACKS)?,
        on_zone_loss: named_choice("on_zone_loss", &policy.on_zone_loss, &ON_ZONE_LOSS)?,
        home: match policy.home.as_str() {
            "" => None,
            name => Some(zone_named(catalog, name)?),
        },
        interval_ms: named(policy.interval_ms),
        max_lag_ms: named(policy.max_lag_ms)
            .map(Some)
            .or(no_max_lag.then_some(None)),
        on_breach: named_choice("on_breach", &policy.on_breach, &ON_BREACH)?,
        read_level: default_level(policy)?,
    })
}

/// What an alter is asked to do. A promotion, and giving up what is to return, name nothing to change.
pub(crate) fn ask_from_wire(
    catalog: &Catalog,
    request: &pb::KeyspaceAlterRequest,
) -> Result<AlterAsk, Failure> {
    let policy = request.policy.clone().unwrap_or_default();
    let change = change_from_wire(catalog, &policy, request.no_max_lag)?;
    let promote = !request.promote.is_empty();
    let asked = [
        change != PolicyChange::default(),
        request.cancel,
        promote,
        request.give_up_return,
    ];
    if asked.into_iter().filter(|asked| *asked).count() > 1 || (request.force && !promote) {
        return Err(invalid(
            "a change, cancel, promote and give_up_return exclude one another, and force goes with promote".to_owned(),
        ));
    }
    if request.cancel {
        return Ok(AlterAsk::Cancel);
    }
    if request.give_up_return {
        return Ok(AlterAsk::GiveUpReturn);
    }
    if promote {
        let zone = zone_named(catalog, &request.promote)?;
        let force = request.force;
        return Ok(AlterAsk::Promote { zone, force });
    }
    Ok(AlterAsk::Change(change))
}

/// The default read level that a policy names, if it names one.
fn default_level(policy: &pb::Policy) -> Result<Option<DefaultLevel>, Failure> {
    let (max_age_ms, zones) = (policy.read_max_age_ms, policy.read_zones);
    let level = match policy.read_level.as_str() {
        "" => None,
        "linearizable" => Some(DefaultLevel::Linearizable),
        "session" => Some(DefaultLevel::Session),
        "eventual" => Some(DefaultLevel::Eventual),
        "bounded" => Some(DefaultLevel::Bounded { max_age_ms }),
        "zones" => Some(DefaultLevel::Zones {
            count: u16::try_from(zones)
                .map_err(|_out_of_range| invalid(format!("a read level of {zones} zones")))?,
        }),
        word => {
            return Err(invalid(format!(
                "read_level is linearizable, session, bounded, eventual or zones, not {word:?}"
            )));
        }
    };
    let bounded = matches!(level, Some(DefaultLevel::Bounded { .. }));
    let of_zones = matches!(level, Some(DefaultLevel::Zones { .. }));
    if (max_age_ms > 0 && !bounded) || (zones > 0 && !of_zones) {
        let message = "an age or a number of zones for a read level that has none";
        return Err(invalid(message.to_owned()));
    }
    Ok(level)
}

/// The word of a default read level, with its age and its zones.
const fn read_level_to_wire(level: DefaultLevel) -> (&'static str, u64, u16) {
    match level {
        DefaultLevel::Linearizable => ("linearizable", 0, 0),
        DefaultLevel::Session => ("session", 0, 0),
        DefaultLevel::Bounded { max_age_ms } => ("bounded", max_age_ms, 0),
        DefaultLevel::Eventual => ("eventual", 0, 0),
        DefaultLevel::Zones { count } => ("zones", 0, count),
    }
}

fn named_choice<T: Copy>(field: &str, word: &str, words: &Words<T>) -> Result<Option<T>, Failure> {
    if word.is_empty() {
        return Ok(None);
    }
    choice(field, word, words).map(Some)
}

/// All keyspaces as they are told.
pub(crate) fn keyspaces_to_wire(catalog: &Catalog) -> Vec<pb::Keyspace> {
    let keyspaces = catalog.open_keyspaces();
    keyspaces
        .map(|keyspace| keyspace_to_wire(catalog, keyspace))
        .collect()
}

/// A keyspace as it is told.
pub(crate) fn keyspace_to_wire(catalog: &Catalog, keyspace: &Keyspace) -> pb::Keyspace {
    pb::Keyspace {
        name: keyspace.name.clone(),
        id: u64::from(keyspace.lineage.0),
        mode: keyspace.policy.mode.name().to_owned(),
        shards: u32::from(keyspace.shards),
        policy: Some(to_wire(catalog, &keyspace.policy)),
        altering: keyspace
            .alter
            .as_ref()
            .and_then(|alter| altering(catalog, keyspace, alter)),
        divergence: keyspace
            .divergence
            .as_ref()
            .map(|divergence| diverged(catalog, divergence)),
    }
}

fn diverged(catalog: &Catalog, divergence: &Divergence) -> pb::Divergence {
    let zone = catalog.zones.get(&divergence.old_home);
    let shown = &divergence.shown;
    let returned = match divergence.returned {
        Returned::Awaited => "awaited",
        Returned::Whole => "whole",
        Returned::GivenUp => "given_up",
    };
    pb::Divergence {
        old_home: zone.cloned().unwrap_or_default(),
        generation: shown.generation,
        cut_time_ms: shown.cut_ms,
        heard_time_ms: shown.heard_ms,
        stopped_time_ms: shown.stopped_ms,
        lacking_keys: shown.lacking_keys,
        returned: returned.to_owned(),
    }
}

fn altering(catalog: &Catalog, old: &Keyspace, alter: &Alter) -> Option<pb::Altering> {
    let successor = catalog.keyspaces.get(&alter.successor)?;
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let stage = if alter.sealing > 0 {
        &alter.ready
    } else {
        &alter.filled
    };
    let behind = successor.groups.iter().map(|group| group.id);
    let behind = behind.filter(|group| !stage.contains(group));
    let unsealed = old.groups.iter().map(|group| group.id);
    let unsealed = unsealed.filter(|group| alter.sealing > 0 && !alter.finals.contains_key(group));
    let name = |group: GroupId| {
        let zone = catalog.zones.get(&group.zone).cloned();
        format!(
            "{}/{}",
            zone.unwrap_or_else(|| "all zones".to_owned()),
            group.shard.0
        )
    };
    Some(pb::Altering {
        to: Some(to_wire(catalog, &successor.policy)),
        successor_groups: count(successor.groups.len()),
        old_groups: count(old.groups.len()),
        filled: count(alter.filled.len()),
        sealed: count(alter.finals.len()),
        ready: count(alter.ready.len()),
        sealing: alter.sealing > 0,
        waits_for: unsealed
            .chain(behind)
            .take(WAITS_FOR_MAX)
            .map(name)
            .collect(),
        promotes: alter
            .promotion
            .as_ref()
            .and_then(|promotion| catalog.zones.get(&promotion.zone).cloned())
            .unwrap_or_default(),
    })
}

/// Groups named of those an alter waits for: enough to see where it is stuck.
const WAITS_FOR_MAX: usize = 8;

fn to_wire(catalog: &Catalog, policy: &Policy) -> pb::Policy {
    let name = |zone: &ZoneId| catalog.zones.get(zone).cloned().unwrap_or_default();
    let sync = policy.mode == Mode::Sync;
    let all = sync && policy.ack == Ack::All;
    let bounded = policy.max_lag_ms.is_some();
    let (read_level, read_max_age_ms, read_zones) = read_level_to_wire(policy.read_level);
    let word = |told: bool, word: &'static str| if told { word.to_owned() } else { String::new() };
    pb::Policy {
        mode: policy.mode.name().to_owned(),
        zones: policy.zones.iter().map(name).collect(),
        ack: word(sync, name_of(policy.ack, &ACKS)),
        on_zone_loss: word(all, name_of(policy.on_zone_loss, &ON_ZONE_LOSS)),
        home: policy.home.as_ref().map(name).unwrap_or_default(),
        interval_ms: policy.interval_ms,
        max_lag_ms: policy.max_lag_ms.unwrap_or_default(),
        on_breach: word(bounded, name_of(policy.on_breach, &ON_BREACH)),
        epoch: policy.epoch,
        read_level: read_level.to_owned(),
        read_max_age_ms,
        read_zones: u32::from(read_zones),
    }
}

/// Choices and their words; the first is what an empty word means.
type Words<T> = [(&'static str, T); 2];

const ACKS: Words<Ack> = [("majority", Ack::Majority), ("all", Ack::All)];
const ON_ZONE_LOSS: Words<OnZoneLoss> = [
    ("refuse", OnZoneLoss::Refuse),
    ("degrade", OnZoneLoss::Degrade),
];
const ON_BREACH: Words<OnBreach> = [
    ("throttle", OnBreach::Throttle),
    ("reject", OnBreach::Reject),
];

fn choice<T: Copy>(field: &str, word: &str, words: &Words<T>) -> Result<T, Failure> {
    let [(first, default), (second, other)] = *words;
    match word {
        "" => Ok(default),
        word if word == first => Ok(default),
        word if word == second => Ok(other),
        word => Err(invalid(format!(
            "{field} is {first} or {second}, not {word:?}"
        ))),
    }
}

fn name_of<T: Copy + PartialEq>(value: T, words: &Words<T>) -> &'static str {
    let [(first, default), (second, _)] = *words;
    if value == default { first } else { second }
}

fn zone_named(catalog: &Catalog, name: &str) -> Result<ZoneId, Failure> {
    catalog
        .zones
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(id, _)| *id)
        .ok_or_else(|| Failure::zone_not_found(name))
}

fn invalid(message: String) -> Failure {
    Failure::invalid("BAD_POLICY", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog {
            zones: [(ZoneId(1), "a".to_owned()), (ZoneId(2), "b".to_owned())].into(),
            ..Catalog::default()
        }
    }

    fn read(mode: &str, policy: pb::Policy) -> Result<Policy, Failure> {
        from_wire(&catalog(), mode, Some(policy))
    }

    #[test]
    fn a_policy_survives_the_wire() {
        let policy = Policy {
            mode: Mode::Sync,
            zones: vec![ZoneId(1), ZoneId(2)],
            ack: Ack::All,
            on_zone_loss: OnZoneLoss::Degrade,
            home: Some(ZoneId(2)),
            ..Policy::default()
        };
        let wire = to_wire(&catalog(), &policy);
        assert_eq!(read("", wire).unwrap(), policy);
        let policy = Policy {
            max_lag_ms: Some(5_000),
            on_breach: OnBreach::Reject,
            ..Policy::default()
        };
        let wire = to_wire(&catalog(), &policy);
        assert_eq!(read("async", wire).unwrap(), policy);
    }

    #[test]
    fn a_default_read_level_survives_the_wire_and_an_alter_that_names_none_keeps_it() {
        let levels = [
            DefaultLevel::Linearizable,
            DefaultLevel::Session,
            DefaultLevel::Bounded { max_age_ms: 500 },
            DefaultLevel::Eventual,
            DefaultLevel::Zones { count: 2 },
        ];
        for read_level in levels {
            let policy = Policy {
                read_level,
                ..Policy::default()
            };
            let wire = to_wire(&catalog(), &policy);
            let change = change_from_wire(&catalog(), &wire, false).unwrap();
            assert_eq!(change.read_level, Some(read_level));
            assert_eq!(read("", wire).unwrap(), policy);
        }
        let unnamed = change_from_wire(&catalog(), &pb::Policy::default(), false).unwrap();
        assert_eq!(unnamed.read_level, None);
    }

    #[test]
    fn a_default_read_level_of_no_sense_is_refused() {
        let policy = |read_level: &str, read_max_age_ms, read_zones| pb::Policy {
            read_level: read_level.to_owned(),
            read_max_age_ms,
            read_zones,
            ..pb::Policy::default()
        };
        for bad in [
            policy("newest", 0, 0),
            policy("eventual", 5, 0),
            policy("session", 0, 2),
            policy("zones", 0, 70_000),
            policy("", 0, 2),
        ] {
            assert!(read("", bad.clone()).is_err(), "{bad:?}");
            assert!(change_from_wire(&catalog(), &bad, false).is_err());
        }
    }

    #[test]
    fn an_alter_names_what_it_changes_and_takes_a_bound_away_when_told() {
        let change = |policy: pb::Policy, none| change_from_wire(&catalog(), &policy, none);
        let nothing = change(pb::Policy::default(), false).unwrap();
        assert_eq!(nothing, PolicyChange::default());
        let bounded = pb::Policy {
            max_lag_ms: 500,
            on_breach: "reject".to_owned(),
            ..pb::Policy::default()
        };
        let changed = change(bounded.clone(), false).unwrap();
        assert_eq!(changed.max_lag_ms, Some(Some(500)));
        assert_eq!(changed.on_breach, Some(OnBreach::Reject));
        assert!(change(bounded, true).is_err(), "a bound and none");
        let unbounded = change(pb::Policy::default(), true).unwrap();
        assert_eq!(unbounded.max_lag_ms, Some(None));
    }

    #[test]
    fn an_alter_is_asked_one_thing_only() {
        let ask = |request: pb::KeyspaceAlterRequest| ask_from_wire(&catalog(), &request);
        let promote = pb::KeyspaceAlterRequest {
            promote: "b".to_owned(),
            force: true,
            ..pb::KeyspaceAlterRequest::default()
        };
        let (zone, force) = (ZoneId(2), true);
        assert_eq!(
            ask(promote.clone()).unwrap(),
            AlterAsk::Promote { zone, force }
        );
        let both = pb::KeyspaceAlterRequest {
            cancel: true,
            ..promote.clone()
        };
        assert!(ask(both).is_err());
        let nowhere = pb::KeyspaceAlterRequest {
            promote: "nowhere".to_owned(),
            ..promote
        };
        assert!(ask(nowhere).is_err());
        let forced = pb::KeyspaceAlterRequest {
            force: true,
            ..pb::KeyspaceAlterRequest::default()
        };
        assert!(ask(forced).is_err(), "force of nothing");
    }

    #[test]
    fn an_empty_request_is_an_async_keyspace() {
        assert_eq!(from_wire(&catalog(), "", None).unwrap(), Policy::default());
    }

    #[test]
    fn unknown_words_and_contradictions_are_refused() {
        let word = |policy: pb::Policy| assert!(read("", policy).is_err());
        word(pb::Policy {
            mode: "quorum".to_owned(),
            ..pb::Policy::default()
        });
        word(pb::Policy {
            ack: "none".to_owned(),
            ..pb::Policy::default()
        });
        word(pb::Policy {
            zones: vec!["c".to_owned()],
            ..pb::Policy::default()
        });
        word(pb::Policy {
            home: "c".to_owned(),
            ..pb::Policy::default()
        });
        let sync = pb::Policy {
            mode: "sync".to_owned(),
            ..pb::Policy::default()
        };
        assert!(read("async", sync.clone()).is_err());
        assert!(read("sync", sync).is_ok());
    }
}
