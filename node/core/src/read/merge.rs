//! Pages of the shards of a keyspace, put together into one.

use bytes::Bytes;
use meridian_causal::SiblingSet;

use crate::keys::successor;

/// A page of one shard: keys in order, and whether more may follow the last.
pub type ShardPage = (Vec<(Bytes, SiblingSet)>, bool);

/// One sorted page of at most `limit` keys out of one page per shard, all asked for from the same key, and the key to
/// go on from, if there is more.
///
/// A shard that has more after its page is known only up to its last key; whatever another shard holds beyond that has
/// to wait, or the keys in between would be skipped. A page that says there is more holds at least one key; one that
/// does not is taken as the end of its shard.
pub fn merge_pages(
    pages: Vec<ShardPage>,
    limit: usize,
) -> (Vec<(Bytes, SiblingSet)>, Option<Bytes>) {
    let open_ends = pages
        .iter()
        .filter(|(_, more)| *more)
        .filter_map(|(keys, _)| keys.last());
    let horizon = open_ends.map(|(key, _)| key.clone()).min();
    let mut keys: Vec<_> = pages.into_iter().flat_map(|(keys, _)| keys).collect();
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    let known =
        keys.partition_point(|(key, _)| horizon.as_ref().is_none_or(|horizon| key <= horizon));
    let shown = known.min(limit.max(1));
    let more = horizon.is_some() || keys.len() > shown;
    keys.truncate(shown);
    let next = keys
        .last()
        .filter(|_| more)
        .map(|(last, _)| Bytes::from(successor(last)));
    (keys, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(keys: &[&'static str], more: bool) -> ShardPage {
        (
            keys.iter()
                .map(|key| (Bytes::from_static(key.as_bytes()), SiblingSet::new()))
                .collect(),
            more,
        )
    }

    fn merged(pages: Vec<ShardPage>, limit: usize) -> (Vec<String>, Option<String>) {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let (keys, next) = merge_pages(pages, limit);
        (
            keys.iter().map(|(key, _)| text(key)).collect(),
            next.as_ref().map(text),
        )
    }

    #[test]
    fn keys_beyond_the_end_of_an_unfinished_page_wait() {
        let (keys, next) = merged(vec![page(&["a", "c"], true), page(&["b", "d"], false)], 10);
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(next.as_deref(), Some("c\0"));
    }

    #[test]
    fn finished_pages_within_the_limit_leave_nothing_to_go_on_from() {
        let (keys, next) = merged(
            vec![page(&["b"], false), page(&["a"], false), page(&[], false)],
            2,
        );
        assert_eq!((keys, next), (vec!["a".to_owned(), "b".to_owned()], None));
    }

    #[test]
    fn a_limit_cuts_and_says_where_to_go_on() {
        let (keys, next) = merged(vec![page(&["a", "c"], false), page(&["b"], false)], 2);
        assert_eq!(
            (keys, next.as_deref()),
            (vec!["a".to_owned(), "b".to_owned()], Some("b\0"))
        );
    }

    #[test]
    fn an_empty_page_that_claims_more_does_not_stop_the_others() {
        let (keys, next) = merged(vec![page(&[], true), page(&["b"], false)], 5);
        assert_eq!((keys, next), (vec!["b".to_owned()], None));
    }

    /// A page of at most `size` of a shard's keys from `from` on.
    fn shard_page(shard: &[u16], from: &Bytes, size: usize) -> ShardPage {
        let all: Vec<_> = shard
            .iter()
            .map(|key| {
                (
                    Bytes::copy_from_slice(&key.to_be_bytes()),
                    SiblingSet::new(),
                )
            })
            .filter(|(key, _)| key >= from)
            .collect();
        let more = all.len() > size;
        (all.into_iter().take(size).collect(), more)
    }

    proptest! {
        #[test]
        fn following_pages_shows_every_key_once_and_in_order(
            keys in prop::collection::btree_set(any::<u16>(), 0..60),
            shards in 1..5_usize, size in 1..6_usize, limit in 1..9_usize,
        ) {
            let mut held = vec![Vec::new(); shards];
            for key in &keys {
                held[usize::from(*key) % shards].push(*key);
            }
            let mut seen = Vec::new();
            let mut from = Some(Bytes::new());
            while let Some(start) = from {
                let pages = held.iter().map(|shard| shard_page(shard, &start, size)).collect();
                let (page, next) = merge_pages(pages, limit);
                prop_assert!(page.len() <= limit);
                seen.extend(page.iter().map(|(key, _)| u16::from_be_bytes(key[..].try_into().unwrap())));
                from = next;
            }
            prop_assert_eq!(seen, keys.into_iter().collect::<Vec<_>>());
        }
    }
}
