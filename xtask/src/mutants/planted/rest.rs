//! Bugs in waits, callbacks, memory, groups and HTTP.

use super::{IT, MODEL, Planted, Stage};

const ON_DONE: &str = "crates/purview/src/on_done.rs";

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "a wait does not check once more after it is listed",
        file: "crates/purview/src/done.rs",
        code: "        match this.node().ending() {",
        bug: "        match this.node().ending().filter(|_| false) {",
        stages: &[Stage::Loom("c29_a_wake_up_is_never_lost")],
    },
    Planted {
        name: "a waiter is freed and stays listed",
        file: "crates/purview/src/tree/wait.rs",
        code: "        unsafe { held.list.remove(waiter.item()) };\n",
        bug: "        unsafe { if false { held.list.remove(waiter.item()) } };\n",
        stages: &[Stage::Address("c29_dropping_a_waiter")],
    },
    Planted {
        name: "a callback is reported as stopped and runs",
        file: ON_DONE,
        code: "        if !unlisted && callback.get().advance(WAITING, OVER).is_err() {\n            \
               return Err(callback);\n        }\n",
        bug: "        if !unlisted {\n            let waits = callback.get().phase.load(Ordering::Acquire) == WAITING;\n            \
              return if waits { Ok(()) } else { Err(callback) };\n        }\n",
        stages: &[Stage::Shuttle("300")],
    },
    Planted {
        name: "stopping a callback detaches it",
        file: ON_DONE,
        code: "        self.callback.take().is_some_and(|callback| self.prevent(callback).is_ok())\n",
        bug: "        self.callback.take().is_some_and(|callback| { callback.get().keep(self.context()); true })\n",
        stages: &[Stage::Test("purview-conformance", MODEL, "")],
    },
    Planted {
        name: "a child counts its parent twice",
        file: "crates/purview/src/tree/derive.rs",
        code: "            count_up(&parent.head().strong);\n",
        bug: "            count_up(&parent.head().strong);\n            count_up(&parent.head().strong);\n",
        stages: &[Stage::Test("purview", IT, "c13_")],
    },
    Planted {
        name: "one of two handles that are dropped at the same time stays counted",
        file: "crates/purview/src/tree/reclaim.rs",
        code: "                    Err(now) => count = now,\n",
        bug: "                    Err(_) => return None,\n",
        stages: &[Stage::Loom("c13_the_last_two_handles")],
    },
    Planted {
        name: "a slot that is freed just before a task waits for it is missed",
        file: "crates/purview/src/group/shared.rs",
        code: "        self.begin_waiting(); // somebody may have made room meanwhile\n",
        bug: "",
        stages: &[Stage::Loom("who_waits_for_room")],
    },
    Planted {
        name: "a client that disconnects is taken for one that got its response",
        file: "crates/purview-http/src/request.rs",
        code: "        if self.is_whole {\n            self.finish();",
        bug: "        if !self.is_over {\n            self.finish();",
        stages: &[Stage::Test("purview-http", IT, "requests")],
    },
    Planted {
        name: "a late body that always has more data never ends",
        file: "crates/purview-http/src/body.rs",
        code: "if is_ended && !serving.is_end_stream() && !reading.goes_on() => {",
        bug: "if false && is_ended && !serving.is_end_stream() && !reading.goes_on() => {",
        stages: &[Stage::Test("purview-http", IT, "late_answers")],
    },
];
