//! Bugs in how contexts are derived, canceled and swept.

use super::{IT, MODEL, Planted, Stage};

const STATE: &str = "crates/purview/src/state.rs";
const CHAIN: &str = "crates/purview/src/tree/chain.rs";
const DERIVE: &str = "crates/purview/src/tree/derive.rs";
const MERGE: &str = "crates/purview/src/tree/merge.rs";
const NOTE: &str = "crates/purview/src/tree/note.rs";
const SWEEP: &str = "crates/purview/src/tree/sweep.rs";

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "a sweep takes a child that another thread is canceling for a leaf",
        file: SWEEP,
        code: "            if node.is_leaf() && node.end_or_claim(ending) {\n",
        bug: "            if node.is_leaf() {\n                let _ = node.end_or_claim(ending);\n",
        stages: &[
            Stage::Loom("c7_a_cancel_above_waits_for_one_that_sweeps_below"),
            Stage::Storm("chain"),
        ],
    },
    Planted {
        name: "a cancel marks a leaf as complete before it is done",
        file: NOTE,
        code: "        let outcome = self.state().end(Ending::new(self.this(), by), true);\n",
        bug: "        if leaf { self.set_complete(); }\n        \
              let outcome = self.state().end(Ending::new(self.this(), by), true);\n",
        stages: &[
            Stage::Loom("c7_a_leaf_with_two_cancelers_is_done_when_each_returns"),
            Stage::Storm("leaf"),
        ],
    },
    Planted {
        name: "a sweep marks a leaf as complete before it is done",
        file: SWEEP,
        code: "            if node.is_leaf() && node.end_or_claim(ending) {\n",
        bug: "            let is_claimed = node.state().done().is_some_and(Done::is_claimed);\n            \
              if node.is_leaf() && !is_claimed && { node.set_complete(); node.end_or_claim(ending) } {\n",
        stages: &[
            Stage::Loom("c7_a_leaf_that_a_sweep_ends_is_done_when_its_cancel_returns"),
            Stage::Storm("leaf"),
        ],
    },
    Planted {
        name: "a sweep reads once how many lists of children there are",
        file: SWEEP,
        code: "        while shard < parent.lists() {",
        bug: "        let lists = parent.lists();\n        while shard < lists {",
        stages: &[
            Stage::Loom("c8_a_child_derived_into_a_new_shard_is_never_lost"),
            Stage::Storm("shards"),
        ],
    },
    Planted {
        name: "a second canceler does not wait until the first has marked the subtree",
        file: NOTE,
        code: "        node.wait_until_complete();\n    }\n}\n\n/// The lock",
        bug: "    }\n}\n\n/// The lock",
        stages: &[
            Stage::Shuttle("300"),
            Stage::Loom("c7_a_loser_waits_until_the_subtree_is_marked"),
            Stage::Storm("chain"),
        ],
    },
    Planted {
        name: "a canceled child leaves its parent's list before its subtree is marked",
        file: SWEEP,
        code: "    let (mut unit, others) = mark(&first, &mut aside);\n",
        bug: "    first.scope().unlink();\n    let (mut unit, others) = mark(&first, &mut aside);\n",
        stages: &[
            Stage::Loom("c7_a_canceled_child_stays_in_sight_until_its_subtree_is_marked"),
            Stage::Storm("chain"),
        ],
    },
    Planted {
        name: "a canceled child leaves its parent's list before it has waited for other sweeps below it",
        file: SWEEP,
        code: "    let (mut unit, others) = mark(&first, &mut aside);\n",
        bug: "    let (mut unit, others) = mark(&first, &mut aside);\n    first.scope().unlink();\n",
        stages: &[Stage::Loom("joined_before_it_is_unlinked"), Stage::Storm("chain")],
    },
    Planted {
        name: "a canceled child is complete before it has left its parent's list",
        file: SWEEP,
        code: "        self.unlink();\n        self.set_complete();\n",
        bug: "        self.set_complete();\n        self.unlink();\n",
        stages: &[Stage::Loom("unlinked_before_it_is_complete")],
    },
    Planted {
        name: "a waiter is notified before other threads' parts of the subtree are marked",
        file: SWEEP,
        code: "    unit.complete();\n    first.scope().leave_complete();\n",
        bug: "    tell(first.clone(), wake, panics);\n    unit.complete();\n    first.scope().leave_complete();\n",
        stages: &[Stage::Loom("notified_after_it_is_complete")],
    },
    Planted {
        name: "a new child does not check once more, under the lock, that its parent is live",
        file: DERIVE,
        code: "        if above.state().done().is_some() {\n            return false; // D3\n        }\n",
        bug: "",
        stages: &[Stage::Loom("c8_a_child_derived_during_a_cancel_is_never_lost")],
    },
    Planted {
        name: "a child is taken for a leaf though it got a child while it was being ended",
        file: SWEEP,
        code: "            if node.is_leaf() && node.end_or_claim(ending) {\n",
        bug: "            if node.end_or_claim(ending) {\n",
        stages: &[Stage::Shuttle("300")],
    },
    Planted {
        name: "the quick cancel of a leaf does not check whether its parent is done",
        file: NOTE,
        code: "Ordering::Relaxed) == UNLISTED || above.state().done().is_some() {",
        bug: "Ordering::Relaxed) == UNLISTED {",
        stages: &[Stage::Loom("c2_who_cancels_a_leaf")],
    },
    Planted {
        name: "a canceled context takes the cause of its parent, which is done later",
        file: STATE,
        code: "            View::Done(_) => return Ended::Lost,\n        }\n        self.0.store",
        bug: "            View::Done(_) => {}\n        }\n        self.0.store",
        stages: &[Stage::Test("purview-conformance", MODEL, "")],
    },
    Planted {
        name: "a state is stored with no release of what it refers to",
        file: STATE,
        code: "self.0.store(ending.tagged(claimed | WAS_LIVE), Ordering::Release);",
        bug: "self.0.store(ending.tagged(claimed | WAS_LIVE), Ordering::Relaxed);",
        stages: &[Stage::Loom("c4_")],
    },
    Planted {
        name: "a canceled child stays in its parent's list",
        file: NOTE,
        code: "        unsafe { held.list.remove(Node::item(self.this())) };\n        self.listed",
        bug: "        unsafe { if false { held.list.remove(Node::item(self.this())) } };\n        self.listed",
        stages: &[Stage::Test("purview", IT, "c12_")],
    },
    Planted {
        name: "a sweep notifies in the order in which it visited the contexts",
        file: CHAIN,
        code: "        if !self.sorted {",
        bug: "        if false && !self.sorted {",
        stages: &[Stage::Test("purview", IT, "c9_")],
    },
    Planted {
        name: "a merge has the deadline of its first parent only",
        file: MERGE,
        code: "        let is_one = owners.all(|owner| std::ptr::eq(owner, first));\n",
        bug: "        let is_one = owners.next().is_none_or(|_| true);\n",
        stages: &[
            Stage::Loom("c15_a_merge_made_while_a_parent_ends_has_the_deadlines_of_all"),
            Stage::Storm("tree"),
        ],
    },
];
