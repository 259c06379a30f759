//! The wire contract of Meridian: kv.v1, admin.v1 and peer.v1.
