//! Whether what happened in a history is what the promises allow: an order is looked for in which the model would do the same.
//!
//! Each action takes effect at one moment between its beginning and its return; the search is that of Wing and Gong (Testing and
//! verifying concurrent objects, 1993), with states that were seen before left out (Lowe, 2017). So all is linearizable but what is promised
//! to be less, and that is an end. It takes effect at one context, and from there:
//!
//! - What is below **follows** by and by, a parent before its children (C9), so a child may be seen live after its parent was seen
//!   done. Until it is reached it may end otherwise: but who cancels it where its parent is done gives it the parent's end (C2).
//! - A **callback** is called when all below the context where the end began is done (C9), at some moment; until then it may be
//!   stopped, though the end has been seen (C33).
//! - **Who canceled returns** when all below is done, whoever ended it; and, if it was this call that did, when the callbacks
//!   there have been called (C7): those of the contexts that it has ended. What somebody else has ended, who came in between, is
//!   his to tell, and nobody waits for what he calls.
//! - **Time moves** from one deadline to the next, and to the one after it when the end that came of it is through (C40). Between the clock's
//!   move and the end at its deadline others may act: a cancel finds the deadline reached, and lets it win (C18).
//!
//! Everything else, derive, look, watch, stop, is one step. A child that is derived takes part in its parent's end or is born
//! done, and there is no third (C8).

use std::collections::HashSet;

use crate::history::{Action, Answer, Event, History, STEPS, THREADS};
use crate::model::{Marked, Model};
use crate::program::Op;
use crate::world::{End, Seen, World};

/// How far a thread is with its step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Out,
    Begun,
    /// It lets time pass, up to then.
    Advances(i64),
    /// It has had its effect.
    Over(Answer),
}

/// An end that goes down from a context, and whose callbacks the thread has to call, if that is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Sweep {
    top: usize,
    thread: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Call {
    registration: usize,
    sweep: Sweep,
    /// It can't be stopped any more.
    is_running: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    model: Model,
    /// The model's numbers, by name.
    contexts: Vec<Option<usize>>,
    registrations: Vec<Option<usize>>,
    threads: [(usize, Phase); THREADS],
    /// Contexts that live, and whose parent has ended.
    follows: Vec<(usize, End, Sweep)>,
    calls: Vec<Call>,
}

impl History {
    /// Whether the model could have shown these events, and at the end, of the contexts with these names, this.
    #[must_use]
    pub fn allows(&self, events: &[Event], at_last: &[(usize, Seen)]) -> bool {
        let mut todo = vec![(0, State::new(self))];
        let mut known = HashSet::new();
        while let Some((at, state)) = todo.pop() {
            let Some(event) = events.get(at) else {
                if state.is_at_rest() && at_last.iter().all(|(it, seen)| state.look(*it) == *seen) {
                    return true;
                }
                todo.extend(state.steps(self).into_iter().map(|state| (at, state)));
                continue;
            };
            if !known.insert((at, state.clone())) {
                continue;
            }
            todo.extend(state.steps(self).into_iter().map(|state| (at, state)));
            // Last in, first out: nothing happens before it has to.
            todo.extend(state.after(self, event).map(|state| (at + 1, state)));
        }
        false
    }
}

impl State {
    fn new(history: &History) -> State {
        let mut model = Model::default();
        for op in &history.before {
            match *op {
                Op::Watch(context) => model.watch(context),
                op => model.derive(op),
            }
        }
        model.take_ran();
        let numbers = |count: usize| {
            let mut numbers: Vec<_> = (0..count).map(Some).collect();
            numbers.resize(count + THREADS * STEPS, None);
            numbers
        };
        State {
            model,
            contexts: numbers(history.contexts()),
            registrations: numbers(history.registrations()),
            threads: [(0, Phase::Out); THREADS],
            follows: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Of a context that was made before.
    fn number(&self, name: usize) -> usize {
        self.contexts[name].expect("a thread knows its own contexts and the first ones")
    }

    fn look(&self, name: usize) -> Seen {
        self.model.look(self.number(name))
    }

    fn is_at_rest(&self) -> bool {
        self.follows.is_empty() && self.calls.is_empty()
    }

    /// After an event that was seen; None, where it can't have been.
    fn after(&self, history: &History, event: &Event) -> Option<State> {
        let mut next = self.clone();
        match *event {
            Event::Begins(thread) => next.threads[thread].1 = Phase::Begun,
            Event::Returns(thread, answer) => {
                let (step, phase) = self.threads[thread];
                if phase != Phase::Over(answer) || !self.may_return(history, thread) {
                    return None;
                }
                next.threads[thread] = (step + 1, Phase::Out);
            }
            Event::Ran(name) => {
                let registration = self.registrations[name];
                let runs = |call: &Call| call.is_running && Some(call.registration) == registration;
                let at = self.calls.iter().position(runs)?;
                next.calls.remove(at);
            }
        }
        Some(next)
    }

    /// Whether what it has to wait for has come.
    fn may_return(&self, history: &History, thread: usize) -> bool {
        let has_told = !self.calls.iter().any(|call| call.sweep.thread == Some(thread));
        let has_marked = match self.action(history, thread) {
            Action::Do(Op::End(context, _)) => {
                let context = self.number(context);
                !self.model.can_be_canceled(context) || self.is_marked_below(context)
            }
            _ => !self.follows.iter().any(|(.., sweep)| sweep.thread == Some(thread)),
        };
        has_told && has_marked
    }

    fn is_marked_below(&self, top: usize) -> bool {
        !self.follows.iter().any(|&(context, ..)| self.model.is_at_or_below(context, top))
    }

    fn action(&self, history: &History, thread: usize) -> Action {
        history.threads[thread][self.threads[thread].0]
    }

    /// What may happen next that nobody sees.
    fn steps(&self, history: &History) -> Vec<State> {
        let mut steps = Vec::new();
        for thread in 0..THREADS {
            let action = self.action_if_any(history, thread);
            match (self.threads[thread].1, action) {
                (Phase::Begun, Some(action)) => steps.extend(self.effect(history, thread, action)),
                (Phase::Advances(goal), _) => steps.extend(self.advance(thread, goal)),
                _ => {}
            }
        }
        if let Some((_, context, end)) =
            self.model.first_due().filter(|due| due.0 <= self.model.now)
        {
            let moves = |it: &usize| matches!(self.threads[*it].1, Phase::Advances(_));
            let thread = (0..THREADS).find(moves);
            let others =
                (0..THREADS).any(|it| Some(it) != thread && self.threads[it].1 != Phase::Out);
            // Who comes across a deadline that is reached may be faster than who moves the clock.
            for thread in [thread, None].into_iter().take(if others { 2 } else { 1 }) {
                let mut next = self.clone();
                next.mark(context, end, Sweep { top: context, thread });
                steps.push(next);
            }
        }
        for &(context, end, sweep) in &self.follows {
            let mut next = self.clone();
            next.mark(context, end, sweep);
            steps.push(next);
        }
        for (at, call) in self.calls.iter().enumerate() {
            if !call.is_running && self.is_marked_below(call.sweep.top) {
                let mut next = self.clone();
                next.calls[at].is_running = true;
                steps.push(next);
            }
        }
        steps
    }

    fn action_if_any(&self, history: &History, thread: usize) -> Option<Action> {
        history.threads[thread].get(self.threads[thread].0).copied()
    }

    /// Ends one context, if it lives: those below are to follow.
    fn mark(&mut self, context: usize, end: End, sweep: Sweep) {
        let Marked { children, registrations } = self.model.mark(context, end);
        self.follows.extend(children.into_iter().map(|child| (child, end, sweep)));
        let call = |registration| Call { registration, sweep, is_running: false };
        self.calls.extend(registrations.into_iter().map(call));
        self.follows.retain(|&(context, ..)| self.model.is_live(context));
    }

    /// After a thread's action has had its effect; None, where that can't be now.
    fn effect(&self, history: &History, thread: usize, action: Action) -> Option<State> {
        let step = self.threads[thread].0;
        let mut next = self.clone();
        let mut answer = Answer::Done;
        match action {
            Action::Look(context) => answer = Answer::Seen(self.look(context)),
            Action::Do(Op::End(context, cause)) => {
                next.cancel(self.number(context), cause, thread)?
            }
            Action::Do(Op::Advance(by)) => {
                next.threads[thread].1 = Phase::Advances(self.model.now + by);
                return Some(next);
            }
            Action::Do(Op::Watch(context)) => {
                let registration = self.registrations.iter().flatten().count();
                let name = History::name(history.registrations(), thread, step);
                next.registrations[name] = Some(registration);
                let top = self.number(context);
                next.model.watch(top);
                let sweep = Sweep { top, thread: Some(thread) };
                let call = |registration| Call { registration, sweep, is_running: true };
                let ran = next.model.take_ran();
                next.calls.extend(ran.into_iter().map(call));
            }
            Action::Do(Op::Stop(name)) => {
                let registration = self.registrations[name].expect("registered before");
                let waits = |call: &Call| call.registration == registration && !call.is_running;
                let called = self.calls.iter().position(waits);
                called.map(|at| next.calls.remove(at));
                answer = Answer::Stopped(called.is_some() || next.model.stop(registration));
            }
            Action::Do(derives) => {
                let child = next.model.add(self.numbered(derives))?;
                next.contexts[History::name(history.contexts(), thread, step)] = Some(child);
                if let Some((_, end)) = self.due_of(&next.model, child) {
                    next.mark(child, end, Sweep { top: child, thread: Some(thread) }); // C16
                }
            }
        }
        next.threads[thread].1 = Phase::Over(answer);
        Some(next)
    }

    fn due_of(&self, model: &Model, context: usize) -> Option<(i64, End)> {
        model.due(context).filter(|&(at, _)| at <= model.now)
    }

    /// An operation that derives, by the model's numbers.
    fn numbered(&self, op: Op) -> Op {
        match op {
            Op::Cancel(parent) => Op::Cancel(self.number(parent)),
            Op::Value(parent, key, value) => Op::Value(self.number(parent), key, value),
            Op::Detach(parent) => Op::Detach(self.number(parent)),
            Op::Deadline(parent, at, cause) => {
                Op::Deadline(self.number(parent), at - self.model.now, cause)
            }
            other => other,
        }
    }

    fn cancel(&mut self, context: usize, cause: u32, thread: usize) -> Option<()> {
        if !self.model.can_be_canceled(context) || !self.model.is_live(context) {
            return Some(());
        }
        if let Some(end) = self.model.end_above(context) {
            self.mark(context, end, Sweep { top: context, thread: None });
            return Some(());
        }
        // A deadline on the way up that was reached goes first.
        let due = self.model.first_due().filter(|&(at, ..)| at <= self.model.now);
        if due.is_some_and(|(_, top, _)| self.model.is_at_or_below(context, top)) {
            return None;
        }
        let sweep = Sweep { top: context, thread: Some(thread) };
        self.mark(context, End::Canceled(cause), sweep);
        Some(())
    }

    /// Moves the clock on to the next deadline, or the goal, when all that was due before is through.
    fn advance(&self, thread: usize, goal: i64) -> Option<State> {
        let is_mine = |sweep: &Sweep| sweep.thread == Some(thread);
        let busy = self.follows.iter().any(|(.., sweep)| is_mine(sweep))
            || self.calls.iter().any(|call| is_mine(&call.sweep));
        let due = self.model.first_due().map(|(at, ..)| at);
        if busy || due.is_some_and(|at| at <= self.model.now) {
            return None;
        }
        let mut next = self.clone();
        match due.filter(|&at| at <= goal) {
            Some(at) => next.model.now = at,
            None => {
                next.model.now = goal;
                next.threads[thread].1 = Phase::Over(Answer::Done);
            }
        }
        Some(next)
    }
}
