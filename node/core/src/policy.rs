//! How a keyspace is replicated, and what it promises: the part of its record that operators choose and may alter.
//!
//! A mode only decides where the walls of the shards' groups are (design, section 2): one group over all zones (`Sync`), one
//! per zone (`Async`), one in the home zone with mirrors elsewhere (`Snapshot`).
//!
//! Invariant: a policy in the catalog has passed [`Policy::settle`] when it was logged: its zones exist and are distinct,
//! and it says nothing that its mode does not know.

use meridian_causal::ZoneId;
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::limits::{MAX_LAG_MS_MIN, MIRROR_INTERVAL_MS_MAX, MIRROR_INTERVAL_MS_MIN};
use crate::request::ReadLevel;

/// Zones a sync keyspace needs: with fewer, one zone has half of the voters or more, and some majority lies in one zone
/// (protocol rule 19).
const SYNC_ZONES_MIN: usize = 3;

/// Between two cuts, where nobody says otherwise.
const INTERVAL_MS_DEFAULT: u64 = 5_000;

/// How a keyspace is replicated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Write locally, ship later; every zone stays writable.
    #[default]
    Async,
    /// A write is acknowledged when a majority of replicas in at least two zones has it.
    Sync,
    /// Write in the home zone; other zones mirror consistent cuts.
    Snapshot,
}

impl Mode {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Sync => "sync",
            Self::Snapshot => "snapshot",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Async, Self::Sync, Self::Snapshot]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// Which replicas a sync write waits for, beyond the majority that commits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ack {
    /// A majority, in at least two zones.
    #[default]
    Majority,
    /// Every zone of the keyspace as well. It delays the reply, never the commit (protocol rule 20).
    All,
}

/// What becomes of writes with [`Ack::All`] when a zone is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnZoneLoss {
    /// They are refused with `ZONES_SHORT`.
    #[default]
    Refuse,
    /// A majority is enough until the zone is back; each receipt says so.
    Degrade,
}

/// What becomes of writes to an async keyspace when another zone is too far behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnBreach {
    /// They are slowed down to what that zone takes in.
    #[default]
    Throttle,
    /// They are refused with `RATE_LIMITED`.
    Reject,
}

/// How fresh a read must be that does not say: one of the levels that a client may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DefaultLevel {
    /// [`ReadLevel::Linearizable`].
    #[default]
    Linearizable,
    /// [`ReadLevel::Session`].
    Session,
    /// [`ReadLevel::Bounded`].
    Bounded {
        /// Milliseconds, more than 0.
        max_age_ms: u64,
    },
    /// [`ReadLevel::Eventual`].
    Eventual,
    /// [`ReadLevel::Zones`].
    Zones {
        /// How many, of those of the keyspace.
        count: u16,
    },
}

impl DefaultLevel {
    /// The level of a read.
    pub const fn level(self) -> ReadLevel {
        match self {
            Self::Linearizable => ReadLevel::Linearizable,
            Self::Session => ReadLevel::Session,
            Self::Bounded { max_age_ms } => ReadLevel::Bounded { max_age_ms },
            Self::Eventual => ReadLevel::Eventual,
            Self::Zones { count } => ReadLevel::Zones { count },
        }
    }
}

/// What an operator has chosen for a keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The mode.
    pub mode: Mode,
    /// The zones that hold the keyspace, ascending. Empty in a request: all of the cluster.
    pub zones: Vec<ZoneId>,
    /// Sync only.
    pub ack: Ack,
    /// Sync with [`Ack::All`] only.
    pub on_zone_loss: OnZoneLoss,
    /// Snapshot: the zone that takes writes. Sync: where leaders should sit, if anywhere in particular.
    pub home: Option<ZoneId>,
    /// Snapshot only: between two cuts, in milliseconds.
    pub interval_ms: u64,
    /// Async only: how old an effect may get that another zone lacks before `on_breach` happens. `None`: no bound.
    pub max_lag_ms: Option<u64>,
    /// Async with `max_lag_ms` only.
    pub on_breach: OnBreach,
    /// For reads that name no level. No group has anything to do with it.
    pub read_level: DefaultLevel,
    /// Grows with each alter, failover and promotion: receipts, tokens and revisions compare by it first.
    pub epoch: u64,
}

impl Policy {
    /// Fills in what a request leaves open and refuses what cannot be. `near`: the zone of the node that was asked.
    pub(crate) fn settle(mut self, catalog: &Catalog, near: ZoneId) -> Result<Self, Error> {
        if self.zones.is_empty() {
            self.zones = catalog.zones.keys().copied().collect();
        }
        self.zones.sort();
        self.zones.dedup();
        if let Some(unknown) = self
            .zones
            .iter()
            .find(|zone| !catalog.zones.contains_key(zone))
        {
            return Err(refused(format!("zone {unknown} is not of this cluster")));
        }
        if let Some(home) = self.home.filter(|home| !self.zones.contains(home)) {
            return Err(refused(format!(
                "the home zone {home} is not one of the keyspace's zones"
            )));
        }
        self.check_read_level()?;
        match self.mode {
            Mode::Async => self.settle_async()?,
            Mode::Sync => self.settle_sync()?,
            Mode::Snapshot => self.settle_snapshot(near)?,
        }
        Ok(self)
    }

    fn check_read_level(&self) -> Result<(), Error> {
        match self.read_level {
            DefaultLevel::Zones { count }
                if count == 0 || usize::from(count) > self.zones.len() =>
            {
                Err(refused(format!(
                    "the keyspace is in {} zones, which a read of {count} zones cannot be of",
                    self.zones.len()
                )))
            }
            DefaultLevel::Bounded { max_age_ms: 0 } => Err(refused(
                "a bound of 0 ms on the age; linearizable is the level that means it",
            )),
            DefaultLevel::Linearizable
            | DefaultLevel::Session
            | DefaultLevel::Bounded { .. }
            | DefaultLevel::Eventual
            | DefaultLevel::Zones { .. } => Ok(()),
        }
    }

    fn settle_async(&self) -> Result<(), Error> {
        self.only_sync()?;
        self.only_snapshot()?;
        if self.home.is_some() {
            return Err(refused(
                "an async keyspace has no home: every zone takes writes",
            ));
        }
        match self.max_lag_ms {
            Some(bound) if bound < MAX_LAG_MS_MIN => Err(refused(format!(
                "a bound of {bound} ms on the lag; at least {MAX_LAG_MS_MIN} ms is possible"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn settle_sync(&self) -> Result<(), Error> {
        self.only_async()?;
        self.only_snapshot()?;
        if self.zones.len() < SYNC_ZONES_MIN {
            return Err(refused(format!(
                "a sync keyspace needs {SYNC_ZONES_MIN} zones, not {}: with fewer, one zone could commit alone",
                self.zones.len()
            )));
        }
        if self.on_zone_loss == OnZoneLoss::Degrade && self.ack != Ack::All {
            return Err(refused(
                "--on-zone-loss degrade has a meaning with --ack all only",
            ));
        }
        Ok(())
    }

    fn settle_snapshot(&mut self, near: ZoneId) -> Result<(), Error> {
        self.only_async()?;
        self.only_sync()?;
        if self.home.is_none() {
            self.home = self
                .zones
                .iter()
                .find(|zone| **zone == near)
                .or(self.zones.first())
                .copied();
        }
        if self.interval_ms == 0 {
            self.interval_ms = INTERVAL_MS_DEFAULT;
        }
        if !(MIRROR_INTERVAL_MS_MIN..=MIRROR_INTERVAL_MS_MAX).contains(&self.interval_ms) {
            return Err(refused(format!(
                "an interval of {} ms; between {MIRROR_INTERVAL_MS_MIN} and {MIRROR_INTERVAL_MS_MAX} are possible",
                self.interval_ms
            )));
        }
        Ok(())
    }

    fn only_sync(&self) -> Result<(), Error> {
        if self.ack != Ack::default() || self.on_zone_loss != OnZoneLoss::default() {
            return Err(refused(format!(
                "--ack and --on-zone-loss are of sync keyspaces, not of {} ones",
                self.mode.name()
            )));
        }
        Ok(())
    }

    fn only_async(&self) -> Result<(), Error> {
        if self.max_lag_ms.is_some() || self.on_breach != OnBreach::default() {
            return Err(refused(format!(
                "--max-lag and --on-breach are of async keyspaces, not of {} ones",
                self.mode.name()
            )));
        }
        Ok(())
    }

    fn only_snapshot(&self) -> Result<(), Error> {
        if self.interval_ms != 0 {
            return Err(refused(format!(
                "--interval is of snapshot keyspaces, not of {} ones",
                self.mode.name()
            )));
        }
        Ok(())
    }

    /// Whether the groups of a keyspace stand where the other policy wants them too.
    pub(crate) fn same_walls(&self, other: &Self) -> bool {
        let home = |policy: &Self| policy.home.filter(|_| policy.mode == Mode::Snapshot);
        self.mode == other.mode && self.zones == other.zones && home(self) == home(other)
    }

    /// The zone whose groups serve the clients of `zone`.
    pub const fn serving_zone(&self, zone: ZoneId) -> ZoneId {
        match (self.mode, self.home) {
            (Mode::Sync, _) => ZoneId::GLOBAL,
            (Mode::Snapshot, Some(home)) => home,
            (Mode::Async | Mode::Snapshot, _) => zone,
        }
    }
}

/// What an alter asks for; what it does not name stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Another mode; what only the old one knew is forgotten.
    pub mode: Option<Mode>,
    /// Other zones.
    pub zones: Option<Vec<ZoneId>>,
    /// See [`Policy::ack`].
    pub ack: Option<Ack>,
    /// See [`Policy::on_zone_loss`].
    pub on_zone_loss: Option<OnZoneLoss>,
    /// See [`Policy::home`].
    pub home: Option<ZoneId>,
    /// See [`Policy::interval_ms`].
    pub interval_ms: Option<u64>,
    /// See [`Policy::max_lag_ms`]; `Some(None)` takes the bound away.
    pub max_lag_ms: Option<Option<u64>>,
    /// See [`Policy::on_breach`].
    pub on_breach: Option<OnBreach>,
    /// See [`Policy::read_level`].
    pub read_level: Option<DefaultLevel>,
}

impl PolicyChange {
    /// The policy that comes of `old`: settled, and an epoch later.
    pub(crate) fn apply(
        self,
        old: &Policy,
        catalog: &Catalog,
        near: ZoneId,
    ) -> Result<Policy, Error> {
        let mode = self.mode.unwrap_or(old.mode);
        let kept = if mode == old.mode {
            old.clone()
        } else {
            Policy {
                mode,
                zones: old.zones.clone(),
                read_level: old.read_level,
                ..Policy::default()
            }
        };
        let policy = Policy {
            mode,
            zones: self.zones.unwrap_or(kept.zones),
            ack: self.ack.unwrap_or(kept.ack),
            on_zone_loss: self.on_zone_loss.unwrap_or(kept.on_zone_loss),
            home: self.home.or(kept.home),
            interval_ms: self.interval_ms.unwrap_or(kept.interval_ms),
            max_lag_ms: self.max_lag_ms.unwrap_or(kept.max_lag_ms),
            on_breach: self.on_breach.unwrap_or(kept.on_breach),
            read_level: self.read_level.unwrap_or(kept.read_level),
            epoch: old.epoch.saturating_add(1),
        };
        policy.settle(catalog, near)
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::InvalidArgument {
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(zones: u16) -> Catalog {
        Catalog {
            zones: (1..=zones)
                .map(|zone| (ZoneId(zone), format!("z{zone}")))
                .collect(),
            ..Catalog::default()
        }
    }

    fn settle(policy: Policy) -> Result<Policy, Error> {
        policy.settle(&catalog(3), ZoneId(2))
    }

    #[test]
    fn what_a_request_leaves_open_is_filled_in() {
        let all = vec![ZoneId(1), ZoneId(2), ZoneId(3)];
        assert_eq!(settle(Policy::default()).unwrap().zones, all);
        let snapshot = Policy {
            mode: Mode::Snapshot,
            ..Policy::default()
        };
        let settled = settle(snapshot).unwrap();
        assert_eq!(settled.home, Some(ZoneId(2)));
        assert_eq!(settled.interval_ms, INTERVAL_MS_DEFAULT);
    }

    #[test]
    fn a_sync_keyspace_of_two_zones_is_refused() {
        let sync = |zones: Vec<ZoneId>| {
            settle(Policy {
                mode: Mode::Sync,
                zones,
                ..Policy::default()
            })
        };
        assert!(sync(vec![ZoneId(1), ZoneId(2), ZoneId(3)]).is_ok());
        assert!(sync(vec![ZoneId(1), ZoneId(2)]).is_err());
        assert!(sync(vec![ZoneId(1), ZoneId(1), ZoneId(2)]).is_err());
    }

    #[test]
    fn what_a_mode_does_not_know_is_refused() {
        let bad = [
            Policy {
                ack: Ack::All,
                ..Policy::default()
            },
            Policy {
                interval_ms: 5_000,
                ..Policy::default()
            },
            Policy {
                mode: Mode::Sync,
                max_lag_ms: Some(5_000),
                ..Policy::default()
            },
            Policy {
                mode: Mode::Sync,
                on_zone_loss: OnZoneLoss::Degrade,
                ..Policy::default()
            },
            Policy {
                mode: Mode::Snapshot,
                interval_ms: 1,
                ..Policy::default()
            },
            Policy {
                zones: vec![ZoneId(9)],
                ..Policy::default()
            },
            Policy {
                read_level: DefaultLevel::Zones { count: 4 },
                ..Policy::default()
            },
            Policy {
                read_level: DefaultLevel::Zones { count: 0 },
                ..Policy::default()
            },
            Policy {
                read_level: DefaultLevel::Bounded { max_age_ms: 0 },
                ..Policy::default()
            },
            Policy {
                mode: Mode::Snapshot,
                zones: vec![ZoneId(1)],
                home: Some(ZoneId(2)),
                ..Policy::default()
            },
            Policy {
                max_lag_ms: Some(0),
                ..Policy::default()
            },
        ];
        for policy in bad {
            assert!(settle(policy.clone()).is_err(), "{policy:?}");
        }
    }

    #[test]
    fn clients_of_a_zone_are_served_where_the_mode_puts_the_groups() {
        let policy = |mode, home| Policy {
            mode,
            home,
            ..Policy::default()
        };
        let near = ZoneId(3);
        assert_eq!(policy(Mode::Async, None).serving_zone(near), near);
        assert_eq!(policy(Mode::Sync, None).serving_zone(near), ZoneId::GLOBAL);
        let home = Some(ZoneId(1));
        assert_eq!(policy(Mode::Snapshot, home).serving_zone(near), ZoneId(1));
    }

    #[test]
    fn an_alter_keeps_what_it_does_not_name_and_forgets_what_the_new_mode_does_not_know() {
        let catalog = catalog(3);
        let old = Policy {
            max_lag_ms: Some(5_000),
            ..Policy::default()
        };
        let old = settle(old).unwrap();
        let altered = |change: PolicyChange| change.apply(&old, &catalog, ZoneId(1));
        let kept = altered(PolicyChange::default()).unwrap();
        assert_eq!((kept.max_lag_ms, kept.epoch), (Some(5_000), 1));
        assert!(kept.same_walls(&old));
        let sync = PolicyChange {
            mode: Some(Mode::Sync),
            ..PolicyChange::default()
        };
        let sync = altered(sync).unwrap();
        assert_eq!((sync.mode, sync.max_lag_ms), (Mode::Sync, None));
        assert!(!sync.same_walls(&old));
        let bad = PolicyChange {
            ack: Some(Ack::All),
            ..PolicyChange::default()
        };
        assert!(altered(bad).is_err());
    }

    #[test]
    fn a_default_read_level_is_altered_without_moving_groups_and_outlives_a_change_of_mode() {
        let catalog = catalog(3);
        let read_level = DefaultLevel::Zones { count: 3 };
        let old = settle(Policy::default()).unwrap();
        let change = PolicyChange {
            read_level: Some(read_level),
            ..PolicyChange::default()
        };
        let altered = change.apply(&old, &catalog, ZoneId(1)).unwrap();
        assert!(altered.same_walls(&old));
        assert_eq!(altered.read_level, read_level);
        let mode = |mode, zones| PolicyChange {
            mode: Some(mode),
            zones,
            ..PolicyChange::default()
        };
        let sync = mode(Mode::Sync, None);
        let sync = sync.apply(&altered, &catalog, ZoneId(1)).unwrap();
        assert_eq!(sync.read_level, read_level);
        let fewer = mode(Mode::Snapshot, Some(vec![ZoneId(1), ZoneId(2)]));
        let refused = fewer.apply(&altered, &catalog, ZoneId(1));
        assert!(refused.is_err(), "three of two zones");
    }

    #[test]
    fn only_a_snapshot_keyspace_has_to_move_its_groups_with_its_home() {
        let policy = |mode, home| Policy {
            mode,
            home: Some(ZoneId(home)),
            ..Policy::default()
        };
        assert!(policy(Mode::Sync, 1).same_walls(&policy(Mode::Sync, 2)));
        assert!(!policy(Mode::Snapshot, 1).same_walls(&policy(Mode::Snapshot, 2)));
    }

    #[test]
    fn names_of_modes_are_read_back() {
        for mode in [Mode::Async, Mode::Sync, Mode::Snapshot] {
            assert_eq!(Mode::named(mode.name()), Some(mode));
        }
        assert_eq!(Mode::named("quorum"), None);
    }
}
