//! The program itself, run against a node in memory: output, exit codes, import and export.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::Output;

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

    async fn kv(&self, arguments: &[&str]) -> Output {
        self.node.kv(self.folder.path(), arguments).await
    }

    /// Runs `kv` and expects this exit code; returns what it printed.
    async fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.kv(arguments).await;
        let messages = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {messages}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join(name)).ok()
    }

    fn value(&self, key: &str) -> Option<String> {
        let kept = self.node.kept.lock().unwrap();
        let last = kept.keys.get(key.as_bytes())?.last()?;
        Some(String::from_utf8(last.value.to_vec()).unwrap())
    }

    /// A key with two siblings.
    async fn conflict(&self, key: &str) {
        self.expect(0, &["put", key, "1"]).await;
        self.expect(0, &["put", key, "2", "--context", ""]).await;
    }
}

#[tokio::test]
async fn what_is_put_is_got_and_an_absent_key_exits_with_three() {
    let bench = Bench::new().await;
    bench.expect(0, &["put", "k", "v"]).await;
    assert_eq!(bench.expect(0, &["get", "k", "--raw"]).await, "v");
    let got: Value = serde_json::from_str(&bench.expect(0, &["get", "k", "--json"]).await).unwrap();
    assert_eq!(got["siblings"][0]["value"], "v");
    assert_eq!(got["served_by"]["node"], "n1");
    bench.expect(0, &["delete", "k"]).await;
    bench.expect(3, &["get", "k"]).await;
}

#[tokio::test]
async fn a_conflict_exits_with_four_and_a_raw_get_prints_none_of_its_values() {
    let bench = Bench::new().await;
    bench.conflict("k").await;
    assert!(bench.expect(4, &["get", "k"]).await.contains("2 siblings"));
    assert_eq!(bench.expect(4, &["get", "k", "--raw"]).await, "");
    assert_eq!(bench.expect(0, &["conflicts", "--count"]).await, "1\n");
}

#[tokio::test]
async fn conflicts_are_resolved_by_a_command_or_by_a_choice() {
    let bench = Bench::new().await;
    for key in ["a", "b", "c", "d"] {
        bench.conflict(key).await;
    }
    bench
        .expect(0, &["resolve", "a", "--choose", "a.1:1"])
        .await;
    assert_eq!(bench.value("a").unwrap(), "1");
    bench
        .expect(2, &["resolve", "b", "--choose", "a.1:999"])
        .await;
    bench
        .expect(0, &["resolve", "--all", "--with", "echo merged"])
        .await;
    assert_eq!(bench.value("d").unwrap(), "merged");
    assert_eq!(bench.expect(0, &["conflicts", "--count"]).await, "0\n");
    bench.conflict("e").await;
    bench
        .expect(1, &["resolve", "--all", "--with", "exit 1"])
        .await;
    assert_eq!(bench.expect(0, &["conflicts", "--count"]).await, "1\n");
}

#[tokio::test]
async fn an_error_is_one_object_on_standard_error() {
    let bench = Bench::new().await;
    bench.node.kept.lock().unwrap().refused = b"k".to_vec();
    let output = bench.kv(&["put", "k", "v", "--json"]).await;
    assert_eq!(output.status.code(), Some(5));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["reason"], "NO_QUORUM");
    assert_eq!(error["error"]["effect"], "none");
    assert!(error["error"]["op_id"].is_string());
}

#[tokio::test]
async fn what_is_exported_can_be_imported_again_in_both_forms() {
    let bench = Bench::new().await;
    let records = "{\"key\":\"a\",\"value\":\"tab\\t line\\n\"}\n\
                   {\"key\":\"b\",\"value_base64\":\"/wA=\"}\n\
                   {\"key\":\"c\",\"value\":\"\"}\n";
    bench.write("in.jsonl", records);
    bench.expect(0, &["import", "in.jsonl"]).await;
    bench.expect(0, &["export", "out.jsonl"]).await;
    assert_eq!(bench.read("out.jsonl").unwrap(), records);

    bench.expect(0, &["export", "out.tsv"]).await;
    bench.node.kept.lock().unwrap().keys.clear();
    bench.expect(0, &["import", "out.tsv"]).await;
    assert_eq!(bench.expect(0, &["export", "-"]).await, records);
}

#[tokio::test]
async fn malformed_lines_are_told_and_the_others_imported() {
    let bench = Bench::new().await;
    let good = "{\"key\":\"k\",\"value\":\"v\"}\n";
    bench.write(
        "in.jsonl",
        format!("not json\n\n{good}{{\"key\":\"malformed\",\"value\":\"\"}}\n"),
    );
    let output = bench.kv(&["import", "in.jsonl"]).await;
    assert_eq!(output.status.code(), Some(1));
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(
        messages.contains("line 1:") && messages.contains("line 4:"),
        "{messages}"
    );
    assert_eq!(bench.value("k").unwrap(), "v");
    assert!(
        bench.read(".in.jsonl.kv-import").is_none(),
        "nothing is left to go on with"
    );
}

#[tokio::test]
async fn an_import_goes_on_at_the_first_record_that_could_not_be_stored() {
    let bench = Bench::new().await;
    let line = |n: u32| format!("key-{n}\tvalue\n");
    bench.write("in.tsv", (1..=500).map(line).collect::<String>());
    bench.node.kept.lock().unwrap().refused = b"key-300".to_vec();
    bench.expect(1, &["import", "in.tsv"]).await;
    let progress = bench.read(".in.tsv.kv-import").unwrap();
    let progress: Value = serde_json::from_str(&progress).unwrap();
    assert_eq!(progress["line"], 300);

    bench.node.kept.lock().unwrap().refused.clear();
    let report = bench.expect(0, &["import", "in.tsv", "--json"]).await;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["imported"], 201);
    assert_eq!(bench.value("key-300").unwrap(), "value");
    assert!(bench.read(".in.tsv.kv-import").is_none());
}

#[tokio::test]
async fn a_changed_file_is_imported_from_its_start() {
    let bench = Bench::new().await;
    bench.write("in.tsv", "a\t1\nb\t1\n");
    bench.node.kept.lock().unwrap().refused = b"b".to_vec();
    bench.expect(1, &["import", "in.tsv"]).await;
    bench.write("in.tsv", "a\t2\nb\t2\nc\t2\n");
    bench.node.kept.lock().unwrap().refused.clear();
    bench.expect(0, &["import", "in.tsv"]).await;
    assert_eq!(bench.value("a").unwrap(), "2");
}

#[tokio::test]
async fn an_import_stops_when_too_many_records_fail() {
    let bench = Bench::new().await;
    let lines = (0..500).map(|n| format!("bad line {n}\n"));
    bench.write("in.jsonl", lines.collect::<String>());
    let output = bench
        .kv(&["import", "in.jsonl", "--max-failures", "10"])
        .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(bench.read(".in.jsonl.kv-import").is_some());
}

#[tokio::test]
async fn the_last_of_many_records_of_one_key_wins() {
    let bench = Bench::new().await;
    let line = |n: u32| format!("k\t{n}\nother-{n}\tx\n");
    bench.write("in.tsv", (1..=200).map(line).collect::<String>());
    bench.expect(0, &["import", "in.tsv"]).await;
    assert_eq!(bench.value("k").unwrap(), "200");
}

/// What was printed, line by line, as JSON.
fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl Bench {
    /// Runs `kv txn` with this text on standard input and expects this exit code.
    async fn txn(&self, code: i32, flags: &[&str], text: &str) -> Output {
        let arguments = [&["txn"], flags].concat();
        let folder = self.folder.path();
        let output = self.node.kv_reading(folder, &arguments, text).await;
        let messages = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text:?}: {messages}");
        output
    }
}

#[tokio::test]
async fn a_transaction_sent_whole_does_the_list_that_its_comparisons_choose() {
    let bench = Bench::new().await;
    bench.expect(0, &["put", "a", "1"]).await;
    let text = r#"{"compare":[{"key":"a","value":"1"},{"key":"b","absent":true}],
        "then":[{"put":"a","value":"2"},{"get":"b"}],"else":[{"get":"a"}]}"#;
    bench.write("move.json", text);
    let done = bench.kv(&["txn", "move.json", "--json"]).await;
    let [done] = objects(&done).try_into().unwrap();
    assert_eq!(done["succeeded"], true);
    assert_eq!(done["results"][0]["key"], "a");
    assert!(done["results"][0]["receipt"]["dot"].is_string());
    assert_eq!(done["results"][1]["found"], false);
    assert!(done["op_id"].is_string());
    assert_eq!(bench.value("a").unwrap(), "2");

    let done = bench.txn(0, &["--json"], text).await;
    let [done] = objects(&done).try_into().unwrap();
    assert_eq!(done["succeeded"], false);
    assert_eq!(done["results"][0]["siblings"][0]["value"], "2");
}

#[tokio::test]
async fn a_comparison_that_does_not_hold_exits_with_four_when_nothing_else_is_asked() {
    let bench = Bench::new().await;
    let text = r#"{"compare":[{"key":"a","exists":true}],"then":[{"put":"a","value":"2"}]}"#;
    bench.txn(4, &["-"], text).await;
    assert!(bench.value("a").is_none());
}

#[tokio::test]
async fn a_script_commits_its_writes_as_one_and_prints_what_it_read() {
    let bench = Bench::new().await;
    bench.expect(0, &["put", "a", "1"]).await;
    let script = "# move\nget a\nput b 'from a'\ndelete a\nget a\nscan\ncommit\n";
    let done = bench.txn(0, &["--json"], script).await;
    let [before, after, scanned, committed] = objects(&done).try_into().unwrap();
    assert_eq!(before["siblings"][0]["value"], "1");
    assert_eq!(after["found"], false);
    assert_eq!(scanned["key"], "b");
    assert_eq!(committed["committed"], true);
    assert!(bench.value("a").is_none());
    assert_eq!(bench.value("b").unwrap(), "from a");
}

#[tokio::test]
async fn a_script_is_run_again_after_a_conflict_and_only_its_last_run_is_printed() {
    let bench = Bench::new().await;
    bench.expect(0, &["put", "a", "1"]).await;
    bench.node.kept.lock().unwrap().meanwhile = vec![("a", "2"), ("a", "3")];
    let done = bench.txn(0, &["--json"], "get a\nput b x\ncommit\n").await;
    let [read, committed] = objects(&done).try_into().unwrap();
    assert_eq!(read["siblings"][0]["value"], "3");
    assert_eq!(committed["attempts"], 3);
}

#[tokio::test]
async fn lines_carried_out_as_they_come_meet_a_conflict_and_exit_with_four() {
    let bench = Bench::new().await;
    bench.node.kept.lock().unwrap().meanwhile = vec![("a", "2")];
    let done = bench
        .txn(4, &["--interactive"], "get a\nput b x\ncommit\n")
        .await;
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "a: not found\n");
    assert!(bench.value("b").is_none());
    let again = bench
        .txn(0, &["--interactive"], "get a\nput b x\ncommit\n")
        .await;
    let printed = String::from_utf8(again.stdout).unwrap();
    assert!(printed.contains("ok   durable in a   1 shard"), "{printed}");
}

#[tokio::test]
async fn what_is_aborted_or_cut_off_is_not_written() {
    let bench = Bench::new().await;
    bench.txn(0, &[], "put a 1\nabort\n").await;
    bench.txn(2, &[], "put a 1\n").await;
    bench.txn(0, &["--interactive"], "put a 1\nabort\n").await;
    bench.txn(2, &["--interactive"], "put a 1\n").await;
    assert!(bench.value("a").is_none());
}

#[tokio::test]
async fn an_unknown_outcome_of_a_transaction_exits_with_six_and_names_its_op_id() {
    let bench = Bench::new().await;
    bench.node.kept.lock().unwrap().unknown = true;
    for text in [r#"{"then":[{"put":"a","value":"1"}]}"#, "put a 1\ncommit\n"] {
        let output = bench.txn(6, &["--json"], text).await;
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(error["error"]["op_id"].is_string());
    }
}

#[tokio::test]
async fn a_read_only_script_reads_from_a_view_and_closes_it() {
    let bench = Bench::new().await;
    bench.expect(0, &["put", "a", "1"]).await;
    for flags in [&["--read-only"][..], &["--read-only", "--interactive"]] {
        let done = bench.txn(0, flags, "get a\nscan a\n").await;
        let printed = String::from_utf8(done.stdout).unwrap();
        assert!(printed.ends_with("a\t1\n"), "{printed}");
        assert_eq!(bench.node.kept.lock().unwrap().views_open, 0);
        bench.txn(2, flags, "put a 2\n").await;
    }
    assert_eq!(bench.value("a").unwrap(), "1");
}

#[tokio::test]
async fn a_transaction_that_makes_no_sense_exits_with_two() {
    let bench = Bench::new().await;
    let many: Vec<_> = (0..129).map(|n| format!("put key-{n} v\n")).collect();
    let many = format!("{}commit\n", many.concat());
    for (flags, text) in [
        (&[][..], "frobnicate\ncommit\n"),
        (&[], "commit\nget a\n"),
        (&[], ""),
        (&[], r#"{"then":[{"put":"a"}]}"#),
        (&[], "{"),
        (&["--read-only"], r#"{"then":[{"get":"a"}]}"#),
        (
            &["--op-id", "1-00000000000000000000000000000001"],
            "get a\ncommit\n",
        ),
        (&[], many.as_str()),
    ] {
        bench.txn(2, flags, text).await;
    }
    bench.txn(0, &["--max-operations", "129"], &many).await;
    bench.expect(1, &["txn", "no-such-file"]).await;
}

#[tokio::test]
async fn a_write_may_be_bound_to_the_value_it_replaces() {
    let bench = Bench::new().await;
    bench.expect(0, &["put", "a", "1"]).await;
    bench.expect(0, &["put", "a", "2", "--if-value", "1"]).await;
    bench.expect(4, &["put", "a", "3", "--if-value", "1"]).await;
    bench.expect(4, &["delete", "a", "--if-value", "1"]).await;
    assert_eq!(bench.value("a").unwrap(), "2");
    bench.expect(0, &["delete", "a", "--if-value", "2"]).await;
    assert!(bench.value("a").is_none());
}

#[tokio::test]
async fn what_is_refused_exits_with_seven_and_what_makes_no_sense_with_two() {
    let bench = Bench::new().await;
    bench.expect(7, &["fault", "heal"]).await;
    bench.expect(2, &["fault", "block", "a", "nowhere"]).await;
    bench.expect(2, &["put", "k"]).await;
    bench.expect(2, &["get", "k", "--level", "newest"]).await;
    bench.expect(1, &["get", "k", "--zone", "nowhere"]).await;
}

#[tokio::test]
async fn a_keyspace_is_created_with_a_default_read_level_and_shown_with_it() {
    let bench = Bench::new().await;
    for level in ["session", "bounded:500ms", "eventual", "zones:2"] {
        let flags = ["keyspace", "create", "k", "--read-level", level];
        let created = bench.expect(0, &flags).await;
        assert!(
            created.contains(&format!("--read-level {level}")),
            "{created}"
        );
        let listed = bench.expect(0, &["--json", "keyspace", "list"]).await;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["read_level"], level);
    }
    bench.expect(0, &["keyspace", "create", "k"]).await;
    let shown = bench.expect(0, &["--json", "keyspace", "show", "k"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["read_level"], "linearizable");
    let newest = ["keyspace", "create", "k", "--read-level", "newest"];
    bench.expect(2, &newest).await;
    let both = [
        "keyspace",
        "alter",
        "k",
        "--cancel",
        "--read-level",
        "session",
    ];
    bench.expect(2, &both).await;
}
