//! What a history may show, and what not.

use purview_conformance::Event::{self, Begins, Ran, Returns};
use purview_conformance::{Action, Answer, End, History, Op, Seen};

const LIVE: Seen = Seen::new(None, None, [None; 3]);
const CANCELED: Seen = Seen::new(Some(End::Canceled(7)), None, [None; 3]);

/// A parent with a callback, and its child: one thread cancels, another looks at the child.
fn history() -> History {
    let mut history = History::default();
    history.before = vec![Op::Cancel(0), Op::Cancel(1), Op::Watch(1)];
    history.threads = [
        vec![Action::Do(Op::End(1, 7))],
        vec![Action::Look(2), Action::Look(1)],
        vec![Action::Do(Op::Stop(0))],
    ];
    history
}

fn is_allowed(events: &[Event]) -> bool {
    history().allows(events, &[(1, CANCELED), (2, CANCELED)])
}

const DONE: Event = Returns(0, Answer::Done);
const SEES_LIVE: Event = Returns(1, Answer::Seen(LIVE));
const SEES_DONE: Event = Returns(1, Answer::Seen(CANCELED));

#[test]
fn a_child_may_be_seen_live_until_the_cancel_returns() {
    assert!(is_allowed(&[Begins(0), Begins(1), SEES_LIVE, Ran(0), DONE]));
    assert!(is_allowed(&[Begins(0), Begins(1), Ran(0), DONE, SEES_LIVE]));
    assert!(!is_allowed(&[Begins(0), Ran(0), DONE, Begins(1), SEES_LIVE]));
}

#[test]
fn a_parent_is_done_before_its_child() {
    let look_twice = |second| [Begins(0), Begins(1), SEES_DONE, Begins(1), second, Ran(0), DONE];
    assert!(is_allowed(&look_twice(SEES_DONE)));
    assert!(!is_allowed(&look_twice(SEES_LIVE)));
}

#[test]
fn a_callback_is_called_once_unless_it_was_stopped_and_before_the_cancel_returns() {
    let stopped = |it| Returns(2, Answer::Stopped(it));
    assert!(is_allowed(&[Begins(2), Begins(0), Ran(0), DONE, stopped(false)]));
    assert!(is_allowed(&[Begins(0), Begins(2), stopped(true), DONE]));
    assert!(!is_allowed(&[Begins(0), Begins(2), stopped(true), Ran(0), DONE]));
    assert!(!is_allowed(&[Begins(0), Begins(2), Ran(0), stopped(true), DONE]));
    assert!(!is_allowed(&[Begins(0), Ran(0), Ran(0), DONE]));
    assert!(!is_allowed(&[Begins(0), DONE]));
    assert!(!is_allowed(&[Begins(0), DONE, Ran(0)]));
    assert!(!is_allowed(&[Ran(0), Begins(0), DONE]));
}
