//! What `keyspace create` and `alter` take to say how a keyspace is replicated.

use std::time::Duration;

use clap::{Args, ValueEnum};
use meridian_client::ReadLevel;
use meridian_client::proto::admin::v1 as wire;

use crate::parse;

/// The mode of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Acknowledged by a majority of replicas in at least two zones
    Sync,
    /// Acknowledged in the writer's zone, shipped after; conflicts surface as siblings
    Async,
    /// Written in one zone, mirrored to the others at intervals
    Snapshot,
}

/// Which replicas a sync write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ack {
    /// A majority, in at least two zones
    Majority,
    /// Every zone as well
    All,
}

/// What becomes of writes that wait for all zones while one is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnZoneLoss {
    /// They are refused
    Refuse,
    /// A majority is enough, and each receipt says so
    Degrade,
}

/// What becomes of writes while another zone is too far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBreach {
    /// They are slowed down
    Throttle,
    /// They are refused
    Reject,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PolicyArgs {
    /// How it is replicated
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
    /// Zones that hold it; all of the cluster without this
    #[arg(long, value_name = "ZONE,...", value_delimiter = ',')]
    pub(crate) zones: Vec<String>,
    /// Sync: which replicas a write waits for
    #[arg(long, value_enum)]
    pub(crate) ack: Option<Ack>,
    /// Sync with --ack all: what becomes of writes while a zone is missing
    #[arg(long, value_enum)]
    pub(crate) on_zone_loss: Option<OnZoneLoss>,
    /// Snapshot: the zone that takes writes; sync: where leaders should sit
    #[arg(long, value_name = "ZONE")]
    pub(crate) home: Option<String>,
    /// Snapshot: time between two cuts, 5s without this
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub(crate) interval: Option<Duration>,
    /// Async: how old a write may get that another zone lacks
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub(crate) max_lag: Option<Duration>,
    /// Async with --max-lag: what becomes of writes past it
    #[arg(long, value_enum)]
    pub(crate) on_breach: Option<OnBreach>,
    /// For reads that name no level: linearizable (from the start), session, bounded:500ms, eventual, zones:N
    #[arg(long, value_name = "LEVEL", value_parser = parse::read_level)]
    pub(crate) read_level: Option<ReadLevel>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AlterArgs {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Take the bound on the lag away
    #[arg(long, conflicts_with = "max_lag")]
    pub(crate) no_max_lag: bool,
    /// Give up an alter that is under way
    #[arg(long, conflicts_with_all = [
        "mode", "zones", "ack", "on_zone_loss", "home", "interval", "max_lag", "on_breach", "no_max_lag",
        "read_level",
    ])]
    pub(crate) cancel: bool,
    /// Do not wait: it goes on in the background
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait at most this long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse::duration)]
    pub(crate) wait: Duration,
}

impl PolicyArgs {
    /// As it is sent: what was not said is left to the node.
    pub(crate) fn to_wire(&self) -> wire::Policy {
        let (read_level, read_max_age_ms, read_zones) = read_level(self.read_level);
        wire::Policy {
            mode: word(self.mode),
            zones: self.zones.clone(),
            ack: word(self.ack),
            on_zone_loss: word(self.on_zone_loss),
            home: self.home.clone().unwrap_or_default(),
            interval_ms: millis(self.interval),
            max_lag_ms: millis(self.max_lag),
            on_breach: word(self.on_breach),
            epoch: 0,
            read_level: read_level.to_owned(),
            read_max_age_ms,
            read_zones,
        }
    }
}

/// The word of a level, its age and its zones.
fn read_level(level: Option<ReadLevel>) -> (&'static str, u64, u32) {
    match level {
        None | Some(ReadLevel::OfKeyspace) => ("", 0, 0),
        Some(ReadLevel::Linearizable) => ("linearizable", 0, 0),
        Some(ReadLevel::Session) => ("session", 0, 0),
        Some(ReadLevel::Bounded(age)) => ("bounded", millis(Some(age)), 0),
        Some(ReadLevel::Eventual) => ("eventual", 0, 0),
        Some(ReadLevel::Zones(zones)) => ("zones", 0, zones),
    }
}

fn word<T: ValueEnum>(choice: Option<T>) -> String {
    choice
        .and_then(|choice| choice.to_possible_value())
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// Under a millisecond is still a duration, not an absent one.
fn millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| {
        u64::try_from(duration.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_sent_and_nothing_else() {
        let said = PolicyArgs {
            mode: Some(Mode::Sync),
            ack: Some(Ack::All),
            on_zone_loss: Some(OnZoneLoss::Degrade),
            ..PolicyArgs::default()
        };
        let wire = wire::Policy {
            mode: "sync".to_owned(),
            ack: "all".to_owned(),
            on_zone_loss: "degrade".to_owned(),
            ..wire::Policy::default()
        };
        assert_eq!(said.to_wire(), wire);
        assert_eq!(PolicyArgs::default().to_wire(), wire::Policy::default());
    }

    #[test]
    fn a_read_level_is_sent_with_its_age_or_its_zones() {
        let sent = |level| {
            let args = PolicyArgs {
                read_level: Some(level),
                ..PolicyArgs::default()
            };
            let sent = args.to_wire();
            (sent.read_level, sent.read_max_age_ms, sent.read_zones)
        };
        let bounded = ReadLevel::Bounded(Duration::from_millis(500));
        assert_eq!(sent(bounded), ("bounded".to_owned(), 500, 0));
        assert_eq!(sent(ReadLevel::Zones(2)), ("zones".to_owned(), 0, 2));
        assert_eq!(sent(ReadLevel::Eventual), ("eventual".to_owned(), 0, 0));
    }

    #[test]
    fn durations_become_milliseconds_and_never_nothing() {
        let interval = |interval| {
            let args = PolicyArgs {
                interval,
                ..PolicyArgs::default()
            };
            args.to_wire().interval_ms
        };
        assert_eq!(interval(Some(Duration::from_secs(5))), 5_000);
        assert_eq!(interval(Some(Duration::from_micros(1))), 1);
        assert_eq!(interval(None), 0);
    }
}
