//! The control group's state: one record.

use bytes::Bytes;

use super::{Kind, Place, at, prefix};
use crate::catalog::Catalog;
use crate::error::Error;
use crate::record::{self, Header};

const FORMAT: u8 = 4;

/// `[Catalog][0][0]` to a [`Catalog`].
pub struct CatalogKey;

impl CatalogKey {
    /// The stored key.
    pub fn encode() -> Vec<u8> {
        prefix(Kind::Catalog, Place::NODE, 0)
    }

    /// The record.
    pub fn encode_record(header: Header, catalog: &Catalog) -> Bytes {
        record::encode(FORMAT, header, catalog, 1024)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, Catalog), Error> {
        record::decode(record, FORMAT).map_err(at(stored))
    }
}
