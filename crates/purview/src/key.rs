//! Typed names for request-scoped values.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU8;

/// A typed name for a request-scoped value.
///
/// A key is a `static`: its identity is its address, so two keys with one name are two keys, and nobody can read or shadow
/// a value without the key. A `const` key does not compile where it is used: each use would be another key.
///
/// Values are for what belongs to a request and crosses API boundaries (a user, a trace id), not for optional parameters.
///
/// ```
/// use purview::{Context, Key};
///
/// static USER_ID: Key<u64> = Key::new("user_id");
///
/// let ctx = Context::background().with_value(&USER_ID, 123);
/// assert_eq!(ctx.value(&USER_ID), Some(&123));
/// ```
///
/// The wrong type does not compile:
/// ```compile_fail
/// use purview::{Context, Key};
/// static USER_ID: Key<u64> = Key::new("user_id");
/// let ctx = Context::background().with_value(&USER_ID, "123");
/// ```
/// nor does a key that is a `const`:
/// ```compile_fail
/// use purview::{Context, Key};
/// const USER_ID: Key<u64> = Key::new("user_id");
/// let ctx = Context::background().with_value(&USER_ID, 123);
/// ```
pub struct Key<T> {
    name: &'static str,
    show: Option<fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result>,
    /// Never read. Something that could change keeps two equal keys from being merged into one address, and a `const` key
    /// from being promoted to a static.
    _identity: AtomicU8,
    /// Invariant in `T`: if a key could be coerced to one of another type, a value would be put in as the one and read as the other
    /// (V3 in `value.rs`). In either direction, that does not compile:
    /// ```compile_fail,E0308
    /// static GENERAL: purview::Key<for<'a> fn(&'a str)> = purview::Key::new("general");
    /// let _: &'static purview::Key<fn(&'static str)> = &GENERAL;
    /// ```
    /// ```compile_fail,E0308
    /// static SPECIAL: purview::Key<fn(&'static str)> = purview::Key::new("special");
    /// let _: &'static purview::Key<for<'a> fn(&'a str)> = &SPECIAL;
    /// ```
    _value: PhantomData<fn(T) -> T>,
}

impl<T> Key<T> {
    /// Makes a key. The name is for people: it appears in a context's `Debug`.
    ///
    /// ```
    /// static TRACE: purview::Key<String> = purview::Key::new("trace");
    /// assert_eq!(TRACE.name(), "trace");
    /// ```
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Key { name, show: None, _identity: AtomicU8::new(0), _value: PhantomData }
    }

    /// Lets a context's `Debug` print this key's value, and not only its name. For values that are no secret.
    ///
    /// ```
    /// use purview::{Context, Key};
    /// static USER_ID: Key<u64> = Key::new("user_id").visible();
    /// let ctx = Context::background().with_value(&USER_ID, 123);
    /// assert_eq!(format!("{ctx:?}"), "Context(background.value(user_id=123), live)");
    /// ```
    #[must_use]
    pub const fn visible(self) -> Self
    where
        T: fmt::Debug,
    {
        Key {
            name: self.name,
            show: Some(<T as fmt::Debug>::fmt),
            _identity: AtomicU8::new(0),
            _value: PhantomData,
        }
    }

    /// The name it was made with.
    ///
    /// ```
    /// static TRACE: purview::Key<String> = purview::Key::new("trace");
    /// assert_eq!(TRACE.name(), "trace");
    /// ```
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Writes the name, and the value if the key is visible.
    pub(crate) fn describe(&self, value: &T, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.show {
            None => Ok(()),
            Some(show) => {
                f.write_str("=")?;
                show(value, f)
            }
        }
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}
