//! `kv lock` and `kv lease`, run against a node in memory.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::Output;

use meridian_client::proto::kv::v1 as wire;
use serde_json::Value;
use support::Node;
use tempfile::TempDir;

struct Bench {
    node: Node,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self {
            node: Node::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn expect(&self, code: i32, arguments: &[&str]) -> Output {
        let output = self.node.kv(self.folder.path(), arguments).await;
        let messages = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {messages}"
        );
        output
    }

    fn standing(&self) -> Option<wire::LeaseRef> {
        self.node.kept.lock().unwrap().lease.clone()
    }

    fn stand(&self, token: u64) {
        let lease = wire::LeaseRef {
            name: "n".into(),
            token,
        };
        self.node.kept.lock().unwrap().lease = Some(lease);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_command_runs_with_name_and_token_and_the_lease_is_given_up_after_it() {
    let bench = Bench::new().await;
    let shown = "echo $KV_LOCK_NAME $KV_LOCK_TOKEN";
    let output = bench
        .expect(0, &["lock", "n", "--", "sh", "-c", shown])
        .await;
    assert_eq!(text(&output.stdout), "n 1\n");
    assert_eq!(bench.standing(), None);
}

#[tokio::test]
async fn the_commands_exit_code_is_passed_on_and_the_lease_given_up() {
    let bench = Bench::new().await;
    bench
        .expect(3, &["lock", "n", "--", "sh", "-c", "exit 3"])
        .await;
    bench
        .expect(143, &["lock", "n", "--", "sh", "-c", "kill -TERM $$"])
        .await;
    assert_eq!(bench.standing(), None);
}

#[tokio::test]
async fn a_command_that_does_not_exist_exits_with_127_and_keeps_no_lease() {
    let bench = Bench::new().await;
    bench
        .expect(127, &["lock", "n", "--", "./no-such-command"])
        .await;
    assert_eq!(bench.standing(), None);
}

#[tokio::test]
async fn a_lease_that_another_holds_exits_with_four_and_the_command_does_not_run() {
    let bench = Bench::new().await;
    bench.stand(9);
    let output = bench
        .expect(4, &["lock", "n", "--wait", "0s", "--", "echo", "ran"])
        .await;
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("LEASE_HELD"));
}

#[tokio::test]
async fn a_command_whose_lease_is_lost_is_killed_and_exits_with_six() {
    let bench = Bench::new().await;
    let taken = async {
        loop {
            if bench.standing().is_some() {
                bench.stand(99);
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let lock = ["lock", "n", "--ttl", "300ms", "--", "sleep", "600"];
    let (output, ()) = tokio::join!(bench.expect(6, &lock), taken);
    assert!(text(&output.stderr).contains("lost"));
    assert_eq!(bench.standing().unwrap().token, 99);
}

#[tokio::test]
async fn a_lease_is_acquired_shown_renewed_and_ended() {
    let bench = Bench::new().await;
    bench.expect(3, &["lease", "show", "n"]).await;
    let acquired = bench
        .expect(0, &["lease", "acquire", "n", "--ttl", "10s", "--json"])
        .await;
    let acquired: Value = serde_json::from_slice(&acquired.stdout).unwrap();
    assert_eq!(
        (&acquired["name"], &acquired["token"], &acquired["ttl_ms"]),
        (&"n".into(), &1.into(), &10_000.into())
    );
    bench.expect(0, &["lease", "renew", "n:1"]).await;
    bench.expect(0, &["lease", "show", "n"]).await;
    bench.expect(4, &["lease", "renew", "n:2"]).await;
    bench.expect(4, &["lease", "end", "n:2"]).await;
    bench.expect(0, &["lease", "end", "n:1"]).await;
    assert_eq!(bench.standing(), None);
}
