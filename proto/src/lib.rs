//! The wire contract of Meridian: kv.v1 (clients), admin.v1 (operators) and peer.v1 (between nodes).
//!
//! Generated from `proto/**/*.proto`; nothing here is written by hand except [`routing`], which clients and nodes must
//! agree on as much as on the messages. Field numbers are never used twice, and fields are never renamed.

/// What clients say.
pub mod kv {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("kv.v1");
    }
}

/// What operators say.
pub mod admin {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("admin.v1");
    }
}

/// What nodes say to one another.
pub mod peer {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("peer.v1");
    }
}

pub mod routing;

/// The encoded descriptors of all services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
