//! What happens with time: one pass over everything, every tick.

use rand::Rng;

use crate::admission::Around;
use crate::catalog::Catalog;
use crate::config::CoreConfig;
use crate::control::{self, ControlCommand, ControlOp};
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, ReplicaId, RequestId};
use crate::output::{Notice, Outputs};
use crate::time::Now;

/// Ticket of commands nobody waits for.
const NOBODY: RequestId = RequestId(0);

impl Core {
    pub(crate) fn tick(&mut self, now: Now, out: &mut Outputs) {
        self.tick_acks(now, out);
        for waiter in self.waiting.expired(now) {
            let unseen = self.unseen(now, &waiter);
            self.conclude(now, waiter, Err(unseen), out);
        }
        self.tick_away();
        self.tick_coordinations(now, out);
        self.tick_views(now);
        self.tick_blocked();
        self.tick_levels(now, out);
        if let Some(admission) = &mut self.admission {
            let mut around = Around {
                config: &self.config,
                catalog: &self.catalog,
                out,
            };
            admission.tick(now, &mut around);
        }
        self.join_cluster(now, out);
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.tick_group(now, id, out);
        }
        self.close_idle_images(now);
        self.tick_mirrors(now, out);
        self.lead_control(out);
    }

    /// Where a forwarded request was not answered, another node is asked next.
    fn tick_away(&mut self) {
        let silent = self.away.iter();
        let silent: Vec<(RequestId, GroupId)> = silent
            .filter(|(id, _)| self.waiting.get(**id).is_none())
            .map(|(id, group)| (*id, *group))
            .collect();
        for (id, group) in silent {
            self.away.remove(&id);
            self.learn_leader(group, None, &Error::NoQuorum);
        }
    }

    fn tick_group(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let (voters, learners) = wanted_members(&self.catalog, id);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.tick(&mut self.rng);
        if !voters.is_empty() {
            group.reconcile_members(&voters, &learners);
        }
        group.tend_acks();
        group.seek_place();
        group.request_image();
        out.messages.extend(group.ask_page(now));
        self.after_raft(id, out);
        self.with_exchange(now, id, out, Group::exchange_tick);
        self.seek_incarnation(now, id, out);
        self.tick_alter(now, id, out);
        self.tick_recovery(now, id, out);
        self.tend(now, id, out);
    }

    /// What the leader of the control group does of its own accord: found the cluster, register stores.
    fn lead_control(&mut self, out: &mut Outputs) {
        let Some(group) = self.groups.get(&GroupId::CONTROL) else {
            return;
        };
        if !group.established() || group.has_work() {
            return;
        }
        let Some(admission) = &self.admission else {
            return;
        };
        let mut ops = Vec::new();
        if self.catalog.revision == 0 {
            let (shards, policy) = (
                self.config.default_shards,
                self.config.default_policy.clone(),
            );
            let rng = &mut self.rng;
            let founded = control::found(
                &self.config.seed,
                (shards, policy),
                rng.random(),
                rng.random(),
                rng.random(),
            );
            match founded {
                Ok(catalog) => ops.push(ControlOp::Found(Box::new(catalog))),
                Err(error) => out.notices.push(Notice::Damaged {
                    detail: format!("the keyspace default cannot be: {error}"),
                }),
            }
        } else {
            for (node, store, wiped) in admission.unregistered(&self.config, &self.catalog) {
                ops.push(ControlOp::Admit {
                    node,
                    store,
                    wiped,
                    nonce: self.rng.random(),
                });
            }
        }
        let overdue = self.overdue_sealing().into_iter();
        ops.extend(overdue.map(|(keyspace, round)| ControlOp::GiveUpSealing { keyspace, round }));
        for op in ops {
            let waiter = self.proposer(NOBODY);
            self.queue(GroupId::CONTROL, |group| {
                group.enqueue_control(ControlCommand { waiter, op });
            });
        }
    }

    /// Says once in what the cluster file differs from the catalog.
    pub(crate) fn check_seed(&mut self, out: &mut Outputs) {
        if self.seed_checked || self.catalog.revision == 0 {
            return;
        }
        self.seed_checked = true;
        let differences = seed_differences(&self.config, &self.catalog);
        out.notices.extend(
            differences
                .into_iter()
                .map(|difference| Notice::SeedDiffers { difference }),
        );
    }
}

/// The replicas a group should have: voters, learners.
fn wanted_members(catalog: &Catalog, id: GroupId) -> (Vec<ReplicaId>, Vec<ReplicaId>) {
    if id != GroupId::CONTROL {
        let record = catalog
            .group_of(id.keyspace, id.shard, id.zone)
            .filter(|record| record.id == id);
        return (
            record
                .map(|record| record.voters.clone())
                .unwrap_or_default(),
            Vec::new(),
        );
    }
    let voters = catalog.control_voters.clone();
    let all = catalog
        .nodes
        .iter()
        .map(|(node, record)| ReplicaId::new(*node, record.generation));
    let learners = all.filter(|replica| !voters.contains(replica)).collect();
    (voters, learners)
}

fn seed_differences(config: &CoreConfig, catalog: &Catalog) -> Vec<String> {
    let mut differences = Vec::new();
    for node in &config.seed.nodes {
        match catalog.nodes.get(&node.id) {
            None => differences.push(format!(
                "node {} ({}) stands only in the cluster file",
                node.name, node.id
            )),
            Some(record) => {
                if record.name != node.name {
                    differences.push(format!(
                        "node {} is named {:?} there, {:?} here",
                        node.id, record.name, node.name
                    ));
                }
                if record.zone != node.zone {
                    differences.push(format!("node {} is in another zone there", node.name));
                }
                if record.addr != node.addr || record.peer_addr != node.peer_addr {
                    differences.push(format!("node {} has other addresses there", node.name));
                }
            }
        }
    }
    for (id, record) in &catalog.nodes {
        if !config.seed.nodes.iter().any(|node| node.id == *id) {
            differences.push(format!(
                "node {} ({id}) is missing from the cluster file",
                record.name
            ));
        }
    }
    for zone in &config.seed.zones {
        if catalog.zones.get(&zone.id) != Some(&zone.name) {
            differences.push(format!(
                "zone {:?} is another one or missing there",
                zone.name
            ));
        }
    }
    differences
}
