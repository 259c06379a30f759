//! Causality for Meridian: which write has seen which, and what a key holds as a consequence.
//!
//! A **dot** names one write: the incarnation of the group that made it, and that group's counter. A key holds a
//! [`SiblingSet`]: the versions no later write has seen, and one [`CausalContext`] of everything that was ever seen
//! here. Zones that exchange writes in order per incarnation, in any interleaving, end with equal sets.
//!
//! What this crate is not: it stores nothing, sends nothing and asks no clock; it does not number writes (the group
//! does, in `apply`), it does not collect tombstones, and it does not know shards.
//!
//! Invariants that hold everywhere:
//! * a counter starts at 1, so dot 0 of any incarnation counts as seen;
//! * equal values have equal bytes, and bytes that no value encodes to are refused by every `decode`;
//! * nothing here panics on foreign bytes; an assertion that fails is a fault of this program.
//!
//! Read `context` first, then `set`, then `replace`; `codec` and `token` stand for themselves. The sibling set is
//! the one of Preguiça et al., "Dotted Version Vectors: Logical Clocks for Optimistic Replication" (2012), with the
//! single dots of Almeida et al., "Scalable and Accurate Causality Tracking for Eventually Consistent Stores" (2014).

mod codec;
mod context;
mod digest;
mod hlc;
mod ids;
mod op_id;
mod rename;
mod replace;
mod session;
mod set;
mod set_codec;
mod sibling;
pub mod token;
mod vector;
mod version;

pub use codec::DecodeError;
pub use context::CausalContext;
pub use hlc::Hlc;
pub use ids::{Dot, Incarnation, ZoneId};
pub use op_id::{OP_ID_TEXT_BYTES_MAX, OpId, OpIdError};
pub use rename::Renaming;
pub use replace::{Replace, put_context};
pub use session::SessionVector;
pub use set::SiblingSet;
pub use sibling::{Content, Sibling, TransactionTag};
pub use token::{TokenError, TokenKey, TokenScope};
pub use vector::VersionVector;
pub use version::Version;
