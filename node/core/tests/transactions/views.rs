//! Views over several shards, and what is kept back for them.

use super::*;

#[test]
fn a_view_over_two_leaders_is_one_point_in_time_whoever_decides_in_between() {
    for shards in [[0, 1], [1, 0]] {
        let mut world = World::new();
        world.stop = Some(is_pin);
        let opener = world.leader(0);
        let opening = world.open_view(opener);
        let transaction = world.transact(&shards, "new");
        assert!(world.answer(opening).is_none());
        assert!(
            world.answer(transaction).is_none(),
            "what happened after a pin is not told"
        );
        world.go_on();
        let view = world.opened(opening);
        assert!(matches!(
            world.answer(transaction),
            Some(Ok(Response::Transacted(_)))
        ));
        assert_eq!(world.seen(&view, &[0, 1]), ["old", "old"], "{shards:?}");
        let later = world.open_view(opener);
        let later = world.opened(later);
        assert_eq!(world.seen(&later, &[0, 1]), ["new", "new"]);
        assert_eq!(
            world.seen(&view, &[0, 1]),
            ["old", "old"],
            "a view does not change"
        );
    }
}

#[test]
fn a_view_shows_a_transaction_that_was_decided_and_is_not_resolved() {
    let mut world = World::new();
    world.stop = Some(is_resolve);
    let transaction = world.transact(&[0, 1], "new");
    assert!(matches!(
        world.answer(transaction),
        Some(Ok(Response::Transacted(_)))
    ));
    let opening = world.open_view(0);
    let view = world.opened(opening);
    let (anchor, participant) = (world.read_view(&view, 0), world.read_view(&view, 1));
    assert_eq!(world.value_read(anchor).unwrap(), "new");
    assert!(world.answer(participant).is_none(), "it waits");
    world.go_on();
    assert_eq!(world.value_read(participant).unwrap(), "new");
}

#[test]
fn a_leader_that_was_deposed_and_does_not_know_it_opens_no_view() {
    let mut world = World::new();
    let old = world.leader(1);
    world.deaf = Some(old);
    let other = (old + 1) % NODES;
    while world
        .leader_seen_by(other, 1)
        .is_none_or(|leader| leader == old)
    {
        assert_eq!(
            world.leader_seen_by(old, 1),
            Some(old),
            "it stepped down too early"
        );
        world.run(TICK_MS);
    }
    let opening = world.open_view(old);
    world.run(LONG_MS);
    let refused = world.answer(opening);
    assert!(matches!(refused, Some(Err(_))), "{refused:?}");
    world.deaf = None;
    world.run(LONG_MS);
    let opening = world.open_view(old);
    world.opened(opening);
}

#[test]
fn a_view_whose_opener_died_holds_nothing_back_for_long() {
    let mut world = World::new();
    world.deadly = Some(Stage::AllPinned);
    let opener = world.leader(0);
    world.open_view(opener);
    assert_eq!(world.died, Some(opener));
    let write = world.put(&key(1), "new");
    assert!(world.answer(write).is_none(), "held back");
    world.run(3 * TICK_MS);
    assert!(matches!(
        world.answer(write),
        Some(Ok(Response::Written(_)))
    ));
}

#[test]
fn two_views_opened_at_a_time_show_two_writes_in_the_same_order() {
    let mut world = World::new();
    world.stop = Some(is_pin);
    let openers = [world.leader(0), world.leader(1)];
    let openings = openers.map(|node| world.open_view(node));
    let writes = [0, 1].map(|shard| world.put(&key(shard), "new"));
    world.go_on();
    world.run(1_000);
    for write in writes {
        assert!(matches!(
            world.answer(write),
            Some(Ok(Response::Written(_)))
        ));
    }
    let views = openings.map(|opening| world.opened(opening));
    let seen = views.map(|view| world.seen(&view, &[0, 1]));
    let fork = [["old", "new"], ["new", "old"]];
    let forked = fork.iter().all(|one| seen.iter().any(|seen| seen == one));
    assert!(!forked, "each view shows what the other does not: {seen:?}");
}

#[test]
fn a_view_that_shows_what_another_keeps_back_is_opened_after_it() {
    let mut world = World::new();
    let openers = [world.leader(0), world.leader(1)];
    world.stop = Some(is_pin);
    let first = world.open_view(openers[0]);
    let write = world.put(&key(0), "new");
    world.stop = None;
    // Whoever is opened now has seen the write that the first one hides.
    let second = world.open_view(openers[1]);
    assert!(world.answer(write).is_none(), "held back");
    assert!(
        world.answer(second).is_none(),
        "so is the view that shows it"
    );
    world.go_on();
    world.run(1_000);
    let views = [first, second].map(|opening| world.opened(opening));
    let seen = views.map(|view| world.seen(&view, &[0]).remove(0));
    assert_eq!(seen, ["old", "new"]);
}

#[test]
fn a_read_that_waited_does_not_tell_what_is_kept_back_for_a_view() {
    let mut world = World::new();
    world.stop = Some(is_resolve);
    world.transact(&[0, 1], "new");
    let participant = world.leader(1);
    let read = world.read(participant, 1, ReadLevel::Linearizable);
    assert!(world.answer(read).is_none(), "it waits");
    // A view is taken here and not yet elsewhere; then one turn applies the resolution and a write behind it.
    let resolutions = std::mem::take(&mut world.stopped);
    world.stop = Some(is_pin_or_raft_to_the_second_leader);
    let opening = world.open_view(participant);
    world.messages.extend(resolutions);
    world.settle();
    let write = world.put(&key(1), "later");
    world.stop = Some(is_pin);
    let stopped = std::mem::take(&mut world.stopped);
    let (pins, raft): (Vec<_>, Vec<_>) = stopped
        .into_iter()
        .partition(|(_, _, message)| inner(message).is_some());
    world.messages.extend(raft.into_iter().rev());
    world.settle();
    assert!(world.answer(write).is_none(), "held back");
    assert_eq!(world.value_read(read).unwrap(), "new");
    world.stopped = pins;
    world.go_on();
    let view = world.opened(opening);
    assert_eq!(world.seen(&view, &[1]), ["new"]);
    assert!(matches!(
        world.answer(write),
        Some(Ok(Response::Written(_)))
    ));
}

/// The shard that a stopped message is to pin.
fn pins(message: &PeerMessage) -> Option<u16> {
    if let Some(InnerRequest::ViewPin { shard, .. }) = inner(message) {
        Some(shard.0)
    } else {
        None
    }
}

#[test]
fn a_part_that_was_given_up_and_taken_again_makes_no_view() {
    // A node that leads nothing opens the view; another leads two shards, `first` and `second`, a third one `other`.
    let places = |world: &World| {
        let leaders = [0, 1, 2, 3].map(|shard| world.leader(shard));
        let opener = (0..NODES).find(|node| !leaders.contains(node))?;
        let twice = leaders
            .iter()
            .position(|node| leaders.iter().filter(|other| *other == node).count() > 1)?;
        let second = (twice + 1..4).find(|shard| leaders[*shard] == leaders[twice])?;
        let other = (0..4).find(|shard| leaders[*shard] != leaders[twice])?;
        let shard = |place: usize| u16::try_from(place).unwrap();
        Some((opener, shard(twice), shard(second), shard(other)))
    };
    let fit = (0..20)
        .map(World::leads_nothing)
        .find(|world| places(world).is_some());
    let mut world = fit.unwrap();
    let (opener, first, second, other) = places(&world).unwrap();
    for shard in 0..SHARDS {
        world.put(&key(shard), "old");
    }
    world.stop = Some(is_pin);
    let opening = world.open_view(opener);
    let (early, late): (Vec<_>, Vec<_>) = std::mem::take(&mut world.stopped)
        .into_iter()
        .partition(|(_, _, message)| pins(message) == Some(first));
    assert!(
        late.iter()
            .any(|(_, _, message)| pins(message) == Some(second))
    );
    world.messages.extend(early);
    world.settle();
    world.run(3 * TICK_MS);
    // The part is given up by now. A transaction is decided, and the rest of the view is taken.
    world.stop = Some(is_resolve);
    let transaction = world.transact(&[first, other], "new");
    assert!(matches!(
        world.answer(transaction),
        Some(Ok(Response::Transacted(_)))
    ));
    world.messages.extend(late);
    world.settle();
    let opened = world.answer(opening);
    world.go_on();
    if let Some(Ok(Response::ViewOpened(view))) = opened {
        let seen = world.seen(&view, &[first, other]);
        assert_eq!(seen[0], seen[1], "in all of its shards or in none");
    }
}
