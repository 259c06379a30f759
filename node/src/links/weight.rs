//! About how many bytes a message takes on the wire: what bounds of queues and frames are counted in.

use bytes::Bytes;
use meridian_causal::Content;
use meridian_core::command::Effect;
use meridian_core::inner::{InnerRequest, InnerResponse};
use meridian_core::message::{Exchange, Image, PeerMessage};
use meridian_core::request::{Answer, Query, Request, Response};
use meridian_core::transaction::ActionResult;

use crate::convert::transactions;

/// What any message takes beside its keys and values.
const BASE: usize = 64;

/// What an effect takes beside its key and value.
const EFFECT_BASE: usize = 96;

pub(crate) fn weight(message: &PeerMessage) -> usize {
    let body = match message {
        PeerMessage::Raft { group: _, message } => {
            let entries = message
                .entries
                .iter()
                .map(|entry| entry.data.len() + entry.context.len() + BASE)
                .sum();
            message
                .snapshot
                .as_ref()
                .map_or(0, |snapshot| snapshot.data.len())
                .saturating_add(entries)
        }
        PeerMessage::Forward { request, .. } => request_weight(request),
        PeerMessage::Forwarded { result, .. } => match &**result {
            Ok(response) => response_weight(response),
            Err(_) => BASE,
        },
        PeerMessage::Exchange { body, .. } => exchange_weight(body),
        PeerMessage::Image { group: _, body } => match body {
            Image::Page { records, .. } => pairs(records),
            Image::Fetch { after, .. } => after.len(),
            Image::Lost { .. } => 0,
        },
        PeerMessage::Admission(_) => BASE,
    };
    body + BASE
}

fn exchange_weight(body: &Exchange) -> usize {
    match body {
        Exchange::Subscribe { known, relay, .. } => BASE * (known.len() + relay.len() + 1),
        Exchange::Effects { effects, .. } => effects.iter().map(effect_weight).sum(),
        Exchange::CompareRanges { ranges, .. } => {
            ranges.iter().map(|(to, _)| to.len() + BASE).sum()
        }
        Exchange::CompareStates { states, .. } => pairs(states),
        Exchange::CompareRecalled { operations, .. } => pairs(operations),
        Exchange::MustCompare
        | Exchange::CompareOpen { .. }
        | Exchange::CompareOpened { .. }
        | Exchange::CompareHashes { .. }
        | Exchange::CompareFetch { .. }
        | Exchange::CompareRecall { .. }
        | Exchange::CompareLost { .. } => BASE,
    }
}

fn effect_weight(effect: &Effect) -> usize {
    effect.key.len() + content(&effect.content) + EFFECT_BASE
}

fn request_weight(request: &Request) -> usize {
    match request {
        Request::Write(write)
        | Request::LeasedWrite { write, .. }
        | Request::WriteAt { write, .. } => write.key.len() + content(&write.content) + BASE,
        Request::Transact(transaction) => transactions::size_bytes(transaction) + BASE,
        Request::Read(read) => match &read.query {
            Query::Validate { compare, .. } => transactions::compare_bytes(compare) + BASE,
            Query::Get { .. }
            | Query::Scan { .. }
            | Query::Digest { .. }
            | Query::Examine { .. }
            | Query::Range { .. } => BASE,
            Query::Returned { from, .. } => from.len() + BASE,
            Query::Leases { names, .. } => names.iter().map(Bytes::len).sum::<usize>() + BASE,
        },
        Request::KeyspaceCreate(_)
        | Request::KeyspaceDelete { .. }
        | Request::KeyspaceAlter(_)
        | Request::AlterReport { .. }
        | Request::Reincarnate { .. }
        | Request::Lag { .. }
        | Request::ViewOpen { .. }
        | Request::ViewClose { .. }
        | Request::LeaseAcquire(_)
        | Request::LeaseRenew { .. }
        | Request::LeaseEnd { .. }
        | Request::Mirrors { .. }
        | Request::Groups => BASE,
        Request::AtHome(inner) => request_weight(inner),
        Request::Inner(inner) => inner_weight(inner),
    }
}

fn inner_weight(inner: &InnerRequest) -> usize {
    match inner {
        InnerRequest::Prepare(prepare) => prepare.part.encoded_bytes() + BASE,
        InnerRequest::ViewConfirm { pins, .. } => pins.len() * 16 + BASE,
        InnerRequest::Resolve { .. }
        | InnerRequest::Inquire { .. }
        | InnerRequest::ViewPin { .. }
        | InnerRequest::Measure { .. }
        | InnerRequest::Read { .. }
        | InnerRequest::ViewDrop { .. }
        | InnerRequest::MirrorCut { .. }
        | InnerRequest::MirrorPointer { .. } => BASE,
        InnerRequest::Held { key, .. } => key.len() + BASE,
        InnerRequest::MirrorFetch(fetch) => {
            let known = fetch.known.iter();
            let known: usize = known.map(|(end, _)| end.len() + BASE).sum();
            fetch.from.len() + known + BASE
        }
        InnerRequest::MirrorReceive { order, .. } => {
            order.as_ref().map_or(0, |order| order.cut.pins.len() * 8) + BASE
        }
    }
}

fn response_weight(response: &Response) -> usize {
    match response {
        Response::Read(answer) => answer_weight(answer),
        Response::Mirror(status) => status.zones.len() * BASE,
        Response::Transacted(transacted) => transacted.results.iter().map(result_weight).sum(),
        Response::Written(_)
        | Response::KeyspaceCreated(_)
        | Response::KeyspaceDeleted(_)
        | Response::KeyspaceAltered { .. }
        | Response::Lag(_)
        | Response::ViewOpened(_)
        | Response::ViewClosed
        | Response::LeaseHeld(_)
        | Response::LeaseEnded
        | Response::MirrorShown(_)
        | Response::Groups(_) => BASE,
        Response::Inner(inner) => match &**inner {
            InnerResponse::Voted(vote) => {
                let read = vote.then.iter().chain(&vote.otherwise);
                read.map(siblings).sum::<usize>() + BASE
            }
            InnerResponse::Measured { received, ages, .. } => {
                (received.len() + ages.len()) * 16 + BASE
            }
            InnerResponse::Resolved
            | InnerResponse::Inquired(_)
            | InnerResponse::ViewPinned { .. }
            | InnerResponse::ViewConfirmed
            | InnerResponse::MirrorWait
            | InnerResponse::MirrorPart(_) => BASE,
            InnerResponse::Held(held) => siblings(&held.set) + held.seen.len() * 16 + BASE,
            InnerResponse::MirrorPage(page) => page.shipped_bytes() + BASE,
            InnerResponse::MirrorCut { offer } => {
                offer.as_ref().map_or(0, |(cut, _)| cut.pins.len() * 8) + BASE
            }
            InnerResponse::MirrorPointed(shown) => {
                let pins = shown.as_ref().map_or(0, |(shown, _)| shown.cut.pins.len());
                pins * 8 + BASE
            }
        },
    }
}

fn answer_weight(answer: &Answer) -> usize {
    match answer {
        Answer::Key(set) | Answer::Examined { set, .. } => siblings(set),
        Answer::Page { keys, .. } | Answer::Range { keys, .. } => keys
            .iter()
            .map(|(key, set)| key.len() + siblings(set))
            .sum(),
        Answer::Leases(leases) => leases.len() * BASE,
        Answer::Shown(shown) => answer_weight(&shown.answer) + shown.seen.len() * 16 + BASE,
        Answer::Digest(_) | Answer::Holds(_) => BASE,
        Answer::Returned { rows, .. } => rows
            .iter()
            .map(|row| row.key.len() + (1 + row.writes.len()) * BASE)
            .sum(),
        Answer::Mirrored(answer, _) => answer_weight(answer) + BASE,
    }
}

fn result_weight(result: &ActionResult) -> usize {
    match result {
        ActionResult::Got(set) => siblings(set) + BASE,
        ActionResult::Written(_) => BASE,
    }
}

fn siblings(set: &meridian_causal::SiblingSet) -> usize {
    set.siblings()
        .iter()
        .map(|sibling| content(&sibling.content) + EFFECT_BASE)
        .sum()
}

fn content(content: &Content) -> usize {
    content.value().map_or(0, Bytes::len)
}

fn pairs(pairs: &[(Bytes, Bytes)]) -> usize {
    pairs
        .iter()
        .map(|(key, value)| key.len() + value.len() + BASE)
        .sum()
}
