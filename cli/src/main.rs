//! The program `kv`.

use std::process::ExitCode;

fn main() -> ExitCode {
    meridian_cli::main(std::env::args_os())
}
