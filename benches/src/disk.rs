//! What an fdatasync costs on the disk the nodes write to, with as many writers as there are nodes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::latency::{self, Latencies};

/// About what one put writes to the store's log.
const WRITE_BYTES: usize = 400;

/// Latency of an fdatasync after a small append.
#[derive(Debug, Serialize)]
pub(crate) struct Fdatasync {
    pub(crate) writers: usize,
    pub(crate) latency: Latencies,
}

/// Appends to files of their own in `folder`, all writers at once.
pub(crate) fn measure(folder: &Path, writers: usize, time: Duration) -> Result<Fdatasync, String> {
    let measured: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..writers)
            .map(|number| {
                scope.spawn(move || append(&folder.join(format!("fdatasync-{number}")), time))
            })
            .collect();
        running
            .into_iter()
            .map(|writer| {
                writer
                    .join()
                    .map_err(|_panic| "a writer panicked".to_owned())
            })
            .collect()
    });
    let mut all = latency::histogram();
    for histogram in measured {
        let histogram = histogram?.map_err(|error| format!("cannot measure fdatasync: {error}"))?;
        all.add(histogram).map_err(|error| error.to_string())?;
    }
    Ok(Fdatasync {
        writers,
        latency: Latencies::of(&all),
    })
}

fn append(path: &Path, time: Duration) -> std::io::Result<Histogram<u64>> {
    let mut histogram = latency::histogram();
    let mut file = File::create(path)?;
    let begun = Instant::now();
    while begun.elapsed() < time {
        file.write_all(&[7; WRITE_BYTES])?;
        let before = Instant::now();
        file.sync_data()?;
        latency::record(&mut histogram, before.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(histogram)
}
