//! Which context a write implies, and which it leaves its writer with.

use crate::version::Version;
use crate::{CausalContext, Dot, SiblingSet, ZoneId};

/// What a write is to replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Written without a context: the key's version when there is no conflict; in a conflict the newest version that
    /// the writer's own zone wrote, if any. So blind writers always succeed, and no conflict ends unread.
    Newest,
    /// An explicit overwrite of everything here.
    All,
    /// Written with a context: exactly what it covers. An empty one covers nothing.
    Exactly(CausalContext),
}

impl SiblingSet {
    /// The context that a write in `zone` replaces.
    ///
    /// On a key without siblings that is always at least the set's own context: nothing is there to be kept, and what
    /// was dropped here goes in other zones too ([`SiblingSet::absent`]).
    pub fn replaced_by(&self, zone: ZoneId, replace: &Replace) -> CausalContext {
        match replace {
            Replace::All => self.read_context(),
            Replace::Newest if self.is_conflict() => self.newest_of(zone),
            Replace::Newest => self.read_context(),
            Replace::Exactly(context) if self.is_empty() => {
                let mut replaced = context.clone();
                replaced.join(self.context());
                replaced
            }
            Replace::Exactly(context) => context.clone(),
        }
    }

    /// The dots of the newest version that any incarnation of `zone` wrote. A version that was retried elsewhere goes
    /// with all its dots: it is one write.
    fn newest_of(&self, zone: ZoneId) -> CausalContext {
        let versions = self.versions();
        let own = versions
            .iter()
            .filter_map(|version| Some((version.age_in(zone)?, version)));
        own.max_by_key(|(age, _)| *age)
            .map(|(_, version)| Version::context(version))
            .unwrap_or_default()
    }

    /// What to return for a put whose [`put_context`] is `exact`, once it is applied here: the whole context when
    /// `exact` covers every sibling, else `exact` unchanged.
    ///
    /// Whoever has seen all siblings has seen everything they superseded, so both mean the same; but a writer that
    /// passes each put's context to its next put would otherwise carry one dot more every time.
    pub fn condensed(&self, exact: CausalContext) -> CausalContext {
        let nothing_unseen = self
            .siblings()
            .iter()
            .all(|sibling| exact.covers(sibling.dot));
        if nothing_unseen && self.context().includes(&exact) {
            self.read_context()
        } else {
            exact
        }
    }
}

/// The context that a put leaves its writer with: the one it was given, or implied, and its own dot. Never the key's,
/// which may cover siblings that the writer has not read.
pub fn put_context(given_or_implied: &CausalContext, dot: Dot) -> CausalContext {
    let mut context = given_or_implied.clone();
    context.insert(dot);
    context
}
