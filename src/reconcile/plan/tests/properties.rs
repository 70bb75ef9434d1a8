//! The plan in a world in which anything happens in any order; then all goes well, and everything wanted has to play.

use proptest::collection::vec;
use proptest::prelude::*;

use super::world::{POOL, World};
use super::*;
use crate::testing;

#[derive(Debug, Clone)]
pub enum Step {
    /// An operator adds or changes one, or only marks it; the plan hears of it later.
    Want {
        which: usize,
        marks: bool,
        crashes: u32,
        dark: bool,
    },
    Unwant(usize),
    /// A client adds one, and the server has it at once.
    Client(usize),
    /// The reconciler hears of the oldest such change.
    Hear,
    Look,
    Act,
    Sleep(u64),
    /// The server answers one of the calls that are open.
    Answer(usize, Added),
    Ask(usize),
    StartNow(usize),
    MediaChanged(usize),
    SourceCame,
    SourceGone,
    /// What the server does with one that it has.
    Does(usize, Listed),
    Loses(usize),
    RestoreAll,
    Limits(u64, usize, u64),
}

fn proxy() -> impl Strategy<Value = usize> {
    0..POOL
}

fn step() -> impl Strategy<Value = Step> {
    let crashes = prop_oneof![4 => Just(0), 1 => 0..=MOST_CRASHES];
    let does = prop_oneof![Just(Listed::Playing), Just(Listed::Connecting), Just(RETRYING)];
    let answer = prop_oneof![
        3 => Just(Added::Accepted),
        2 => Just(Added::Connected),
        1 => Just(Added::Retrying("off".into())),
        2 => Just(failed()),
        1 => Just(Added::Threw("thrown".into())),
        1 => Just(blocked()),
    ];
    prop_oneof![
        6 => (proxy(), any::<bool>(), crashes, any::<bool>())
            .prop_map(|(which, marks, crashes, dark)| Step::Want { which, marks, crashes, dark }),
        2 => proxy().prop_map(Step::Unwant),
        1 => proxy().prop_map(Step::Client),
        6 => Just(Step::Hear),
        4 => Just(Step::Look),
        6 => Just(Step::Act),
        5 => prop_oneof![0..3000_u64, 0..200_000_u64].prop_map(Step::Sleep),
        8 => (0..8_usize, answer).prop_map(|(which, answer)| Step::Answer(which, answer)),
        2 => proxy().prop_map(Step::Ask),
        1 => proxy().prop_map(Step::StartNow),
        2 => proxy().prop_map(Step::MediaChanged),
        1 => Just(Step::SourceCame),
        1 => Just(Step::SourceGone),
        1 => (proxy(), does).prop_map(|(which, does)| Step::Does(which, does)),
        2 => proxy().prop_map(Step::Loses),
        1 => Just(Step::RestoreAll),
        1 => (prop_oneof![Just(2_u64), Just(1000)], 0..3_usize, prop_oneof![Just(0_u64), Just(30)])
            .prop_map(|(per_second, places, revive)| Step::Limits(per_second, places, revive)),
    ]
}

proptest! {
    #![proptest_config(testing::config(1000))]

    /// The counts are right at any time, nothing is started that is not to be or is being started, and in the end all
    /// plays.
    #[test]
    fn whatever_happens_counts_stay_right_and_all_is_started_in_the_end(
        mode in prop::sample::select(&[RestoreMode::Eager, RestoreMode::Lazy, RestoreMode::Off][..]),
        steps in vec(step(), 1..70),
    ) {
        let mut world = World::new(mode);
        steps.into_iter().for_each(|step| world.take(step));
        world.ends_well();
    }
}
