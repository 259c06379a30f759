//! Real processes on a loopback network of their own: 127.x.y.0/24, proven free by binding before anything starts.
//!
//! Nothing here sleeps for an effect: what is expected is asked for again until it is there or a generous bound passes.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use meridian_proto::admin::v1::admin_client::AdminClient;
use meridian_proto::kv::v1 as kv;
use meridian_proto::kv::v1::kv_client::KvClient;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::Channel;

/// How long anything may take before a test gives up: machines of CI are slow.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A node of the test.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ip: String,
    pub(crate) data: PathBuf,
    child: Option<Child>,
    ready: Option<Receiver<String>>,
    log: Option<Receiver<String>>,
}

/// A cluster of the test; every process ends with it.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) nodes: Vec<Node>,
    pub(crate) flags: Vec<&'static str>,
}

impl Cluster {
    /// Writes the files of a cluster with so many nodes in each zone `a`, `b`, …; starts nothing.
    pub(crate) fn prepare(zones: &[usize], flags: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let count = zones.iter().sum();
        let net = free_net(count);
        let mut file = String::from("cluster = \"test\"\n");
        let mut nodes = Vec::new();
        for (zone, count) in ('a'..).zip(zones) {
            writeln!(file, "[[zone]]\nname = \"{zone}\"").unwrap();
            for _ in 0..*count {
                let id = nodes.len() + 1;
                let ip = format!("{net}.{id}");
                writeln!(file,
                    "[[node]]\nname = \"n{id}\"\nid = {id}\nzone = \"{zone}\"\naddr = \"{ip}:7400\"\n\
                     peer_addr = \"{ip}:7401\"\nmetrics_addr = \"{ip}:7402\""
).unwrap();
                let data = folder.path().join(format!("n{id}"));
                nodes.push(Node {
                    name: format!("n{id}"),
                    ip,
                    data,
                    child: None,
                    ready: None,
                    log: None,
                });
            }
        }
        std::fs::write(folder.path().join("cluster.toml"), file).unwrap();
        std::fs::write(folder.path().join("node.toml"), NODE_CONFIG).unwrap();
        Self {
            folder,
            nodes,
            flags: flags.to_vec(),
        }
    }

    /// The same, started, and ready.
    pub(crate) fn start(zones: &[usize], flags: &[&'static str]) -> Self {
        let mut cluster = Self::prepare(zones, flags);
        for index in 0..cluster.nodes.len() {
            cluster.spawn(index);
        }
        for index in 0..cluster.nodes.len() {
            cluster.wait_ready(index);
        }
        cluster
    }

    /// The command that would run node `index`.
    pub(crate) fn command(&self, index: usize) -> Command {
        let node = &self.nodes[index];
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv-node"));
        command
            .arg("--config")
            .arg(self.folder.path().join("node.toml"))
            .arg("--cluster")
            .arg(self.folder.path().join("cluster.toml"))
            .args(["--node", &node.name, "--core-threads", "2"])
            .arg("--data")
            .arg(&node.data)
            .args(&self.flags)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&mut self, index: usize) {
        let mut child = self.command(index).spawn().unwrap();
        let node = &mut self.nodes[index];
        node.ready = Some(lines(child.stdout.take().unwrap()));
        node.log = Some(lines(child.stderr.take().unwrap()));
        node.child = Some(child);
    }

    pub(crate) fn wait_ready(&mut self, index: usize) {
        let node = &self.nodes[index];
        let line = node.ready.as_ref().unwrap().recv_timeout(PATIENCE);
        let Ok(line) = line else {
            panic!("{} is not ready; its log:\n{}", node.name, self.log(index));
        };
        assert!(
            line.starts_with("READY zone=") && line.contains(&node.ip),
            "{line}"
        );
    }

    /// What the node has logged since the last look.
    pub(crate) fn log(&self, index: usize) -> String {
        let log = self.nodes[index].log.as_ref().unwrap();
        log.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// As if the machine lost power, but for the page cache.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut child = self.nodes[index].child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The node's disk is gone.
    pub(crate) fn wipe(&self, index: usize) {
        std::fs::remove_dir_all(&self.nodes[index].data).unwrap();
    }

    /// Asks the node to stop, and waits for its end.
    pub(crate) fn terminate(&mut self, index: usize) -> ExitStatus {
        let mut child = self.nodes[index].child.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        child.wait().unwrap()
    }

    pub(crate) async fn kv(&self, index: usize) -> KvClient<Channel> {
        let address = format!("http://{}:7400", self.nodes[index].ip);
        KvClient::connect(address)
            .await
            .unwrap()
            .max_decoding_message_size(16 << 20)
    }

    pub(crate) async fn admin(&self, index: usize) -> AdminClient<Channel> {
        AdminClient::connect(format!("http://{}:7400", self.nodes[index].ip))
            .await
            .unwrap()
    }

    pub(crate) async fn put(
        &self,
        index: usize,
        key: &str,
        value: &str,
    ) -> Result<kv::WriteResponse, tonic::Status> {
        let put = kv::Put {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..kv::Put::default()
        };
        let request = kv::PutRequest {
            keyspace: String::new(),
            put: Some(put),
        };
        self.kv(index)
            .await
            .put(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// The values of a key, sorted.
    pub(crate) async fn get(&self, index: usize, key: &str) -> Result<Vec<String>, tonic::Status> {
        self.get_at(index, key, kv::read_level::Kind::Linearizable)
            .await
    }

    async fn get_at(
        &self,
        index: usize,
        key: &str,
        kind: kv::read_level::Kind,
    ) -> Result<Vec<String>, tonic::Status> {
        let level = Some(kv::ReadLevel {
            kind: i32::from(kind),
            ..kv::ReadLevel::default()
        });
        let get = kv::Get {
            key: key.to_owned().into(),
            level,
            ..kv::Get::default()
        };
        let request = kv::GetRequest {
            keyspace: String::new(),
            get: Some(get),
        };
        let response = self.kv(index).await.get(request).await?.into_inner();
        let text = |sibling: &kv::Sibling| String::from_utf8(sibling.value.to_vec()).unwrap();
        let mut values: Vec<String> = response.siblings.iter().map(text).collect();
        values.sort();
        Ok(values)
    }

    /// Asks until the node's own replica holds these values.
    pub(crate) async fn expect_held(&self, index: usize, key: &str, values: &[&str]) {
        let held = eventually(async || {
            match self
                .get_at(index, key, kv::read_level::Kind::Eventual)
                .await
            {
                Ok(found) if found == values => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        held.await
            .unwrap_or_else(|last| panic!("{key} held by n{}: {last}, not {values:?}", index + 1));
    }

    /// Asks until the key has these values at every node given.
    pub(crate) async fn expect(&self, nodes: &[usize], key: &str, values: &[&str]) {
        for index in nodes {
            let seen = eventually(async || match self.get(*index, key).await {
                Ok(found) if found == values => Ok(()),
                other => Err(format!("{other:?}")),
            });
            seen.await
                .unwrap_or_else(|last| panic!("{key} at n{}: {last}, not {values:?}", index + 1));
        }
    }

    /// Writes until the write is acknowledged; a retry carries the same op id.
    pub(crate) async fn put_until_acknowledged(&self, index: usize, key: &str, value: &str) {
        let op_id = kv::OpId {
            stamp_ms: self.stamp(index).await,
            id: blake3::hash(key.as_bytes()).as_bytes()[..16]
                .to_vec()
                .into(),
        };
        let put = kv::Put {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            op_id: Some(op_id),
            ..kv::Put::default()
        };
        let written = eventually(async || {
            let request = kv::PutRequest {
                keyspace: String::new(),
                put: Some(put.clone()),
            };
            self.kv(index)
                .await
                .put(request)
                .await
                .map_err(|status| status.to_string())
        });
        written
            .await
            .unwrap_or_else(|last| panic!("{key} at n{}: {last}", index + 1));
    }

    pub(crate) async fn stamp(&self, index: usize) -> u64 {
        self.kv(index)
            .await
            .hello(kv::HelloRequest {})
            .await
            .unwrap()
            .into_inner()
            .stamp_ms
    }

    /// No node has panicked so far, as far as its log tells.
    pub(crate) fn expect_no_panic(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let log = self.log(index);
            assert!(!log.contains("panicked"), "{} panicked:\n{log}", node.name);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

/// Small stores, so that many nodes fit one machine.
const NODE_CONFIG: &str = "[store]\nblock_cache_bytes = 8388608\nwrite_buffer_bytes = 4194304\n";

/// Asks again until the answer is `Ok`, or gives the last error.
pub(crate) async fn eventually<T, E>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Runs a command to its end; its exit code and what it said on standard error.
pub(crate) fn run_to_end(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    (child.wait().unwrap().code(), said)
}

/// Reads lines on a thread, so that the pipe never fills.
fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The first three bytes of a network nobody uses: every address it needs could be bound.
fn free_net(nodes: usize) -> String {
    for _ in 0..200 {
        let [x, y, ..] = getrandom::u32().unwrap().to_be_bytes();
        let net = format!("127.{}.{y}", x.max(2));
        let all =
            (1..=nodes).flat_map(|id| [7400, 7401, 7402].map(|port| format!("{net}.{id}:{port}")));
        let bound: Result<Vec<_>, _> = all.map(TcpListener::bind).collect();
        if bound.is_ok() {
            return net;
        }
    }
    panic!("no free loopback network");
}
