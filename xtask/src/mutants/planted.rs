//! The bugs.

/// What has to find it.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The race models of that name, with two preemptions.
    Loom(&'static str),
    /// The first so many histories.
    Shuttle(&'static str),
    /// A package's tests: which, and of which names.
    Test(&'static str, &'static [&'static str], &'static str),
    /// The same, of purview's `it`, with AddressSanitizer.
    Address(&'static str),
}

pub(super) struct Planted {
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    /// Is there once.
    pub(super) code: &'static str,
    pub(super) bug: &'static str,
    pub(super) stage: Stage,
}

const IT: &[&str] = &["--test", "it"];
const LIB: &[&str] = &["--lib"];
const MODEL: &[&str] = &["--test", "model"];

pub(super) const PLANTED: [Planted; 22] = [
    Planted {
        name: "a lost wake-up: who has listed a waiter does not look once more",
        file: "crates/purview/src/done.rs",
        code: "        match this.node().ending() {",
        bug: "        match this.node().ending().filter(|_| false) {",
        stage: Stage::Loom("c29_a_wake_up_is_never_lost"),
    },
    Planted {
        name: "a relaxed publish: the end is stored before what it tells of",
        file: "crates/purview/src/state.rs",
        code: "self.0.store(ending.tagged(claimed | WAS_LIVE), Ordering::Release);",
        bug: "self.0.store(ending.tagged(claimed | WAS_LIVE), Ordering::Relaxed);",
        stage: Stage::Loom("c4_"),
    },
    Planted {
        name: "a lost late child: who links a child does not look once more",
        file: "crates/purview/src/tree/derive.rs",
        code: "        if above.state().done().is_some() {\n            return false; // D3\n        }\n",
        bug: "",
        stage: Stage::Loom("c8_a_child_derived_during_a_cancel_is_never_lost"),
    },
    Planted {
        name: "a lost late child, of a parent whose own end is still on its way",
        file: "crates/purview/src/tree/sweep.rs",
        code: "            if node.is_leaf() {\n                node.set_complete();",
        bug: "            {\n                node.set_complete();",
        stage: Stage::Shuttle("300"),
    },
    Planted {
        name: "a second canceler that does not wait for the first one's marking",
        file: "crates/purview/src/tree/note.rs",
        code: "        node.wait_until_complete();\n    }\n}\n\n/// The lock",
        bug: "    }\n}\n\n/// The lock",
        stage: Stage::Shuttle("300"),
    },
    Planted {
        name: "a callback that is called, and says that it was stopped",
        file: "crates/purview/src/on_done.rs",
        code: "        let prevented = unlisted || callback.get().advance(WAITING, OVER).is_ok();",
        bug: "        let prevented = unlisted || callback.get().phase.load(Ordering::Acquire) == WAITING;",
        stage: Stage::Shuttle("300"),
    },
    Planted {
        name: "a cycle: a child counts its parent twice",
        file: "crates/purview/src/tree/derive.rs",
        code: "            count_up(&parent.head().strong);\n",
        bug: "            count_up(&parent.head().strong);\n            count_up(&parent.head().strong);\n",
        stage: Stage::Test("purview", IT, "c13_"),
    },
    Planted {
        name: "a leak: a handle that is given up at the same time as another one stays counted",
        file: "crates/purview/src/tree/reclaim.rs",
        code: "                    Err(now) => count = now,\n",
        bug: "                    Err(_) => return None,\n",
        stage: Stage::Loom("c13_the_last_two_handles"),
    },
    Planted {
        name: "a task that waits for room is forgotten when that is made just before it waits",
        file: "crates/purview/src/group/shared.rs",
        code: "        self.begin_waiting(); // somebody may have made room meanwhile\n",
        bug: "",
        stage: Stage::Loom("who_waits_for_room"),
    },
    Planted {
        name: "a use after free: a waiter that leaves stays listed",
        file: "crates/purview/src/tree/wait.rs",
        code: "        unsafe { held.list.remove(waiter.item()) };\n",
        bug: "        unsafe { if false { held.list.remove(waiter.item()) } };\n",
        stage: Stage::Address("c29_dropping_a_waiter"),
    },
    Planted {
        name: "a wrong order: what a sweep has marked is told as it was come by",
        file: "crates/purview/src/tree/chain.rs",
        code: "        if !self.sorted {",
        bug: "        if false && !self.sorted {",
        stage: Stage::Test("purview", IT, "c9_"),
    },
    Planted {
        name: "a forgotten unlink: a child that is canceled stays in its parent's list",
        file: "crates/purview/src/tree/note.rs",
        code: "        unsafe { held.list.remove(Node::item(self.this())) };\n        self.listed",
        bug: "        unsafe { if false { held.list.remove(Node::item(self.this())) } };\n        self.listed",
        stage: Stage::Test("purview", IT, "c12_"),
    },
    Planted {
        name: "a wheel whose levels are off by one",
        file: "crates/purview/src/timer/wheel.rs",
        code: "(63 - (slot ^ self.cursor).leading_zeros()) / DIGIT;",
        bug: "(64 - (slot ^ self.cursor).leading_zeros()) / DIGIT;",
        stage: Stage::Test("purview", LIB, "timer"),
    },
    Planted {
        name: "of two equal deadlines the lower one counts",
        file: "crates/purview/src/tree/derive.rs",
        code: "} else if fixed < limit {",
        bug: "} else if fixed <= limit {",
        stage: Stage::Test("purview", IT, "c19_"),
    },
    Planted {
        name: "a callback that was taken back is called, too",
        file: "crates/purview/src/on_done.rs",
        code: "        self.callback.take().is_some_and(|callback| self.prevent(&callback))\n",
        bug: "        self.callback.take().is_some_and(|callback| { callback.get().keep(self.context()); true })\n",
        stage: Stage::Test("purview-conformance", MODEL, ""),
    },
    Planted {
        name: "below graces that come together again the longest way counts",
        file: "crates/purview/src/tree/deadline.rs",
        code: "todo.steps.pop_first()",
        bug: "todo.steps.pop_last()",
        stage: Stage::Test("purview", IT, "c15_"),
    },
    Planted {
        name: "a canceled context has its parent's cause, if that ends later",
        file: "crates/purview/src/state.rs",
        code: "            View::Done(_) => return Ended::Lost,\n        }\n        self.0.store",
        bug: "            View::Done(_) => {}\n        }\n        self.0.store",
        stage: Stage::Test("purview-conformance", MODEL, ""),
    },
    Planted {
        name: "a client that went away is taken for one that was answered",
        file: "crates/purview-http/src/request.rs",
        code: "        if self.is_whole {\n            self.finish();",
        bug: "        if !self.is_over {\n            self.finish();",
        stage: Stage::Test("purview-http", IT, "requests"),
    },
    Planted {
        name: "a stream that always has more never ends",
        file: "crates/purview-http/src/body.rs",
        code: "if is_ended && !serving.is_end_stream() {",
        bug: "if false && is_ended && !serving.is_end_stream() {",
        stage: Stage::Test("purview-http", IT, "requests"),
    },
    Planted {
        name: "a parent's end overlooked: the quick cancel of a leaf does not look whether it came first",
        file: "crates/purview/src/tree/note.rs",
        code: "Ordering::Relaxed) == UNLISTED || above.state().done().is_some() {",
        bug: "Ordering::Relaxed) == UNLISTED {",
        stage: Stage::Loom("c2_who_cancels_a_leaf"),
    },
    Planted {
        name: "armed after its end: who puts it into the timer does not look whether it has ended",
        file: "crates/purview/src/tree/deadline.rs",
        code: "if self.state().done().is_none() && self.limit() != Tick::NEVER {",
        bug: "if self.limit() != Tick::NEVER {",
        stage: Stage::Loom("c21_what_is_armed"),
    },
    Planted {
        name: "a grace that never begins: who links one does not look whether its parent has ended",
        file: "crates/purview/src/tree/derive.rs",
        code: "        if above.state().done().is_some() {\n            return false; // D3",
        bug: "        if self.grace().is_none() && above.state().done().is_some() {\n            return false; // D3",
        stage: Stage::Loom("c27_"),
    },
];
