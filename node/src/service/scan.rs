//! Scans: every shard is asked for a page from the same key on, the pages are merged, and the token says where to go on.
//!
//! A page token is opaque and authenticated: it names a key, and holds only for the range and the options it was issued
//! for, so that no page is skipped by mistake.

use std::time::Duration;

use bytes::Bytes;
use meridian_causal::{Incarnation, SiblingSet, VersionVector};
use meridian_core::Error;
use meridian_core::ids::ShardId;
use meridian_core::limits::{RANGE_KEYS_MAX, SCAN_KEYS_MAX};
use meridian_core::mirror::MirrorStamp;
use meridian_core::read::merge_pages;
use meridian_core::request::{Answer, Filter, Query, Read, ReadLevel, Request, Response};
use meridian_core::transaction::OpenView;
use meridian_proto::kv::v1 as kv;

use super::KvService;
use super::page_token::Fingerprint;
use super::serving::Form;
use crate::calls::Ask;
use crate::clock::wall_ms;
use crate::convert::Failure;
use crate::convert::answers::{mirror_to_wire, read_level as level_to_wire};
use crate::convert::operations::{Scope, check_stamped};
use crate::convert::sessions;
use crate::convert::transactions::stamps;
use crate::convert::views;
use crate::cores::Kind;
use crate::limits::{ANSWER_BYTES_SOFT_MAX, SCAN_LIMIT_DEFAULT};

/// A scan found to make sense.
#[derive(Debug)]
struct Plan {
    from: Bytes,
    to: Option<Bytes>,
    limit: usize,
    source: Source,
    filter: Filter,
    keys_only: bool,
    session: Bytes,
    /// As it was asked for.
    level: Option<kv::ReadLevel>,
    /// What the page token is bound to.
    fingerprint: Fingerprint,
}

/// What is read.
#[derive(Clone, Debug)]
enum Source {
    /// The shards as they are, at this level.
    Level(ReadLevel),
    /// The shards as they are, with stamps.
    Stamped,
    /// An open view.
    View(OpenView),
}

impl Source {
    fn new(scope: &Scope<'_>, scan: &kv::Scan) -> Result<Self, Failure> {
        if !scan.view.is_empty() {
            let view = scope.view(&scan.view)?;
            check_stamped(scan.stamped, views::level_of(&view, ShardId(0))?)?;
            return Ok(Self::View(view));
        }
        let level = scope.read_level(scan.level, scan.stamped)?;
        check_stamped(scan.stamped, level)?;
        if !scan.stamped {
            return Ok(Self::Level(level));
        }
        if scan.keys_only || scan.conflicts_only {
            let message = "a stamped scan has all live keys with their values";
            return Err(Failure::invalid("INVALID_ARGUMENT", message));
        }
        Ok(Self::Stamped)
    }

    fn level_of(&self, shard: ShardId) -> Result<ReadLevel, Failure> {
        match self {
            Self::Level(level) => Ok(*level),
            Self::Stamped => Ok(ReadLevel::Linearizable),
            Self::View(view) => views::level_of(view, shard),
        }
    }
}

/// What the shards answered, put together.
#[derive(Debug, Default)]
struct Merged {
    entries: Vec<kv::Entry>,
    next: Option<Bytes>,
    range_stamps: Vec<kv::RangeStamp>,
    /// What the shards had received, where it was asked for.
    seen: Vec<(ShardId, VersionVector)>,
    /// Age of the oldest replica that was read.
    age_ms: Option<u64>,
}

impl Plan {
    fn new(scope: &Scope<'_>, scan: &kv::Scan) -> Result<Self, Failure> {
        let fingerprint = Fingerprint::new(scope, scan);
        let start = scan.from.clone().max(scan.prefix.clone());
        let from = if scan.page_token.is_empty() {
            start
        } else {
            fingerprint.open(&scan.page_token)?
        };
        let asked = if scan.limit == 0 {
            SCAN_LIMIT_DEFAULT
        } else {
            scan.limit
        };
        Ok(Self {
            from,
            to: end_of(&scan.prefix, &scan.to),
            limit: usize::try_from(asked)
                .unwrap_or(SCAN_KEYS_MAX)
                .min(SCAN_KEYS_MAX),
            source: Source::new(scope, scan)?,
            session: scan.session.clone(),
            level: scan.level.filter(|_| scan.view.is_empty()),
            filter: if scan.conflicts_only {
                Filter::Conflicts
            } else {
                Filter::Live
            },
            keys_only: scan.keys_only,
            fingerprint,
        })
    }

    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    fn asks(&self, scope: &Scope<'_>) -> Result<Vec<Ask>, Failure> {
        let keyspace = scope.keyspace.id;
        let ask = |shard| {
            let shard = ShardId(shard);
            let (named, level) = (self.level.as_ref(), self.source.level_of(shard)?);
            Ok(Ask {
                kind: Kind::Page,
                keyspace,
                shard,
                request: Request::Read(Read {
                    keyspace,
                    level,
                    query: self.query(shard),
                    session: scope.session_of(&self.session, (named, level), shard)?,
                }),
            })
        };
        (0..scope.keyspace.shards).map(ask).collect()
    }

    fn query(&self, shard: ShardId) -> Query {
        let (from, to, limit) = (self.from.clone(), self.to.clone(), self.limit);
        match self.source {
            Source::Stamped => Query::Range {
                shard,
                from,
                to,
                limit: limit.min(RANGE_KEYS_MAX),
            },
            Source::Level(_) | Source::View(_) => Query::Scan {
                shard,
                from,
                to,
                limit,
                filter: self.filter,
                keys_only: self.keys_only,
            },
        }
    }

    /// What was read of the shard at this place, from the start of the page on.
    fn range_stamp(
        &self,
        (shard, log): (ShardId, Incarnation),
        end: Bytes,
        stamp: u128,
    ) -> kv::RangeStamp {
        kv::RangeStamp {
            shard: u32::from(shard.0),
            from: self.from.clone(),
            to: end,
            stamp: stamps::range_to_wire(stamp, log),
        }
    }
}

impl Plan {
    /// What a page token holds: in a mirror, the generation in front of the key.
    fn position(&self, next: &[u8]) -> Vec<u8> {
        match self.source {
            Source::Level(ReadLevel::Mirror { generation }) => {
                [&generation.to_be_bytes(), next].concat()
            }
            Source::Level(_) | Source::Stamped | Source::View(_) => next.to_vec(),
        }
    }

    /// Reads a generation: the one of the page before, or for the first page the one that is shown.
    fn pin(&mut self, stamp: MirrorStamp, first: bool) -> Result<MirrorStamp, Failure> {
        if let Source::Level(ReadLevel::Bounded { max_age_ms }) = self.source
            && stamp.age_ms > max_age_ms
        {
            return Err(Failure::from_core(Error::Stale {
                behind_ms: Some(stamp.age_ms - max_age_ms),
                node: None,
            }));
        }
        let mut pinned = stamp;
        if !first {
            let (generation, from) = self.from.split_first_chunk::<8>().ok_or_else(|| {
                let message = "the page token was not issued for a mirror";
                Failure::invalid("BAD_PAGE_TOKEN", message)
            })?;
            pinned.generation = u64::from_be_bytes(*generation);
            self.from = self.from.slice_ref(from);
        }
        self.source = Source::Level(ReadLevel::Mirror {
            generation: pinned.generation,
        });
        Ok(pinned)
    }
}

impl KvService {
    /// Where the keyspace is mirrored, a scan that a mirror may answer reads one generation on all of its pages.
    async fn at_mirror(
        &self,
        scope: &Scope<'_>,
        plan: &mut Plan,
        (first, patience): (bool, Duration),
    ) -> Result<Option<MirrorStamp>, Failure> {
        let mirrored = matches!(
            plan.source,
            Source::Level(ReadLevel::Eventual | ReadLevel::Bounded { .. })
        );
        if !mirrored || plan.filter == Filter::Conflicts {
            return Ok(None);
        }
        let shown = self.calls.mirror_shown(scope.keyspace, patience).await;
        match shown.map_err(Failure::from_core)? {
            Some(stamp) => plan.pin(stamp, first).map(Some),
            None => Ok(None),
        }
    }

    /// One page.
    pub(super) async fn scan_page(
        &self,
        keyspace: &str,
        scan: kv::Scan,
        patience: Duration,
        (form, forward): (Form, bool),
    ) -> Result<kv::ScanResponse, Failure> {
        let catalog = self.calls.shared.catalog();
        let scope = Scope::find(&catalog, keyspace, (self.calls.shared.zone, wall_ms()))?;
        let mut plan = Plan::new(&scope, &scan)?;
        let asked = plan.source.level_of(ShardId(0))?;
        let mirror = if forward {
            None
        } else {
            self.at_mirror(&scope, &mut plan, (scan.page_token.is_empty(), patience))
                .await?
        };
        let merged = if plan.is_empty() {
            Merged::default()
        } else {
            self.page(&scope, &plan, (forward, patience)).await?
        };
        Ok(kv::ScanResponse {
            entries: merged.entries,
            next_page_token: merged
                .next
                .map(|next| plan.fingerprint.seal(&plan.position(&next)))
                .unwrap_or_default(),
            level: Some(level_to_wire(asked)),
            served_by: (form == Form::Unary).then(|| self.calls.shared.served_by()),
            staleness_ms: mirror.map_or(merged.age_ms.unwrap_or(0), |stamp| stamp.age_ms),
            staleness_unknown: mirror.is_none() && merged.age_ms.is_none(),
            session: scope.session_after_scan(&scan.session, &merged.seen),
            stamp_ms: if form == Form::Unary {
                scope.wall_ms
            } else {
                0
            },
            range_stamps: merged.range_stamps,
            mirror: mirror.map(mirror_to_wire),
        })
    }

    async fn page(
        &self,
        scope: &Scope<'_>,
        plan: &Plan,
        (forward, patience): (bool, Duration),
    ) -> Result<Merged, Failure> {
        let mut pages = Vec::new();
        let mut range_stamps = Vec::new();
        let asks = plan.asks(scope)?.into_iter();
        let asks = asks.map(|ask| ask.forwardable(forward)).collect();
        let answers = self.calls.ask(asks, patience).await;
        let (mut seen, mut age_ms) = (Vec::new(), Some(0));
        for (place, answer) in answers.into_iter().enumerate() {
            let answer = answer.map_err(|error| Failure::named(error, scope.catalog))?;
            let (mut answer, shown) = sessions::unwrap(answer);
            let shard = ShardId(u16::try_from(place).unwrap_or(u16::MAX));
            if let Some(shown) = shown {
                age_ms = age_ms.and_then(|oldest| Some(shown.age_ms?.max(oldest)));
                seen.push((shard, shown.seen));
            }
            if let Response::Read(read) = answer {
                answer = Response::Read(read.unwrapped());
            }
            match answer {
                Response::Read(Answer::Page { keys, more }) => pages.push((keys, more)),
                Response::Read(Answer::Range {
                    keys,
                    end,
                    stamp,
                    more,
                }) => {
                    let place = (shard, scope.log_of(shard));
                    range_stamps.push(plan.range_stamp(place, end, stamp));
                    pages.push((keys, more));
                }
                Response::Read(
                    Answer::Key(_)
                    | Answer::Digest(_)
                    | Answer::Examined { .. }
                    | Answer::Holds(_)
                    | Answer::Leases(_)
                    | Answer::Returned { .. }
                    | Answer::Shown(_)
                    | Answer::Mirrored(..),
                )
                | Response::Written(_)
                | Response::KeyspaceCreated(_)
                | Response::KeyspaceDeleted(_)
                | Response::KeyspaceAltered { .. }
                | Response::Lag(_)
                | Response::Groups(_)
                | Response::Transacted(_)
                | Response::ViewOpened(_)
                | Response::ViewClosed
                | Response::Inner(_)
                | Response::LeaseHeld(_)
                | Response::LeaseEnded
                | Response::Mirror(_)
                | Response::MirrorShown(_) => return Err(Failure::unexpected_answer()),
            }
        }
        let (entries, next) = entries_of(scope, merge_pages(pages, plan.limit));
        Ok(Merged {
            entries,
            next,
            range_stamps,
            seen,
            age_ms,
        })
    }
}

fn value_len(sibling: &meridian_causal::Sibling) -> usize {
    sibling.content.value().map_or(0, Bytes::len) + 128
}

/// The end of a range and of a prefix, whichever comes first; `None`: to the end.
fn end_of(prefix: &[u8], to: &Bytes) -> Option<Bytes> {
    let asked = (!to.is_empty()).then(|| to.clone());
    match (prefix_end(prefix), asked) {
        (Some(end), Some(to)) => Some(end.min(to)),
        (end, to) => end.or(to),
    }
}

/// The first key after all that begin with `prefix`, if there is one.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end.into());
        }
    }
    None
}

/// The keys of a merged page as they are told, and where to go on.
fn entries_of(
    scope: &Scope<'_>,
    (keys, mut next): (Vec<(Bytes, SiblingSet)>, Option<Bytes>),
) -> (Vec<kv::Entry>, Option<Bytes>) {
    let mut entries = Vec::with_capacity(keys.len());
    let mut bytes = 0;
    for (key, set) in keys {
        if bytes >= ANSWER_BYTES_SOFT_MAX {
            // The page is full before the keys are through: go on from the first one left out.
            next = Some(key);
            break;
        }
        bytes += set.siblings().iter().map(value_len).sum::<usize>() + key.len();
        entries.push(scope.entry(key, &set));
    }
    (entries, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_core::catalog::{Catalog, Keyspace, Policy};
    use meridian_core::ids::KeyspaceId;

    fn catalog() -> Catalog {
        let keyspace = Keyspace::new(KeyspaceId(1), "default", 4, Policy::default());
        Catalog {
            revision: 1,
            keyspaces: [(KeyspaceId(1), keyspace)].into(),
            ..Catalog::default()
        }
    }

    fn scan(prefix: &'static [u8], from: &'static [u8], to: &'static [u8]) -> kv::Scan {
        kv::Scan {
            prefix: prefix.into(),
            from: from.into(),
            to: to.into(),
            ..kv::Scan::default()
        }
    }

    fn plan(catalog: &Catalog, scan: &kv::Scan) -> Result<Plan, Failure> {
        Plan::new(
            &Scope::find(catalog, "", (meridian_causal::ZoneId(1), 0)).unwrap(),
            scan,
        )
    }

    #[test]
    fn a_prefix_and_a_range_meet_in_the_narrower_one() {
        let catalog = catalog();
        let range = |s: kv::Scan| plan(&catalog, &s).map(|plan| (plan.from, plan.to)).unwrap();
        assert_eq!(
            range(scan(b"ab", b"", b"")),
            ("ab".into(), Some("ac".into()))
        );
        assert_eq!(
            range(scan(b"ab", b"abc", b"abd")),
            ("abc".into(), Some("abd".into()))
        );
        assert_eq!(range(scan(b"", b"x", b"")), ("x".into(), None));
        assert_eq!(
            range(scan(b"\xff", b"", b"")),
            (Bytes::from_static(b"\xff"), None)
        );
        assert!(plan(&catalog, &scan(b"ab", b"b", b"")).unwrap().is_empty());
    }

    #[test]
    fn a_page_token_holds_for_its_scan_only() {
        let catalog = catalog();
        let first = plan(&catalog, &scan(b"ab", b"", b"")).unwrap();
        let token = first.fingerprint.seal(b"abc");
        let next = kv::Scan {
            page_token: token.clone(),
            ..scan(b"ab", b"", b"")
        };
        assert_eq!(plan(&catalog, &next).unwrap().from, "abc");
        let other = kv::Scan {
            page_token: token.clone(),
            ..scan(b"a", b"", b"")
        };
        assert_eq!(
            plan(&catalog, &other).unwrap_err().reason(),
            "BAD_PAGE_TOKEN"
        );
        let mut forged = token.to_vec();
        forged.push(b'z');
        for bad in [forged, token[..5].to_vec(), vec![0]] {
            let bad = kv::Scan {
                page_token: bad.into(),
                ..scan(b"ab", b"", b"")
            };
            assert_eq!(plan(&catalog, &bad).unwrap_err().reason(), "BAD_PAGE_TOKEN");
        }
    }

    #[test]
    fn a_stamped_scan_is_linearizable_and_whole_or_refused() {
        let catalog = catalog();
        let stamped = |change: fn(&mut kv::Scan)| {
            let mut scan = kv::Scan {
                stamped: true,
                ..scan(b"ab", b"", b"")
            };
            change(&mut scan);
            plan(&catalog, &scan)
        };
        let good = stamped(|_| {}).unwrap();
        assert!(matches!(good.query(ShardId(1)), Query::Range { .. }));
        for bad in [
            stamped(|scan| scan.keys_only = true),
            stamped(|scan| scan.conflicts_only = true),
        ] {
            assert_eq!(bad.unwrap_err().reason(), "INVALID_ARGUMENT");
        }
        let level = kv::ReadLevel {
            kind: kv::read_level::Kind::Eventual.into(),
            ..kv::ReadLevel::default()
        };
        let scan = kv::Scan {
            stamped: true,
            level: Some(level),
            ..scan(b"", b"", b"")
        };
        let refused = plan(&catalog, &scan).unwrap_err();
        assert_eq!(refused.reason(), "INVALID_ARGUMENT");
    }

    #[test]
    fn a_scan_of_a_view_asks_each_shard_where_the_view_holds_it() {
        let catalog = catalog();
        let nodes = [5, 6, 7, 8].map(meridian_core::ids::NodeId);
        let view = OpenView {
            id: 3,
            keyspace: KeyspaceId(1),
            pins: nodes.into(),
        };
        let of_view = kv::Scan {
            view: views::seal(&catalog, &view),
            ..scan(b"", b"", b"")
        };
        let scope = Scope::find(&catalog, "", (meridian_causal::ZoneId(1), 0)).unwrap();
        let asks = plan(&catalog, &of_view).unwrap().asks(&scope).unwrap();
        for (ask, node) in asks.iter().zip(nodes) {
            let Request::Read(read) = &ask.request else {
                panic!("{ask:?}")
            };
            assert_eq!(read.level, ReadLevel::View { id: 3, node });
        }
        assert_eq!(asks.len(), 4);
        let both = kv::Scan {
            stamped: true,
            ..of_view
        };
        assert_eq!(
            plan(&catalog, &both).unwrap_err().reason(),
            "INVALID_ARGUMENT"
        );
    }
}
