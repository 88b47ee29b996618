//! The common part of the models of shared tables: runs under a checker of the C11 memory model (loom), in
//! all orders in which threads may read, write and see each other's writes (arm64 allows fewer), and again
//! without each of the barriers, which the checker must then find to be needed.
//!
//! In: scenarios, and the code of the product with modelled memory. Out: a panic when a scenario fails in
//! some order, or when all pass without a barrier. Left out: the memory, which each table models itself.

use core::panic::Location;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    println,
};

use loom::sync::atomic::{
    Ordering::{Acquire, Release},
    fence,
};

/// A place in the code that orders reads or writes: file and line.
pub(crate) type Barrier = (&'static str, u32);

/// The barriers that a scenario meets, over all orders.
pub(crate) type BarrierSet = BTreeSet<Barrier>;

/// A scenario fails in some order.
#[derive(Debug)]
pub(crate) struct Failed;

std::thread_local! {
    /// All threads of an execution run on one of the system's.
    static MET: RefCell<BarrierSet> = const { RefCell::new(BarrierSet::new()) };
    static WITHOUT: Cell<Option<Barrier>> = const { Cell::new(None) };
}

/// [`Atomic::order_reads`](crate::Atomic::order_reads) of the checker's, unless it is the one that is left
/// out.
pub(crate) fn order_reads(caller: &'static Location<'static>) {
    if is_there(caller) {
        fence(Acquire);
    }
}

/// The same of [`Atomic::order_writes`](crate::Atomic::order_writes).
pub(crate) fn order_writes(caller: &'static Location<'static>) {
    if is_there(caller) {
        fence(Release);
    }
}

fn is_there(caller: &'static Location<'static>) -> bool {
    let barrier = (caller.file(), caller.line());
    MET.with_borrow_mut(|met| met.insert(barrier));
    WITHOUT.get() != Some(barrier)
}

/// Runs an execution in all orders with at most this many interruptions of a thread.
pub(crate) fn in_all_orders(
    interruptions: usize,
    without: Option<Barrier>,
    execution: impl Fn() + Send + Sync + 'static,
) -> Result<BarrierSet, Failed> {
    MET.take();
    WITHOUT.set(without);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.max_branches = 10_000;
    let checked = catch_unwind(AssertUnwindSafe(|| builder.check(execution)));
    WITHOUT.set(None);
    checked.map(|()| MET.take()).map_err(|_| Failed)
}

/// Checks that each scenario passes in all orders, that together they use this many barriers, and that
/// without any one of these some scenario fails. `check` runs one of them.
pub(crate) fn each_is_needed<S: Copy>(
    scenarios: &[(&str, S)],
    count: usize,
    check: impl Fn(S, Option<Barrier>) -> Result<BarrierSet, Failed>,
) {
    let met: std::vec::Vec<BarrierSet> = scenarios
        .iter()
        .map(|(name, scenario)| {
            check(*scenario, None).unwrap_or_else(|Failed| panic!("{name}: it fails in some order"))
        })
        .collect();
    let barriers: BarrierSet = met.iter().flatten().copied().collect();
    assert_eq!(barriers.len(), count, "{barriers:?}");
    for barrier in barriers {
        let failing = scenarios
            .iter()
            .zip(&met)
            .find(|((_, scenario), met)| met.contains(&barrier) && check(*scenario, Some(barrier)).is_err());
        let ((name, _), _) = failing.unwrap_or_else(|| panic!("nothing fails without {barrier:?}"));
        println!("without {barrier:?}: {name}");
    }
}
