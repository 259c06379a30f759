//! One process that contends: asks whether to go on, takes the lease, acts under its token, says so, gives it up.
//!
//! It acts as a careless program does: it looks whether it still holds the lease, and then acts, however long it was
//! stopped in between.

use std::process::ExitCode;
use std::time::Duration;

use meridian_client::{Client, Lease, LeaseOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::ContendArgs;

/// The lease everybody wants.
const NAME: &str = "the lock";
/// How long one waits for the lease before it asks whether to go on.
const WAIT: Duration = Duration::from_secs(20);
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// What one holder does.
const ACTS: u32 = 3;
/// After an acquisition that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs one contender to its end.
#[expect(
    clippy::print_stderr,
    reason = "what a child process says of its failure"
)]
pub fn contend(args: &ContendArgs) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(contend_on(args)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("contender {}: {why}", args.number);
            ExitCode::FAILURE
        }
    }
}

async fn contend_on(args: &ContendArgs) -> Result<(), String> {
    let mut register = Line::to(args).await?;
    let client = Client::builder()
        .endpoints(args.endpoints.clone())
        .stay_in_zone()
        .timeout(CALL_TIME_MAX)
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let options = LeaseOptions {
        ttl: Duration::from_millis(args.ttl_ms),
        wait: WAIT,
        op_id: None,
    };
    while register.ask("ask").await? == "go" {
        match client.lease(NAME, &options).await {
            Ok(lease) => act(&mut register, lease).await?,
            Err(_another_holds_it_or_nobody_knows) => tokio::time::sleep(PAUSE).await,
        }
    }
    Ok(())
}

async fn act(register: &mut Line, lease: Lease) -> Result<(), String> {
    let token = lease.token();
    register.ask(&format!("held {token}")).await?;
    for _ in 0..ACTS {
        // The register may stop this process before it answers, or after.
        register.ask(&format!("act {token}")).await?;
    }
    let how = if lease.is_lost() { "lost" } else { "kept" };
    register.ask(&format!("done {token} {how}")).await?;
    // A lease that cannot be given up ends by itself.
    drop(lease.end().await);
    Ok(())
}

/// The line to the register: a question, an answer.
struct Line {
    stream: BufReader<UnixStream>,
}

impl Line {
    async fn to(args: &ContendArgs) -> Result<Self, String> {
        let stream = UnixStream::connect(&args.register)
            .await
            .map_err(|error| error.to_string())?;
        let mut line = Self {
            stream: BufReader::new(stream),
        };
        let pid = std::process::id();
        line.ask(&format!("hello {} {pid}", args.number)).await?;
        Ok(line)
    }

    async fn ask(&mut self, question: &str) -> Result<String, String> {
        let question = format!("{question}\n");
        let mut answer = String::new();
        let asked = async {
            self.stream.write_all(question.as_bytes()).await?;
            self.stream.read_line(&mut answer).await
        };
        asked.await.map_err(|error| error.to_string())?;
        Ok(answer.trim_end().to_owned())
    }
}
