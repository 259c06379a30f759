//! The home zone takes cuts: the leader of the keyspace's first shard opens a view of all shards at every interval, and
//! offers the newest to the holders of mirror zones that ask.
//!
//! Everything here is in memory. A leader that dies loses its cuts; the next one takes others, and zones that were
//! receiving begin again from the generation they had.
//!
//! Invariant: times of cuts grow, also over a change of leader: no cut is given a time that some zone shows already.

use std::collections::{BTreeMap, VecDeque};

use meridian_causal::ZoneId;

use super::{Cut, MirrorAsk, MirrorStatus, MirrorWant, ZoneMirror, ZoneReport, mirror_zones};
use crate::catalog::Keyspace;
use crate::core::Core;
use crate::error::{EffectOf, Error};
use crate::group::Group;
use crate::ids::{KeyspaceId, RequestId, ShardId};
use crate::inner::InnerResponse;
use crate::limits::{CUT_IDLE_MS, CUTS_OPEN_MAX, MIRROR_ASKED_MAX, MIRROR_LISTENS_MS};
use crate::output::Outputs;
use crate::request::Response;
use crate::route::Routed;
use crate::time::{MS, Now};
use crate::transaction::OpenView;
use crate::waiting::{Origin, Own, Waiter, What};

/// How long the opening of a cut may take, in milliseconds: every attempt of a view, and some.
const OPEN_MS_MAX: u64 = 5_000;

/// A cut that could not be taken is tried again after this time, in milliseconds.
const RETRY_MS: u64 = 100;

/// How long after it was taken a cut stays although there is a newer one, in milliseconds: a zone to which it was offered may
/// not have said yet that it receives it.
const GRACE_MS: u64 = 500;

/// Cuts of one keyspace.
#[derive(Default)]
pub(super) struct Cuts {
    due_ns: u64,
    opening: bool,
    open: VecDeque<OpenCut>,
    zones: BTreeMap<ZoneId, Heard>,
    asked: Vec<Asked>,
    last_ms: u64,
}

struct OpenCut {
    cut: Cut,
    view: OpenView,
    began: Now,
    used_ns: u64,
}

struct Heard {
    report: ZoneReport,
    at_ns: u64,
}

/// Somebody waits for a cut that is taken from now on, until every zone shows it.
struct Asked {
    ticket: RequestId,
    at_ns: u64,
    /// The time of that cut, once it is taken.
    cut_ms: Option<u64>,
}

impl Cuts {
    fn listened_to(&self, now: Now) -> bool {
        let recent = |heard: &Heard| now.mono_ns <= heard.at_ns + MIRROR_LISTENS_MS * MS;
        self.zones.values().any(recent)
    }

    fn wanted(&self, now: Now) -> bool {
        let due = now.mono_ns >= self.due_ns;
        let asked = self.asked.iter().any(|asked| asked.cut_ms.is_none());
        let retry = self.due_ns.saturating_sub(now.mono_ns) <= RETRY_MS * MS;
        !self.opening && self.listened_to(now) && (due || (asked && !retry))
    }

    fn shown_by_all(&self, zones: &[ZoneId], cut_ms: u64) -> bool {
        let shows = |zone: &ZoneId| {
            let heard = self.zones.get(zone);
            heard.is_some_and(|heard| heard.report.cut_ms >= cut_ms)
        };
        zones.iter().all(shows)
    }

    /// Cuts that nobody needs any more: all show them, or there is a newer one and nobody is known to receive them.
    fn take_idle(&mut self, now: Now, zones: &[ZoneId]) -> Vec<OpenView> {
        let newest = self.open.back().map_or(0, |open| open.cut.time_ms);
        let mut idle = Vec::new();
        for open in std::mem::take(&mut self.open) {
            let superseded = open.cut.time_ms < newest;
            let patience_ms = if superseded { GRACE_MS } else { CUT_IDLE_MS };
            let unused = now.mono_ns > open.used_ns + patience_ms * MS;
            let shown = self.shown_by_all(zones, open.cut.time_ms);
            if shown || (unused && !self.received(now, open.cut.view)) {
                idle.push(open.view);
            } else {
                self.open.push_back(open);
            }
        }
        idle
    }

    /// Whether a zone that is heard of says that it receives a cut.
    fn received(&self, now: Now, view: u64) -> bool {
        let receives = |heard: &Heard| {
            let recent = now.mono_ns <= heard.at_ns + CUT_IDLE_MS * MS;
            recent && heard.report.receiving == Some(view)
        };
        self.zones.values().any(receives)
    }

    fn take_lost(&mut self, view: u64) -> Option<OpenView> {
        let place = self.open.iter().position(|open| open.cut.view == view)?;
        self.open.remove(place).map(|open| open.view)
    }
}

impl Core {
    /// Whether a mirror zone is known to show a generation.
    pub(crate) fn is_shown_in(&self, keyspace: KeyspaceId, zone: ZoneId) -> bool {
        let cuts = self.mirrors.cuts.get(&keyspace);
        let heard = cuts.and_then(|cuts| cuts.zones.get(&zone));
        heard.is_some_and(|heard| heard.report.generation > 0)
    }

    /// Takes cuts where this core leads.
    pub(super) fn tick_cuts(&mut self, now: Now, out: &mut Outputs) {
        let keyspaces: Vec<KeyspaceId> = self.catalog.keyspaces.keys().copied().collect();
        for keyspace in keyspaces {
            let zones = mirror_zones(&self.catalog, keyspace);
            let found = self.catalog.keyspaces.get(&keyspace);
            // What has yet to take over has a part of everything, and no point in time that was.
            let is_open = found.is_some_and(Keyspace::is_open);
            if zones.is_empty() {
                continue;
            }
            let group = self.own_group(keyspace, ShardId(0));
            let leads = group.and_then(|group| self.groups.get(&group));
            if is_open && leads.is_some_and(Group::is_current) {
                self.tend_cuts(now, keyspace, &zones, out);
            } else {
                self.abandon_cuts(now, keyspace, out);
            }
        }
    }

    fn tend_cuts(&mut self, now: Now, keyspace: KeyspaceId, zones: &[ZoneId], out: &mut Outputs) {
        let cuts = self.mirrors.cuts.entry(keyspace).or_default();
        let idle = cuts.take_idle(now, zones);
        let wanted = cuts.wanted(now) && cuts.open.len() < CUTS_OPEN_MAX;
        for view in idle {
            self.view_close(now, &view, out);
        }
        if wanted {
            self.open_cut(now, keyspace, out);
        }
    }

    fn open_cut(&mut self, now: Now, keyspace: KeyspaceId, out: &mut Outputs) {
        let ask = MirrorAsk::Opened { began: now };
        let deadline_ns = now.after_ms(OPEN_MS_MAX);
        let waiter = Waiter {
            bounded: false,
            origin: Origin::Core,
            deadline_ns,
            what: What::Own(Own::Mirror { keyspace, ask }),
        };
        let Some(ticket) = self.waiting.enter(waiter) else {
            return;
        };
        if let Some(cuts) = self.mirrors.cuts.get_mut(&keyspace) {
            cuts.opening = true;
        }
        self.view_open(now, (Origin::Inner(ticket), deadline_ns), keyspace, out);
    }

    /// The view of a cut is open, or not.
    pub(super) fn cut_opened(
        &mut self,
        now: Now,
        (keyspace, began): (KeyspaceId, Now),
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let interval_ms = self
            .catalog
            .keyspaces
            .get(&keyspace)
            .map_or(0, |found| found.policy.interval_ms);
        let Some(cuts) = self.mirrors.cuts.get_mut(&keyspace) else {
            if let Ok(Response::ViewOpened(view)) = result {
                self.view_close(now, &view, out);
            }
            return;
        };
        cuts.opening = false;
        let Ok(Response::ViewOpened(view)) = result else {
            cuts.due_ns = now.after_ms(RETRY_MS);
            return;
        };
        let shown = cuts.zones.values().map(|heard| heard.report.cut_ms).max();
        let before = cuts.last_ms.max(shown.unwrap_or(0));
        let time_ms = began.wall_ms.max(before.saturating_add(1));
        cuts.last_ms = time_ms;
        cuts.due_ns = began.after_ms(interval_ms);
        for asked in &mut cuts.asked {
            if asked.at_ns <= began.mono_ns {
                asked.cut_ms.get_or_insert(time_ms);
            }
        }
        cuts.open.push_back(OpenCut {
            cut: Cut {
                view: view.id,
                time_ms,
                pins: view.pins.clone(),
            },
            view,
            began,
            used_ns: now.mono_ns,
        });
    }

    /// This core does not lead any longer: its cuts are of no use.
    fn abandon_cuts(&mut self, now: Now, keyspace: KeyspaceId, out: &mut Outputs) {
        let Some(cuts) = self.mirrors.cuts.remove(&keyspace) else {
            return;
        };
        for open in cuts.open {
            self.view_close(now, &open.view, out);
        }
        let leader = self
            .own_group(keyspace, ShardId(0))
            .and_then(|group| self.leader_elsewhere(group));
        for asked in cuts.asked {
            if let Some(waiter) = self.waiting.take(asked.ticket) {
                Self::answer(waiter.origin, Err(Error::NotLeader { leader }), out);
            }
        }
    }

    /// The holder of a zone says what it shows, and asks for the newest cut.
    pub(crate) fn mirror_cut(
        &mut self,
        now: Now,
        routed: &Routed,
        (zone, report): (ZoneId, ZoneReport),
        out: &mut Outputs,
    ) {
        let keyspace = routed.group.keyspace;
        let zones = mirror_zones(&self.catalog, keyspace);
        let Some(cuts) = self
            .mirrors
            .cuts
            .get_mut(&keyspace)
            .filter(|_| zones.contains(&zone))
        else {
            // It leads, and has not come to take cuts yet.
            let offer = None;
            Self::answer(
                routed.origin,
                Ok(InnerResponse::MirrorCut { offer }.into()),
                out,
            );
            return;
        };
        let lost = report.lost.and_then(|view| cuts.take_lost(view));
        if lost.is_some() {
            cuts.due_ns = cuts.due_ns.min(now.mono_ns);
        }
        for open in &mut cuts.open {
            if report.receiving == Some(open.cut.view) {
                open.used_ns = now.mono_ns;
            }
        }
        let shown_ms = report.cut_ms;
        let at_ns = now.mono_ns;
        cuts.zones.insert(zone, Heard { report, at_ns });
        if cuts.open.is_empty() && shown_ms < cuts.last_ms {
            // It has missed the last one.
            cuts.due_ns = cuts.due_ns.min(now.mono_ns);
        }
        let newest = cuts.open.back();
        let offer = newest
            .filter(|open| open.cut.time_ms > shown_ms)
            .map(|open| {
                let age_ns = now.mono_ns.saturating_sub(open.began.mono_ns);
                (open.cut.clone(), age_ns.div_ceil(MS))
            });
        let answer = InnerResponse::MirrorCut { offer };
        Self::answer(routed.origin, Ok(answer.into()), out);
        if let Some(view) = lost {
            self.view_close(now, &view, out);
        }
        self.answer_asked(now, keyspace, &zones, out);
    }

    fn answer_asked(
        &mut self,
        now: Now,
        keyspace: KeyspaceId,
        zones: &[ZoneId],
        out: &mut Outputs,
    ) {
        let Some(cuts) = self.mirrors.cuts.get_mut(&keyspace) else {
            return;
        };
        let (done, open): (Vec<Asked>, Vec<Asked>) = std::mem::take(&mut cuts.asked)
            .into_iter()
            .partition(|asked| {
                asked
                    .cut_ms
                    .is_some_and(|cut_ms| cuts.shown_by_all(zones, cut_ms))
            });
        let waiting = &self.waiting;
        cuts.asked = open
            .into_iter()
            .filter(|asked| waiting.get(asked.ticket).is_some())
            .collect();
        for asked in done {
            if let Some(waiter) = self.waiting.take(asked.ticket) {
                let status = self.mirror_status(now, keyspace);
                Self::answer(waiter.origin, Ok(Response::Mirror(Box::new(status))), out);
            }
        }
    }

    /// Something about the mirrors of a keyspace, where its cuts are taken.
    pub(crate) fn mirror_asked(
        &mut self,
        now: Now,
        routed: &Routed,
        want: MirrorWant,
        out: &mut Outputs,
    ) {
        if mirror_zones(&self.catalog, routed.group.keyspace).is_empty() {
            Self::answer(routed.origin, Err(not_mirrored()), out);
            return;
        }
        match want {
            MirrorWant::Now => self.mirror_now(now, routed, out),
            MirrorWant::Shown | MirrorWant::Status => {
                let status = self.mirror_status(now, routed.group.keyspace);
                let answer = Response::Mirror(Box::new(status));
                Self::answer(routed.origin, Ok(answer), out);
            }
        }
    }

    /// Takes a cut at once, and answers when every zone shows it.
    fn mirror_now(&mut self, now: Now, routed: &Routed, out: &mut Outputs) {
        let keyspace = routed.group.keyspace;
        let asked = self
            .mirrors
            .cuts
            .get(&keyspace)
            .map_or(0, |cuts| cuts.asked.len());
        if asked >= MIRROR_ASKED_MAX {
            let what = "the queue of those who wait for a mirror".to_owned();
            Self::answer(routed.origin, Err(Error::Overloaded { what }), out);
            return;
        }
        let Some(ticket) = self.ticket(routed, What::Mirrored, out) else {
            return;
        };
        let cuts = self.mirrors.cuts.entry(keyspace).or_default();
        cuts.asked.push(Asked {
            ticket,
            at_ns: now.mono_ns,
            cut_ms: None,
        });
    }

    fn mirror_status(&self, now: Now, keyspace: KeyspaceId) -> MirrorStatus {
        let policy = self
            .catalog
            .keyspaces
            .get(&keyspace)
            .map(|found| &found.policy);
        let cuts = self.mirrors.cuts.get(&keyspace);
        let zones = mirror_zones(&self.catalog, keyspace).into_iter();
        MirrorStatus {
            home: policy.and_then(|policy| policy.home).unwrap_or_default(),
            interval_ms: policy.map_or(0, |policy| policy.interval_ms),
            zones: zones
                .map(|zone| {
                    let heard = cuts.and_then(|cuts| cuts.zones.get(&zone));
                    let report = heard.map(|heard| &heard.report);
                    let shown = report.filter(|report| report.generation > 0);
                    ZoneMirror {
                        zone,
                        report: report.cloned().unwrap_or_default(),
                        age_ms: shown.map(|report| now.wall_ms.saturating_sub(report.cut_ms)),
                        heard_ms: heard.map(|heard| now.mono_ns.saturating_sub(heard.at_ns) / MS),
                    }
                })
                .collect(),
        }
    }
}

fn not_mirrored() -> Error {
    Error::InvalidArgument {
        message: "the keyspace has no mirrors: its mode is not snapshot, or it has one zone".into(),
    }
}

/// What is said when a mirror was not seen to be there in time: it may come yet.
pub(crate) const UNSEEN: Error = Error::DeadlineExceeded {
    effect: EffectOf::Unknown,
};
