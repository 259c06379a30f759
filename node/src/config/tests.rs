use std::path::{Path, PathBuf};

use meridian_causal::ZoneId;

use super::*;

const CLUSTER: &str = r#"
cluster = "demo"
[[zone]]
name = "us-east"
[[zone]]
name = "eu-west"
[[node]]
name = "n1"
id = 1
zone = "us-east"
addr = "127.77.1.1:7400"
peer_addr = "127.77.1.1:7401"
metrics_addr = "127.77.1.1:7402"
[[node]]
name = "n2"
id = 2
zone = "eu-west"
addr = "127.77.1.2:7400"
peer_addr = "127.77.1.2:7401"
"#;

fn parse(text: &str) -> Result<Cluster, ConfigError> {
    Cluster::parse(text, Path::new("cluster.toml"))
}

/// The cluster file with one text replaced is refused with a message that holds `expected`.
fn refused(from: &str, to: &str, expected: &str) {
    let message = parse(&CLUSTER.replacen(from, to, 1))
        .unwrap_err()
        .to_string();
    assert!(message.contains(expected), "{message}");
}

fn load(
    cluster: &str,
    config: &str,
    change: impl FnOnce(&mut Args),
) -> Result<NodeConfig, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cluster.toml"), cluster).unwrap();
    std::fs::write(folder.path().join("node.toml"), config).unwrap();
    let mut args = Args {
        config: Some(folder.path().join("node.toml")),
        ..Args::default()
    };
    change(&mut args);
    NodeConfig::load(&args)
}

const CONFIG: &str = "cluster = 'cluster.toml'\nnode = 'n2'\ndata = 'data'\n";

#[test]
fn a_zone_id_is_its_position_in_the_file() {
    let cluster = parse(CLUSTER).unwrap();
    assert_eq!(cluster.node_named("n2").unwrap().zone, ZoneId(2));
    assert_eq!(cluster.zone_name(ZoneId(1)), "us-east");
}

#[test]
fn a_file_alone_configures_a_node() {
    let config = load(CLUSTER, CONFIG, |_| ()).unwrap();
    assert_eq!(config.node.name, "n2");
    assert_eq!(config.listen.to_string(), "127.77.1.2:7400");
    assert_eq!(config.listen_metrics, None);
    assert!(
        config.data.is_absolute(),
        "relative to the configuration file"
    );
    assert!(!config.fault_injection && !config.exposed);
    assert_eq!(config.default_shards, 8);
}

#[test]
fn flags_win_over_the_file() {
    let config = load(CLUSTER, CONFIG, |args| {
        args.node = Some("n1".into());
        args.data = Some(PathBuf::from("/elsewhere"));
        args.core_threads = Some(3);
    })
    .unwrap();
    assert_eq!((config.node.name.as_str(), config.core_threads), ("n1", 3));
    assert_eq!(config.data, PathBuf::from("/elsewhere"));
    assert_eq!(config.listen_metrics.unwrap().port(), 7402);
}

#[test]
fn what_is_missing_is_named_with_its_flag() {
    let message = NodeConfig::load(&Args::default()).unwrap_err().to_string();
    assert!(
        message.contains("cluster file") && message.contains("--cluster"),
        "{message}"
    );
    let message = load(CLUSTER, "cluster = 'cluster.toml'\nnode = 'n1'", |_| ())
        .unwrap_err()
        .to_string();
    assert!(message.contains("--data"), "{message}");
    let message = load(CLUSTER, "cluster = 'cluster.toml'\ndata = 'd'", |_| ())
        .unwrap_err()
        .to_string();
    assert!(message.contains("--node"), "{message}");
}

#[test]
fn a_node_that_is_not_listed_is_refused_with_those_that_are() {
    let message = load(CLUSTER, CONFIG, |args| args.node = Some("n9".into()))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("n9") && message.contains("n1, n2"),
        "{message}"
    );
}

#[test]
fn an_address_others_can_reach_needs_insecure() {
    let cluster = CLUSTER.replace("127.77.1.2:7401", "0.0.0.0:7401");
    let message = load(&cluster, CONFIG, |_| ()).unwrap_err().to_string();
    assert!(message.contains("--insecure"), "{message}");
    assert!(
        load(&cluster, CONFIG, |args| args.insecure = true)
            .unwrap()
            .exposed
    );
}

#[test]
fn files_that_make_no_sense_are_refused() {
    refused(
        "name = \"eu-west\"",
        "name = \"us-east\"",
        "zone us-east appears more than once",
    );
    refused("id = 2", "id = 1", "node id 1 appears more than once");
    refused("id = 2", "id = 0", "node.id is 0");
    refused("id = 2", "id = 4294967296", "4294967295");
    refused(
        "name = \"n2\"",
        "name = \"n1\"",
        "node n1 appears more than once",
    );
    refused("name = \"n2\"", "name = \"n 2\"", "letters, digits");
    refused("zone = \"eu-west\"", "zone = \"mars\"", "zone mars");
    refused("127.77.1.2:7400", "127.77.1.2", "has no port");
    refused("127.77.1.2:7400", "127.77.1.2:http", "port is not a number");
    refused(
        "127.77.1.2:7400",
        "127.77.1.1:7400",
        "address 127.77.1.1:7400 appears more than once",
    );
    refused("cluster = \"demo\"", "cluster = \"\"", "cluster \"\"");
    refused(
        "peer_addr = \"127.77.1.2:7401\"",
        "",
        "missing field `peer_addr`",
    );
    refused("id = 2", "id = 2\nrack = 5", "unknown field `rack`");
    assert!(
        parse("cluster = 'x'")
            .unwrap_err()
            .to_string()
            .contains("no zone")
    );
    assert!(
        parse("cluster = 'x'\n[[zone]]\nname = 'a'")
            .unwrap_err()
            .to_string()
            .contains("no node")
    );
}

#[test]
fn numbers_out_of_range_and_unknown_fields_are_refused() {
    for (line, expected) in [
        ("core_threads = 0", "core_threads is 0, allowed is 1 to 256"),
        ("default_shards = 0", "default_shards is 0"),
        ("drain_ms = 999999999", "drain_ms"),
        ("speed = 'high'", "unknown field `speed`"),
        ("[timing]\ntick_ms = 0", "timing.tick_ms is 0"),
        (
            "[timing]\nelection_ticks = 2",
            "timing.election_ticks is 2, allowed is 6",
        ),
        ("[bounds]\nlog_bytes_max = 10", "bounds.log_bytes_max is 10"),
        ("[timing]\nticks = 1", "unknown field `ticks`"),
    ] {
        let message = load(CLUSTER, &format!("{CONFIG}{line}\n"), |_| ())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn the_documented_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let args = Args {
        config: Some(folder.join("node.toml")),
        ..Args::default()
    };
    let config = NodeConfig::load(&args).unwrap();
    assert_eq!(config.cluster.nodes.len(), 3);
}
