//! The side that is compared with: a view of the shard, and what it tells of it (rule 11).
//!
//! A view is held open for each comparison, and closed when nobody has asked for a while. What it is not: it decides nothing;
//! the other end drives (`compare`).

use super::ExchangeContext;
use super::sender::CompareView;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{NodeId, Side};
use crate::limits::{
    COMPARE_OP_IDS_MAX, COMPARE_RANGE_KEYS, COMPARE_RANGES_MAX, COMPARE_STATES_BYTES_MAX,
    VIEW_IDLE_MS_MAX,
};
use crate::message::Exchange;
use crate::output::Notice;
use crate::shard::compare;
use crate::time::Now;

impl Group {
    /// A question of a zone that compares with this one.
    pub(super) fn compare_asked(
        &mut self,
        side: Side,
        node: NodeId,
        body: Exchange,
        context: &mut ExchangeContext<'_>,
    ) {
        let answer = match body {
            Exchange::CompareOpen { session } => self.compare_open(session, context),
            Exchange::CompareHashes { session, from } => {
                self.with_view(session, context.now, |group, view| {
                    let ranges = compare::range_hashes(
                        &*view.view,
                        group,
                        &from,
                        COMPARE_RANGES_MAX,
                        COMPARE_RANGE_KEYS,
                    )?;
                    Ok(Exchange::CompareRanges {
                        session,
                        from,
                        ranges,
                    })
                })
            }
            Exchange::CompareFetch { session, from, to } => {
                self.with_view(session, context.now, |group, view| {
                    let (states, end) =
                        compare::states(&*view.view, group, &from, &to, COMPARE_STATES_BYTES_MAX)?;
                    Ok(Exchange::CompareStates {
                        session,
                        from,
                        to: end,
                        states,
                    })
                })
            }
            Exchange::CompareRecall {
                session,
                from,
                received,
            } => self.with_view(session, context.now, |group, view| {
                let asked = (from.as_ref(), &received);
                let recalled = compare::recall(&*view.view, group, asked, COMPARE_OP_IDS_MAX)?;
                Ok(Exchange::CompareRecalled {
                    session,
                    from,
                    next: recalled.next,
                    floor_ms: recalled.floor_ms,
                    operations: recalled.operations,
                })
            }),
            Exchange::Subscribe { .. }
            | Exchange::Effects { .. }
            | Exchange::MustCompare
            | Exchange::CompareRecalled { .. }
            | Exchange::CompareOpened { .. }
            | Exchange::CompareRanges { .. }
            | Exchange::CompareStates { .. }
            | Exchange::CompareLost { .. } => return,
        };
        match answer {
            Ok(answer) => self.say((side, node), answer, context),
            Err(error) => context.out.notices.push(Notice::Damaged {
                detail: error.to_string(),
            }),
        }
    }

    fn compare_open(
        &mut self,
        session: u64,
        context: &ExchangeContext<'_>,
    ) -> Result<Exchange, Error> {
        if let Some(open) = self.exchange.sender.views.get(&session) {
            return Ok(Exchange::CompareOpened {
                session,
                snapshot: open.snapshot.clone(),
            });
        }
        let Some(snapshot) = self.shard().map(|shard| shard.meta().received.clone()) else {
            return Ok(Exchange::CompareLost { session });
        };
        // A shard that compares itself is as good a source as any: each key holds at least what the vector says, and what
        // it holds beyond that is in its context. (Were it none, two zones that compare with one another would wait for
        // ever.)
        if context.views_left == 0 || !self.may_offer(context) {
            return Ok(Exchange::CompareLost { session });
        }
        if let Some(own) = self.shard().map(|shard| shard.meta().incarnation) {
            self.offered(own, snapshot.get(own));
        }
        let view = context.engine.view().map_err(Error::from)?;
        let open = CompareView {
            view,
            snapshot: snapshot.clone(),
            used_at: context.now,
        };
        self.exchange.sender.views.insert(session, open);
        Ok(Exchange::CompareOpened { session, snapshot })
    }

    fn with_view(
        &mut self,
        session: u64,
        now: Now,
        answer: impl FnOnce(crate::ids::GroupId, &CompareView) -> Result<Exchange, Error>,
    ) -> Result<Exchange, Error> {
        let id = self.id;
        let Some(view) = self.exchange.sender.views.get_mut(&session) else {
            return Ok(Exchange::CompareLost { session });
        };
        view.used_at = now;
        answer(id, view)
    }

    /// Closes views that nobody has asked for a while: an open view keeps old files on disk.
    pub(super) fn close_idle_views(&mut self, now: Now) {
        self.exchange
            .sender
            .views
            .retain(|_, view| now.mono_ns < view.used_at.after_ms(VIEW_IDLE_MS_MAX));
    }
}
