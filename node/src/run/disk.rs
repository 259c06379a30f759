//! The watch over free space: client writes are refused while there is still room for replication and exchange.
//!
//! The engine keeps a reserve of its own and refuses every write below it, which stalls the node. This watch speaks up
//! before: from twice that reserve on, and room for what is on its way, client writes are answered `DISK_FULL`, until
//! there is a quarter more again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meridian_storage::RocksOptions;
use tokio::time::{MissedTickBehavior, interval};

use crate::calls::Calls;
use crate::task::AbortOnDrop;

/// How often is looked: at 100 MB/s, 50 MB are written meanwhile.
const EVERY: Duration = Duration::from_millis(500);

/// Of a small file system, the engine's reserve is one part in so many.
const RESERVE_PART: u64 = 8;

/// What turns that were begun before a full disk was noticed may still ask of the engine, which wants eight times a
/// batch of up to four turns' bytes.
const UNDER_WAY: u64 = 32 << 20;

/// Bytes free and in total.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: u64,
    total: u64,
}

/// Watches until dropped.
pub(super) fn watch(store: &Path, options: &RocksOptions, calls: &Arc<Calls>) -> AbortOnDrop {
    let (path, reserve, calls) = (store.to_owned(), options.reserve_bytes, Arc::clone(calls));
    AbortOnDrop(tokio::spawn(look(path, reserve, calls)))
}

async fn look(path: PathBuf, reserve: u64, calls: Arc<Calls>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut full = false;
    loop {
        ticks.tick().await;
        // Without an answer of the system nothing changes; the engine's own reserve still holds.
        let Ok(room) = room(&path) else { continue };
        let now = is_full(room, reserve, full);
        if now != full {
            full = now;
            if full {
                tracing::error!(
                    free_bytes = room.free,
                    "the disk is nearly full: client writes are refused"
                );
            } else {
                tracing::info!(free_bytes = room.free, "the disk has room again");
            }
            calls.shared.disk_full(full);
            calls.cores.disk(full);
        }
    }
}

fn room(path: &Path) -> Result<Room, rustix::io::Errno> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Room {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Whether client writes are refused, given whether they were.
fn is_full(room: Room, reserve: u64, was_full: bool) -> bool {
    let mark = reserve.min(room.total / RESERVE_PART) * 2 + UNDER_WAY.min(room.total / 4);
    let mark = if was_full { mark + mark / 4 } else { mark };
    room.free < mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_refused_before_the_reserve_and_taken_again_with_some_room() {
        let mark = 200 + UNDER_WAY;
        let full = |free, was| {
            is_full(
                Room {
                    free,
                    total: 1 << 40,
                },
                100,
                was,
            )
        };
        assert!(!full(mark, false) && full(mark - 1, false));
        assert!(full(mark + mark / 4 - 1, true) && !full(mark + mark / 4, true));
    }

    #[test]
    fn on_a_small_file_system_the_marks_are_parts_of_it() {
        let room = |free| Room { free, total: 800 };
        assert!(is_full(room(399), u64::MAX, false));
        assert!(!is_full(room(400), u64::MAX, false));
    }
}
