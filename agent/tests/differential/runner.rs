//! How many clusters, and which: the same ones each time, until the environment asks for others.
//!
//! `PODGATE_CLUSTERS=20000 PODGATE_SEED=random` goes hunting; a failure prints its seed. proptest makes the
//! clusters and shrinks what fails.

use std::{
    env,
    fmt::Debug,
    hash::{BuildHasher, RandomState},
    thread,
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner},
};

const DEFAULT_SEED: u64 = 1;
/// Independent sequences of clusters. Fixed, so that a seed means the same clusters on every machine.
const STREAMS: u32 = 4;

/// Checks a property of `clusters` generated values. Panics with the shrunk counterexample, as `describe`
/// prints it.
pub(crate) fn check<S: Strategy>(
    clusters: u32,
    strategy: impl Fn() -> S + Sync,
    property: impl Fn(&S::Value) -> Result<(), TestCaseError> + Sync,
    describe: impl Fn(&S::Value) -> String + Sync,
) where
    S::Value: Debug + Send,
{
    let clusters =
        variable("PODGATE_CLUSTERS").map_or(clusters, |text| text.parse().expect("PODGATE_CLUSTERS"));
    let seed = match variable("PODGATE_SEED").as_deref() {
        None => DEFAULT_SEED,
        Some("random") => RandomState::new().hash_one(0),
        Some(text) => text.parse().expect("PODGATE_SEED is a number or `random`"),
    };
    let (strategy, property) = (&strategy, &property);
    let run = |stream: u32| {
        let config = Config {
            cases: clusters / STREAMS + u32::from(stream < clusters % STREAMS),
            rng_seed: RngSeed::Fixed(seed.wrapping_add(stream.into())),
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..Config::default()
        };
        TestRunner::new(config).run(&strategy(), |value| property(&value))
    };
    let failures: Vec<_> = thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS).map(|stream| scope.spawn(move || run(stream))).collect();
        streams
            .into_iter()
            .filter_map(|stream| stream.join().expect("proptest catches panics").err())
            .collect()
    });
    match failures.first() {
        None => {}
        Some(TestError::Fail(reason, value)) => panic!("PODGATE_SEED={seed}: {reason}\n{}", describe(value)),
        Some(TestError::Abort(reason)) => panic!("PODGATE_SEED={seed}: gave up: {reason}"),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}
