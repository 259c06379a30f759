//! One zone of three nodes, as real processes.

use crate::cluster::Cluster;

#[tokio::test]
async fn any_node_takes_any_request_and_the_zone_goes_on_without_any_one_of_them() {
    let mut cluster = Cluster::start(&[3], &[]);
    for node in 0..3 {
        cluster
            .put_until_acknowledged(node, &format!("k{node}"), "1")
            .await;
    }
    for node in 0..3 {
        cluster
            .expect(&[0, 1, 2], &format!("k{node}"), &["1"])
            .await;
    }
    for lost in 0..3 {
        cluster.kill(lost);
        let others: Vec<usize> = (0..3).filter(|node| *node != lost).collect();
        for key in 0..8 {
            cluster
                .put_until_acknowledged(others[0], &format!("lost{lost}-{key}"), "2")
                .await;
            cluster
                .expect(&others, &format!("lost{lost}-{key}"), &["2"])
                .await;
        }
        cluster.spawn(lost);
        cluster.wait_ready(lost);
        cluster
            .expect(&[lost], &format!("lost{lost}-0"), &["2"])
            .await;
    }
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_node_that_lost_its_disk_comes_back_and_holds_everything_again() {
    let mut cluster = Cluster::start(&[3], &[]);
    for key in 0..8 {
        cluster
            .put_until_acknowledged(0, &format!("k{key}"), "1")
            .await;
    }
    cluster.kill(2);
    cluster.wipe(2);
    cluster.put_until_acknowledged(0, "while-away", "1").await;
    cluster.spawn(2);
    cluster.wait_ready(2);
    let keys = (0..8)
        .map(|key| format!("k{key}"))
        .chain(["while-away".to_owned()]);
    for key in keys {
        cluster.expect_held(2, &key, &["1"]).await;
    }
    cluster.put_until_acknowledged(2, "after", "2").await;
    cluster.expect(&[0, 1, 2], "after", &["2"]).await;
    cluster.expect_no_panic();
}
