//! Bugs in deadlines, graces and timers.

use super::{IT, LIB, Planted, Stage};

const ERROR: &str = "crates/purview/src/error.rs";
const WHEEL: &str = "crates/purview/src/timer/wheel.rs";
const DEADLINE: &str = "crates/purview/src/tree/deadline.rs";
const ARM: &str = "crates/purview/src/tree/arm.rs";
const GRACE: &str = "crates/purview/src/tree/grace.rs";
const MERGE: &str = "crates/purview/src/tree/merge.rs";
const DERIVE: &str = "crates/purview/src/tree/derive.rs";
const SWEEP: &str = "crates/purview/src/tree/sweep.rs";

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "a sweep takes a grace that is done by itself for one that begins",
        file: SWEEP,
        code: "        if node.grace().is_some() && node.state().done().is_none() {",
        bug: "        if node.grace().is_some() {",
        stages: &[
            Stage::Loom("c7_a_cancel_waits_for_a_grace_that_ended_before_it"),
            Stage::Storm("grace_ended"),
        ],
    },
    Planted {
        name: "a wait arms a deadline below one that a poll has found passed",
        file: ARM,
        code: "                match ended.filter(|_| node.grace().is_none()) {",
        bug: "                match ended.filter(|_| false) {",
        stages: &[
            Stage::Loom("c29_a_wait_below_a_grace_that_begins_and_ends_is_woken"),
            Stage::Storm("grace_wait"),
        ],
    },
    Planted {
        name: "an error names the deadline that binds, which a grace may change",
        file: ERROR,
        code: "            By::Deadline => node.own_deadline(),",
        bug: "            By::Deadline => node.deadline(),",
        stages: &[
            Stage::Loom("c2_an_error_says_the_same_after_a_grace_above_has_begun"),
            Stage::Storm("grace_error"),
        ],
    },
    Planted {
        name: "a deadline is none for a moment when a grace above begins",
        file: DEADLINE,
        code: "            let is_over = owner.grace_over();\n",
        bug: "            let begins = owner.above().is_some_and(|it| it.state().done().is_some());\n            \
              let is_over = owner.grace().filter(|_| begins).map(|_| owner.over_at());\n",
        stages: &[
            Stage::Loom("c15_a_deadline_below_a_grace_that_begins_is_never_none"),
            Stage::Storm("grace_deadline"),
        ],
    },
    Planted {
        name: "a grace that is over records its parent's end at the owner of the deadline alone",
        file: GRACE,
        code: "        for grace in graces.down() {\n            grace.above().map(Node::note_deadline); \
               // what is above is done, so this does not come back here\n        }\n        \
               let _ = self.grace_over(); // before the state that says that it is\n        \
               let parents = self.above().and_then(|parent| Some(parent.state().done()?.ending()));\n",
        bug: "        let mut recorded = None;\n        for grace in graces.down() {\n            recorded = grace.above().and_then(Node::binding).map(|it| it.owner.note_expiry());\n        }\n        \
              let _ = self.grace_over();\n        \
              let parents = self.above().and_then(|parent| Some(parent.state().done()?.ending()));\n        \
              let parents = recorded.or(parents);\n",
        stages: &[Stage::Loom("c27_a_grace_has_the_end_of_its_parent"), Stage::Storm("tree")],
    },
    Planted {
        name: "a grace that begins does not tell the timer when it is over",
        file: SWEEP,
        code: "    aside.graces.iter().for_each(|grace| grace.scope().enter_again());\n",
        bug: "",
        stages: &[Stage::Test("purview", IT, "c27_"), Stage::Storm("grace_wait")],
    },
    Planted {
        name: "a grace is over later than was said, where a timer is late",
        file: GRACE,
        code: "        let over = ended.min(parent.deadline()).after(grace);\n",
        bug: "        let over = ended.after(grace);\n",
        stages: &[Stage::Storm("tree")],
    },
    Planted {
        name: "a wait below a grace does not record the end of the grace's parent",
        file: ARM,
        code: "                parent.follow_unswept(above);\n",
        bug: "                let _ = (parent, above);\n",
        stages: &[Stage::Clocks],
    },
    Planted {
        name: "a new grace does not check once more, under the lock, that its parent is live",
        file: DERIVE,
        code: "        if above.state().done().is_some() {\n            return false; // D3",
        bug: "        if self.grace().is_none() && above.state().done().is_some() {\n            return false; // D3",
        stages: &[Stage::Loom("c27_")],
    },
    Planted {
        name: "a deadline is put into the timer after its context is done",
        file: ARM,
        code: "        if self.state().done().is_some() || self.timer_key().0 == Tick::NEVER {",
        bug: "        if self.timer_key().0 == Tick::NEVER {",
        stages: &[Stage::Loom("c21_what_is_armed")],
    },
    Planted {
        name: "a wheel's levels are off by one",
        file: WHEEL,
        code: "(63 - (slot ^ self.cursor).leading_zeros()) / DIGIT;",
        bug: "(64 - (slot ^ self.cursor).leading_zeros()) / DIGIT;",
        stages: &[Stage::Test("purview", LIB, "timer")],
    },
    Planted {
        name: "of two equal deadlines the lower one counts",
        file: DERIVE,
        code: "        !is_fixed || own < owner.own_deadline()",
        bug: "        !is_fixed || own <= owner.own_deadline()",
        stages: &[Stage::Test("purview", IT, "c19_")],
    },
    Planted {
        name: "of a grace and an equal deadline below it the deadline counts",
        file: DEADLINE,
        code: "        let is_first = own < at || (own == at && !by_time);",
        bug: "        let is_first = own <= at || by_time && false;",
        stages: &[Stage::Test("purview", IT, "c19_")],
    },
    Planted {
        name: "where graces join in a merge, the longest way counts",
        file: MERGE,
        code: "if b.at < a.at { b } else { a }",
        bug: "if b.at > a.at { b } else { a }",
        stages: &[Stage::Test("purview", IT, "c15_")],
    },
];
