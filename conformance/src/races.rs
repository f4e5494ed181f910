//! The races there are. Context 0 is the root; a thread's first context is 3 further than that of the thread before.

use crate::history::Action::{self, Do, Look};
use crate::program::Op::{Advance, Cancel, Deadline, Detach, End, Stop, Watch};
use crate::race::Race;

/// Each with what may come of it, and why: what Go's documentation says is in quotation marks.
pub static RACES: [Race; 13] = [
    // "When a Context is canceled, all Contexts derived from it are also canceled", however late they are derived.
    Race {
        name: "cancel, derive",
        before: &[Cancel(0)],
        threads: &[&[CANCEL], &[Do(Cancel(1))]],
        allowed: &["1=canceled:1 5=canceled:1"],
    },
    Race {
        name: "cancel, two derive",
        before: &[Cancel(0)],
        threads: &[&[CANCEL], &[Do(Cancel(1)), Do(Cancel(5))], &[Do(Cancel(1)), Do(Cancel(1))]],
        allowed: &["1=canceled:1 5=canceled:1 6=canceled:1 8=canceled:1 9=canceled:1"],
    },
    // "After the first call, subsequent calls to a CancelFunc do nothing", and "if the context was already canceled, CancelCauseFunc
    // does not set the cause".
    Race {
        name: "cancel, cancel with another cause",
        before: &[Cancel(0), Cancel(1)],
        threads: &[&[CANCEL], &[Do(End(1, 2))]],
        allowed: &["1=canceled:1 2=canceled:1", "1=canceled:2 2=canceled:2"],
    },
    // The child's cause is that of whichever "happens first".
    Race {
        name: "cancel, cancel the child",
        before: &[Cancel(0), Cancel(1)],
        threads: &[&[CANCEL], &[Do(End(2, 2))]],
        allowed: &["1=canceled:1 2=canceled:1", "1=canceled:1 2=canceled:2"],
    },
    // AfterFunc "arranges to call f ... after ctx is canceled. If ctx is already canceled, ... immediately".
    Race {
        name: "cancel, register a callback",
        before: &[Cancel(0)],
        threads: &[&[CANCEL], &[Do(Watch(1))]],
        allowed: &["1=canceled:1 ran=3"],
    },
    // "If stop returns true, the call stopped f from being run. If it returns false, the context is done and f has been started".
    Race {
        name: "cancel, stop a callback",
        before: &[Cancel(0), Watch(1)],
        threads: &[&[CANCEL], &[Do(Stop(0))]],
        allowed: &["stop=true 1=canceled:1", "stop=false 1=canceled:1 ran=0"],
    },
    Race {
        name: "cancel, stop a callback of the child",
        before: &[Cancel(0), Cancel(1), Watch(2)],
        threads: &[&[CANCEL], &[Do(Stop(0))]],
        allowed: &[
            "stop=true 1=canceled:1 2=canceled:1",
            "stop=false 1=canceled:1 2=canceled:1 ran=0",
        ],
    },
    // Done "when the deadline expires, when the returned cancel function is called, or when the parent's Done channel is
    // closed, whichever happens first".
    Race {
        name: "deadline, cancel",
        before: &[Deadline(0, 5_000, 3), Cancel(1)],
        threads: &[&[CANCEL], &[Do(Advance(5_000))]],
        allowed: &["1=canceled:1 2=canceled:1", "1=exceeded:3 2=exceeded:3"],
    },
    Race {
        name: "deadline, cancel the parent",
        before: &[Cancel(0), Deadline(1, 5_000, 3)],
        threads: &[&[CANCEL], &[Do(Advance(5_000))]],
        allowed: &["1=canceled:1 2=canceled:1", "1=canceled:1 2=exceeded:3"],
    },
    // WithoutCancel: "not canceled when parent is canceled".
    Race {
        name: "cancel, detach and derive",
        before: &[Cancel(0)],
        threads: &[&[CANCEL], &[Do(Detach(1)), Do(Cancel(5))]],
        allowed: &["1=canceled:1 5=live 6=live"],
    },
    // "After Err returns a non-nil error, successive calls to Err return the same error."
    Race {
        name: "cancel, look twice",
        before: &[Cancel(0)],
        threads: &[&[CANCEL], &[Look(1), Look(1)]],
        allowed: &[
            "saw=live saw=live 1=canceled:1",
            "saw=live saw=canceled:1 1=canceled:1",
            "saw=canceled:1 saw=canceled:1 1=canceled:1",
        ],
    },
    // A child ends because its parent has: whoever sees the one sees the other.
    Race {
        name: "cancel, look at the child and the parent",
        before: &[Cancel(0), Cancel(1)],
        threads: &[&[CANCEL], &[Look(2), Look(1)]],
        allowed: &[
            "saw=live saw=live 1=canceled:1 2=canceled:1",
            "saw=live saw=canceled:1 1=canceled:1 2=canceled:1",
            "saw=canceled:1 saw=canceled:1 1=canceled:1 2=canceled:1",
        ],
    },
    // Whose cancel it was finds the child done. The other's did nothing, and nobody says that it waits; here it does (C7).
    Race {
        name: "two cancel, and look at the child",
        before: &[Cancel(0), Cancel(1)],
        threads: &[&[CANCEL, Look(2)], &[Do(End(1, 2)), Look(2)]],
        allowed: &[
            "saw=canceled:1 saw=canceled:1 1=canceled:1 2=canceled:1",
            "saw=canceled:2 saw=canceled:2 1=canceled:2 2=canceled:2",
            "saw=canceled:1 saw=live 1=canceled:1 2=canceled:1",
            "saw=live saw=canceled:2 1=canceled:2 2=canceled:2",
        ],
    },
];

const CANCEL: Action = Do(End(1, 1));
