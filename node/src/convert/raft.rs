//! Raft messages to and from our own schema.

use meridian_proto::peer::v1 as pb;
use raft::eraftpb;

use super::wire::{WireError, needed};

pub(crate) fn to_wire(message: eraftpb::Message) -> pb::RaftMessage {
    pb::RaftMessage {
        msg_type: message.msg_type,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.into_iter().map(entry_to_wire).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: message.snapshot.map(snapshot_to_wire),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.into(),
        deprecated_priority: message.deprecated_priority,
        priority: message.priority,
    }
}

pub(crate) fn from_wire(message: Option<pb::RaftMessage>) -> Result<eraftpb::Message, WireError> {
    let message = needed("raft message", message)?;
    known(
        "message type",
        message.msg_type,
        eraftpb::MessageType::from_i32(message.msg_type).is_some(),
    )?;
    Ok(eraftpb::Message {
        msg_type: message.msg_type,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message
            .entries
            .into_iter()
            .map(entry_from_wire)
            .collect::<Result<_, _>>()?,
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: message.snapshot.map(snapshot_from_wire),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.into(),
        deprecated_priority: message.deprecated_priority,
        priority: message.priority,
    })
}

fn entry_to_wire(entry: eraftpb::Entry) -> pb::RaftEntry {
    pb::RaftEntry {
        entry_type: entry.entry_type,
        term: entry.term,
        index: entry.index,
        data: entry.data.into(),
        context: entry.context.into(),
        sync_log: entry.sync_log,
    }
}

fn entry_from_wire(entry: pb::RaftEntry) -> Result<eraftpb::Entry, WireError> {
    known(
        "entry type",
        entry.entry_type,
        eraftpb::EntryType::from_i32(entry.entry_type).is_some(),
    )?;
    Ok(eraftpb::Entry {
        entry_type: entry.entry_type,
        term: entry.term,
        index: entry.index,
        data: entry.data.into(),
        context: entry.context.into(),
        sync_log: entry.sync_log,
    })
}

fn snapshot_to_wire(snapshot: eraftpb::Snapshot) -> pb::RaftSnapshot {
    let metadata = snapshot.metadata.unwrap_or_default();
    pb::RaftSnapshot {
        data: snapshot.data.into(),
        conf_state: metadata.conf_state.map(conf_state_to_wire),
        index: metadata.index,
        term: metadata.term,
    }
}

fn snapshot_from_wire(snapshot: pb::RaftSnapshot) -> eraftpb::Snapshot {
    eraftpb::Snapshot {
        data: snapshot.data.into(),
        metadata: Some(eraftpb::SnapshotMetadata {
            conf_state: snapshot.conf_state.map(conf_state_from_wire),
            index: snapshot.index,
            term: snapshot.term,
        }),
    }
}

fn conf_state_to_wire(state: eraftpb::ConfState) -> pb::RaftConfState {
    pb::RaftConfState {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
    }
}

fn conf_state_from_wire(state: pb::RaftConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
    }
}

fn known(what: &'static str, found: i32, is_known: bool) -> Result<(), WireError> {
    if is_known {
        Ok(())
    } else {
        Err(WireError::OutOfRange {
            what,
            found: i64::from(found),
        })
    }
}
