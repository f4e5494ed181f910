//! Several derivations in one node.

use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::Context;
use crate::clock::Tick;
use crate::error::Cause;
use crate::guard::CancelGuard;
use crate::key::Key;
use crate::tree::{Kind, Plan};
use crate::value::Boxed;

/// What a child is to be, made by [`Context::derive`]. The order of the calls does not matter.
///
/// ```
/// use purview::{Context, Key};
/// use std::time::Duration;
///
/// static USER_ID: Key<u64> = Key::new("user_id");
///
/// let (request, _guard) = Context::background().with_timeout(Duration::from_secs(2));
/// let (query, _guard) = request
///     .derive()
///     .name("query")
///     .reserve(Duration::from_millis(100)) // time that is left for the answer
///     .value(&USER_ID, 123)
///     .build();
/// assert_eq!(query.deadline().unwrap() + Duration::from_millis(100), request.deadline().unwrap());
/// ```
#[must_use = "nothing is derived before build()"]
pub struct Derive<'a> {
    parent: &'a Context,
    plan: Plan,
    timeout: Option<Duration>,
    reserve: Option<Duration>,
}

impl<'a> Derive<'a> {
    pub(crate) fn new(parent: &'a Context, place: &'static Location<'static>) -> Self {
        Derive { parent, plan: Plan::new(Kind::Cancel, place), timeout: None, reserve: None }
    }

    /// A name, for Debug, errors and whoever looks at the tree.
    ///
    /// ```
    /// let (ctx, _guard) = purview::Context::background().derive().name("request").build();
    /// assert_eq!(format!("{ctx:?}"), "Context(background.request:cancel, live)");
    /// ```
    pub fn name(mut self, name: &'static str) -> Self {
        self.plan.name = Some(name);
        self
    }

    /// A deadline `after` from when it is built, on the parent's clock. With [`deadline`](Self::deadline): the earlier.
    ///
    /// ```
    /// use std::time::Duration;
    /// let root = purview::Context::background();
    /// let (ctx, _guard) = root.derive().timeout(Duration::from_secs(2)).build();
    /// assert!(ctx.remaining() <= Some(Duration::from_secs(2)));
    /// ```
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = Some(self.timeout.map_or(after, |other| other.min(after)));
        self
    }

    /// A deadline. With [`timeout`](Self::timeout): the earlier.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// let at = Instant::now() + Duration::from_secs(3600);
    /// let (ctx, _guard) = purview::Context::background().derive().deadline(at).build();
    /// assert_eq!(ctx.deadline(), Some(at));
    /// ```
    pub fn deadline(mut self, at: Instant) -> Self {
        self.plan.deadline = self.plan.deadline.min(Tick::from_instant(at));
        self.plan.kind = Kind::Deadline;
        self
    }

    /// A deadline `time` before the parent's; nothing, if that has none.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, _guard) = Context::background().derive().reserve(Duration::from_secs(1)).build();
    /// assert_eq!(ctx.deadline(), None);
    /// ```
    pub fn reserve(mut self, time: Duration) -> Self {
        self.reserve = Some(self.reserve.map_or(time, |other| other.max(time)));
        self
    }

    /// The cause of the error, if it is this deadline that ends the context. Without a deadline: nothing.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let root = Context::background();
    /// let (ctx, _guard) = root.derive().timeout(Duration::ZERO).deadline_cause("too slow").build();
    /// assert_eq!(ctx.err().unwrap().to_string(), "context deadline exceeded: too slow");
    /// ```
    pub fn deadline_cause(mut self, cause: impl Into<Cause>) -> Self {
        self.plan.deadline_cause = Some(cause.into());
        self
    }

    /// It ends only `grace` after its parent does. With a deadline: both bind.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (parent, cancel) = Context::background().with_cancel();
    /// let (cleanup, _guard) = parent.derive().name("cleanup").grace(Duration::from_secs(5)).build();
    /// cancel.cancel();
    /// assert!(!cleanup.is_done());
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.plan.grace = Some(grace);
        self
    }

    /// A value. Of two for one key, the last.
    ///
    /// ```
    /// use purview::{Context, Key};
    /// static USER_ID: Key<u64> = Key::new("user_id");
    /// let (ctx, _guard) = Context::background().derive().value(&USER_ID, 123).build();
    /// assert_eq!(ctx.value(&USER_ID), Some(&123));
    /// ```
    pub fn value<T: Send + Sync + 'static>(mut self, key: &'static Key<T>, value: T) -> Self {
        self.plan.values.push(Boxed::new(key, value));
        self
    }

    /// Tells another place as the one where it is derived: for a library that derives for its caller.
    ///
    /// ```
    /// use purview::Context;
    /// use std::panic::Location;
    ///
    /// let place = Location::caller(); // of a layer, say, of which each request's context is told to come
    /// let (ctx, _guard) = Context::background().derive().location(place).build();
    /// assert_eq!(ctx.location(), place);
    /// ```
    pub fn location(mut self, location: &'static Location<'static>) -> Self {
        self.plan.place = location;
        self
    }

    /// Derives the child.
    ///
    /// ```
    /// let (ctx, _guard) = purview::Context::background().derive().build();
    /// assert!(!ctx.is_done());
    /// ```
    #[must_use = "dropping the guard cancels the context at once"]
    pub fn build(self) -> (Context, CancelGuard) {
        let Derive { parent, mut plan, timeout, reserve } = self;
        if let Some(after) = timeout {
            let at = parent.clock().now().after(after);
            if at < plan.deadline || plan.kind == Kind::Cancel {
                plan.kind = Kind::Timeout;
            }
            plan.deadline = plan.deadline.min(at);
        }
        if let Some(time) = reserve {
            let latest = parent.scope().deadline();
            if latest != Tick::NEVER {
                plan.deadline = plan.deadline.min(latest.before(time));
                plan.kind = Kind::Deadline;
            }
        }
        if plan.grace.is_some() {
            plan.kind = Kind::Grace;
        }
        parent.child(plan)
    }
}

impl fmt::Debug for Derive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derive")
            .field("parent", self.parent)
            .field("name", &self.plan.name)
            .field("timeout", &self.timeout)
            .field("deadline", &self.plan.deadline.to_instant())
            .field("reserve", &self.reserve)
            .field("grace", &self.plan.grace)
            .field("values", &self.plan.values.len())
            .finish_non_exhaustive()
    }
}
