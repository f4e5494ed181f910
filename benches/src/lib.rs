//! What purview costs, beside tokio-util: the workloads of BENCHMARKS.md. (Go's are in `go/`.)
//!
//! `cargo xtask bench` runs all of it. A row is a question, P1 to P12; a case is one form of it; a workload is what a peer does
//! in a case. Each family of rows is a file: tree.rs (P1–P3b), poll.rs (P4), value.rs (P5), sweep.rs (P6), wake.rs (P7),
//! memory.rs (P8), timer.rs (P9), waiter.rs (P10, P11), group.rs (P12), idle.rs. What a workload is, is told in case.rs; how it is timed, in
//! measure.rs; what a process prints, in print.rs.

mod case;
mod count;
mod group;
mod idle;
mod machine;
mod measure;
mod memory;
mod poll;
mod print;
mod round;
mod sweep;
mod timer;
mod tree;
mod value;
mod waiter;
mod wake;

pub use count::count;
pub use round::main;

/// Every workload there is.
fn cases() -> Vec<case::Case> {
    [
        tree::cases(),
        poll::cases(),
        value::cases(),
        sweep::cases(),
        wake::cases(),
        memory::cases(),
        timer::cases(),
        waiter::cases(),
        group::cases(),
        idle::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
