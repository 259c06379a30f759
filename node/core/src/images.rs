//! Views that leaders of this core hold open for followers that take a group image.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_storage::View;
use rand::Rng;

use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, NodeId};
use crate::keys;
use crate::limits::{IMAGE_PAGE_BYTES_MAX, VIEW_IDLE_MS_MAX, VIEWS_MAX};
use crate::message::{Image, PeerMessage};
use crate::output::{Notice, Outputs};
use crate::time::Now;

/// The open views, by number.
#[derive(Default)]
pub(crate) struct Images {
    open: BTreeMap<u64, OpenImage>,
}

struct OpenImage {
    group: GroupId,
    view: Box<dyn View>,
    used_at: Now,
}

impl Images {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Core {
    /// Opens views for the groups whose Raft asked for an image. Called before a turn applies anything, so that the
    /// view is the state at the applied index.
    pub(crate) fn open_wanted_images(&mut self, now: Now) {
        let wanted: Vec<GroupId> = self
            .groups
            .values()
            .filter(|group| group.wants_image())
            .map(|group| group.id)
            .collect();
        for id in wanted {
            if self.images.open.len() >= VIEWS_MAX {
                return;
            }
            let Ok(view) = self.engine.view() else { return };
            let number: u64 = self.rng.random();
            self.images.open.retain(|_, image| image.group != id);
            self.images.open.insert(
                number,
                OpenImage {
                    group: id,
                    view,
                    used_at: now,
                },
            );
            if let Some(group) = self.groups.get_mut(&id) {
                group.offer_image(number);
            }
        }
    }

    pub(crate) fn close_idle_images(&mut self, now: Now) {
        let idle = |image: &OpenImage| now.mono_ns >= image.used_at.after_ms(VIEW_IDLE_MS_MAX);
        let closed: Vec<GroupId> = self
            .images
            .open
            .values()
            .filter(|image| idle(image))
            .map(|image| image.group)
            .collect();
        self.images.open.retain(|_, image| !idle(image));
        for id in closed {
            if let Some(group) = self.groups.get_mut(&id) {
                group.withdraw_image();
                self.active.insert(id);
            }
        }
    }

    pub(crate) fn image_message(
        &mut self,
        now: Now,
        (from, id): (NodeId, GroupId),
        body: Image,
        out: &mut Outputs,
    ) {
        match body {
            Image::Fetch { image, after } => {
                let answer = self
                    .image_page(now, id, image, after)
                    .unwrap_or_else(|error| {
                        out.notices.push(Notice::Damaged {
                            detail: error.to_string(),
                        });
                        Image::Lost { image }
                    });
                if let (Image::Lost { .. }, Some(replica)) =
                    (&answer, self.catalog.replica_of(from))
                    && let Some(group) = self.groups.get_mut(&id)
                {
                    group.image_failed(replica);
                    self.active.insert(id);
                }
                out.messages.push((
                    from,
                    PeerMessage::Image {
                        group: id,
                        body: answer,
                    },
                ));
            }
            Image::Page { .. } | Image::Lost { .. } => {
                if let Some(group) = self.groups.get_mut(&id) {
                    out.messages.extend(group.take_page(body, now));
                    self.active.insert(id);
                }
            }
        }
    }

    fn image_page(
        &mut self,
        now: Now,
        id: GroupId,
        number: u64,
        after: Bytes,
    ) -> Result<Image, Error> {
        let Some(image) = self
            .images
            .open
            .get_mut(&number)
            .filter(|image| image.group == id)
        else {
            return Ok(Image::Lost { image: number });
        };
        image.used_at = now;
        let mut records = Vec::new();
        let mut bytes = 0_usize;
        let mut done = true;
        for (from, to) in keys::group_state_ranges(id) {
            let start = if after.is_empty() {
                from
            } else {
                from.max(keys::successor(&after))
            };
            if start >= to {
                continue;
            }
            image
                .view
                .scan(&start, &to, &mut |key, value| {
                    if bytes >= IMAGE_PAGE_BYTES_MAX {
                        done = false;
                        return ControlFlow::Break(());
                    }
                    bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
                    records.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    ControlFlow::Continue(())
                })
                .map_err(Error::from)?;
            if !done {
                break;
            }
        }
        Ok(Image::Page {
            image: number,
            after,
            records,
            done,
        })
    }

    /// After a write: a group whose image is complete goes on from it.
    pub(crate) fn finish_image(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        if !self.groups.get(&id).is_some_and(Group::installed) {
            return;
        }
        match self.load_machine(id) {
            Ok(machine) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    let index = group.finish_install(machine);
                    self.drop_views_of(id);
                    out.notices
                        .push(Notice::ImageInstalled { group: id, index });
                }
            }
            Err(error) => {
                out.notices.push(Notice::Damaged {
                    detail: error.to_string(),
                });
                self.failed(now, out);
            }
        }
        if id == GroupId::CONTROL
            && let Err(error) = self.read_catalog(now, out)
        {
            out.notices.push(Notice::Damaged {
                detail: error.to_string(),
            });
        }
    }
}
