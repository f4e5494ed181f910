//! The bugs.

mod rest;
mod time;
mod tree;

/// What has to find a bug.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The race models of that name, with two preemptions.
    Loom(&'static str),
    /// The first so many histories.
    Shuttle(&'static str),
    /// A package's tests: which, and of which names.
    Test(&'static str, &'static [&'static str], &'static str),
    /// Random programs against the model, with the clocks that only checks have: they arm as the system's does.
    Clocks,
    /// The same, of purview's `it`, with AddressSanitizer.
    Address(&'static str),
    /// A shape of the storm, in a release build, within a minute.
    Storm(&'static str),
}

pub(super) struct Planted {
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    /// Is there once.
    pub(super) code: &'static str,
    pub(super) bug: &'static str,
    /// Each of them has to find it.
    pub(super) stages: &'static [Stage],
}

/// All bugs.
pub(super) fn planted() -> impl Iterator<Item = &'static Planted> {
    tree::PLANTED.iter().chain(time::PLANTED).chain(rest::PLANTED)
}

const IT: &[&str] = &["--test", "it"];
const LIB: &[&str] = &["--lib"];
const MODEL: &[&str] = &["--test", "model"];
