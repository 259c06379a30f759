//! How RocksDB is set up, each choice with its reason.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options,
};

use crate::keys::Family;

const MIB: u64 = 1 << 20;

/// Of a small file system, one write buffer takes at most one part in so many, the log one in so many. All buffers of
/// both families then take less than the eighth that is kept in reserve.
const WRITE_BUFFER_PART: u64 = 128;
const WAL_PART: u64 = 16;
/// Write buffers of one family: one being filled, the others waiting to be written out.
const WRITE_BUFFERS: i32 = 4;

/// RocksDB grants what it writes in the background in steps of this time, in microseconds, and looks at every hundredth how much
/// was asked for. Short, so that a burst of flushes gets more within a second or two.
const GRANT_US: i64 = 1_000;
/// Of what is written in the background, the part that compactions are given before flushes, so that they do not starve.
const FAIRNESS: i32 = 10;

/// What an operator may tune. The default suits a node with one GiB of memory to spare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Memory for blocks read from disk, shared by both families.
    pub block_cache_bytes: u64,
    /// Size of one write buffer. Each family may fill one while up to three wait to be written out.
    pub write_buffer_bytes: u64,
    /// When the log is longer, the oldest write buffer is written out. Bounds the replay at a restart.
    pub wal_bytes: u64,
    /// Most bytes per second that flushes and compactions write. They begin with a twentieth of it, and get more, up to this,
    /// while that does not suffice.
    pub background_bytes_per_s: u64,
    /// Space on the file system that our writes leave free, for RocksDB to flush and compact in. On a small file
    /// system, an eighth of it.
    pub reserve_bytes: u64,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 * MIB,
            write_buffer_bytes: 12 * MIB,
            wal_bytes: 192 * MIB,
            background_bytes_per_s: 640 * MIB,
            reserve_bytes: 256 * MIB,
        }
    }
}

impl RocksOptions {
    /// The same for a file system of `total_bytes`: on a small one, everything that the reserve must have room for (all
    /// write buffers of both families) shrinks with it.
    #[must_use]
    pub(super) fn fitted(&self, total_bytes: u64) -> Self {
        let mut fitted = self.clone();
        fitted.write_buffer_bytes = self
            .write_buffer_bytes
            .min((total_bytes / WRITE_BUFFER_PART).max(MIB));
        fitted.wal_bytes = self.wal_bytes.min((total_bytes / WAL_PART).max(8 * MIB));
        fitted
    }
}

/// The name a family has on disk. Never change one: it is stored.
pub(super) fn family_name(family: Family) -> &'static str {
    match family {
        Family::State => "state",
        Family::Log => "log",
    }
}

/// RocksDB always has this family; it stays empty.
const UNUSED_FAMILY: &str = "default";

/// Every family that a folder of ours may hold.
pub(super) fn known_families() -> Vec<&'static str> {
    let mut names = vec![UNUSED_FAMILY];
    names.extend(Family::ALL.map(family_name));
    names
}

/// The options of the database as a whole.
pub(super) fn database(options: &RocksOptions, recovery: DBRecoveryMode) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    // fdatasync: the log's length is enough, its times are not worth a second write.
    db.set_use_fsync(false);
    db.set_wal_recovery_mode(recovery);
    // A recycled log would overwrite allocated blocks and sync in 56 µs instead of 72, but then a damaged record cannot
    // be told from the remains of the log before it: damage to synced records would pass for the end of the log.
    db.set_recycle_log_file_num(0);
    // A log file that is missing, or shorter than it once was synced, is an error at the next start.
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_wal_compression_type(DBCompressionType::None);
    db.set_max_total_wal_size(options.wal_bytes);
    db.set_paranoid_checks(true);
    // Write-back in small steps, so that a flush in the background does not delay the log's syncs all at once.
    db.set_bytes_per_sync(MIB);
    // A flush at full speed takes a processor for half a second, and keeps the disk so busy that each sync of the log waits for
    // 10 to 20 ms. Spread over the time in which the next buffer fills it is hardly felt.
    let most = i64::try_from(options.background_bytes_per_s).unwrap_or(i64::MAX);
    db.set_auto_tuned_ratelimiter(most, GRANT_US, FAIRNESS);
    db.set_max_background_jobs(2);
    // Three nodes on one machine stay below the usual limit of 1,024 open files together with their sockets.
    db.set_max_open_files(256);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(to_usize(8 * MIB));
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db
}

/// The named families with their options; they share one block cache.
pub(super) fn families(options: &RocksOptions, names: &[&str]) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(to_usize(options.block_cache_bytes));
    let describe = |name: &&str| {
        let family = Family::ALL
            .into_iter()
            .find(|family| family_name(*family) == *name);
        let family_options = match family {
            Some(Family::State) => state_family(options, &cache),
            Some(Family::Log) => log_family(options, &cache),
            None => Options::default(),
        };
        ColumnFamilyDescriptor::new(*name, family_options)
    };
    names.iter().map(describe).collect()
}

/// Table files that flushes leave side by side before they are merged into the next level. Each merge writes most of that level
/// anew, whatever came, so more of them cost less of a processor, and a lookup asks a few filters more; with 12 one merge lasts so
/// long that writes between zones take half as long again at the 99th percentile.
const FLUSHED_TABLES: i32 = 6;

/// Read at random and kept: filters, compression, blocks of a few records.
fn state_family(options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = blocks(cache);
    table.set_bloom_filter(10.0, false);
    table.set_block_size(8 << 10);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(to_usize(options.write_buffer_bytes));
    family.set_max_write_buffer_number(WRITE_BUFFERS);
    // What is looked for is seldom in memory: the filter spares such lookups the skip list.
    family.set_memtable_whole_key_filtering(true);
    family.set_memtable_prefix_bloom_ratio(0.1);
    family.set_level_zero_file_num_compaction_trigger(FLUSHED_TABLES);
    // What is flushed is merged soon, or read often: only what stays is worth compressing.
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
    family.set_level_compaction_dynamic_level_bytes(true);
    family
}

/// Written once, read in order, deleted soon: two buffers are merged before they are written out, so that most records
/// meet their deletion in memory and never reach a table file.
fn log_family(options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = blocks(cache);
    table.set_block_size(32 << 10);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(to_usize(options.write_buffer_bytes));
    family.set_max_write_buffer_number(WRITE_BUFFERS);
    family.set_min_write_buffer_number_to_merge(2);
    family.set_level_zero_file_num_compaction_trigger(FLUSHED_TABLES);
    family.set_compression_type(DBCompressionType::None);
    family
}

fn blocks(cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Filters and indexes count against the cache, so its size is the whole of what reading may take.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_reserve_has_room_for_all_write_buffers() {
        let options = RocksOptions::default();
        let buffers = u64::from(WRITE_BUFFERS.unsigned_abs()) * 2;
        assert!(buffers * options.write_buffer_bytes <= options.reserve_bytes);
        assert!(buffers * 8 <= WRITE_BUFFER_PART);
    }

    #[test]
    fn a_small_file_system_gets_small_buffers_and_a_large_one_what_was_asked_for() {
        let options = RocksOptions::default();
        assert_eq!(options.fitted(1 << 40), options);
        let small = options.fitted(256 * MIB);
        assert_eq!(
            (small.write_buffer_bytes, small.wal_bytes),
            (2 * MIB, 16 * MIB)
        );
        assert_eq!(options.fitted(0).write_buffer_bytes, MIB);
    }
}
