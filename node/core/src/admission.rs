//! Admission: may this node found the cluster, or was its store wiped?
//!
//! A node that returns with an empty store under its old replica id could vote a second time in a term, and an entry
//! that was acknowledged be lost (protocol rule 6). So an empty store asks before it takes part:
//!
//! 1. It draws a random identity, stores it, and says hello to all nodes of the cluster file.
//! 2. A node that hears an identity stores the first one it ever heard per node, then answers with it.
//! 3. Where a majority of the other nodes answer with the asker's own identity, and none with another, it founds: it was
//!    never here before, since a former self had its identity stored by such a majority too, and two majorities share a
//!    node.
//! 4. Where any answers with another identity, the store was wiped. The node asks the control group, which gives it a
//!    new generation, hence new replica ids, and places it anew.
//!
//! Members go on saying hello until the catalog holds their identity.
//!
//! What it is not: membership. Which groups a node is in follows from the catalog.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_storage::Read;
use rand::Rng;
use rand::rngs::StdRng;

use crate::catalog::Catalog;
use crate::config::CoreConfig;
use crate::error::{Error, OpenError};
use crate::ids::{Generation, NodeId, ReplicaId};
use crate::keys::{NodeIdentity, NodeIdentityKey, PeerStoreKey};
use crate::message::{Admission as Message, PeerMessage, Standing};
use crate::output::{Notice, Outputs};
use crate::time::Now;
use crate::workspace::Workspace;

/// Time between two rounds of hello.
const HELLO_MS: u64 = 500;

/// What admission needs of the core around it.
pub(crate) struct Around<'a> {
    pub(crate) config: &'a CoreConfig,
    pub(crate) catalog: &'a Catalog,
    pub(crate) out: &'a mut Outputs,
}

/// See the module.
pub(crate) struct Admission {
    identity: NodeIdentity,
    /// The identity is on disk.
    written: bool,
    wiped: bool,
    answers: BTreeMap<NodeId, u128>,
    hello_due_ns: u64,
    /// First identity heard per node.
    stores: BTreeMap<NodeId, u128>,
    /// Newest hello per node, for the control leader.
    heard: BTreeMap<NodeId, (u128, Standing)>,
    /// Writes and the answers that wait for them.
    unwritten: Vec<(Vec<u8>, Bytes)>,
    answers_held: Vec<(NodeId, PeerMessage)>,
}

impl Admission {
    /// Reads what the store knows of itself; an empty one gets an identity.
    ///
    /// # Errors
    /// A store of another cluster or node, or one that does not read.
    pub(crate) fn open(
        read: &dyn Read,
        config: &CoreConfig,
        rng: &mut StdRng,
    ) -> Result<Self, OpenError> {
        let key = NodeIdentityKey::encode();
        let stored = read.get(&key).map_err(Error::from)?;
        let stored = stored
            .map(|bytes| NodeIdentityKey::decode_record(&key, &bytes))
            .transpose()?;
        if let Some(found) = stored
            .as_ref()
            .filter(|found| (&found.cluster, found.node) != (&config.seed.cluster, config.node))
        {
            return Err(OpenError::ForeignStore {
                cluster: found.cluster.clone(),
                node: found.node,
                wanted_cluster: config.seed.cluster.clone(),
                wanted_node: config.node,
            });
        }
        let fresh = NodeIdentity {
            cluster: config.seed.cluster.clone(),
            node: config.node,
            store: rng.random(),
            admitted: None,
        };
        let mut admission = Self {
            written: stored.is_some(),
            identity: stored.unwrap_or(fresh),
            wiped: false,
            answers: BTreeMap::new(),
            hello_due_ns: 0,
            stores: load_stores(read)?,
            heard: BTreeMap::new(),
            unwritten: Vec::new(),
            answers_held: Vec::new(),
        };
        if !admission.written {
            admission.store_identity();
        }
        Ok(admission)
    }

    /// The replica this node is, once it is a member.
    pub(crate) fn replica(&self, node: NodeId) -> Option<ReplicaId> {
        let generation = self.identity.admitted.filter(|_| self.written)?;
        Some(ReplicaId::new(node, generation))
    }

    fn store_identity(&mut self) {
        self.written = false;
        self.unwritten.push((
            NodeIdentityKey::encode(),
            NodeIdentityKey::encode_record(&self.identity),
        ));
    }

    /// Something waits to be written.
    pub(crate) fn has_writes(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Puts what must be on disk into the turn's writes; the turn must be synced.
    pub(crate) fn collect(&mut self, work: &mut Workspace<'_>) {
        for (key, value) in self.unwritten.drain(..) {
            work.put(key, value);
        }
    }

    /// The turn is on disk.
    pub(crate) fn settle(&mut self, out: &mut Outputs) {
        self.written = true;
        out.messages.append(&mut self.answers_held);
    }

    /// Says hello where it is due.
    pub(crate) fn tick(&mut self, now: Now, around: &mut Around<'_>) {
        self.found_if_unknown(around);
        let registered = around
            .catalog
            .nodes
            .get(&around.config.node)
            .is_some_and(|record| record.store == Some(self.identity.store));
        if !self.written || registered || now.mono_ns < self.hello_due_ns {
            return;
        }
        self.hello_due_ns = now.after_ms(HELLO_MS);
        let standing = match (self.identity.admitted, self.wiped) {
            (Some(_), _) => Standing::Member,
            (None, true) => Standing::Wiped,
            (None, false) => Standing::Asking,
        };
        let hello = Message::Hello {
            cluster: around.config.seed.cluster.clone(),
            store: self.identity.store,
            standing,
        };
        for node in around
            .config
            .seed
            .nodes
            .iter()
            .filter(|node| node.id != around.config.node)
        {
            around
                .out
                .messages
                .push((node.id, PeerMessage::Admission(hello.clone())));
        }
    }

    /// A node of the cluster speaks.
    pub(crate) fn receive(&mut self, from: NodeId, message: Message, around: &mut Around<'_>) {
        match message {
            Message::Hello {
                cluster,
                store,
                standing,
            } => {
                let known = around.config.seed.nodes.iter().any(|node| node.id == from);
                if known && cluster == around.config.seed.cluster && self.written {
                    self.heard.insert(from, (store, standing));
                    self.answer(from, store, around);
                }
            }
            Message::Known {
                store,
                on_record,
                admitted,
            } => {
                if store == self.identity.store && self.identity.admitted.is_none() {
                    self.learn(from, on_record, admitted, around);
                }
            }
        }
    }

    fn answer(&mut self, from: NodeId, store: u128, around: &mut Around<'_>) {
        let record = around
            .catalog
            .nodes
            .get(&from)
            .filter(|record| record.store == Some(store));
        let admitted = record.map(|record| record.generation);
        let new = !self.stores.contains_key(&from);
        let on_record = *self.stores.entry(from).or_insert(store);
        let answer = (
            from,
            PeerMessage::Admission(Message::Known {
                store,
                on_record,
                admitted,
            }),
        );
        if new {
            self.unwritten.push((
                PeerStoreKey::encode(from),
                PeerStoreKey::encode_record(store),
            ));
        }
        if self.has_writes() {
            self.answers_held.push(answer);
        } else {
            around.out.messages.push(answer);
        }
    }

    fn learn(
        &mut self,
        from: NodeId,
        on_record: u128,
        admitted: Option<Generation>,
        around: &mut Around<'_>,
    ) {
        self.answers.insert(from, on_record);
        if on_record != self.identity.store && !self.wiped {
            self.wiped = true;
            self.hello_due_ns = 0;
            around.out.notices.push(Notice::Wiped);
        }
        match admitted {
            Some(generation) if self.wiped && generation > 0 => {
                self.become_member(generation, around.out);
            }
            Some(_) | None => self.found_if_unknown(around),
        }
    }

    /// Founds when a majority of the other nodes never heard of another store of this node.
    fn found_if_unknown(&mut self, around: &mut Around<'_>) {
        let others = around
            .config
            .seed
            .nodes
            .iter()
            .filter(|node| node.id != around.config.node)
            .count();
        let majority = if others == 0 {
            0
        } else {
            (others / 2).saturating_add(1)
        };
        let member = self.identity.admitted.is_some();
        if self.written && !member && !self.wiped && self.answers.len() >= majority {
            self.become_member(0, around.out);
        }
    }

    fn become_member(&mut self, generation: Generation, out: &mut Outputs) {
        self.identity.admitted = Some(generation);
        self.hello_due_ns = 0;
        self.store_identity();
        out.notices.push(Notice::Admitted);
    }

    /// For the control leader: the nodes whose store the catalog should take over, and whether they were wiped.
    pub(crate) fn unregistered(
        &self,
        config: &CoreConfig,
        catalog: &Catalog,
    ) -> Vec<(NodeId, u128, bool)> {
        let own = self
            .identity
            .admitted
            .map(|_| (config.node, (self.identity.store, Standing::Member)));
        let heard = self
            .heard
            .iter()
            .map(|(node, said)| (*node, *said))
            .chain(own);
        heard
            .filter(|(node, (store, standing))| {
                let record = catalog.nodes.get(node);
                record.is_some_and(|record| match standing {
                    Standing::Asking => false,
                    Standing::Wiped => record.store != Some(*store),
                    Standing::Member => record.store.is_none(),
                })
            })
            .map(|(node, (store, standing))| (node, store, standing == Standing::Wiped))
            .collect()
    }
}

fn load_stores(read: &dyn Read) -> Result<BTreeMap<NodeId, u128>, Error> {
    let (from, to) = PeerStoreKey::range();
    let mut found = Ok(BTreeMap::new());
    read.scan(&from, &to, &mut |key, value| {
        let record = PeerStoreKey::node(key)
            .and_then(|node| Ok((node, PeerStoreKey::decode_record(key, value)?)));
        match (record, &mut found) {
            (Ok((node, store)), Ok(stores)) => {
                stores.insert(node, store);
                ControlFlow::Continue(())
            }
            (Err(error), _) => {
                found = Err(error);
                ControlFlow::Break(())
            }
            (Ok(_), Err(_)) => ControlFlow::Break(()),
        }
    })
    .map_err(Error::from)?;
    found
}
