//! The v0 dialect: the client offers its upstream connection, we offer the downstream one. Alone and mixed with v1.

use std::time::Duration;

use parlour::sfu::{DataChannel, Negotiation};

use crate::room::{all_leave, all_see_all, check_streams, enter, setup, three};

const SECOND: Duration = Duration::from_secs(1);
const DUAL: Negotiation = Negotiation::Dual;

#[test]
fn three_with_two_connections_each() {
    let mut world = three([1, 2, 3].map(|seed| setup(DUAL, seed)));
    world.run(3 * SECOND);
    check_streams(&world, Duration::from_millis(200));
    for client in &world.clients {
        assert!(client.requirements.is_empty(), "nobody is asked for sections");
        assert_eq!(client.sections.len(), 4);
    }
    all_leave(&mut world);
}

#[test]
fn both_dialects_in_one_room() {
    let mut world = three([setup(DUAL, 1), setup(Negotiation::Single, 2), setup(DUAL, 3)]);
    let now = world.now;
    assert!(world.clients[0].send_data(now, "_reliable", b"from v0"));
    assert!(world.clients[1].send_data(now, "_reliable", b"from v1"));
    world.run(2 * SECOND);
    let heard = |index: usize| world.clients[index].diary.messages.clone();
    assert_eq!(heard(0), [(DataChannel::Reliable, b"from v1".to_vec())]);
    assert_eq!(heard(1), [(DataChannel::Reliable, b"from v0".to_vec())]);
    assert_eq!(heard(2).len(), 2);
    // One of each leaves, one of each comes.
    world.leave(0);
    world.leave(1);
    enter(&mut world, "dave", setup(Negotiation::Single, 4));
    enter(&mut world, "eve", setup(DUAL, 5));
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(2 * SECOND);
    check_streams(&world, Duration::from_millis(200));
    all_leave(&mut world);
}

#[test]
fn sections_are_used_again() {
    let mut world = three([1, 2, 3].map(|seed| setup(DUAL, seed)));
    world.run(SECOND);
    for _ in 0..3 {
        let camera = world.clients[0].tracks.len() - 1;
        world.clients[0].unpublish(camera);
        world.run(SECOND);
        let now = world.now;
        world.clients[0].publish_camera(now, true);
        world.run(SECOND);
    }
    for viewer in [1, 2] {
        assert_eq!(world.clients[viewer].sections.len(), 4);
        let highest = world.clients[viewer].sections.keys().filter_map(|mid| mid.parse::<u32>().ok()).max();
        assert!(highest <= Some(5), "sections pile up: {highest:?}");
        assert_eq!(world.clients[viewer].diary.from(0, true).len(), 4);
    }
    check_streams(&world, Duration::from_millis(200));
}

#[test]
fn a_late_one_sees_everybody_in_its_first_description() {
    let mut world = three([1, 2, 3].map(|seed| setup(DUAL, seed)));
    let dave = world.join_with("dave", setup(DUAL, 4));
    world.run_until(|w| !w.clients[dave].sections.is_empty(), SECOND).expect("an offer");
    assert_eq!(world.clients[dave].sections.len(), 6);
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(SECOND);
    check_streams(&world, Duration::from_millis(200));
}
