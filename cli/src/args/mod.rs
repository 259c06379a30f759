//! The forms of the command line. What they mean stands in `commands`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use meridian_client::{Context, LeaseRef, OnBehind, OpId, ReadLevel, WriteLevel};

use crate::commands::txn::TxnArgs;
use crate::parse;

mod mirror;
mod policy;
mod promote;
mod transfer;
mod waiting;

pub(crate) use mirror::MirrorCommand;
pub(crate) use policy::{AlterArgs, PolicyArgs};
pub(crate) use promote::{DivergenceArgs, PromoteArgs};
pub(crate) use transfer::{ExportArgs, Format, ImportArgs};
pub(crate) use waiting::{HoldArgs, LeaseCommand, LockArgs, WatchArgs};

/// The command line of Meridian, a key-value store that spans zones.
#[derive(Debug, Parser)]
#[command(name = "kv", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes. They win over the environment, the environment over a profile.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Nodes of the cluster; the others are learned from them [env: KV_ENDPOINTS]
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        value_name = "HOST:PORT,..."
    )]
    pub(crate) endpoints: Vec<String>,
    /// The zone whose nodes answer; without it the nearest endpoint does [env: KV_ZONE]
    #[arg(long, global = true)]
    pub(crate) zone: Option<String>,
    /// The keyspace; `default` without it [env: KV_KEYSPACE]
    #[arg(long, short, global = true, value_name = "NAME")]
    pub(crate) keyspace: Option<String>,
    /// Deadline of each operation, retries included; 5s without it [env: KV_TIMEOUT]
    #[arg(long, global = true, value_parser = parse::timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Results and errors as JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// A session token, or a file that holds one and is kept up to date
    #[arg(long, global = true, value_name = "FILE|TOKEN")]
    pub(crate) session: Option<String>,
    /// Where the zone only mirrors the keyspace, forward to its home zone
    #[arg(long, global = true)]
    pub(crate) forward: bool,
    /// The profile to take settings from, instead of the one in use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    OnCluster(Box<ClusterCommand>),
    /// Run a cluster of three zones on this machine
    Demo(DemoArgs),
    /// Read commands line by line
    Shell(ShellArgs),
    /// Keep settings under a name
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Print a completion script
    Completions(CompletionsArgs),
}

/// What needs a running cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Store a value
    Put(Box<PutArgs>),
    /// Read a key with all its siblings
    Get(GetArgs),
    /// Remove a key
    Delete(DeleteArgs),
    /// List keys and values in order
    Scan(ScanArgs),
    /// Read and write several keys as one
    Txn(TxnArgs),
    /// Show changes as they come
    Watch(WatchArgs),
    /// Store the records of a file
    Import(ImportArgs),
    /// Write all records to a file
    Export(ExportArgs),
    /// List keys with several siblings
    Conflicts(ConflictsArgs),
    /// Replace the siblings of a key by one value
    Resolve(ResolveArgs),
    /// Create, show, list and delete keyspaces
    #[command(subcommand)]
    Keyspace(KeyspaceCommand),
    /// Show the mirrors of a keyspace of mode snapshot, or bring them up to date
    #[command(subcommand)]
    Mirror(MirrorCommand),
    /// Move the home of a snapshot keyspace, or the leaders of a sync one, to another zone; nothing is lost
    Failover {
        /// The keyspace
        keyspace: String,
        /// The zone
        #[arg(long, value_name = "ZONE")]
        to: String,
        /// Wait at most this long
        #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse::duration)]
        wait: Duration,
    },
    /// Make the mirror in a zone the home of a snapshot keyspace whose home zone is lost: it has the state of its last cut
    Promote(PromoteArgs),
    /// Show what a promoted mirror lacked, and which writes of the old home zone have come back
    Divergence(DivergenceArgs),
    /// Show zones, nodes and keyspaces
    Status,
    /// Show what each zone has not yet handed to each other one
    Lag(WaitArgs),
    /// Show a hash over the contents of each zone
    Digest(WaitArgs),
    /// Cut, delay and mend links between zones
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Ask every node whether it serves
    Health,
    /// Run a command while holding a lease
    Lock(LockArgs),
    /// Take, renew, end and show leases
    #[command(subcommand)]
    Lease(LeaseCommand),
}

/// A key.
#[derive(Clone, Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key
    pub(crate) key: OsString,
    /// KEY is base64
    #[arg(long)]
    pub(crate) key_base64: bool,
}

/// What a write replaces, and how safe it must be.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WriteArgs {
    /// Replace exactly what was read with this context
    #[arg(long, value_name = "TOKEN", group = "intent")]
    pub(crate) context: Option<Context>,
    /// Replace everything the zone holds of the key
    #[arg(long, group = "intent")]
    pub(crate) overwrite: bool,
    /// Only when the key is absent
    #[arg(long, group = "intent")]
    pub(crate) if_absent: bool,
    /// Only when nothing but what was read with this context is there
    #[arg(long, value_name = "TOKEN", group = "intent")]
    pub(crate) if_context: Option<Context>,
    /// Only when the key holds exactly one version, with this value
    #[arg(long, value_name = "VALUE", group = "intent")]
    pub(crate) if_value: Option<OsString>,
    /// Where it must be durable: zone, zones:N, all
    #[arg(long, value_name = "LEVEL", value_parser = parse::write_level)]
    pub(crate) write_level: Option<WriteLevel>,
    /// Go on with an operation begun earlier
    #[arg(long, value_name = "ID")]
    pub(crate) op_id: Option<OpId>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The value; `-` for standard input
    #[arg(
        required_unless_present = "file",
        conflicts_with = "file",
        allow_negative_numbers = true
    )]
    pub(crate) value: Option<OsString>,
    /// A file that holds the value
    #[arg(long, value_name = "F")]
    pub(crate) file: Option<PathBuf>,
    /// The value expires after this long
    #[arg(long, value_parser = parse::timeout)]
    pub(crate) ttl: Option<Duration>,
    /// The value vanishes with this lease
    #[arg(long, value_name = "NAME:TOKEN", value_parser = parse::lease)]
    pub(crate) lease: Option<LeaseRef>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// How fresh: linearizable, session, bounded:500ms, eventual, zones:N
    #[arg(long, value_parser = parse::read_level)]
    pub(crate) level: Option<ReadLevel>,
    /// What `--level session` does when the replica at hand is behind the session: wait, redirect, fail
    #[arg(long, value_parser = parse::on_behind)]
    pub(crate) on_behind: Option<OnBehind>,
    /// Print the value's bytes and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// Which keys.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RangeArgs {
    /// Keys that begin with it
    #[arg(long)]
    pub(crate) prefix: Option<OsString>,
    /// First key, inclusive
    #[arg(long)]
    pub(crate) from: Option<OsString>,
    /// End, exclusive
    #[arg(long)]
    pub(crate) to: Option<OsString>,
    /// How fresh: linearizable, session, bounded:500ms, eventual, zones:N
    #[arg(long, value_parser = parse::read_level)]
    pub(crate) level: Option<ReadLevel>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    /// At most so many keys
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// Without values
    #[arg(long)]
    pub(crate) keys_only: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConflictsArgs {
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    /// Only how many
    #[arg(long)]
    pub(crate) count: bool,
}

#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["key", "all"]))]
#[command(group = clap::ArgGroup::new("how").required(true).args(["with", "choose"]))]
pub(crate) struct ResolveArgs {
    /// The key
    pub(crate) key: Option<OsString>,
    /// KEY is base64
    #[arg(long, requires = "key")]
    pub(crate) key_base64: bool,
    /// Every key in conflict
    #[arg(long, conflicts_with = "choose")]
    pub(crate) all: bool,
    /// A command that gets the siblings as JSON on standard input and prints the merged value; one line break at its
    /// end is taken off
    #[arg(long, value_name = "COMMAND")]
    pub(crate) with: Option<String>,
    /// The dot of the sibling to keep
    #[arg(long, value_name = "DOT")]
    pub(crate) choose: Option<String>,
    /// Commands at once, with --all
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: u16,
    /// Time a command may take
    #[arg(long, default_value = "30s", value_parser = parse::timeout)]
    pub(crate) command_timeout: Duration,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeyspaceCommand {
    /// Create a keyspace
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        policy: PolicyArgs,
        /// Number of shards, fixed for its life
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        shards: u32,
    },
    /// Change how a keyspace is replicated, while clients read and write; waits until it is so
    Alter(AlterArgs),
    /// Show one
    Show {
        /// Its name
        name: String,
    },
    /// List all
    List,
    /// Delete a keyspace and everything in it
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Ask until nothing is left to hand over (lag) or all zones are equal (digest), for at most this long
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// Swallow everything between two zones
    Block {
        #[command(flatten)]
        pair: PairArgs,
        /// Only from A to B
        #[arg(long)]
        one_way: bool,
    },
    /// Remove blocks and losses, of all links or of one
    Heal {
        /// One zone
        #[arg(requires = "b")]
        a: Option<String>,
        /// The other
        b: Option<String>,
    },
    /// Delay everything between two zones
    Delay {
        #[command(flatten)]
        pair: PairArgs,
        /// How long; 0ms removes it
        #[arg(value_parser = parse::duration)]
        delay: Duration,
        /// Only from A to B
        #[arg(long)]
        one_way: bool,
    },
    /// Lose some messages between two zones
    Loss {
        #[command(flatten)]
        pair: PairArgs,
        /// How many, between 0 and 1
        #[arg(value_parser = parse::probability)]
        probability: f64,
        /// Only from A to B
        #[arg(long)]
        one_way: bool,
    },
    /// Show all faults
    List,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PairArgs {
    /// One zone
    pub(crate) a: String,
    /// The other
    pub(crate) b: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Nodes in each zone
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) nodes: u8,
    /// Leave it running; prints a file to source that sets KV_ENDPOINTS
    #[arg(long, conflicts_with_all = ["stop", "script"])]
    pub(crate) detach: bool,
    /// Stop the one left running
    #[arg(long, conflicts_with = "script")]
    pub(crate) stop: bool,
    /// Run the lines of FILE; fails at the first that does
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ShellArgs {
    /// Run the lines of FILE; fails at the first that does
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Use a profile from now on
    Use {
        /// Its name
        name: String,
    },
    /// Keep the global options given as a profile
    Set {
        /// Its name
        name: String,
    },
    /// List all
    List,
    /// Remove one
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words = shlex::split(line).unwrap();
        Cli::try_parse_from(std::iter::once("kv".to_owned()).chain(words))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_forms_of_the_contract_are_accepted() {
        for line in [
            "put k v",
            "put k -",
            "put k --file f --overwrite --write-level zones:2 --ttl 10m",
            "put k -5 --op-id 1700000000000-000102030405060708090a0b0c0d0e0f",
            "put k v --context AAEC --json --zone us-east -k other --timeout 5s",
            "--endpoints 127.0.0.1:1,127.0.0.1:2 get k --level bounded:500ms",
            "get k --raw",
            "delete k --if-context AAEC",
            "put k v --if-value old",
            "delete k --if-value ''",
            "txn",
            "txn -",
            "txn f --read-only --max-operations 4096 --max-duration 5s",
            "txn f --op-id 1700000000000-000102030405060708090a0b0c0d0e0f",
            "txn --interactive",
            "scan --prefix p --from a --to b --limit 10 --keys-only",
            "import f --format tsv",
            "export - --format jsonl",
            "conflicts --count",
            "resolve k --with 'jq -r .key'",
            "resolve --all --with cat",
            "resolve k --choose us-east.3:42",
            "keyspace create n --mode async --shards 4",
            "keyspace alter n --mode sync --ack all",
            "keyspace alter n --cancel",
            "failover n --to us-east",
            "keyspace list",
            "status",
            "lag",
            "digest -k default",
            "fault block a b --one-way",
            "fault heal",
            "fault heal a b",
            "fault delay a b 50ms",
            "fault loss a b 0.1",
            "fault list",
            "demo --nodes 3",
            "demo --detach",
            "demo --stop",
            "demo --script f",
            "shell",
            "health",
            "completions bash",
            "profile use p",
            "--session token get k --level session",
            "lock n -- sleep 1",
            "lock n --ttl 2s --wait 0s -- sh -c 'exit 3'",
            "lease acquire n --ttl 1s --wait 5s",
            "lease renew n:5",
            "lease end a:b:5",
            "lease show n",
            "put k v --ttl 10m --lease n:5",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn contradictions_and_malformed_arguments_are_refused() {
        for line in [
            "",
            "frobnicate",
            "put k",
            "put k v --file f",
            "put k v --overwrite --if-absent",
            "put k v --if-value x --if-absent",
            "txn f --max-operations 4097",
            "txn f --max-operations 0",
            "txn f --max-duration 0s",
            "txn f g",
            "txn --interactive --op-id 1700000000000-000102030405060708090a0b0c0d0e0f",
            "put k v --context 'not base64!'",
            "put k v --write-level some",
            "put k v --op-id 12",
            "put k v --ttl 0s",
            "get k --level newest",
            "get k --raw --json",
            "get",
            "scan --limit -1",
            "resolve k",
            "resolve --with cat",
            "resolve k --all --with cat",
            "resolve k --with cat --choose us-east.3:42",
            "resolve --all --choose us-east.3:42",
            "fault heal a",
            "fault delay a b fast",
            "fault loss a b 2",
            "demo --detach --stop",
            "demo --nodes 0",
            "import f --in-flight 0",
            "--timeout 0s status",
            "lock n",
            "lock n sleep 1",
            "lock n --ttl 0s -- true",
            "lease renew n",
            "lease end n:x",
            "put k v --lease n",
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.use_stderr(), "{line}");
            let usage = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            assert!(!usage, "{line}");
        }
    }

    #[test]
    fn endpoints_are_split_at_commas() {
        let cli = parse("--endpoints a:1,b:2 status").unwrap();
        assert_eq!(cli.global.endpoints, ["a:1", "b:2"]);
    }
}
