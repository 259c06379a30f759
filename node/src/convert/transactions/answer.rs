//! What became of a transaction, in the words of the contract.

use bytes::Bytes;
use meridian_causal::Dot;
use meridian_core::request::ReadLevel;
use meridian_core::transaction::{ActionResult, Transacted};
use meridian_proto::kv::v1 as kv;

use super::super::answers::Served;
use super::super::failure::op_id_to_wire;
use super::super::operations::Scope;
use super::ActionKeys;

impl Scope<'_> {
    /// The answer to a transaction whose actions had `keys`.
    pub(crate) fn transact_response(
        &self,
        transacted: &Transacted,
        keys: &ActionKeys,
        served: Served,
    ) -> kv::TransactResponse {
        let keys = if transacted.succeeded {
            &keys.then
        } else {
            &keys.otherwise
        };
        let results = keys.iter().zip(&transacted.results);
        kv::TransactResponse {
            succeeded: transacted.succeeded,
            results: results
                .map(|(key, result)| self.action_result(key, result, transacted))
                .collect(),
            parts: u32::from(transacted.parts),
            mode: self.keyspace.policy.mode.name().to_owned(),
            zones: self.zone_names(&transacted.zones),
            degraded: transacted.degraded,
            op_id: Some(op_id_to_wire(transacted.op_id)),
            repeated: transacted.repeated,
            served_by: served.by,
            stamp_ms: served.stamp_ms,
        }
    }

    fn action_result(
        &self,
        key: &Bytes,
        result: &ActionResult,
        transacted: &Transacted,
    ) -> kv::ActionResult {
        use kv::action_result::Result as Wire;
        let result = match result {
            ActionResult::Got(set) => {
                let level = ReadLevel::Linearizable;
                Wire::Get(self.get_response(key, set, level, Served::default()))
            }
            ActionResult::Written(written) => {
                let dot = written.as_ref().map(|(dot, _)| *dot);
                Wire::Write(self.part_receipt(dot, transacted))
            }
        };
        kv::ActionResult {
            key: key.clone(),
            result: Some(result),
        }
    }

    fn part_receipt(&self, dot: Option<Dot>, transacted: &Transacted) -> kv::Receipt {
        let zones = self.zone_names(&transacted.zones);
        kv::Receipt {
            degraded: transacted.degraded,
            ..self.receipt(dot, zones, transacted.op_id)
        }
    }
}
