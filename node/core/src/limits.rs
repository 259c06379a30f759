//! Every bound of the core, with its reason. Checked at the edge; relations between them are asserted at compile time.

/// Longest key, in bytes: a key is part of every record, index entry and page token.
pub const KEY_SIZE_BYTES_MAX: usize = 4096;

/// Largest value, in bytes. A Raft entry, an exchange batch and a gRPC message each hold at least one, with room for
/// its context.
pub const VALUE_SIZE_BYTES_MAX: usize = 1 << 20;

/// Largest causal context, encoded, in bytes: as large as a token may be.
pub const CONTEXT_SIZE_BYTES_MAX: usize = 64 << 10;

/// Siblings a key may hold before a client write that would add one is told to reconcile. Exchange and repair are
/// never refused.
pub const SIBLINGS_MAX: usize = 32;

/// Bytes of operations that one log entry gathers: bounds the time one entry takes to apply and to resend.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Operations that one log entry gathers.
pub const ENTRY_OPS_MAX: usize = 1024;

/// Requests that wait for a commit or a read index in one core: what half a second at the highest measured rate needs.
pub const WAITING_MAX: usize = 65_536;

/// Keys in one page of a scan.
pub const SCAN_KEYS_MAX: usize = 1000;

/// Bytes in one page of a scan; one value always fits.
pub const SCAN_BYTES_MAX: usize = 4 << 20;

/// Bytes of effects from other zones that a core lets into its logs in one turn, when its clients bring less: what they
/// ask for meanwhile waits about a millisecond for it.
pub const MERGE_TURN_BYTES: usize = 16 << 10;

/// Tenths of the speed at which a backlog of other zones was written, at which it is let in beside clients: so that it shrinks
/// three times as fast as it grew, while as much comes in fresh.
pub const REPLAY_TENTHS: u64 = 42;

/// Milliseconds after which what another zone has written counts as backlog.
pub const BACKLOG_AGE_MS: u64 = 1_000;

/// Milliseconds between two portions of a backlog, at least. A portion is what has become due since the one before: a core that
/// is quick takes many small ones, which hold up nobody for long, and one that waits for its disk or a processor makes up
/// for that with larger ones. With 24 ms the median of puts beside a backlog was a third longer.
pub const BACKLOG_EVERY_MS: u64 = 3;

/// Bytes of a portion at most, of all groups of a core: some thousand small writes, 5 to 15 ms of a processor.
pub const BACKLOG_TURN_BYTES: usize = 192 << 10;

/// Milliseconds of writing that a replay may make up for: what comes while a core is at something else.
pub const REPLAY_CREDIT_MS: u64 = 200;

/// Bytes of effects from other zones that a core lets in per millisecond, whenever they were written: some thousand small writes
/// a second, which nobody notices.
pub const MERGE_BYTES_PER_MS: u64 = 1 << 9;

/// Bytes of effects that a core may let in at once on that account: what comes together from one tick to the next.
pub const MERGE_CREDIT_BYTES: u64 = 32 << 10;

/// Milliseconds after which a core that no client has asked anything takes its time for other zones.
pub const CLIENTS_ABSENT_MS: u64 = 1_000;

/// Bytes of merges that a group proposes with each byte of its clients' writes: what two other zones as busy as this one
/// send, and as much again, so that a load that all zones bear leaves no growing backlog.
pub const MERGES_PER_WRITE: usize = 4;

/// Bytes of a key and its record up to which the cache of records takes it: larger ones would push out many.
pub const CACHED_RECORD_BYTES_MAX: usize = 1 << 10;

/// Bytes of the cache of records per place in it: what a small record takes with its key and the place itself.
pub const RECORD_CACHE_SLOT_BYTES: usize = 256;

/// Least time between two times at which a core's groups speak to other zones: long enough for the effects of some writes to go
/// in one message and one frame, short beside the way to another zone.
pub const EXCHANGE_EVERY_MS: u64 = 4;

/// Bytes of effects after which a message of the exchange is closed: read, sent and taken in without holding anything up.
/// One effect always fits, and the rest of its transaction.
pub const EXCHANGE_CHUNK_BYTES: usize = 32 << 10;

/// Chunks of what is not fresh that are sent in answer to one acknowledgement: twice what it acknowledges, so that the
/// window opens, and no more, since reading them holds a core up.
pub const EXCHANGE_CHUNKS_READ: usize = 2;

/// Bytes of effects that are in flight to one zone for one shard when others that are not fresh are sent: 1.8 MB/s per shard over a round trip
/// of 140 ms. More would be read, sent and taken in at once when links are whole again, and only wait at the other end.
pub const EXCHANGE_BACKLOG_BYTES: usize = 256 << 10;

/// Bytes of effects in one exchange message; one effect always fits.
pub const EXCHANGE_BATCH_BYTES_MAX: usize = 2 << 20;

/// Bytes of effects sent to one zone for one shard and not yet acknowledged: covers 140 ms at 15 MB/s per shard.
pub const EXCHANGE_WINDOW_BYTES: usize = 4 << 20;

/// Keys in one range whose hash is compared.
pub const COMPARE_RANGE_KEYS: usize = 256;

/// Ranges in one message of hashes.
pub const COMPARE_RANGES_MAX: usize = 64;

/// Bytes of key states in one message; one key always fits.
pub const COMPARE_STATES_BYTES_MAX: usize = 2 << 20;

/// Op ids looked at for one message of a comparison: of most, a zone that was not away for long has the effect already, and
/// a core is not to be kept busy by looking.
pub const COMPARE_OP_IDS_MAX: usize = 8_192;

/// Bytes of records in one page of a group image.
pub const IMAGE_PAGE_BYTES_MAX: usize = 1 << 20;

/// Views that a core holds open for images and comparisons together: an open view keeps old files on disk.
pub const VIEWS_MAX: usize = 32;

/// A view not asked for anything for this long is closed.
pub const VIEW_IDLE_MS_MAX: u64 = 30_000;

/// How far a remote hybrid clock may be ahead before it is no longer followed, in milliseconds.
pub const CLOCK_AHEAD_MS_MAX: u64 = 60_000;

/// Tombstones that one log entry drops.
pub const TOMBSTONES_DROPPED_MAX: usize = 512;

/// Log indexes whose op ids one log entry evicts.
pub const OP_ID_EVICTIONS_MAX: u64 = 512;

/// Shards of one keyspace: each is a Raft group per zone.
pub const SHARDS_MAX: u16 = 256;

/// Keyspaces of a cluster: each has groups on every node.
pub const KEYSPACES_MAX: usize = 256;

/// Longest name of a keyspace, in bytes.
pub const KEYSPACE_NAME_BYTES_MAX: usize = 63;

/// Comparisons and actions of one transaction: bounds the time its entry takes to apply while the group stands still.
pub const TRANSACTION_OPERATIONS_MAX: usize = 4096;

/// Bytes of keys, values and contexts of one transaction: it is one log entry in each of its shards, and travels to
/// other zones as one unit.
pub const TRANSACTION_BYTES_MAX: usize = 2 << 20;

/// Keys that a range of a transaction may hold: it is compared whole when the transaction commits.
pub const RANGE_KEYS_MAX: usize = 1000;

/// How long the parts of a transaction may wait to be brought together, in milliseconds: bounds how long keys stay locked
/// while a coordinator lives.
pub const PREPARE_MS_MAX: u64 = 1_000;

/// A prepared part older than this asks its decider what became of the transaction, in milliseconds.
pub const INQUIRE_AFTER_MS: u64 = 250;

/// Transactions that one core brings together at a time.
pub const COORDINATIONS_MAX: usize = 16_384;

/// Transactions prepared in one shard at a time: each is held in memory with its locks.
pub const PREPARED_MAX: usize = 4096;

/// Views that one core holds open for read-only transactions.
pub const READ_VIEWS_MAX: usize = 1024;

/// Longest time a view stays open, in milliseconds: an open view keeps old versions on disk.
pub const VIEW_MS_MAX: u64 = 30_000;

/// How long acknowledgements may be held back while a view opens, in milliseconds; past it the view is given up.
pub const HOLD_MS_MAX: u64 = 50;

/// Longest name of a lease, in bytes: it stands in front of every key attached to the lease.
pub const LEASE_NAME_BYTES_MAX: usize = 1024;

/// Shortest time of a lease, in milliseconds: a holder renews it several times within it, over a network.
pub const LEASE_TTL_MS_MIN: u64 = 100;

/// Longest time of a lease, in milliseconds: as long a lost holder keeps others waiting.
pub const LEASE_TTL_MS_MAX: u64 = 3_600_000;

/// Leases of one shard: its leader holds their deadlines in memory.
pub const LEASES_MAX: usize = 65_536;

/// Requests that wait for leases of one shard.
pub const LEASE_WAITERS_MAX: usize = 4096;

/// How long before its deadline a request that waits for a lease is told that it is held, in milliseconds: a node that
/// has forwarded it is to hear so before it gives up.
pub const LEASE_WAIT_MARGIN_MS: u64 = 100;

/// Leases whose end one log entry brings.
pub const LEASES_ENDED_MAX: usize = 64;

/// Attached keys that vanish with one operation; the others follow.
pub const LEASED_KEYS_VANISH_MAX: usize = 512;

/// Leases of other shards that a shard asks about in one round.
pub const LEASES_ASKED_MAX: usize = 256;

/// Versions that one log entry expires.
pub const EXPIRE_KEYS_MAX: usize = 512;

/// How long a strong operation on a group that spans zones may wait for other zones, in milliseconds: a node that is cut
/// off is to say so within a second, and this is looked at once per tick. Well over the longest round trips that such groups
/// are meant for, with room for a slow disk.
pub const STRONG_MS_MAX: u64 = 900;

/// The same as [`HOLD_MS_MAX`] where parts of a view are taken in several zones: two round trips over an ocean.
pub const HOLD_ACROSS_MS_MAX: u64 = 400;

const _: () = assert!(
    VALUE_SIZE_BYTES_MAX + CONTEXT_SIZE_BYTES_MAX + KEY_SIZE_BYTES_MAX < EXCHANGE_BATCH_BYTES_MAX
);
const _: () = assert!(EXCHANGE_BATCH_BYTES_MAX <= ENTRY_BYTES_MAX);
const _: () = assert!(MERGE_TURN_BYTES <= EXCHANGE_CHUNK_BYTES);
const _: () = assert!(EXCHANGE_CHUNK_BYTES <= EXCHANGE_BATCH_BYTES_MAX);
const _: () = assert!(TRANSACTION_BYTES_MAX + EXCHANGE_BATCH_BYTES_MAX <= ENTRY_BYTES_MAX);

/// Shortest time between two cuts: each is a round of agreement over all shards.
pub const MIRROR_INTERVAL_MS_MIN: u64 = 100;

/// Longest time between two cuts: a mirror older than a day is a backup, and tombstones wait for it.
pub const MIRROR_INTERVAL_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Smallest bound on the lag between zones: below it, one round trip over a continent would be a breach.
pub const MAX_LAG_MS_MIN: u64 = 100;

/// How long before its deadline a request that waits for other zones is told what was reached, in milliseconds: a node
/// that has forwarded it is to hear so before it gives up.
pub const LEVEL_MARGIN_MS: u64 = 100;

/// How much earlier still where the node that forwarded it may be in another zone, in milliseconds: its question and the
/// answer were both on their way, one of them after its own time had begun.
pub const LEVEL_MARGIN_ACROSS_MS: u64 = 200;

/// Reads of several zones under way in one core: each holds the sets of a key.
pub const ZONE_READS_MAX: usize = 4096;

/// Writes of one shard that wait because another zone is too far behind: as many as half a second of a shard's load.
pub const THROTTLED_MAX: usize = 4096;
/// Cuts of one keyspace that are open at a time: one that slow zones still receive, and a newer one for the others.
pub const CUTS_OPEN_MAX: usize = 2;

/// A cut that no zone receives is closed after this time, in milliseconds: it keeps old versions on disk.
pub const CUT_IDLE_MS: u64 = 4_000;

/// Without a mirror zone heard of for this long, in milliseconds, no cuts are taken: nobody would receive them.
pub const MIRROR_LISTENS_MS: u64 = 10_000;

/// Requests of operators that wait for mirrors of one keyspace.
pub const MIRROR_ASKED_MAX: usize = 64;

/// Bytes of keys and records in one page to a mirror; one record always fits.
pub const MIRROR_PAGE_BYTES: usize = 1 << 20;

/// Records looked at for one page: bounds how long a core stands still for it.
pub const MIRROR_PAGE_VISITS: usize = 16_384;

/// Pages that one core of a mirror zone waits for at a time: with their size, what it holds of them in memory.
pub const MIRROR_FETCHES_MAX: usize = 8;

/// Pages that fail one after the other until a cut is given up.
pub const MIRROR_FETCH_FAILURES_MAX: u32 = 5;

/// Keys whose old versions go in one turn.
pub const MIRROR_SWEEP_KEYS: usize = 1024;

/// Least time between two questions of a mirror zone for a cut, in milliseconds.
pub const MIRROR_ASK_MS_MIN: u64 = 50;

/// Most time between two questions of a mirror zone for a cut, in milliseconds: home counts on being asked.
pub const MIRROR_ASK_MS_MAX: u64 = 1_000;

const _: () = assert!(2 * MIRROR_ASK_MS_MAX < MIRROR_LISTENS_MS);
const _: () = assert!(CUT_IDLE_MS < VIEW_MS_MAX && 3 * MIRROR_ASK_MS_MAX < CUT_IDLE_MS);

/// Keys listed per shard to which writes of a deposed home zone came back; beyond, they are counted. As many as a shard takes
/// writes in several seconds at its full rate.
pub const RETURNED_KEYS_MAX: u64 = 65_536;

/// Writes listed of one key that writes came back to: as many as it can have siblings.
pub const RETURNED_WRITES_MAX: usize = SIBLINGS_MAX;

/// Keys in one page of that list.
pub const RETURNED_PAGE_KEYS: usize = 1024;

/// Keys in one range of which a zone says what it has of a keyspace that it begins to mirror: what travels for one that differs.
pub const KNOWN_RANGE_KEYS: usize = 256;

/// Such ranges in one question: bounds how long a core stands still to hash them.
pub const KNOWN_RANGES_MAX: usize = 16;

/// Bytes of records in them, but for the last one: they are copied in one batch.
pub const KNOWN_BYTES_MAX: usize = 4 << 20;
