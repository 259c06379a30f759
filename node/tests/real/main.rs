//! Real processes: what no simulation shows, namely sockets, files, signals and exit codes.

#[cfg(test)]
mod alter;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod levels;
#[cfg(test)]
mod one_zone;
#[cfg(test)]
mod promotion;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod transactions;
#[cfg(test)]
mod watch;
#[cfg(test)]
mod zones;
