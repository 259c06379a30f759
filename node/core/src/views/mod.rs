//! Views of a whole keyspace at one point in time, for transactions that only read.
//!
//! ```text
//! opener      ViewPin      -> leader of each shard: takes the state of its store, and from then on holds back what the
//!                             group would say (group::holds)                                          -> ViewPinned
//!             ViewConfirm  -> the same: what was held back may be said; a read index shows that nobody else led the
//!                             group since the part was taken                                          -> ViewConfirmed
//! ```
//!
//! Between the last `ViewPinned` and the first `ViewConfirm` lies the point in time of the view: what is in it had begun
//! by then, and nothing that is not in it had been told to anybody.
//!
//! Two views that are taken at a time agree on an order. The later one of a group may show what is held back for the
//! earlier; then its part counts as taken only when that has left, hence after all parts of the earlier one are taken.
//! So that no two wait for one another, a view waits for those of greater numbers only; otherwise it is begun anew, with
//! a smaller number.
//!
//! A transaction over several shards is in a view if its deciding entry is. Where its part was only prepared when the
//! view was taken, a read of its keys waits until it is resolved, and takes the records that came of it.
//!
//! What it is not: it locks nothing, and no write waits longer for its acknowledgement than a view takes to be pinned.
//! Views are in memory; after a crash of a node that holds a part they are lost.
//!
//! Read `opening` (who brings the parts together), `holding` (a core's part), `reading` (reads of views, and reads that
//! wait for prepared transactions).

mod holding;
mod opening;
mod reading;

pub(crate) use holding::HeldView;
pub(crate) use opening::Opening;
pub(crate) use reading::BlockedRead;
