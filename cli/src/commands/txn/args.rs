//! The form of the command line of `txn`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use meridian_client::{OpId, TxnOptions};

use crate::parse;

/// Somebody who types is given time to think: nothing is locked before the commit.
const TYPED_DURATION: Duration = Duration::from_mins(10);

const FORMS: &str = r#"Two forms, told apart by the first character:

A JSON object is a transaction sent whole. If all comparisons hold, the actions of "then" are done,
otherwise those of "else"; without any "else" it fails with CONFLICT (exit code 4).

  {"compare": [{"key": "a", "value": "1"}, {"key": "b", "absent": true},
               {"key": "c", "exists": true}, {"key": "d", "context": "TOKEN"}],
   "then":    [{"put": "a", "value": "2"}, {"get": "b"}, {"delete": "c"}],
   "else":    [{"get": "a"}]}

  Bytes that are not UTF-8 are given as base64: key_base64, value_base64, put_base64, get_base64,
  delete_base64. A put or delete may carry one of "if_absent": true, "if_value": "V",
  "if_context": "TOKEN", "context": "TOKEN", "overwrite": true.

Anything else is a script, one step a line, with the quotation marks of a shell and # for comments:

  get KEY          put KEY VALUE          commit
  scan [PREFIX]    delete KEY             abort

  All reads show one point in time, and the transaction's own writes. Writes are made by `commit`,
  as one, if nothing that was read has changed. A script from a file or a pipe is run again when it
  met a conflict, and what its last run read is printed. At a terminal, or with --interactive, each
  line is carried out when it is typed, and a conflict ends the transaction (exit code 4).
  With --read-only all reads come from one view, which meets no conflicts; `commit` may be left out.

Exit code 6: the outcome is not known, and the op id is printed."#;

#[derive(Clone, Debug, Default, Args)]
#[command(after_long_help = FORMS)]
pub(crate) struct TxnArgs {
    /// The transaction; `-` or nothing for standard input. See --help for its forms
    pub(crate) file: Option<PathBuf>,
    /// Read from one view; the script may not write
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Carry out each line of standard input as it comes
    #[arg(long, conflicts_with = "op_id")]
    pub(crate) interactive: bool,
    /// Keys and ranges read, and keys written, at most
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) max_operations: u16,
    /// Time from the beginning to the commit; 10s without it, 10m for what is typed
    #[arg(long, value_name = "DURATION", value_parser = parse::timeout)]
    pub(crate) max_duration: Option<Duration>,
    /// Go on with a transaction sent whole earlier
    #[arg(long, value_name = "ID", conflicts_with = "read_only")]
    pub(crate) op_id: Option<OpId>,
}

impl TxnArgs {
    pub(super) fn options(&self) -> TxnOptions {
        let options = TxnOptions::default();
        TxnOptions {
            operations_max: usize::from(self.max_operations),
            duration_max: self.max_duration.unwrap_or(options.duration_max),
            ..options
        }
    }

    pub(super) fn typed_options(&self) -> TxnOptions {
        TxnOptions {
            duration_max: self.max_duration.unwrap_or(TYPED_DURATION),
            ..self.options()
        }
    }
}
