//! Group images (what Raft calls snapshots): a follower too far behind the log takes the leader's whole state.
//!
//! The Raft message carries no data, only index, term, members and the number of a view that the leader holds open. The
//! follower pulls the view's records page by page and writes them as they come; then it hands Raft the message it had
//! held back. While that lasts its stored state is a mix, so the log's record says `installing`: such a replica applies
//! and serves nothing, through restarts, until an image is complete.
//!
//! Crash points: before the first page: nothing has changed. Between pages: `installing` is on record, the image is
//! asked for again. After the last page: applied index and log start are in the same batch.

use bytes::Bytes;
use raft::ProgressState;
use raft::SnapshotStatus;
use raft::eraftpb::{Message, Snapshot, SnapshotMetadata};

use super::log::Position;
use super::{Group, Machine, ignore_refusal};
use crate::error::Error;
use crate::ids::{GroupId, NodeId, ReplicaId};
use crate::keys;
use crate::message::{Image, PeerMessage};
use crate::time::Now;
use crate::workspace::Workspace;

/// A page not answered for this long is asked for again.
const PAGE_RETRY_MS: u64 = 500;

/// Times a page is asked for before the image is given up.
const PAGE_ASKED_MAX: u32 = 20;

/// An image on its way to this replica.
pub(crate) struct Install {
    /// The message that Raft will be shown at the end.
    message: Message,
    image: u64,
    /// Last key received.
    after: Bytes,
    asked: u32,
    ask_again_ns: u64,
    /// Pages received and not yet written.
    pages: Vec<(Bytes, Bytes)>,
    fresh: bool,
    done: bool,
    /// All of it is in the turn under way.
    written: bool,
}

impl Group {
    /// The leader's raft asked for an image that is not at hand.
    pub(crate) fn wants_image(&self) -> bool {
        self.log().image_wanted() && !self.log().installing()
    }

    /// Offers the state as it is written now, held open as view `image`.
    pub(crate) fn offer_image(&mut self, image: u64) {
        let Some(position) = self.applied_position() else {
            return;
        };
        let metadata = SnapshotMetadata {
            conf_state: Some(self.log().conf().clone()),
            index: position.index,
            term: position.term,
        };
        let snapshot = Snapshot {
            data: image.to_be_bytes().to_vec(),
            metadata: Some(metadata),
        };
        self.raft.mut_store().offer_image(Some(snapshot));
    }

    fn applied_position(&self) -> Option<Position> {
        let index = self.machine.applied();
        let truncated = self.log().truncated();
        if index == truncated.index {
            return Some(truncated);
        }
        self.log().entry(index).map(|entry| Position {
            index,
            term: entry.term,
        })
    }

    /// The view of an image was closed: followers that were taking it start over.
    pub(crate) fn withdraw_image(&mut self) {
        self.raft.mut_store().offer_image(None);
        let waiting: Vec<u64> = self
            .raft
            .raft
            .prs()
            .iter()
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.raft.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// The image could not be taken by `replica`.
    pub(crate) fn image_failed(&mut self, replica: ReplicaId) {
        if self.leads() {
            self.raft
                .report_snapshot(replica.0, SnapshotStatus::Failure);
        }
    }

    /// Whether this replica has all that an image would bring. Raft is shown such a message and answers how far the log is: a
    /// leader whose answer to the first was lost would else offer images for ever.
    pub(crate) fn is_past(&self, message: &Message) -> bool {
        message.get_snapshot().get_metadata().index <= self.machine.applied()
    }

    /// Holds a snapshot message back and begins to pull its image. A newer image replaces one under way.
    pub(crate) fn begin_install(
        &mut self,
        message: Message,
        now: Now,
    ) -> Option<(NodeId, PeerMessage)> {
        let image = u64::from_be_bytes(message.get_snapshot().data.as_slice().try_into().ok()?);
        if self.leads()
            || message.term < self.term()
            || message.get_snapshot().get_metadata().index <= self.machine.applied()
        {
            return None;
        }
        if self
            .install
            .as_ref()
            .is_some_and(|install| install.image == image && install.message.from == message.from)
        {
            return None;
        }
        self.install = Some(Install {
            message,
            image,
            after: Bytes::new(),
            asked: 0,
            ask_again_ns: 0,
            pages: Vec::new(),
            fresh: true,
            done: false,
            written: false,
        });
        self.ask_page(now)
    }

    /// Asks for the next page, or again for the same.
    pub(crate) fn ask_page(&mut self, now: Now) -> Option<(NodeId, PeerMessage)> {
        let group = self.id;
        let install = self.install.as_mut()?;
        if install.done || now.mono_ns < install.ask_again_ns {
            return None;
        }
        if install.asked >= PAGE_ASKED_MAX {
            self.install = None;
            return None;
        }
        install.asked = install.asked.saturating_add(1);
        install.ask_again_ns = now.after_ms(PAGE_RETRY_MS);
        let body = Image::Fetch {
            image: install.image,
            after: install.after.clone(),
        };
        Some((
            ReplicaId(install.message.from).node(),
            PeerMessage::Image { group, body },
        ))
    }

    /// A page came.
    pub(crate) fn take_page(&mut self, body: Image, now: Now) -> Option<(NodeId, PeerMessage)> {
        match body {
            Image::Page {
                image,
                after,
                records,
                done,
            } => {
                let install = self.install.as_mut()?;
                if install.image != image || install.after != after || install.done {
                    return None;
                }
                if let Some((last, _)) = records.last() {
                    install.after = last.clone();
                }
                install.pages.extend(records);
                install.done = done;
                install.asked = 0;
                install.ask_again_ns = 0;
                self.ask_page(now)
            }
            Image::Lost { image } => {
                if self
                    .install
                    .as_ref()
                    .is_some_and(|install| install.image == image)
                {
                    self.install = None;
                }
                None
            }
            Image::Fetch { .. } => None,
        }
    }

    /// Pages wait to be written.
    pub(crate) fn has_pages(&self) -> bool {
        self.install
            .as_ref()
            .is_some_and(|install| install.done || !install.pages.is_empty())
    }

    /// The last page is in the turn being written.
    pub(crate) fn installed(&self) -> bool {
        self.install.as_ref().is_some_and(|install| install.written)
    }

    /// Puts the pages received into the turn's writes; with the last one the state is whole again.
    pub(crate) fn write_pages(&mut self, work: &mut Workspace<'_>) -> Result<(), Error> {
        let applied = self.machine.applied();
        let Some(install) = self.install.as_mut() else {
            return Ok(());
        };
        if install.fresh && install.message.get_snapshot().get_metadata().index <= applied {
            // Entries that were appended meanwhile have brought this replica past the image: it would roll the state back.
            self.install = None;
            return Ok(());
        }
        if install.fresh {
            for (from, to) in keys::group_state_ranges(self.id) {
                work.delete_range(from, to);
            }
            install.fresh = false;
        }
        for (key, value) in std::mem::take(&mut install.pages) {
            if !in_state(self.id, &key) {
                return Err(Error::Corruption {
                    detail: format!("an image of group {} holds a foreign key", self.id),
                });
            }
            work.put(key, value);
        }
        let done = install.done;
        install.written = done;
        let log = self.raft.mut_store();
        log.set_installing(!done);
        log.save(work);
        Ok(())
    }

    /// The completed image is written: the machine is read from it, and Raft goes on from its index.
    pub(crate) fn finish_install(&mut self, machine: Machine) -> u64 {
        let Some(install) = self.install.take() else {
            return self.machine.applied();
        };
        self.machine = machine;
        // Refused when a newer term has begun; its leader finds out by itself where this log ends.
        ignore_refusal(&self.raft.step(install.message));
        self.assign_commit_groups();
        self.machine.applied()
    }

    /// A replica whose state is not whole and that pulls no image asks its leader for one.
    pub(crate) fn request_image(&mut self) {
        if self.log().installing() && self.install.is_none() {
            // Refused while there is no leader or a request is under way: the next tick asks again.
            ignore_refusal(&self.raft.request_snapshot());
        }
    }
}

fn in_state(group: GroupId, key: &[u8]) -> bool {
    keys::group_state_ranges(group)
        .iter()
        .any(|(from, to)| from.as_slice() <= key && key < to.as_slice())
}
