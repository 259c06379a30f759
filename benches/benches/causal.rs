//! What causality costs a put and a read, without a disk.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use meridian_causal::token::{self, TokenScope};
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, Replace, Sibling, SiblingSet, TokenKey,
    VersionVector, ZoneId, put_context,
};

const VALUE_BYTES: usize = 100;
const SCOPE: TokenScope = TokenScope {
    cluster: 7,
    keyspace: 1,
};

fn incarnation(zone: u16) -> Incarnation {
    Incarnation::new(ZoneId(zone), 77)
}

fn sibling(dot: Dot) -> Sibling {
    Sibling {
        dot,
        content: Content::Value(Bytes::from(vec![b'v'; VALUE_BYTES])),
        written_at: Hlc::new(1_700_000_000_000, 0),
        expires_at_ms: None,
        op_id: Some(OpId {
            stamp_ms: 1_700_000_000_000,
            id: 99,
        }),
        transaction: None,
    }
}

/// One sibling of each of so many zones, each of which has received so much.
fn conflict(zones: u16) -> (SiblingSet, VersionVector) {
    let mut received = VersionVector::new();
    let mut set = SiblingSet::new();
    for zone in 1..=zones {
        received.advance(incarnation(zone), 1_000);
        set.apply(
            sibling(Dot::new(incarnation(zone), 1_000)),
            &CausalContext::new(),
            &received,
        );
    }
    (set, received)
}

/// What apply does with a put of a key: read its set, find what is replaced, apply, make the record and the context.
fn put(record: &Bytes, received: &mut VersionVector, counter: u64) -> (Vec<u8>, CausalContext) {
    let mut set = SiblingSet::decode_shared(record).expect("written by encode");
    let dot = Dot::new(incarnation(1), counter);
    let replaced = set.replaced_by(dot.zone(), &Replace::Newest);
    received.advance(incarnation(1), counter);
    set.apply(sibling(dot), &replaced, received);
    let context = set.condensed(put_context(&replaced, dot));
    let mut out = Vec::with_capacity(record.len());
    set.encode(&mut out);
    (out, context)
}

fn encoded(set: &SiblingSet) -> Bytes {
    let mut out = Vec::new();
    set.encode(&mut out);
    out.into()
}

fn puts(c: &mut Criterion) {
    for zones in [1, 3] {
        let (set, received) = conflict(zones);
        let record = encoded(&set);
        c.bench_function(&format!("put on {zones} siblings"), |b| {
            b.iter_batched(
                || received.clone(),
                |mut received| put(black_box(&record), &mut received, 1_001),
                BatchSize::SmallInput,
            );
        });
    }
}

fn decoding(c: &mut Criterion) {
    for zones in [1, 3] {
        let record = encoded(&conflict(zones).0);
        c.bench_function(&format!("decode {zones} siblings"), |b| {
            b.iter(|| SiblingSet::decode_shared(black_box(&record)));
        });
    }
}

fn tokens(c: &mut Criterion) {
    let key = TokenKey::new([7; 32]);
    let context = conflict(3).0.read_context();
    let sealed = token::seal(&key, SCOPE, b"key-0000000001", &context);
    c.bench_function("seal a token", |b| {
        b.iter(|| token::seal(&key, SCOPE, b"key-0000000001", black_box(&context)));
    });
    c.bench_function("open a token", |b| {
        b.iter(|| token::open(&key, SCOPE, b"key-0000000001", black_box(&sealed)));
    });
}

criterion_group!(benches, puts, decoding, tokens);
criterion_main!(benches);
