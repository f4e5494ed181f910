//! Idle: what purview does while nothing happens. Nothing, and on no thread that is not needed.

use std::pin::pin;
use std::task::Context as Task;
use std::thread;
use std::time::Duration;

use purview::Context;

use crate::case::Peer::Purview;
use crate::case::{Case, Outcome, Scale, counted_waker, poll_once};
use crate::machine;

const FAR: Duration = Duration::from_secs(600);

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::whole("Idle", "far deadlines", Purview, idle).in_a_process()]
}

fn idle(scale: &Scale) -> Outcome {
    let (parent, _guard) = Context::background().with_cancel();
    let unwatched: Vec<_> = (0..1_000).map(|_| parent.with_timeout(FAR)).collect();
    let before = machine::threads();

    let waker = counted_waker();
    let mut task = Task::from_waker(&waker);
    let watched: Vec<_> = (0..scale.nodes).map(|_| parent.with_timeout(FAR)).collect();
    for (child, _guard) in &watched {
        assert!(poll_once(pin!(child.done()), &mut task));
    }
    thread::sleep(Duration::from_millis(100)); // its timer falls asleep
    let (wakes, cpu) = machine::others();
    thread::sleep(scale.spread);
    let (wakes_after, cpu_after) = machine::others();
    drop((unwatched, watched));
    Outcome::of([
        ("threads before", before as f64),
        ("wakes", (wakes_after - wakes) as f64),
        ("cpu ns", (cpu_after - cpu) as f64),
    ])
}
