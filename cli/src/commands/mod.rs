//! The commands, one file per concern.

mod alter;
mod cluster;
mod conflicts;
mod fault;
mod keys;
mod keyspace;
mod lag;
mod lease;
mod lock;
mod mirror;
mod promote;
mod resolve;
mod scan;
pub(crate) mod txn;
mod watch;

use crate::app::App;
use crate::args::ClusterCommand;
use crate::exit::Outcome;
use crate::transfer;

#[expect(
    clippy::cognitive_complexity,
    reason = "one arm for each command, and nothing else"
)]
/// Carries out any command that works on a running cluster.
pub(crate) async fn run(app: &mut App<'_>, command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Put(args) => keys::put(app, *args).await,
        ClusterCommand::Get(args) => keys::get(app, args).await,
        ClusterCommand::Delete(args) => keys::delete(app, args).await,
        ClusterCommand::Scan(args) => scan::run(app, args).await,
        ClusterCommand::Txn(args) => Box::pin(txn::run(app, args)).await,
        ClusterCommand::Watch(args) => watch::run(app, args).await,
        ClusterCommand::Import(args) => transfer::import(app, args).await,
        ClusterCommand::Export(args) => transfer::export(app, args).await,
        ClusterCommand::Conflicts(args) => conflicts::run(app, args).await,
        ClusterCommand::Resolve(args) => resolve::run(app, args).await,
        ClusterCommand::Keyspace(command) => Box::pin(keyspace::run(app, command)).await,
        ClusterCommand::Mirror(command) => Box::pin(mirror::run(app, command)).await,
        ClusterCommand::Failover { keyspace, to, wait } => {
            Box::pin(keyspace::failover(app, keyspace, to, wait)).await
        }
        ClusterCommand::Promote(args) => Box::pin(promote::promote(app, args)).await,
        ClusterCommand::Divergence(args) => Box::pin(promote::divergence(app, args)).await,
        ClusterCommand::Status => cluster::status(app).await,
        ClusterCommand::Health => cluster::health(app).await,
        ClusterCommand::Lag(args) => lag::lag(app, args).await,
        ClusterCommand::Digest(args) => lag::digest(app, args).await,
        ClusterCommand::Fault(command) => fault::run(app, command).await,
        ClusterCommand::Lock(args) => lock::run(app, args).await,
        ClusterCommand::Lease(command) => lease::run(app, command).await,
    }
}
