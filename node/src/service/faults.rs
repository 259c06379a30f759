//! Link faults: names become zones, and the conditioner does the rest.

use std::time::Duration;

use meridian_causal::ZoneId;
use meridian_proto::admin::v1 as pb;

use super::AdminService;
use crate::convert::Failure;
use crate::limits::DELAY_MS_MAX;
use crate::links::conditioner::{Between, Conditioner};

impl AdminService {
    pub(super) fn block(&self, request: &pb::FaultBlockRequest) -> Result<(), Failure> {
        let between = self.between(&request.from, &request.to, request.one_way)?;
        tracing::warn!(
            from = request.from,
            to = request.to,
            request.one_way,
            "fault: block"
        );
        self.conditioner()?.block(between);
        Ok(())
    }

    pub(super) fn heal(&self, request: &pb::FaultHealRequest) -> Result<(), Failure> {
        let conditioner = self.conditioner()?;
        let pair = match (request.from.as_str(), request.to.as_str()) {
            ("", "") => None,
            (from, to) => Some(self.between(from, to, false)?),
        };
        tracing::warn!(from = request.from, to = request.to, "fault: heal");
        conditioner.heal(pair);
        Ok(())
    }

    pub(super) fn delay(&self, request: &pb::FaultDelayRequest) -> Result<(), Failure> {
        if request.delay_ms > DELAY_MS_MAX {
            let message = format!("delay of {} ms exceeds {DELAY_MS_MAX}", request.delay_ms);
            return Err(Failure::invalid("INVALID_ARGUMENT", message));
        }
        let between = self.between(&request.from, &request.to, request.one_way)?;
        tracing::warn!(
            from = request.from,
            to = request.to,
            request.delay_ms,
            request.one_way,
            "fault: delay"
        );
        self.conditioner()?
            .delay(between, Duration::from_millis(request.delay_ms));
        Ok(())
    }

    pub(super) fn lose(&self, request: &pb::FaultLossRequest) -> Result<(), Failure> {
        let probability = request.probability;
        if !(0.0..=1.0).contains(&probability) {
            let message = format!("probability {probability} is not from 0 to 1");
            return Err(Failure::invalid("INVALID_ARGUMENT", message));
        }
        let between = self.between(&request.from, &request.to, request.one_way)?;
        tracing::warn!(
            from = request.from,
            to = request.to,
            probability,
            request.one_way,
            "fault: loss"
        );
        self.conditioner()?.lose(between, probability);
        Ok(())
    }

    pub(super) fn faults(&self) -> Result<Vec<pb::Fault>, Failure> {
        let known = |zone: ZoneId| self.seed_zones.iter().find(|seed| seed.id == zone);
        let name =
            |zone: ZoneId| known(zone).map_or_else(|| zone.to_string(), |seed| seed.name.clone());
        let faults = self
            .conditioner()?
            .list()
            .into_iter()
            .map(|(from, to, rule)| pb::Fault {
                from: name(from),
                to: name(to),
                blocked: rule.blocked,
                delay_ms: u64::try_from(rule.delay.as_millis()).unwrap_or(u64::MAX),
                loss: rule.loss,
            });
        Ok(faults.collect())
    }

    fn conditioner(&self) -> Result<&Conditioner, Failure> {
        if self.faults {
            Ok(&self.calls.links.conditioner)
        } else {
            Err(Failure::faults_disabled())
        }
    }

    fn between(&self, from: &str, to: &str, one_way: bool) -> Result<Between, Failure> {
        self.conditioner()?;
        if from == to {
            let message = format!("links run between two zones, {from:?} is named twice");
            return Err(Failure::invalid("INVALID_ARGUMENT", message));
        }
        Ok(Between {
            from: self.zone(from)?,
            to: self.zone(to)?,
            one_way,
        })
    }

    fn zone(&self, name: &str) -> Result<ZoneId, Failure> {
        let zones = &self.seed_zones;
        let found = zones.iter().find(|zone| zone.name == name);
        found
            .map(|zone| zone.id)
            .ok_or_else(|| Failure::zone_not_found(name))
    }
}
