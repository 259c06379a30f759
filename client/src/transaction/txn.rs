//! One attempt of an interactive transaction: stamped reads that all hold at one point in time, and buffered writes.
//!
//! Where the answers themselves show that (`together`), no question is asked. Else, why one question after each read is
//! enough: the stamp of a key that is there never comes back once it has changed. If all
//! earlier reads hold when the newest one has been answered, they all held when it was served. (A key that was absent,
//! was put, deleted and dropped, and is absent again, has the stamp it had: a transaction that writes is none the worse,
//! one that only reads had better read from a view.)

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;
use wire::operation::Operation;
use wire::outcome::Outcome;

use super::options::TxnOptions;
use super::outcome::{Committed, TransactionOutcome};
use super::range::KeyRange;
use super::reads::{ReadSet, bytes_of_range, changed};
use super::writes::WriteSet;
use crate::client::{Client, wrong_kind};
use crate::error::{Error, ErrorKind};
use crate::results::{Page, Versions};

/// Entries in one page of a scan: as many as a node gives, since each page is compared apart.
const PAGE_KEYS: u32 = 1000;

/// A transaction that reads and buffers writes until it is committed. Clones are the same transaction. Dropped without
/// a commit it leaves nothing behind.
#[derive(Clone)]
pub struct Txn {
    client: Client,
    shared: Arc<Shared>,
}

struct Shared {
    options: TxnOptions,
    until: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reads: ReadSet,
    writes: WriteSet,
    /// Why nothing more can be done with it.
    over: Option<Error>,
}

impl Txn {
    pub(super) fn new(client: Client, options: TxnOptions, until: Instant) -> Self {
        let state = Mutex::default();
        let shared = Shared {
            options,
            until,
            state,
        };
        Self {
            client,
            shared: Arc::new(shared),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses once the transaction is over or has taken too long.
    fn open(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state();
        if let Some(error) = &state.over {
            return Err(error.clone());
        }
        if Instant::now() >= self.shared.until {
            let message = format!(
                "the transaction has been open for more than {:?}",
                self.shared.options.duration_max
            );
            return Err(Error::new(ErrorKind::Unavailable, "TXN_TOO_OLD", message));
        }
        Ok(state)
    }

    /// Reads a key: the transaction's own write of it, or what it holds. An absent key is not an error. Fails with
    /// `CONFLICT` when something read before has changed since.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Versions, Error> {
        let key = key.into();
        if let Some(known) = self.known(&key)? {
            return Ok(known);
        }
        let (versions, stamp, span) = self.stamped_get(key).await?;
        let earlier = {
            let mut state = self.open()?;
            state.check_read(&self.shared.options, 1, versions.key.len())?;
            let earlier = state.reads.compare();
            let added = state.reads.add_key(versions.key.clone(), stamp, span);
            added.map_err(|conflict| state.end(conflict))?;
            if state.reads.stood_together() {
                Vec::new()
            } else {
                earlier
            }
        };
        self.check(earlier).await?;
        self.state().reads.see(std::slice::from_ref(&versions));
        Ok(versions)
    }

    /// What the transaction knows of the key already.
    fn known(&self, key: &[u8]) -> Result<Option<Versions>, Error> {
        let state = self.open()?;
        let own = state.writes.own(key);
        Ok(own.or_else(|| state.reads.seen(key).cloned()))
    }

    async fn stamped_get(
        &self,
        key: Bytes,
    ) -> Result<(Versions, Bytes, Option<wire::HeldSpan>), Error> {
        let operation = Operation::Get(wire::Get {
            key: key.clone(),
            stamped: true,
            ..wire::Get::default()
        });
        let (outcome, via) = self.client.operate_named(operation).await?;
        let Outcome::Get(mut get) = outcome else {
            return Err(wrong_kind());
        };
        let stamp = std::mem::take(&mut get.stamp);
        if stamp.is_empty() {
            return Err(Error::bad_answer("a stamp was asked for and is missing"));
        }
        get.served_by.get_or_insert_with(|| via.as_ref().clone());
        let span = get.span.take();
        Ok((Versions::from_wire(key, get), stamp, span))
    }

    /// Reads all keys of a range, in order, with the transaction's own writes. No key of the range can appear, vanish
    /// or change unnoticed before the commit. Fails with `CONFLICT` as [`Txn::get`] does.
    pub async fn scan(&self, range: &KeyRange) -> Result<Vec<Versions>, Error> {
        drop(self.open()?);
        let (entries, ranges) = self.stamped_scan(range).await?;
        let earlier = {
            let mut state = self.open()?;
            let bytes = ranges.iter().map(bytes_of_range).sum();
            state.check_read(&self.shared.options, ranges.len(), bytes)?;
            let several = ranges.len() > 1;
            let mut earlier = state.reads.compare();
            state.reads.add_ranges(ranges);
            if several {
                // Shards and pages were read one after the other: they have to hold together too.
                earlier = state.reads.compare();
            }
            earlier
        };
        self.check(earlier).await?;
        let mut state = self.state();
        state.reads.see(&entries);
        Ok(state.writes.over(entries, range))
    }

    async fn stamped_scan(
        &self,
        range: &KeyRange,
    ) -> Result<(Vec<Versions>, Vec<wire::RangeStamp>), Error> {
        let mut scan = wire::Scan {
            prefix: range.prefix.clone(),
            from: range.from.clone(),
            to: range.to.clone(),
            limit: PAGE_KEYS,
            stamped: true,
            ..wire::Scan::default()
        };
        let (mut entries, mut ranges) = (Vec::new(), Vec::new());
        loop {
            let mut response = self.client.scan_page(scan.clone(), None).await?;
            ranges.append(&mut response.range_stamps);
            let (page, next) = Page::from_wire(response);
            entries.extend(page.entries);
            if next.is_empty() {
                return Ok((entries, ranges));
            }
            if next == scan.page_token {
                return Err(Error::bad_answer("a scan that does not advance"));
            }
            // A scan too large for the transaction ends here, not after its last page.
            self.open()?
                .check_read(&self.shared.options, ranges.len(), 0)?;
            scan.page_token = next;
        }
    }

    /// Stores a value at the commit.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        self.write(key.into(), Some(value.into()))
    }

    /// Removes a key at the commit.
    pub fn delete(&self, key: impl Into<Bytes>) -> Result<(), Error> {
        self.write(key.into(), None)
    }

    fn write(&self, key: Bytes, value: Option<Bytes>) -> Result<(), Error> {
        if key.is_empty() {
            return Err(Error::invalid("a key has at least one byte"));
        }
        let mut state = self.open()?;
        let (keys, bytes) = state.writes.with(&key, value.as_ref());
        let operations = state.reads.len() + keys;
        let bytes = state.reads.bytes() + bytes;
        self.shared.options.check(operations, bytes)?;
        state.writes.set(key, value);
        Ok(())
    }

    /// Whether earlier reads still hold; if not, the transaction is over.
    async fn check(&self, earlier: Vec<wire::Compare>) -> Result<(), Error> {
        if earlier.is_empty() {
            return Ok(());
        }
        let validate = Operation::Validate(wire::Validate { compare: earlier });
        let Outcome::Validate(answer) = self.client.operate(validate).await? else {
            return Err(wrong_kind());
        };
        if answer.holds {
            return Ok(());
        }
        self.state().end(changed());
        Err(changed())
    }

    /// Makes all writes as one, provided that everything read still holds; otherwise fails with `CONFLICT`, without
    /// effect. Without writes there is nothing to do: all reads held together when the last one was served.
    ///
    /// An error whose effect is unknown leaves the outcome open; [`Error::op_id`] names it.
    pub async fn commit(self) -> Result<Committed<()>, Error> {
        let unchecked = self.open()?.reads.is_unchecked();
        let transact = self.finish()?;
        if transact.then.is_empty() {
            if unchecked {
                self.check(transact.compare).await?;
            }
            return Ok(committed(None));
        }
        let outcome = self.client.transact_wire(transact).await?;
        // One that had taken effect before did the only list there is.
        if outcome.succeeded || outcome.repeated {
            Ok(committed(Some(outcome)))
        } else {
            Err(changed())
        }
    }

    /// Ends the transaction without a trace.
    pub fn abort(self) {
        self.state().end(ended());
    }

    /// Ends the transaction; what is to be sent.
    fn finish(&self) -> Result<wire::Transact, Error> {
        let mut state = self.open()?;
        state.over = Some(ended());
        Ok(wire::Transact {
            compare: state.reads.compare(),
            then: state.writes.actions(&state.reads),
            otherwise: Vec::new(),
            op_id: None,
        })
    }
}

impl State {
    /// Ends the transaction, the first time for good.
    fn end(&mut self, why: Error) -> Error {
        self.over.get_or_insert(why).clone()
    }

    /// Refuses a read that makes the transaction too large.
    fn check_read(&self, options: &TxnOptions, more: usize, bytes: usize) -> Result<(), Error> {
        let operations = self.reads.len() + self.writes.len() + more;
        let bytes = self.reads.bytes() + self.writes.bytes() + bytes;
        options.check(operations, bytes)
    }
}

fn ended() -> Error {
    Error::invalid("the transaction has ended")
}

const fn committed(outcome: Option<TransactionOutcome>) -> Committed<()> {
    Committed {
        value: (),
        outcome,
        attempts: 1,
    }
}
