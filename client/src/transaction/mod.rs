//! Transactions: interactive ones with buffered writes, one-shot ones, and views for those that only read.
//!
//! **What this is.** A [`Txn`] remembers what it read and what it is to write. Each read is followed by a question
//! whether all earlier reads still hold, so that everything a transaction has seen was true at one point in time; the
//! commit sends reads as comparisons and writes as actions, as one. [`Client::txn`](crate::Client::txn) begins anew
//! when the commit meets a conflict.
//!
//! **What this is not.** It locks nothing before the commit, and knows nothing of how nodes bring shards together.
//!
//! **Invariants.**
//! * A transaction is begun anew only after an error `CONFLICT` with effect none; never after an unknown outcome.
//! * Comparisons and writes, their bytes, the attempts and the time of a transaction are bounded.
//! * All operations of a transaction stay in the client's zone: stamps mean nothing elsewhere.
//!
//! **What to read.** `txn` (reads and commit), `run` (attempts), `reads` and `writes` (what is remembered), `once`
//! (one-shot), `view`.

mod anchor;
mod once;
mod options;
mod outcome;
mod range;
mod reads;
mod run;
mod together;
mod txn;
mod view;
mod writes;

pub(crate) use anchor::{Place, place_of_compare, place_of_transact};
pub use once::{Action, Compare, Transaction};
pub use options::TxnOptions;
pub use outcome::{ActionOutcome, Committed, TransactionOutcome};
pub use range::KeyRange;
pub use txn::Txn;
pub use view::View;
