//! Bounds of the shell, with their reasons; those of the data stand in `meridian_core::limits`.

use std::time::Duration;

/// Time an operation has when its client names none.
pub(crate) const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// Longest time an operation may ask for: whoever waits longer is better served by asking again.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_mins(1);

/// How far an op id's stamp may be ahead of our clock. Op ids are remembered by their stamp's age; one from the far
/// future would be remembered too long.
pub(crate) const OP_ID_AHEAD_MS_MAX: u64 = 600_000;

/// Largest session token, in bytes.
pub(crate) const SESSION_SIZE_BYTES_MAX: usize = 64 << 10;

/// Largest message taken from a socket: the largest batch of the core, with room for its envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes after which a stream's answer is cut: clients decode up to [`MESSAGE_BYTES_MAX`], and one answer always fits.
pub(crate) const ANSWER_BYTES_SOFT_MAX: usize = 4 << 20;

/// Operations in one message, and keys in one unary batch.
pub(crate) const BATCH_OPERATIONS_MAX: usize = 4096;

/// Operations in flight on one stream; past it the stream is not read, which the client feels as back-pressure.
pub(crate) const STREAM_IN_FLIGHT_MAX: usize = 8192;

/// Requests that wait in front of one core: a quarter second of work at the highest measured rate.
pub(crate) const CORE_REQUESTS_MAX: usize = 16_384;

/// Bytes of messages of other nodes that wait in front of one core.
pub(crate) const CORE_PEER_BYTES_MAX: usize = 32 << 20;

/// Inputs a core takes before it ends its turn: bounds the time until answers leave.
pub(crate) const TURN_INPUTS_MAX: usize = 2048;

/// Bytes of keys, values and messages a core takes before it ends its turn; one piece of work always fits. A turn is one
/// write, and the store wants room for a multiple of it.
pub(crate) const TURN_BYTES_MAX: usize = 1 << 20;

/// Longest pause of a core between two synced turns, while it has to wait for a processor: about what a turn takes then.
pub(crate) const TURN_PAUSE_MAX: Duration = Duration::from_millis(2);

/// By how much a pause changes at a time.
pub(crate) const TURN_PAUSE_STEP: Duration = Duration::from_micros(250);

/// Inputs of a turn that lets a pause follow: with fewer there is little to bring together.
pub(crate) const TURN_PAUSE_INPUTS_MIN: usize = 4;

/// Requests among them that let clients' requests wait too: one is of a client who waits for his answer before he asks again.
pub(crate) const TURN_PAUSE_REQUESTS_MIN: usize = 2;

/// Messages that wait for one other node.
pub(crate) const LINK_MESSAGES_MAX: usize = 65_536;

/// Bytes that wait for one other node: covers the exchange windows of sixteen shards.
pub(crate) const LINK_BYTES_MAX: usize = 64 << 20;

/// Messages in one frame of a link.
pub(crate) const FRAME_MESSAGES_MAX: usize = 256;

/// Bytes in one frame of a link; one message always fits.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;

/// Flow-control window of a connection: 8 MiB cover 60 MB/s over 140 ms.
pub(crate) const WINDOW_BYTES: u32 = 8 << 20;

/// Largest emulated delay of a link.
pub(crate) const DELAY_MS_MAX: u64 = 10_000;

/// Watchers of one node: each holds a few messages, and costs a look at the store when what it watches changes.
pub(crate) const WATCHERS_MAX: usize = 1024;

/// Messages that wait for one watcher; past it no more changes are read for it.
pub(crate) const WATCH_MESSAGES_MAX: usize = 8;

/// A watcher that takes no message for this long while more wait is cut off.
pub(crate) const WATCH_PATIENCE: Duration = Duration::from_secs(10);

/// A watcher that has not been told anything for this long is told its revision.
pub(crate) const WATCH_SILENCE: Duration = Duration::from_secs(5);

/// Changes of one shard looked at before a watcher is shown what was found.
pub(crate) const WATCH_PAGE_CHANGES: u64 = 512;

/// Bytes of changes of one shard and incarnation looked at; one always fits.
pub(crate) const WATCH_PAGE_BYTES: usize = 256 << 10;

/// A watcher whose keys did not change is told its revision after this many changes of others, so that it may go on
/// from there.
pub(crate) const WATCH_SKIPPED_MAX: u64 = 16_384;

/// Entries in a page of a scan whose client does not say.
pub(crate) const SCAN_LIMIT_DEFAULT: u32 = 100;
