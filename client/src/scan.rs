//! A scan in progress: pages are asked for one at a time.

use bytes::Bytes;
use futures::Stream;
use futures::stream;

use crate::client::Client;
use crate::error::Error;
use crate::options::ScanQuery;
use crate::results::{Page, Versions};

/// A scan in progress. Linearizable per shard and page; all pages come from the zone of the first.
pub struct Scan {
    client: Client,
    query: ScanQuery,
    token: Bytes,
    zone: Option<String>,
    /// The view that is read, if it is one.
    view: Bytes,
    done: bool,
}

impl Scan {
    pub(crate) fn new(client: Client, query: ScanQuery) -> Self {
        Self {
            client,
            query,
            token: Bytes::new(),
            zone: None,
            view: Bytes::new(),
            done: false,
        }
    }

    /// A scan of an open view.
    pub(crate) fn of_view(client: Client, query: ScanQuery, view: Bytes) -> Self {
        Self {
            view,
            ..Self::new(client, query)
        }
    }

    /// The next page, `None` after the last one. After an error the same page may be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Page>, Error> {
        if self.done {
            return Ok(None);
        }
        let mut scan = self.query.to_wire(self.token.clone());
        scan.view = self.view.clone();
        let response = self.client.scan_page(scan, self.zone.as_deref()).await?;
        if self.zone.is_none() {
            self.zone = response.served_by.as_ref().map(|by| by.zone.clone());
        }
        let (page, token) = Page::from_wire(response);
        if !token.is_empty() && token == self.token {
            self.done = true;
            return Err(Error::bad_answer("a scan that does not advance"));
        }
        self.done = token.is_empty();
        self.token = token;
        Ok(Some(page))
    }

    /// All entries, one by one, fetching pages as they are needed. Ends after the first error.
    pub fn entries(self) -> impl Stream<Item = Result<Versions, Error>> + Send {
        let nothing = Vec::new().into_iter();
        stream::unfold(Some((self, nothing)), |state| async move {
            let (mut scan, mut entries) = state?;
            loop {
                if let Some(entry) = entries.next() {
                    return Some((Ok(entry), Some((scan, entries))));
                }
                match scan.next_page().await {
                    Ok(Some(page)) => entries = page.entries.into_iter(),
                    Ok(None) => return None,
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
    }
}
